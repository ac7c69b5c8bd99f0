"""`flask prod secret generate`: strong, different each time, in the form that was asked for."""

from __future__ import annotations

import base64
import re

import pytest
from click.testing import CliRunner, Result

from flask_prod.cli import prod


def run(*words: str) -> Result:
    """Run `flask prod secret generate`, without any application."""
    return CliRunner().invoke(prod, ["secret", "generate", *words])


@pytest.mark.parametrize(
    ("words", "form"),
    [
        ((), r"[\w-]{43}"),
        (("--bytes", "64", "--format", "hex"), r"[0-9a-f]{128}"),
        (("--format", "base64"), r"[\w+/]{43}="),
        (("--format", "letters"), r"[A-Za-z0-9]{44}"),
        (("SECRET_KEY",), r"[\w-]{43}"),
        (("redis_password",), r"[A-Za-z0-9]{44}"),
        (("METRICS_TOKEN", "--env"), r"METRICS_TOKEN=[\w-]{43}"),
        (("MY_OWN_SECRET", "--env", "--format", "hex"), r"MY_OWN_SECRET=[0-9a-f]{64}"),
    ],
)
def test_forms(words: tuple[str, ...], form: str) -> None:
    """One value and nothing else, of the bytes and in the form that were asked for, another one each time."""
    first, second = run(*words), run(*words)

    assert first.exit_code == 0, first.output
    assert re.fullmatch(form, first.output.removesuffix("\n")), first.output
    assert first.output != second.output


def test_base64_has_the_bytes() -> None:
    """What is decoded again has the bytes that were asked for."""
    assert len(base64.b64decode(run("--format", "base64", "--bytes", "48").output)) == 48


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--bytes", "8"), "8 is not in the range 16<=x<=1024"),
        (("--env",), "--env needs a NAME"),
        (("SECRET_KY",), "SECRET_KY is not a setting; did you mean SECRET_KEY?"),
        (("PORT",), "PORT is no secret"),
        (("DATABASE_URL",), "DATABASE_URL is an address"),
        (("A=B",), "cannot be the name of a variable"),
    ],
)
def test_refused(words: tuple[str, ...], sentence: str) -> None:
    """What would be weak, or no secret, is refused with the reason."""
    result = run(*words)

    assert result.exit_code == 2
    assert sentence in result.output
