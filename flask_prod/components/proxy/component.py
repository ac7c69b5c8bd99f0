"""Install the proxy room: the first steps of the pass."""

from __future__ import annotations

from flask import Flask

from flask_prod.core.component import Component, Contribution, Installed, Stage, Step
from flask_prod.core.errors import ConfigError

from .engine import AllowedHosts, DirectPeer, TrustedHops, host_problems
from .settings import ProxySettings


class Proxy(Component[ProxySettings, None]):
    """Decide once who the client is; everything after it reads the record."""

    name = "proxy"
    settings = ProxySettings

    def install(self, app: Flask, settings: ProxySettings, kit: Installed) -> Contribution[None]:
        """Choose the steps that TRUSTED_PROXIES and ALLOWED_HOSTS ask for."""
        problems = tuple(host_problems(kit.service.allowed_hosts))
        if problems:
            raise ConfigError(problems)

        steps: list[Step] = []
        if kit.service.trusted_proxies:
            hops = TrustedHops(kit.service.trusted_proxies, settings.forwarded_headers, kit.emit)
            steps.append(Step(Stage.PROXY, hops.ask))
        else:
            steps.append(Step(Stage.PROXY, DirectPeer(kit.emit).ask))
        if kit.service.allowed_hosts:
            hosts = AllowedHosts(kit.service.allowed_hosts, kit.meter, kit.emit)
            steps.append(Step(Stage.HOST, hosts.ask))
        return Contribution(handle=None, steps=tuple(steps))
