from __future__ import annotations

from pathlib import Path

import pytest
from flask_jwt_extended import create_access_token, decode_token
from jwt import InvalidSignatureError

from flask_prod import ConfigError
from sample_app import create_app
from sample_app.models import User
from sample_app.settings import ShopSettings, load_settings
from tests.sample_app.conftest import MakeShopApp
from tests.sample_app.shop import SECRET


def test_short_jwt_secret_is_refused(tmp_path: Path) -> None:
    """A JWT secret below 32 characters stops the start; the message names the key, not the value."""
    with pytest.raises(ConfigError) as refused:
        create_app({"ENVIRONMENT": "test", "DATA_DIR": str(tmp_path), "JWT_SECRET_KEY": "much-too-short"})

    assert "JWT_SECRET_KEY must have at least 32 characters, not 14" in str(refused.value)
    assert "much-too-short" not in str(refused.value)


def test_secret_of_exactly_32_characters_will_do(tmp_path: Path) -> None:
    """Thirty-two characters are enough."""
    settings = load_settings({"ENVIRONMENT": "test", "JWT_SECRET_KEY": "x" * 32}, tmp_path)

    assert settings.jwt_secret_key.reveal() == "x" * 32


@pytest.mark.parametrize("environment", ["production", "staging"])
def test_secrets_are_needed_outside_of_development(tmp_path: Path, environment: str) -> None:
    """Both secrets are asked for at once, with a command that makes one."""
    with pytest.raises(ConfigError) as refused:
        create_app({"ENVIRONMENT": environment, "DATA_DIR": str(tmp_path)})

    assert [problem.split()[0] for problem in refused.value.problems] == ["SECRET_KEY", "JWT_SECRET_KEY"]
    assert "secrets.token_hex(32)" in str(refused.value)


def test_development_makes_its_own_secrets(shop_app: MakeShopApp, tmp_path: Path) -> None:
    """A random secret is made once, readable by its owner only, and used by the next start."""
    settings = {"ENVIRONMENT": "development", "SECRET_KEY": "", "JWT_SECRET_KEY": ""}
    first, second = shop_app(**settings), shop_app(**settings)

    made = first.config["JWT_SECRET_KEY"]
    assert len(made) == 64
    assert second.config["JWT_SECRET_KEY"] == made != first.config["SECRET_KEY"]
    assert (tmp_path / "jwt.key").stat().st_mode & 0o777 == 0o600


def test_misspelt_setting_is_told() -> None:
    """The shop's own settings are checked like the kit's."""
    with pytest.raises(ConfigError, match="JWT_SECRET_KY is not a setting; did you mean JWT_SECRET_KEY"):
        create_app({"ENVIRONMENT": "test", "JWT_SECRET_KY": SECRET})


def test_data_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """A data directory below a file is refused by the name of the setting."""
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match="set DATA_DIR"):
        create_app({"ENVIRONMENT": "test", "DATA_DIR": str(tmp_path / "file" / "data")})


def test_every_setting_has_a_sentence() -> None:
    """Nobody adds a setting without saying what it does."""
    source = (Path(__file__).parents[2] / "sample_app" / "settings.py").read_text()
    lines = source.splitlines()

    for name in ShopSettings.__struct_fields__:
        at = next(number for number, line in enumerate(lines) if line.startswith(f"    {name}: "))
        assert lines[at + 1].startswith('    """'), name


def test_key_of_tokens_is_replaced(tmp_path: Path) -> None:
    """While JWT_SECRET_KEY is replaced, tokens of the key before are good, those of strangers are not."""
    base = {"ENVIRONMENT": "test", "DATA_DIR": str(tmp_path), "SECRET_KEY": SECRET}
    old, new = (
        create_app({**base, "JWT_SECRET_KEY": "o" * 40}),
        create_app({**base, "JWT_SECRET_KEY": "n" * 40, "JWT_SECRET_KEY_FALLBACKS": ["o" * 40]}),
    )
    over = create_app({**base, "JWT_SECRET_KEY": "n" * 40})
    with old.app_context():
        before = create_access_token(User(id=7))
    with new.app_context():
        after = create_access_token(User(id=7))

        assert decode_token(before)["sub"] == decode_token(after)["sub"] == "7"
    with over.app_context():
        assert decode_token(after)["sub"] == "7"
        with pytest.raises(InvalidSignatureError):
            decode_token(before)
    for app in (over, new, old):
        app.extensions["prod"].lifecycle.close()
