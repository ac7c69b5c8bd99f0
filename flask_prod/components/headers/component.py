"""Install the headers room: a header hook, the step to HTTPS, `csp_nonce()`, and safe session cookies."""

from __future__ import annotations

from flask import Flask

from flask_prod.core.component import Component, Contribution, Installed, Stage, Step

from .engine import HeaderPlans, Options
from .handle import VIEW_OPTIONS, TalismanHandle, csp_nonce
from .https import HttpsOnly
from .settings import SecuritySettings
from .views import ReportSink


class SecurityHeaders(Component[SecuritySettings, HeaderPlans]):
    """Tell browsers what this service's pages may do, and whom they may talk to."""

    name = "headers"
    after = ("metrics", "proxy")
    settings = SecuritySettings

    def face(self) -> TalismanHandle:
        """Build the decorator that users hold."""
        return TalismanHandle()

    def install(self, app: Flask, settings: SecuritySettings, kit: Installed) -> Contribution[HeaderPlans]:
        """Ask the library for the headers of this application."""

        def view_options(endpoint: str) -> Options:
            return getattr(app.view_functions.get(endpoint), VIEW_OPTIONS, {})

        plans = HeaderPlans(settings, view_options)
        app.jinja_env.globals["csp_nonce"] = csp_nonce
        protect_session_cookie(app, settings)
        if settings.report_path:
            sink = ReportSink(kit.meter)
            app.add_url_rule(settings.report_path, "prod_csp_reports", sink.view, methods=["POST"])
        https = HttpsOnly(app, plans, kit.meter, kit.emit)
        return Contribution(
            handle=plans,
            steps=(Step(Stage.HTTPS, https.ask, lean=https.lets_pass),),
            headers=plans.add,
            steady=True,
            operational=(settings.report_path,) if settings.report_path else (),
        )


def protect_session_cookie(app: Flask, settings: SecuritySettings) -> None:
    """Make Flask's session cookie Secure and SameSite, where the application said nothing itself."""
    if app.config["SESSION_COOKIE_SAMESITE"] is None:
        app.config["SESSION_COOKIE_SAMESITE"] = settings.cookie_samesite
    if settings.secure_cookie and not app.debug:
        app.config["SESSION_COOKIE_SECURE"] = True
