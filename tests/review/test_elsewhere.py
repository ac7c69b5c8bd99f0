"""Rules that a setting alone does not seed: files, libraries, the host, the service's own servers."""

from __future__ import annotations

import importlib.metadata
import json
import os
import zoneinfo
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import trustme
from flask import Blueprint

from flask_prod.core.component import Check, Contribution
from flask_prod.core.component import Finding as Told
from flask_prod.review import Report, Subject, engine
from flask_prod.review.rule import WARNING, Rule, rule
from flask_prod.review.rules import RULES, host, known, online, rules_for, servers
from flask_prod.review.rules.asking import within
from tests.review.well import SECRETS, reviewed, site, subject_of


def ids(report: Report) -> list[str]:
    """Return the ids of what was found."""
    return [one.id for one in report.findings]


def asked(subject: Subject, id: str) -> list[str]:
    """Return the evidence of one rule."""
    (one,) = (rule for rule in RULES if rule.id == id)
    return [found.evidence for found in engine.ask(one, subject)]


def test_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret that is written in a profile file is found; one that a variable brings there is not."""
    (tmp_path / "config").mkdir()
    profile = tmp_path / "config" / "production.toml"
    monkeypatch.setenv("CONFIG_DIR", str(profile.parent))
    monkeypatch.setenv("THE_TOKEN", SECRETS["METRICS_TOKEN"])

    profile.write_text('METRICS_TOKEN = "${THE_TOKEN}"\n')
    assert ids(reviewed(site(METRICS_TOKEN=None), tmp_path, os.environ)) == []

    profile.write_text(f'METRICS_TOKEN = "{SECRETS["METRICS_TOKEN"]}"\n')
    report = reviewed(site(METRICS_TOKEN=None), tmp_path, os.environ)
    assert ids(report) == ["P107"]
    assert report.findings[0].path == profile


def test_old_backup(tmp_path: Path) -> None:
    """The manifests of a directory tell how old the newest backup is, without a connection."""
    manifest = {"service": "site", "made_at": "2026-11-01T03:00:00+00:00"}
    (tmp_path / "site-1.json").write_text(json.dumps(manifest))
    (tmp_path / "damaged.json").write_text("{")
    with subject_of(site(BACKUP_URL=str(tmp_path), SERVICE_NAME="site"), tmp_path) as subject:
        subject.now = datetime(2026, 11, 1, 12, tzinfo=UTC).timestamp()
        assert asked(subject, "P802") == []
        subject.now += 86400
        assert asked(subject, "P802") == ["the newest is 33 hours old"]


def test_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions with known trouble are told with what is wrong and which is free of it."""
    real = importlib.metadata.version
    monkeypatch.setattr(known, "version", lambda name: "3.0.1" if name == "Werkzeug" else real(name))
    report = reviewed(site(), tmp_path)

    assert ids(report) == ["P901"]
    assert report.findings[0].evidence.startswith("Werkzeug 3.0.1 is older than 3.0.6")


def test_tools(tmp_path: Path) -> None:
    """rq-dashboard, which has no sign-in, is found where it is registered."""
    app = site()
    app.register_blueprint(Blueprint("rq_dashboard", __name__))

    assert ids(reviewed(app, tmp_path)) == ["P613"]


def test_gevent(tmp_path: Path) -> None:
    """Workers of a library that is not installed are found before gunicorn is started."""
    (tmp_path / "gunicorn.conf.py").write_text("import flask_prod\nworker_class = 'eventlet'\n")

    assert ids(reviewed(site(), tmp_path)) == ["P607"]


def test_clock(tmp_path: Path) -> None:
    """A clock in the past is told, and a Python past its end."""
    with subject_of(site(), tmp_path) as subject:
        subject.now = 0.0
        assert asked(subject, "P903") == ["the clock says 1970-01-01"]
        subject.now = datetime(2040, 1, 1, tzinfo=UTC).timestamp()
        assert len(asked(subject, "P902")) == 1


def test_zones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without time zones is told."""

    def missing(name: str) -> None:
        raise zoneinfo.ZoneInfoNotFoundError(name)

    monkeypatch.setattr(zoneinfo, "ZoneInfo", missing)
    assert ids(reviewed(site(), tmp_path)) == ["P904"]


def test_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only --online looks at the machine: its user, its clock, its disks."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(host, "_clock_state", lambda: 5)
    monkeypatch.setattr(host, "LEAST_FREE", 1.1)
    monkeypatch.setattr(online, "_told", lambda _subject, _name: ("ok", ""))
    monkeypatch.setattr(servers, "_once", lambda _subject, _name, _ask, unknown: unknown)

    assert ids(reviewed(site(), tmp_path)) == []
    assert set(ids(reviewed(site(), tmp_path, online=True))) == {"P614", "P905", "P906"}


@pytest.mark.parametrize(
    ("check", "id"), [("database", "P421"), ("redis", "P422"), ("migrations", "P423"), ("backups", "P424")]
)
def test_servers(tmp_path: Path, check: str, id: str) -> None:
    """What a health check of the service says is a finding of --online, also when it raises."""
    with subject_of(site(), tmp_path) as subject:
        contributions: Any = subject.state.contributions if subject.state else {}

        def probe() -> Told:
            raise ConnectionRefusedError("connection refused")

        class Room:
            checks = (type("Check", (), {"name": check, "probe": staticmethod(probe), "timeout": None}),)

        rooms = dict(contributions)
        contributions.clear()
        contributions["room"] = Room
        try:
            assert asked(subject, id) == ["ConnectionRefusedError: connection refused"]
        finally:
            contributions.clear()
            contributions.update(rooms)


def test_no_database_for_migrations(tmp_path: Path) -> None:
    """Where the database does not answer, that is the finding: what it could not be asked is none."""

    def away() -> Told:
        raise ConnectionRefusedError("connection refused")

    names = ("database", "migrations", "outbox")
    with subject_of(site(), tmp_path) as subject:
        contributions: Any = subject.state.contributions if subject.state else {}
        rooms = dict(contributions)
        contributions.clear()
        contributions["room"] = Contribution(handle=None, checks=tuple(Check(name, away) for name in names))
        try:
            assert [id for id in ("P421", "P423", "P431") if asked(subject, id)] == ["P421"]
        finally:
            contributions.clear()
            contributions.update(rooms)


def test_hung_server(tmp_path: Path) -> None:
    """A server that does not answer costs --online no more than the check's time limit."""
    with subject_of(site(HEALTH_TIMEOUT=0.1), tmp_path) as subject:
        end = Event()

        def hang() -> None:
            end.wait(20)

        with pytest.raises(TimeoutError, match="no answer within"):
            within(hang, subject)
        end.set()


