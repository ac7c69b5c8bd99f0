"""The cache room: Flask-Caching's decorators, with entries that nobody gets who should not."""

from .backend import SafeBackend
from .component import ResponseCache
from .files import FileStore
from .handle import CacheFace
from .settings import CacheSettings
from .stores import MemoryStore, NullStore, RedisStore, Store

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
]
