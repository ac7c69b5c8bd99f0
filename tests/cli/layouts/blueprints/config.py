import os


class Config:
    SECRET_KEY = os.environ.get("SECRET_KEY", "not so secret")
    SQLALCHEMY_DATABASE_URI = os.environ.get("BAKERY_DB", "sqlite://")
    SQLALCHEMY_ENGINE_OPTIONS = {}


class Testing(Config):
    TESTING = True
