"""Made here and given their application in the factory: nothing imports in a circle."""

from flask_caching import Cache
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from flask_sqlalchemy import SQLAlchemy

db = SQLAlchemy()
cache = Cache(config={"CACHE_TYPE": "SimpleCache"})
limiter = Limiter(get_remote_address, default_limits=["1000 per hour"], storage_uri="memory://")
