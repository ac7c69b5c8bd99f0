"""nginx as rendered, in front of real web servers that run the sample shop."""

from __future__ import annotations

import json
import re
import signal
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from tests.deploy import newer
from tests.deploy.conftest import ROOT
from tests.deploy.proxy import Load, Proxy
from tests.servers import HOST, Gunicorn, wait_for

pytestmark = pytest.mark.deploy

TOKEN = "a-token-of-operations-that-nobody-guesses"
APP = """
import time
from flask import Response, request
from sample_app import create_app as create_shop
from flask_prod.core.record import current_record

def create_app():
    app = create_shop()

    @app.get("/whoami")
    def whoami():
        return {
            "address": request.remote_addr, "scheme": request.scheme, "host": request.host,
            "id": current_record().request_id, "url": request.url_root,
            "headers": {name: value for name, value in request.headers},
        }

    @app.post("/work")
    def work():
        time.sleep(0.02)
        return {"bytes": len(request.get_data())}

    @app.post("/slow")
    def slow():
        app.logger.warning("slow has begun")
        time.sleep(2)
        return {}

    @app.get("/page")
    def page():
        return "<p>" + "a page that would be small if it were compressed " * 100

    @app.get("/events")
    def events():
        def send():
            yield "data: first\\n\\n"
            time.sleep(1)
            yield "data: second\\n\\n"
        return Response(send(), mimetype="text/event-stream", headers={"X-Accel-Buffering": "no"})

    return app
"""


@pytest.fixture(scope="module")
def conf(rendered: Path) -> str:
    return (rendered / "nginx/nginx.conf").read_text()


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sequence[Gunicorn]]:
    """Two instances of the shop, as compose tells them of nginx."""
    data = tmp_path_factory.mktemp("data")
    env = {
        "ENVIRONMENT": "production", "TRUSTED_PROXIES": "1", "ALLOWED_HOSTS": "shop.example.com",
        "SECRET_KEY": "s" * 43, "JWT_SECRET_KEY": "j" * 43, "DATA_DIR": str(data), "RATE_LIMIT_ENABLED": "0",
        "HEALTH_TOKEN": TOKEN, "METRICS_TOKEN": f"{TOKEN}-2", "DRAIN_SECONDS": "1", "SHUTDOWN_SECONDS": "5",
        "ENV_FILE": "/dev/null", "SECRETS_DIR": "/dev/null",
    }  # fmt: skip
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                Gunicorn(source=APP, config=ROOT / "gunicorn.conf.py", env={**env, "RUN_DIR": f"{data}/{number}"},
                         ready="/health/live")
            )
            for number in range(2)
        ]  # fmt: skip


@pytest.fixture(scope="module")
def proxy(pytestconfig: pytest.Config, conf: str, shops: Sequence[Gunicorn]) -> Iterator[Proxy]:
    program = str(newer.nginx(pytestconfig) / "start")
    with Proxy(program, conf, "shop.example.com", [shop.port for shop in shops]) as server:
        yield server


def whoami(proxy: Proxy, headers: dict[str, str]) -> dict[str, object]:
    answer = proxy.request("GET", "/whoami", headers)
    assert answer.status == 200, answer.text
    found: dict[str, object] = answer.json
    return found


def test_syntax(proxy: Proxy) -> None:
    """`nginx -t` has nothing to say."""
    assert proxy.check() == ""


class TestTls:
    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_versions(self, proxy: Proxy, version: ssl.TLSVersion) -> None:
        """TLS 1.2 and 1.3 are spoken, with keys that are made anew for each connection."""
        connection = proxy.connect(version=version)

        assert isinstance(connection.sock, ssl.SSLSocket)
        name, spoken, _ = connection.sock.cipher() or ("", "", 0)
        connection.close()
        assert spoken == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name]
        assert name.startswith(("TLS_", "ECDHE-"))

    def test_old_versions_and_ciphers(self, proxy: Proxy) -> None:
        """TLS 1.1 is refused, and so are ciphers without fresh keys."""
        old = _context(proxy)
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1"):
            old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        plain = _context(proxy)
        plain.maximum_version = ssl.TLSVersion.TLSv1_2
        plain.set_ciphers("AES256-GCM-SHA384:AES128-SHA:@SECLEVEL=0")

        for context in (old, plain):
            with pytest.raises(ssl.SSLError), socket.create_connection((HOST, proxy.https), 5) as raw:
                context.wrap_socket(raw, server_hostname=proxy.host)

    def test_other_names(self, proxy: Proxy) -> None:
        """Whoever asks for a name that is not ours, or for none, gets no certificate."""
        context = _context(proxy)
        context.check_hostname = False
        for name in ("other.example.com", None):
            with pytest.raises(ssl.SSLError), socket.create_connection((HOST, proxy.https), 5) as raw:
                context.wrap_socket(raw, server_hostname=name)


def _context(proxy: Proxy) -> ssl.SSLContext:
    context = ssl.create_default_context()
    proxy.authority.configure_trust(context)
    return context


