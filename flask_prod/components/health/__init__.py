"""Health: probes for load balancers and orchestrators, and checks of everything this service needs."""

from .component import Health
from .face import HealthFace, HealthHandle
from .settings import HealthSettings

__all__ = ["Health", "HealthFace", "HealthHandle", "HealthSettings"]
