"""The application with its kit, loaded once in a process of its own and asked whether it is alive."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
from flask.cli import ScriptInfo

from flask_prod.cli.group import load_app, message_of
from flask_prod.core.errors import ProdKitError
from flask_prod.core.kit import state_of

SECONDS = 60
"""More than any application takes to be imported; one that waits for something at its start is told."""


def try_out(root: Path, spec: str | None) -> str:
    """Return why the application of *root* does not run; empty when it does."""
    reader, writer = os.pipe()
    command = [sys.executable, "-m", __name__, str(writer), *([spec] if spec else [])]
    try:
        with open(reader, "rb") as result:
            try:
                run = subprocess.run(  # noqa: S603  # this Python, and there is no shell
                    command, cwd=root, pass_fds=[writer], capture_output=True, timeout=SECONDS, check=False
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                return f"it was not loaded after {SECONDS} s"
            finally:
                os.close(writer)
            said = result.read().decode()
    except OSError as error:
        return str(error)
    if said:
        return "" if said == "alive" else said
    last = run.stderr.decode(errors="replace").strip().splitlines()[-1:]
    return f"its process ended with exit code {run.returncode}: {''.join(last)}"


def main(descriptor: int, spec: str | None) -> None:
    """Load the application as Flask's commands do, ask its liveness probe, and write the answer."""
    info = ScriptInfo(spec, set_debug_flag=False)
    try:
        said = _asked(click.Context(click.Command("init"), obj=info))
    except (click.ClickException, ProdKitError) as error:
        said = message_of(error)
    os.write(descriptor, said.encode())


def _asked(ctx: click.Context) -> str:
    app = load_app(ctx)
    state = state_of(app)
    path = next((f"{row.value}/live" for row in state.settings.rows if row.key == "HEALTH_PATH"), None)
    if path is None:
        return "alive"
    try:
        answer = app.test_client().get(path, base_url="https://localhost")
    finally:
        state.lifecycle.close()
    return "alive" if answer.status_code == 200 else f"{path} answers {answer.status}"


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