class TestPlainHttp:
    def test_people_are_sent_to_https(self, proxy: Proxy) -> None:
        """A browser is redirected to the same page by HTTPS, and does not remember it."""
        answer = proxy.request("GET", "/products?page=2", tls=False)

        assert answer.status == 308
        assert answer.headers["Location"] == "https://shop.example.com/products?page=2"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "Strict-Transport-Security" not in answer.headers

    @pytest.mark.parametrize(("method", "headers"), [("POST", {}), ("GET", {"Authorization": "Bearer word"})])
    def test_programs_are_told(self, proxy: Proxy, method: str, headers: dict[str, str]) -> None:
        """Who sent credentials or data in the clear is refused: redirected, nobody would ever notice."""
        answer = proxy.request(method, "/api/checkout", headers, tls=False)

        assert answer.status == 403
        assert "HTTPS only" in answer.text

    def test_other_names(self, proxy: Proxy) -> None:
        """Other names are not redirected anywhere."""
        with pytest.raises((HTTPException, OSError)):
            proxy.request("GET", "/", {"Host": "other.example.com"}, tls=False)


class TestWhoIsAsking:
    FORGED = {
        "X-Forwarded-For": "203.0.113.9, 198.51.100.7", "X-Real-IP": "203.0.113.9", "X-Forwarded-Proto": "http",
        "Forwarded": "for=203.0.113.9;proto=http;host=evil.example", "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Port": "1", "X-Forwarded-Prefix": "/evil", "X-Request-ID": "chosen-by-the-client",
        "X-Forwarded-Ssl": "off", "X-Forwarded-Protocol": "http", "Proxy": "http://evil.example",
    }  # fmt: skip

    def test_forged_headers(self, proxy: Proxy) -> None:
        """A client who forges what proxies say is seen as it is: address, scheme, host and request id."""
        honest, found = whoami(proxy, {}), whoami(proxy, self.FORGED)

        assert found["address"] == HOST
        assert found["scheme"] == "https"
        assert found["host"] == honest["host"] == f"shop.example.com:{proxy.https}"
        assert found["id"] != "chosen-by-the-client"
        assert "evil" not in json.dumps(found)
        assert "203.0.113.9" not in json.dumps(found)
        assert isinstance(found["headers"], dict)
        assert isinstance(honest["headers"], dict)
        assert set(found["headers"]) == set(honest["headers"])

    def test_one_id(self, proxy: Proxy) -> None:
        """The request id is nginx's, in both logs and in the answer."""
        answer = proxy.request("GET", "/whoami")
        given = answer.json["id"]

        assert answer.headers["X-Request-ID"] == given
        assert wait_for(lambda: given in proxy.log("access.log"), 5, "the line of the log")


class TestInside:
    PAGES = ("/metrics", "/%6detrics", "//metrics", "/static/../metrics", "/debug/pool", "/health/redis",
             "/health/history", "/health/groups/edge", "/health/../health/redis")  # fmt: skip

    @pytest.mark.parametrize("path", PAGES)
    def test_pages_of_operations(self, proxy: Proxy, path: str) -> None:
        """Metrics and details of health are not there from outside, whatever the spelling or the token."""
        for token in (TOKEN, f"{TOKEN}-2"):
            assert proxy.request("GET", path, {"Authorization": f"Bearer {token}"}).status == 404

    def test_they_are_there(self, shops: Sequence[Gunicorn]) -> None:
        """From inside they answer whoever has the token."""
        assert shops[0].get("/metrics", {"Authorization": f"Bearer {TOKEN}-2"}).status == 200
        assert "checks" in shops[0].get("/health", {"Authorization": f"Bearer {TOKEN}"}).json

    @pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/health/startup"])
    def test_probes(self, proxy: Proxy, path: str) -> None:
        """Probes answer one word, also to who has the token."""
        answer = proxy.request("GET", path, {"Authorization": f"Bearer {TOKEN}"})

        assert answer.status == 200
        assert answer.text.strip() in ("healthy", "degraded", "alive", "ready", "started")


class TestBodies:
    def test_too_large(self, proxy: Proxy) -> None:
        """A body over MAX_CONTENT_LENGTH is refused before a web server sees it; one that just fits is served."""
        fits = proxy.request("POST", "/work", body=b"x" * 65536)
        answer = proxy.request("POST", "/work", body=b"x" * 65537)

        assert (fits.status, fits.json) == (200, {"bytes": 65536})
        assert answer.status == 413
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json["status"] == 413
        assert _last_line(proxy)["upstream"] == ""

    def test_compression(self, proxy: Proxy) -> None:
        """Pages and JSON are never compressed (BREACH); static files are."""
        wants = {"Accept-Encoding": "gzip, br"}
        styles = next(path.name for path in (ROOT / "sample_app/static").iterdir() if path.suffix == ".css")

        for path in ("/page", "/whoami"):
            assert "Content-Encoding" not in proxy.request("GET", path, wants).headers
        static = proxy.request("GET", f"/static/{styles}", wants)
        assert static.status == 200
        assert static.headers["Content-Encoding"] == "gzip"
        assert "Accept-Encoding" in static.headers["Vary"]

    def test_streams(self, proxy: Proxy) -> None:
        """An event is passed on when it is sent, not when the stream ends."""
        connection = proxy.connect()
        connection.request("GET", "/events", headers={"Host": proxy.host})
        response = connection.getresponse()
        began = time.monotonic()

        first = response.readline()
        early = time.monotonic() - began
        rest = response.read()
        whole = time.monotonic() - began
        connection.close()

        assert first == b"data: first\n"
        assert b"second" in rest
        assert whole - early > 0.7  # of the second that is between them


