"""Names of tenants, and settings that would make two of them one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_prod.components.database.tenants.names import UnknownTenant, checked, filled, tenant_problems


@pytest.mark.parametrize("name", ["acme", "a", "7", "in-itech", "_x", "a" * 63])
def test_name_is_taken(name: str) -> None:
    """Letters, digits, dash and underscore make a name."""
    assert checked(name) == name


@pytest.mark.parametrize(
    "name", ["", "a" * 64, "Acme", "a.b", "a/b", "../a", "a b", "a\n", "a;b", 'a"b', "a%20", "é", "٣", None, 7]
)
def test_name_is_refused(name: object) -> None:
    """Anything else is none, and the error does not repeat it."""
    with pytest.raises(UnknownTenant) as error:
        checked(name)

    assert not name or len(str(name)) < 3 or str(name) not in str(error.value)


@given(st.text(max_size=70))
def test_what_is_taken_needs_no_quotes(name: str) -> None:
    """Whatever comes, a name that is taken has nothing that ends an identifier, a path or part of an address."""
    try:
        taken = checked(name)
    except UnknownTenant:
        return
    assert taken == name
    assert taken.isascii()
    assert taken.replace("-", "").replace("_", "").isalnum() or set(taken) <= {"-", "_"}


def test_place_is_filled() -> None:
    """The name stands where the template says; braces of others stay."""
    assert filled("sqlite:////var/{tenant}.db?x={y}", "acme") == "sqlite:////var/acme.db?x={y}"


@pytest.mark.parametrize(
    ("mode", "url", "tenant_url", "schema", "key"),
    [
        ("database", "", "postgresql://db/shop", "tenant_{tenant}", "DATABASE_TENANT_URL"),
        ("schema", "postgresql://db/shop", "", "tenant", "DATABASE_TENANT_SCHEMA"),
        ("schema", "postgresql://db/shop", "", "{tenant}", "DATABASE_TENANT_SCHEMA"),
        ("schema", "postgresql://db/shop", "", 'x"{tenant}', "DATABASE_TENANT_SCHEMA"),
        ("schema", "sqlite:////shop.db", "", "tenant_{tenant}", "DATABASE_TENANTS"),
        ("schema", "", "", "tenant_{tenant}", "DATABASE_TENANTS"),
    ],
)
def test_settings_that_would_mix_tenants(mode: str, url: str, tenant_url: str, schema: str, key: str) -> None:
    """What would put two tenants into one place does not start, and the key is named."""
    (problem,) = tenant_problems(mode, url, tenant_url, schema)

    assert problem.startswith(key)


def test_settings_that_are_fine() -> None:
    """Both modes as they are meant have no problem."""
    assert not list(tenant_problems("off", "", "", "tenant_{tenant}"))
    assert not list(tenant_problems("schema", "postgres://db/shop", "", "t_{tenant}"))
    assert not list(tenant_problems("database", "", "mysql://db/{tenant}", "tenant_{tenant}"))
