"""The proxy room: who the client is, which host was asked for, and by which scheme."""

from .component import Proxy
from .engine import AllowedHosts, TrustedHops, canonical_address
from .settings import ProxySettings

__all__ = ["AllowedHosts", "Proxy", "ProxySettings", "TrustedHops", "canonical_address"]