class TestHeaders:
    def test_once(self, proxy: Proxy) -> None:
        """Security headers are the service's, once each; nobody tells a version."""
        headers = proxy.request("GET", "/page").headers

        for name in (
            "Strict-Transport-Security",
            "X-Content-Type-Options",
            "Content-Security-Policy",
            "X-Request-ID",
        ):
            assert len(headers.get_all(name) or []) == 1, name
        assert headers.get_all("Server") == ["nginx"]

    def test_log(self, proxy: Proxy) -> None:
        """A line of the log is JSON, without the query and without a Referer."""
        proxy.request("GET", "/whoami?reset_token=hush", {"Referer": "https://shop.example.com/?token=hush"})

        line = _last_line(proxy)
        assert line["path"] == "/whoami"
        assert line["status"] == 200
        assert line["seconds"] >= 0
        assert "hush" not in proxy.log("access.log")


def _last_line(proxy: Proxy) -> dict[str, Any]:
    time.sleep(0.05)  # it is written when the answer has been sent
    found: dict[str, Any] = json.loads(proxy.log("access.log").splitlines()[-1])
    return found


class TestTime:
    def test_limits_agree(self, conf: str, shops: Sequence[Gunicorn]) -> None:
        """nginx waits as long as the service was told (BALANCER_TIMEOUT), and ends idle connections first."""
        upstream = conf[conf.index("upstream web {") : conf.index("proxy_http_version")]
        idle = re.search(r"keepalive_timeout (\d+)s", upstream)
        assert idle is not None

        assert "proxy_read_timeout 60s;" in conf
        assert int(idle[1]) == 60 < 75  # BALANCER_IDLE and WEB_KEEPALIVE
        assert "non_idempotent" not in re.sub(r"#.*", "", conf)

    def test_too_slow(self, pytestconfig: pytest.Config, conf: str, shops: Sequence[Gunicorn]) -> None:
        """An answer that does not come in time is 504, and what was asked is not asked of the next web server."""
        quick = conf.replace("proxy_read_timeout 60s;", "proxy_read_timeout 1s;")
        assert quick != conf
        program = str(newer.nginx(pytestconfig) / "start")
        before = sum(shop.stdout.count("slow has begun") for shop in shops)

        with Proxy(program, quick, "shop.example.com", [shop.port for shop in shops]) as proxy:
            answer = proxy.request("POST", "/slow", {"Accept": "application/json"}, b"{}")

        assert answer.status == answer.json["status"] == 504
        assert answer.json["title"] == "Gateway Timeout"
        assert answer.headers["Retry-After"] == "5"
        assert answer.headers["X-Request-ID"] == answer.json["request_id"]
        assert sum(shop.stdout.count("slow has begun") for shop in shops) == before + 1

    def test_nobody_there(self, pytestconfig: pytest.Config, conf: str) -> None:
        """Without a web server people get a page, and programs problem+json, both with Retry-After."""
        program = str(newer.nginx(pytestconfig) / "start")
        with Proxy(program, conf, "shop.example.com", [9]) as proxy:  # nobody listens at `discard`
            page = proxy.request("GET", "/", {"Accept": "text/html,*/*"})
            problem = proxy.request("GET", "/")

        assert (page.status, page.headers.get_content_type()) == (502, "text/html")
        assert (problem.status, problem.headers.get_content_type()) == (502, "application/problem+json")
        assert page.headers["Retry-After"] == problem.headers["Retry-After"] == "5"
        assert page.headers["Cache-Control"] == problem.headers["Cache-Control"] == "no-store"


def test_drain_and_reload(proxy: Proxy, shops: Sequence[Gunicorn]) -> None:
    """No request fails while one web server loads its code anew and the other is taken out and ends.

    nginx keeps connections to both: each may close one at the moment when a request is about to use it.
    """
    stays, goes = shops
    before = set(stays.worker_pids())
    with Load(proxy) as load:
        stays.signal(signal.SIGHUP)
        wait_for(lambda: before.isdisjoint(pids := stays.worker_pids()) and pids, 60, "new workers")
        proxy.serve([stays.port])
        goes.term()
        assert goes.wait(30) == 0

    assert set(load.answers) == {("GET", 200), ("POST", 200)}
    assert sum(load.answers.values()) > 20
