"""The CORS room: which other sites' scripts may read this service's answers."""

from .component import Cors
from .engine import CorsPass
from .handle import CorsHandle
from .origins import Origins
from .settings import CorsSettings

__all__ = ["Cors", "CorsHandle", "CorsPass", "CorsSettings", "Origins"]
