"""The headers of every endpoint: asked of the library once, replayed as tuples from then on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from flask import Flask, request
from flask_talisman import Talisman
from werkzeug.test import create_environ

from flask_prod.core.component import HeaderList
from flask_prod.core.record import RequestRecord

from .settings import SecuritySettings

Pairs: TypeAlias = tuple[tuple[str, str], ...]
Options: TypeAlias = dict[str, Any]

CSP = ("Content-Security-Policy", "Content-Security-Policy-Report-Only")
HSTS = "Strict-Transport-Security"

_NONCE = "flask-prod-nonce"
_PAGES = ("text/html", "application/xhtml+xml", "text/javascript", "application/javascript")
"""What runs under the policy it comes with: documents, and scripts that become workers."""

_OF_EVERY_ANSWER = frozenset({"Content-Type", "Content-Length"})
_NOT_MODIFIED = 304
_ANCESTORS = {"DENY": "'none'", "SAMEORIGIN": "'self'"}


@dataclass(frozen=True, slots=True)
class Plan:
    """The headers of one endpoint; `page_parts` is the page's policy cut where a nonce belongs.

    `secure_api` and `plain_api` are all that an answer gets which is no page: nearly every one of an API.
    """

    secure: Pairs
    plain: Pairs
    secure_api: Pairs
    plain_api: Pairs
    names: frozenset[str]
    policy_name: str
    page: str
    page_parts: tuple[str, ...]
    api: str
    force_https: bool


class HeaderPlans:
    """Adds the headers of each endpoint to its answers; *view_options* finds what a view overrides."""

    def __init__(self, settings: SecuritySettings, view_options: Callable[[str], Options]) -> None:
        self._options = library_options(settings)
        self._extra = _cross_origin(settings)
        self._api_policy = settings.csp_api
        self._view_options = view_options
        self._plans: dict[str | None, Plan] = {None: self._build({})}

    def plan(self, endpoint: str | None) -> Plan:
        """Return the plan of *endpoint*, built on first use; None stands for a path that matched none."""
        found = self._plans.get(endpoint)
        if found is None:
            options = self._view_options(endpoint) if endpoint else {}
            found = self._plans[endpoint] = self._build(options) if options else self._plans[None]
        return found

    def add(self, record: RequestRecord, headers: HeaderList) -> None:
        """Append what the answer lacks; what the view set itself stays as it is."""
        plan = self._plans.get(record.endpoint) or self.plan(record.endpoint)
        secure = record.scheme == "https"
        if not plan.names.isdisjoint(record.answered):
            headers += _lacking(plan, record, plan.secure if secure else plan.plain)
        elif record.status == _NOT_MODIFIED or record.content_type.startswith(_PAGES):
            headers += plan.secure if secure else plan.plain
            policy = _policy(plan, record)
            if policy:
                headers.append((plan.policy_name, policy))
        else:
            headers += plan.secure_api if secure else plan.plain_api

    def _build(self, overrides: Options) -> Plan:
        options = {**self._options, **overrides}
        policy = parse_policy(options["content_security_policy"])
        api = policy if overrides.get("content_security_policy") is not None else parse_policy(self._api_policy)
        if "content_security_policy" in overrides and not policy:
            api = policy
        ancestors = _frame_ancestors(options)
        for one in (policy, api):
            if one and ancestors:
                one.setdefault("frame-ancestors", ancestors)
        if "content_security_policy_nonce_in" not in overrides:
            options["content_security_policy_nonce_in"] = nonce_sections(policy)

        page_headers = ask_library({**options, "content_security_policy": policy})
        nonce_headers = ask_library({**options, "content_security_policy": policy}, nonce=_NONCE)
        api_headers = ask_library({**options, "content_security_policy": api})
        secure = (*(pair for pair in page_headers if pair[0] not in CSP), *self._extra)
        plain = tuple(pair for pair in secure if pair[0] != HSTS)
        policy_name = CSP[bool(options["content_security_policy_report_only"])]
        api_policy = tuple(pair for pair in api_headers if pair[0] == policy_name and pair[1])
        return Plan(
            secure=secure,
            plain=plain,
            secure_api=(*secure, *api_policy),
            plain_api=(*plain, *api_policy),
            names=frozenset(name.lower() for name in (*(name for name, _ in secure), policy_name)),
            policy_name=policy_name,
            page=dict(page_headers).get(policy_name, ""),
            page_parts=tuple(dict(nonce_headers).get(policy_name, "").split(_NONCE)),
            api=dict(api_headers).get(policy_name, ""),
            force_https=bool(options["force_https"]),
        )


def ask_library(options: Mapping[str, Any], nonce: str | None = None) -> Pairs:
    """Return the headers Talisman sets on an empty HTTPS answer, in an application that exists for this only."""
    scratch = Flask("scratch", static_folder=None)
    Talisman(scratch, **options)
    # Flask's own test_request_context would import what tests need, the debugger among it.
    with scratch.request_context(create_environ(base_url="https://scratch.invalid")):
        if nonce:
            request.csp_nonce = nonce  # type: ignore[attr-defined]  # the library's own attribute
        answer = scratch.process_response(scratch.response_class())
    return tuple(pair for pair in answer.headers.to_wsgi_list() if pair[0] not in _OF_EVERY_ANSWER)


def library_options(settings: SecuritySettings) -> Options:
    """Return the settings under the names the library gives them."""
    return {
        "feature_policy": {},
        "permissions_policy": settings.permissions_policy,
        "document_policy": {},
        "force_https": settings.force_https,
        "frame_options": settings.frame or None,
        "frame_options_allow_from": None,
        "strict_transport_security": settings.hsts_max_age is not None,
        "strict_transport_security_max_age": int(settings.hsts_max_age or 0),
        "strict_transport_security_include_subdomains": settings.hsts_subdomains,
        "strict_transport_security_preload": settings.hsts_preload,
        "content_security_policy": settings.csp,
        "content_security_policy_report_only": settings.csp_report_only,
        "content_security_policy_report_uri": settings.csp_report_uri or settings.report_path or None,
        "referrer_policy": settings.referrer_policy,
        "x_xss_protection": settings.xss_protection,
    }


def parse_policy(policy: str | Mapping[str, str | Iterable[str]] | None) -> dict[str, str]:
    """Return a policy as directive -> sources; the first of two equal directives counts, as in browsers."""
    if not policy:
        return {}
    if isinstance(policy, str):
        parts = (part.strip().partition(" ") for part in policy.split(";") if part.strip())
        found: dict[str, str] = {}
        for name, _, sources in parts:
            found.setdefault(name.lower(), sources.strip())
        return found
    return {
        name.lower(): sources if isinstance(sources, str) else " ".join(sources)
        for name, sources in policy.items()
    }


def nonce_sections(policy: Mapping[str, str]) -> list[str]:
    """Return the directives a nonce goes into: those that govern scripts and styles.

    Not where 'unsafe-inline' is: a nonce beside it would switch it off.
    """
    names = [name for name in ("script-src", "script-src-elem", "style-src", "style-src-elem") if name in policy]
    if not {"script-src", "style-src"} <= set(names) and "default-src" in policy:
        names.append("default-src")
    return [name for name in names if "'unsafe-inline'" not in policy[name] and "'none'" not in policy[name]]


def _lacking(plan: Plan, record: RequestRecord, wanted: Pairs) -> Pairs:
    """Return what an answer lacks of which the view set a part itself."""
    policy = _policy(plan, record)
    if "x-frame-options" in record.answered:
        policy = _without_ancestors(policy)
    wanted = (*wanted, (plan.policy_name, policy)) if policy else wanted
    return tuple(pair for pair in wanted if pair[0].lower() not in record.answered)


def _policy(plan: Plan, record: RequestRecord) -> str:
    if record.status == _NOT_MODIFIED:
        return ""  # the browser would put it into the place of the stored page's policy
    if not record.content_type.startswith(_PAGES):
        return plan.api
    return plan.page if record.nonce is None else record.nonce.join(plan.page_parts)


def _frame_ancestors(options: Options) -> str:
    frame = options["frame_options"]
    return options["frame_options_allow_from"] or "" if frame == "ALLOW-FROM" else _ANCESTORS.get(frame, "")


def _without_ancestors(policy: str) -> str:
    return "; ".join(part for part in policy.split("; ") if not part.startswith("frame-ancestors"))


def _cross_origin(settings: SecuritySettings) -> Pairs:
    """Return the headers that came after the library."""
    pairs = (
        ("Cross-Origin-Opener-Policy", settings.opener_policy),
        ("Cross-Origin-Embedder-Policy", settings.embedder_policy),
        ("Cross-Origin-Resource-Policy", settings.resource_policy),
    )
    return tuple(pair for pair in pairs if pair[1])
