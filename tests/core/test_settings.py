from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

import pytest
from msgspec import Meta

from flask_prod.core.errors import ConfigError
from flask_prod.core.settings import Section, Settings, Source, read_settings
from flask_prod.core.values import Duration, Secret, SecretUrl, Size


class Shop(Section, frozen=True, kw_only=True):
    """A section with one field of each kind."""

    prefix: ClassVar[str] = "SHOP_"
    keys: ClassVar[Mapping[str, tuple[str, ...]]] = {"origins": ("ALLOWED_ORIGINS", "CORS_ORIGIN")}
    library_keys: ClassVar[tuple[str, ...]] = ("SHOP_LIBRARY_*",)

    enabled: bool = True
    limit: Annotated[int, Meta(ge=0)] | None = 100
    workers: Annotated[int, Meta(ge=1, le=64)] = 2
    window: Duration = 60.0
    memory: Size = 1024
    token: Secret = Secret("")
    url: SecretUrl = SecretUrl("")
    origins: tuple[str, ...] = ()
    policies: dict[str, str] = {}
    fail: Literal["open", "local", "closed"] = "local"
    name: str = "shop"

    def problems(self) -> Iterator[str]:
        if self.limit == 0 and self.fail == "open":
            yield "SHOP_LIMIT is 0 and SHOP_FAIL is open: that limits nothing."


def read(values: Mapping[str, Any], *more: Source) -> Settings:
    return read_settings([Shop], [Source("app.config", values), *more])


def shop(**values: Any) -> Shop:
    return read(values).section(Shop)


def problems(**values: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        read(values)
    return caught.value.problems


def test_defaults() -> None:
    """Nothing set gives the defaults."""
    assert shop() == Shop()


def test_text_as_the_environment_has_it() -> None:
    """Every kind of field is understood as text."""
    section = shop(
        SHOP_ENABLED="off", SHOP_LIMIT="5", SHOP_WINDOW="1m", SHOP_MEMORY="1MB", SHOP_TOKEN="t",
        CORS_ORIGIN="https://a.example, https://b.example", SHOP_POLICIES="checkout=10/10m; auth=5/15m",
    )  # fmt: skip

    assert (section.enabled, section.limit, section.window, section.memory) == (False, 5, 60.0, 1024**2)
    assert section.token.reveal() == "t"
    assert section.origins == ("https://a.example", "https://b.example")
    assert section.policies == {"checkout": "10/10m", "auth": "5/15m"}


def test_python_values_of_app_config() -> None:
    """Lists, numbers and mappings are taken as they are."""
    section = shop(ALLOWED_ORIGINS=["https://a.example"], SHOP_POLICIES={"auth": "1/1m"}, SHOP_WINDOW=5)

    assert (section.origins, section.policies, section.window) == (("https://a.example",), {"auth": "1/1m"}, 5.0)


def test_explicit_zero_and_empty() -> None:
    """Zero is zero and empty is none: neither falls back to the default."""
    assert shop(SHOP_LIMIT="0").limit == 0
    assert shop(SHOP_LIMIT="").limit is None


def test_all_problems_at_once() -> None:
    """Every wrong value is reported, each with its key, what it must be, and where it stands."""
    found = problems(SHOP_WORKERS="many", SHOP_WINDOW="soon", SHOP_FAIL="maybe", SHOP_LIMIT="-1", SHOP_ENABLED="2")

    assert found == (
        "SHOP_ENABLED must be true or false, not '2' (app.config).",
        "SHOP_LIMIT must be a whole number, zero or more, or empty for none, not '-1' (app.config).",
        "SHOP_WORKERS must be a whole number from 1 to 64, not 'many' (app.config).",
        "SHOP_WINDOW must be a duration such as 30s, 5m or 1h, zero or more, not 'soon' (app.config).",
        "SHOP_FAIL must be one of open, local, closed, not 'maybe' (app.config).",
    )


def test_negative_duration_is_out_of_range() -> None:
    """A number below its bound is refused as well as a text that is none."""
    assert "SHOP_WINDOW must be a duration" in problems(SHOP_WINDOW=-1)[0]


def test_problems_between_fields() -> None:
    """A section reports what is wrong between valid fields."""
    assert problems(SHOP_LIMIT=0, SHOP_FAIL="open") == (
        "SHOP_LIMIT is 0 and SHOP_FAIL is open: that limits nothing.",
    )


def test_did_you_mean() -> None:
    """A name that is nearly a setting is reported with the setting it resembles."""
    assert problems(SHOP_WORKRES=3) == ("SHOP_WORKRES is not a setting; did you mean SHOP_WORKERS?",)


@pytest.mark.parametrize(
    "name", ["SHOP_LIBRARY_WORKERS", "SHOP_PORT_6379_TCP", "SHOP_SERVICE_HOST", "SHOPPING_CART", "shop_worker"]
)
def test_foreign_names_are_left_alone(name: str) -> None:
    """Names of libraries, orchestrators and the application itself are not taken for mistakes."""
    assert read({name: "x"}).section(Shop) == Shop()


def test_ignored_name() -> None:
    """IGNORE_SETTINGS lets a name live that resembles a setting."""
    assert shop(SHOP_WORKERZ="1", IGNORE_SETTINGS="SHOP_WORKERZ") == Shop()


def test_first_source_wins_and_is_remembered() -> None:
    """The value of the first source counts, and its origin is known."""
    settings = read({"SHOP_LIMIT": 1}, Source("environment", {"SHOP_LIMIT": "2", "SHOP_NAME": "b"}))
    rows = {row.key: row for row in settings.rows}

    assert settings.section(Shop).limit == 1
    assert (rows["SHOP_LIMIT"].origin, rows["SHOP_NAME"].origin) == ("app.config", "environment")
    assert rows["SHOP_WINDOW"].origin == "default"


def test_missing_file_of_a_setting() -> None:
    """A NAME_FILE that gave no value is reported with its path."""
    found = problems(SHOP_TOKEN_FILE="/nowhere/token")

    assert found == ("SHOP_TOKEN_FILE names /nowhere/token, which cannot be read (app.config).",)


def test_secrets_in_problems_and_rows() -> None:
    """Neither a problem nor a row shows a secret."""
    settings = read({"SHOP_TOKEN": "hunter2", "SHOP_URL": "redis://:hunter2@cache/0"})

    assert "hunter2" not in " ".join(row.shown for row in settings.rows)
