"""The headers room: security headers on every answer, the redirect to HTTPS, and the nonce."""

from .component import SecurityHeaders
from .engine import HeaderPlans, Plan
from .handle import TalismanHandle, csp_nonce
from .settings import SecuritySettings

__all__ = ["HeaderPlans", "Plan", "SecurityHeaders", "SecuritySettings", "TalismanHandle", "csp_nonce"]
