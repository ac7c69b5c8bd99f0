"""What is said where the database, a script or a user names a revision that nobody has."""

from __future__ import annotations

import pytest

from flask_prod.components.migrations.engine import MigrationError

from .conftest import Build, Scripts, query
from .test_engine import checks_of


def test_unknown_revision(build: Build, scripts: Scripts, url: str) -> None:
    """A database of another version of the code is told as such, by commands and in health."""
    migrations = build(url)
    migrations.upgrade()
    query(url, "UPDATE alembic_version SET version_num = 'from_the_future'")
    said = (
        r"The database is at revision from_the_future, and no migration in .*/migrations is called so: .* version"
    )

    for call in (migrations.upgrade, migrations.check, migrations.plan, lambda: migrations.downgrade("base")):
        with pytest.raises(MigrationError, match=said):
            call()
    (check,) = checks_of(build(url))
    finding = check.probe()
    assert finding is not None
    assert finding.detail == (
        "the database is at from_the_future, which no migration here is called: is this an older version?"
    )


def test_no_way_to_a_revision(build: Build, scripts: Scripts, url: str) -> None:
    """A revision that nobody has, and a script that follows none, are errors with their next step."""
    migrations = build(url)

    with pytest.raises(MigrationError, match=r"from no revision to tow: .*'tow'\. `alembic history`"):
        migrations.upgrade("tow")
    scripts.add("three", "pass", down_revision="lost")
    with (
        pytest.warns(UserWarning, match="lost"),
        pytest.raises(MigrationError, match="follows the revision lost, and none is called so"),
    ):
        migrations.check()
