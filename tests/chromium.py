"""A real browser for tests: headless Chromium, driven by the DevTools protocol over two pipes."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from tests import debian
from tests.servers import HOST, Process, Server

NAMES = ("chromium", "chromium-browser", "google-chrome", "chromium-headless-shell")
"""What a browser that can do this is called on PATH."""

PACKAGE = "chromium-headless-shell"
"""Debian's smallest browser with the same engine: it needs no desktop."""

NOT_NEEDED = ("libllvm", "libgl1-mesa-dri", "libz3-", "libicu", "x11-utils", "xdg-utils")
"""Beginnings of the names of packages that it wants for graphics cards and desktops, and does without."""

FLAGS = (
    "--headless",
    "--no-sandbox",  # it sees nothing but our own pages; root and most containers have no sandbox to offer
    "--disable-gpu",
    "--disable-dev-shm-usage",  # containers have 64 MB there
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-breakpad",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {HOST}",
    "--remote-debugging-pipe",
)

COMPLAINING = frozenset({"error", "warning", "assert"})
"""Kinds of console calls, and levels of the browser's own log, that somebody should look at."""


def provide(folder: Path) -> str:
    """Return the path of a browser that runs, unpacked below *folder* if need be; or raise debian.Missing."""
    program = debian.provide(NAMES, PACKAGE, folder, without=NOT_NEEDED)
    done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise debian.Missing(f"{program} does not run on this machine: {done.stderr.strip()[-300:]}")
    return program