def test_rule_fails(tmp_path: Path) -> None:
    """A rule that raises stops no other one, and says which it was."""

    @rule("P999", WARNING, "Broken", remedy="None.")
    def broken(_subject: Subject) -> Any:
        """Raise."""
        raise KeyError("x")

    with subject_of(site(), tmp_path) as subject:
        report = engine.review(subject, [broken, *RULES])

    assert ids(report) == ["P004"]
    assert "P999 ended with KeyError" in report.findings[0].evidence


def test_evidence_is_hidden(tmp_path: Path) -> None:
    """A secret of the settings is starred out of whatever a rule says, also by mistake."""
    key = SECRETS["METRICS_TOKEN"]

    @rule("P998", WARNING, "Tells", remedy="None.")
    def tells(_subject: Subject) -> Any:
        """Tell, and fail."""
        yield f"the token is {key}"
        raise KeyError(key)

    with subject_of(site(), tmp_path) as subject:
        found = engine.review(subject, [tells]).findings

    assert [one.id for one in found] == ["P998", "P004"]
    assert not any(key in one.evidence for one in found)


def test_random_secrets_are_strong(tmp_path: Path) -> None:
    """What `flask prod secret generate` makes is never taken for weak or known."""
    from flask_prod.cli.secret import FORMATS
    from flask_prod.review.rules.secrets import LEAST_BITS, bits, well_known

    makers: list[Callable[[int], str]] = list(FORMATS.values())
    for make in makers:
        for _ in range(500):
            text = make(32)
            assert bits(text) > LEAST_BITS
            assert not well_known(text)


def test_rules_of_components(tmp_path: Path) -> None:
    """Rules of components are asked beside ours; those that cannot be told from others are a finding."""

    def made(id: str) -> Rule:
        return rule(id, WARNING, "Found", remedy="None.")(lambda _subject: iter(["it is there"]))

    with subject_of(site(), tmp_path) as subject:
        contributions: Any = subject.state.contributions if subject.state else {}
        contributions["geo"] = Contribution(handle=None, rules=(made("GEO01"), made("P101"), made("geo")))
        contributions["again"] = Contribution(handle=None, rules=(made("GEO01"),))
        report = engine.review(subject, rules_for(subject), silences={"GEO01": ""})

    assert [(one.id, one.evidence) for one in report.findings if one.id != "P003"] == [
        ("GEO01", "it is there"),
        ("P006", "the component geo has a rule GEO01, and it is not the only one of this id"),
        ("P006", "the component geo has a rule 'P101', which is no id of a component's rule"),
        ("P006", "the component geo has a rule 'geo', which is no id of a component's rule"),
        ("P006", "the component again has a rule GEO01, and it is not the only one of this id"),
    ]


def test_certificate(tmp_path: Path) -> None:
    """A certificate of the server's own that has expired is found."""
    authority = trustme.CA()
    leaf = authority.issue_cert("shop.example.com", not_after=datetime(2020, 1, 1, tzinfo=UTC))
    leaf.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
    (tmp_path / "both.pem").chmod(0o600)
    both = str(tmp_path / "both.pem")

    report = reviewed(site(TLS_ENABLED=True, TLS_CERT_FILE=both, TLS_KEY_FILE=both), tmp_path)

    assert ids(report) == ["P203"]
    assert "expired" in report.findings[0].evidence


def test_pickles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries that unpickle what they find in a shared place are found; newer ones and other places are not."""
    monkeypatch.setattr(known, "version", lambda name: "0.5.0" if name == "Flask-Session" else "99")
    app = site()
    app.config.update(CACHE_TYPE="MemcachedCache", SESSION_TYPE="redis")
    fine = site()
    fine.config.update(CACHE_TYPE="SimpleCache", SESSION_TYPE="null")

    assert ids(reviewed(app, tmp_path)) == ["P406", "P407"]
    assert ids(reviewed(fine, tmp_path)) == []

    monkeypatch.setattr(known, "version", lambda _name: "99")
    app = site()
    app.config.update(SESSION_TYPE="redis")
    assert ids(reviewed(app, tmp_path)) == []


def test_sign_in_is_remembered(tmp_path: Path) -> None:
    """Flask-Login, which stands at the application and in no list, needs a key, and a flag for its own cookie."""

    def with_login(**config: Any) -> list[str]:
        app = site(**config)
        app.login_manager = object()  # type: ignore[attr-defined]  # as Flask-Login does it
        app.view_functions.pop("basket")
        return ids(reviewed(app, tmp_path))

    assert with_login() == ["P314"]
    assert with_login(REMEMBER_COOKIE_SECURE=True) == []
    assert with_login(REMEMBER_COOKIE_SECURE=True, SECRET_KEY=None) == ["P101"]
