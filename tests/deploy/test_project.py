"""What an image is built of: read from projects of different kinds."""

from __future__ import annotations

from pathlib import Path

import pytest

from flask_prod.deploy.project import Project


def project(root: Path, entry: str = "shop:create_app()", flask_app: str = "shop", home: str = "shop") -> Project:
    """Return the project at *root*, whose application lives in its folder *home*."""
    return Project(root, entry, flask_app, root / home)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ('[project]\nname = "shop"\n', True),
        ('[tool.poetry]\nname = "shop"\n', True),
        ("[tool.ruff]\nline-length = 100\n", False),
        ("[project\n", False),
        (None, False),
    ],
)
def test_is_package(tmp_path: Path, text: str | None, answer: bool) -> None:
    """Only what says its name can be built by pip; a pyproject.toml for tools alone, or a broken one, cannot."""
    if text is not None:
        (tmp_path / "pyproject.toml").write_text(text)

    assert project(tmp_path).is_package is answer


@pytest.mark.parametrize(
    ("urls", "address"),
    [
        ('Repository = "https://github.com/acme/shop"', "https://github.com/acme/shop/blob/HEAD/"),
        ('source = "https://github.com/acme/shop.git/"', "https://github.com/acme/shop/blob/HEAD/"),
        ('Homepage = "https://gitlab.acme.com/web/shop"', "https://gitlab.acme.com/web/shop/-/blob/HEAD/"),
        ('Homepage = "https://shop.example.com"\nSource = "https://git.example.com/acme/shop"', ""),
        ('Homepage = "https://github.com/acme"', ""),
        ("", ""),
    ],
)
def test_shown_at(tmp_path: Path, urls: str, address: str) -> None:
    """Where the repository shows a file is known of GitHub and GitLab, and guessed of nobody else."""
    (tmp_path / "pyproject.toml").write_text(f'[project]\nname = "shop"\n[project.urls]\n{urls}\n')

    assert project(tmp_path).shown_at == address


def test_sources(tmp_path: Path) -> None:
    """The modules that gunicorn loads and FLASK_APP names, the application, and what lies beside; nothing else."""
    for folder in ("shop", "migrations", "tests"):
        (tmp_path / folder).mkdir()
    for file in ("wsgi.py", "gunicorn.conf.py", "Makefile"):
        (tmp_path / file).touch()

    assert project(tmp_path).sources == ["gunicorn.conf.py", "migrations/", "shop/"]
    assert project(tmp_path, "wsgi:app", "wsgi.py").sources == ["gunicorn.conf.py", "migrations/", "wsgi.py"]
    (tmp_path / "shop/__init__.py").touch()
    assert project(tmp_path, "wsgi:app", "wsgi.py").sources == [
        "gunicorn.conf.py", "migrations/", "shop/", "wsgi.py",
    ]  # fmt: skip
    assert project(tmp_path, "shop.web:app", "shop/web.py").sources == ["gunicorn.conf.py", "migrations/", "shop/"]
    assert project(tmp_path, "elsewhere:app", "elsewhere", "").sources == ["gunicorn.conf.py", "migrations/"]


def test_profiles(tmp_path: Path) -> None:
    """Profiles within the application are named for the master, which looks in the working directory only."""
    (tmp_path / "shop/config").mkdir(parents=True)

    assert project(tmp_path).profiles == "shop/config"

    (tmp_path / "config").mkdir()
    assert project(tmp_path).profiles == ""


def test_profiles_through_a_link(tmp_path: Path) -> None:
    """An application that was reached by a link is found where the link is."""
    (tmp_path / "real/shop/config").mkdir(parents=True)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/shop").symlink_to(tmp_path / "real/shop")

    found = Project(tmp_path / "linked", "shop:app", "shop", tmp_path / "real/shop")

    assert found.profiles == "shop/config"


def test_constraints(tmp_path: Path) -> None:
    """A file that pins versions is used where there is one."""
    assert project(tmp_path).constraints == ""

    (tmp_path / "constraints.txt").touch()
    assert project(tmp_path).constraints == "constraints.txt"
