"""A real Prometheus that scrapes one page of metrics as if it were several instances, to be asked by tests."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

from tests.servers import HOST, Process, free_port, wait_for


class Asked:
    """A Prometheus at *url*."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expr: str) -> Mapping[str, Any]:
        """Return the whole answer: `status`, and `data` or `error`."""
        try:
            with urlopen(f"{self.url}/api/v1/query?{urlencode({'query': expr})}", timeout=10) as answer:
                body = answer.read()
        except HTTPError as error:
            with error:
                body = error.read()
        except OSError:
            body = b""
        if not body.startswith(b"{"):  # it is not there yet, or not ready
            return {"status": "error", "error": body.decode() or "no answer"}
        found: Mapping[str, Any] = json.loads(body)
        return found

    def count(self, expr: str) -> int:
        """Return how many series an expression has now; 0 where it cannot be asked."""
        return len(self.query(expr).get("data", {}).get("result", ()))


@contextmanager
def prometheus(binary: str, folder: Path, page: bytes, jobs: Mapping[str, int]) -> Iterator[Asked]:
    """Run Prometheus on *page*, scraped as so many instances of each job; it has seen all of them twice."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer((HOST, 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    process, port = Process(folder), free_port()
    config = folder / "prometheus.json"
    config.write_text(json.dumps(_config(server.server_port, jobs)))  # JSON is YAML
    words = [f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    process.launch([binary, *words, f"--web.listen-address={HOST}:{port}"], {"PATH": "/usr/bin"}, folder)
    asked = Asked(f"http://{HOST}:{port}")
    try:
        seen = f"count_over_time(up{{job=~'{'|'.join(jobs)}'}}[1m]) >= 2"
        wait_for(lambda: asked.count(seen) == sum(jobs.values()), 20, "two scrapes")
        yield asked
    finally:
        process.kill()
        server.shutdown()
        server.server_close()


def _config(port: int, jobs: Mapping[str, int]) -> dict[str, Any]:
    def instances(job: str, count: int) -> list[dict[str, Any]]:
        return [
            {"targets": [f"{HOST}:{port}"], "labels": {"instance": f"{job}-{number}"}} for number in range(count)
        ]

    return {
        "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms"},
        "scrape_configs": [
            {"job_name": job, "static_configs": instances(job, count)} for job, count in jobs.items()
        ],
    }
