"""The database room: one SQLAlchemy engine per application, and a session that follows the application context."""

from .component import Database
from .engine import build_engine
from .handle import AppDatabase, DatabaseFace
from .settings import DatabaseSettings

__all__ = ["AppDatabase", "Database", "DatabaseFace", "DatabaseSettings", "build_engine"]
