"""The cache room: Flask-Caching's decorators, with entries that nobody gets who should not."""

from .backend import SafeBackend
from .component import ResponseCache
from .files import FileStore
from .handle import CacheFace
from .memory import MemoryStore
from .settings import CacheSettings
from .shared import RedisStore
from .stores import NullStore, Store
from .tiered import TieredStore

__all__ = [
    "CacheFace",
    "CacheSettings",
    "FileStore",
    "MemoryStore",
    "NullStore",
    "RedisStore",
    "ResponseCache",
    "SafeBackend",
    "Store",
    "TieredStore",
]