class DevTools:
    """The two pipes of the protocol; messages are JSON that ends with a zero byte."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.session: str | None = None
        """Which page is meant, once there is one."""
        self.on: dict[str, Callable[[dict[str, Any]], None]] = {}
        """Who is told of events, by their names."""
        self._answers: dict[int, dict[str, Any]] = {}
        self._buffer = b""
        self._sent = 0
        ends = [process.folder / "commands", process.folder / "events"]
        for end in ends:
            os.mkfifo(end)
        # Open for both directions, a pipe does not wait for its other end: `wait` looks whether that lives.
        self._commands, self._events = (os.open(end, os.O_RDWR | os.O_CLOEXEC) for end in ends)

    def launch(self, program: str) -> None:
        """Start the browser at the other end."""
        folder = self.process.folder
        # The shell puts the pipes where the protocol wants them.
        script = 'exec "$0" "$@" 3<commands 4>events'
        command = ["sh", "-c", script, program, *FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"]
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder)}
        self.process.launch(command, environment, cwd=folder)

    def close(self) -> None:
        """Close our ends."""
        os.close(self._commands)
        os.close(self._events)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one command and return its result."""
        self._sent += 1
        number = self._sent
        message = {"id": number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        self.wait(lambda: number in self._answers, method)
        answer = self._answers.pop(number)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
        """Take in events until *condition* comes true; TimeoutError after *seconds*."""
        end = time.monotonic() + seconds
        while not condition():
            if not self.process.running:
                raise RuntimeError(f"the browser ended:\n{self.process.stderr[-2000:]}")
            if time.monotonic() > end:
                raise TimeoutError(f"{what} took more than {seconds:g} s:\n{self.process.stderr[-2000:]}")
            if select.select([self._events], [], [], 0.2)[0]:
                self._read()

    def _read(self) -> None:
        *messages, self._buffer = (self._buffer + os.read(self._events, 1 << 20)).split(b"\0")
        for text in messages:
            message = json.loads(text)
            if "id" in message:
                self._answers[message["id"]] = message
            elif listener := self.on.get(message["method"]):
                listener(message["params"])


class Chromium(Server):
    """A browser with one page, and all that the page complained about."""

    def __init__(self, program: str) -> None:
        super().__init__("chromium")  # a folder with a short name: the browser makes sockets in it
        self.complaints: list[str] = []
        self.loaded: set[tuple[str, int]] = set()
        """Kind (Document, Stylesheet, Script, Other for pictures.svg) and status of all that was loaded."""
        self.headers: dict[str, str] = {}
        """The headers of the page, by lower-case names."""
        self._program = program
        self._tools = DevTools(self.process)
        self._under_way: dict[str, str] = {}
        self._pages = 0

    def start(self) -> Self:
        """Start, and open an empty page."""
        self._tools.launch(self._program)
        self._open_page()
        return self

    def close(self) -> None:
        """End the browser and remove its folder."""
        super().close()
        self._tools.close()

    def visit(self, url: str) -> None:
        """Go to an address as if it were typed, and wait until all of the page is there."""
        before = self._pages
        self._tools.call("Page.navigate", url=url)
        self._settle(before)

    def click(self, selector: str) -> None:
        """Press what *selector* finds first, and wait for the page that it leads to."""
        self.leave_by(f"{_found(selector)}.click()")

    def leave_by(self, expression: str) -> None:
        """Run a JavaScript expression that leads to another page, and wait for that."""
        before = self._pages
        self.run(expression)
        self._settle(before)

    def type(self, selector: str, text: str) -> None:
        """Type into a field."""
        self.run(f"{_found(selector)}.focus()")
        self._tools.call("Input.insertText", text=text)

    def run(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page."""
        answer = self._tools.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            raise ValueError(f"{expression}: {answer['exceptionDetails']['exception']['description']}")
        return answer["result"].get("value")

    @property
    def path(self) -> str:
        """The path of the page."""
        return str(self.run("location.pathname"))

    @property
    def text(self) -> str:
        """What a visitor can read."""
        return str(self.run("document.body.innerText"))

    def settle(self) -> None:
        """Wait until nothing is under way, and the page had its turn to complain."""
        self._tools.wait(lambda: not self._under_way, "the page's parts")
        self.run("new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))")

    def _settle(self, before: int) -> None:
        self._tools.wait(lambda: self._pages > before, "the page")
        self.settle()

    def _open_page(self) -> None:
        tools = self._tools
        target = tools.call("Target.createTarget", url="about:blank")["targetId"]
        tools.session = tools.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tools.on = {
            "Audits.issueAdded": self._issue,
            "Log.entryAdded": self._log_entry,
            "Network.loadingFailed": self._failed,
            "Network.loadingFinished": self._finished,
            "Network.requestWillBeSent": self._requested,
            "Network.responseReceived": self._responded,
            "Page.loadEventFired": self._shown,
            "Runtime.consoleAPICalled": self._console,
            "Runtime.exceptionThrown": self._exception,
        }
        for domain in ("Page", "Runtime", "Log", "Network", "Audits"):
            tools.call(f"{domain}.enable")

    def _issue(self, event: dict[str, Any]) -> None:
        issue = event["issue"]
        self.complaints.append(f"{issue['code']}: {json.dumps(issue['details'])}")

    def _log_entry(self, event: dict[str, Any]) -> None:
        entry = event["entry"]
        if entry["level"] in COMPLAINING:
            self.complaints.append(f"{entry['source']} {entry['level']}: {entry['text']} ({entry.get('url')})")

    def _console(self, event: dict[str, Any]) -> None:
        if event["type"] in COMPLAINING:
            values = [str(value.get("value", value.get("description"))) for value in event["args"]]
            self.complaints.append(f"console {event['type']}: {' '.join(values)}")

    def _exception(self, event: dict[str, Any]) -> None:
        details = event["exceptionDetails"]
        self.complaints.append(f"exception: {details.get('exception', details).get('description')}")

    def _requested(self, event: dict[str, Any]) -> None:
        self._under_way[event["requestId"]] = event["request"]["url"]

    def _responded(self, event: dict[str, Any]) -> None:
        answer, kind = event["response"], event["type"]
        self.loaded.add((kind, answer["status"]))
        if kind == "Document":
            self.headers = {name.lower(): value for name, value in answer["headers"].items()}
        if answer["status"] >= 400:
            self.complaints.append(f"{kind} {urlsplit(answer['url']).path}: {answer['status']}")

    def _finished(self, event: dict[str, Any]) -> None:
        self._under_way.pop(event["requestId"], None)

    def _failed(self, event: dict[str, Any]) -> None:
        url = self._under_way.pop(event["requestId"], "")
        self.complaints.append(f"{event['type']} {url}: {event.get('blockedReason', event['errorText'])}")

    def _shown(self, _event: dict[str, Any]) -> None:
        self._pages += 1


def _found(selector: str) -> str:
    return f"document.querySelector({json.dumps(selector)})"
