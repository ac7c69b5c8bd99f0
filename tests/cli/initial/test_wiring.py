"""The lines of code: at the right place in odd sources, in their form, or left to their author with a reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_prod.cli.initial.origin import origins, wanted
from flask_prod.cli.initial.project import Project
from flask_prod.cli.initial.text import ByHand
from flask_prod.cli.initial.wiring import wire

Wired = Callable[..., str]


@pytest.fixture
def wired(tmp_path: Path) -> Wired:
    """Give a function that writes `app.py` (and other files) and returns it with its kit."""

    def run(source: str | bytes, spec: str = "app", show: str = "app.py", **others: str) -> str:
        (tmp_path / "app.py").write_bytes(source if isinstance(source, bytes) else source.encode())
        for name, text in others.items():
            (tmp_path / f"{name}.py").write_text(text)
        project = Project(tmp_path)
        (origin,) = origins(project, wanted(project, spec))
        for module in wire(project, origin):
            module.path.write_bytes(module.text.result())
        return (tmp_path / show).read_bytes().decode()

    return run


@pytest.fixture
def lives(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, Callable[[dict[str, Any]], Flask]], None]]:
    """Give a function that runs a source and asserts that its application has a kit."""
    monkeypatch.setenv("ENVIRONMENT", "test")
    made: list[Flask] = []

    def check(source: str, find: Callable[[dict[str, Any]], Flask]) -> None:
        namespace: dict[str, Any] = {"__name__": "app"}
        exec(compile(source, "app.py", "exec"), namespace)
        made.append(find(namespace))
        assert made[-1].test_client().get("/health/live").status_code == 200

    yield check
    for app in made:
        app.extensions["prod"].lifecycle.close()


RUNNING = {
    "module": (
        "from flask import Flask\n\napp = Flask('x')\n\n\n@app.get('/')\ndef f(): return ''\n",
        "from flask import Flask\nfrom flask_prod import ProdKit\n\nprod = ProdKit()\napp = Flask('x')\n"
        "prod.init_app(app)\n\n\n@app.get('/')\ndef f(): return ''\n",
    ),
    "annotated": (
        "from flask import Flask\napp: Flask = Flask('x')\napp.config.update(\n    A=1,\n)  # all\n",
        "from flask import Flask\nfrom flask_prod import ProdKit\n\nprod = ProdKit()\napp: Flask = Flask('x')\n"
        "app.config.update(\n    A=1,\n)  # all\nprod.init_app(app)\n",
    ),
    "module of flask": (
        "import flask\n\napp = flask.Flask('x'); app.config['A'] = 1\napp.secret_key = 'k'",
        "import flask\nfrom flask_prod import ProdKit\n\nprod = ProdKit()\napp = flask.Flask('x'); "
        "app.config['A'] = 1\napp.secret_key = 'k'\nprod.init_app(app)\n",
    ),
    "subclass": (
        "from flask import Flask\n\nclass Site(Flask):\n    pass\n\napp = Site('x')\n",
        "from flask import Flask\nfrom flask_prod import ProdKit\n\nclass Site(Flask):\n    pass\n\n"
        "prod = ProdKit()\napp = Site('x')\nprod.init_app(app)\n",
    ),
    "if": (
        "import os\nfrom flask import Flask\n\nif os.environ.get('X'):\n    app = Flask('x')\nelse:\n"
        "    app = Flask('y')\napp.debug = False\n\nif __name__ == '__main__':\n    app.run()\n",
        "import os\nfrom flask import Flask\nfrom flask_prod import ProdKit\n\nprod = ProdKit()\n"
        "if os.environ.get('X'):\n    app = Flask('x')\nelse:\n    app = Flask('y')\napp.debug = False\n"
        "prod.init_app(app)\n\nif __name__ == '__main__':\n    app.run()\n",
    ),
    "tabs": (
        "from flask import Flask\n\ndef create_app():\n\tapp = Flask('x')\n\treturn app\n",
        "from flask import Flask\nfrom flask_prod import ProdKit\n\nprod = ProdKit()\n\ndef create_app():\n"
        "\tapp = Flask('x')\n\tprod.init_app(app)\n\treturn app\n",
    ),
    "crlf": (
        "from flask import Flask\r\n\r\ndef create_app():\r\n    app = Flask('x')\r\n    return app\r\n",
        "from flask import Flask\r\nfrom flask_prod import ProdKit\r\n\r\nprod = ProdKit()\r\n\r\n"
        "def create_app():\r\n    app = Flask('x')\r\n    prod.init_app(app)\r\n    return app\r\n",
    ),
    "decorated": (
        "from functools import cache\n\nfrom flask import Flask\n\n\n@cache\ndef create_app():\n"
        "    app = Flask('x')\n    return app\n",
        "from functools import cache\n\nfrom flask import Flask\nfrom flask_prod import ProdKit\n\n"
        "prod = ProdKit()\n\n\n@cache\ndef create_app():\n    app = Flask('x')\n    prod.init_app(app)\n"
        "    return app\n",
    ),
    "several returns": (
        "from flask import Flask\n\ndef create_app(bare=False):\n    app = Flask('x')\n    def inner():\n"
        "        return app\n    if bare:\n        return app  # no views\n    with app.app_context():\n"
        "        return app\n",
        "from flask import Flask\nfrom flask_prod import ProdKit\n\nprod = ProdKit()\n\n"
        "def create_app(bare=False):\n    app = Flask('x')\n    def inner():\n        return app\n"
        "    if bare:\n        prod.init_app(app)\n        return app  # no views\n"
        "    with app.app_context():\n        prod.init_app(app)\n        return app\n",
    ),
    "helper": (
        "from flask import Flask\n\ndef build(import_name, **kwargs):\n    site = Flask(import_name, **kwargs)\n"
        "    return site\n\ndef create_app():\n    return build('x')\n",
        "from flask import Flask\nfrom flask_prod import ProdKit\n\nprod = ProdKit()\n\n"
        "def build(import_name, **kwargs):\n    site = Flask(import_name, **kwargs)\n    prod.init_app(site)\n"
        "    return site\n\ndef create_app():\n    return build('x')\n",
    ),
    "late import of flask": (
        '"""Doc."""\ndef create_app():\n    from flask import Flask\n    app = Flask("x")\n    return app\n',
        '"""Doc."""\nfrom flask_prod import ProdKit\n\nprod = ProdKit()\n\ndef create_app():\n'
        '    from flask import Flask\n    app = Flask("x")\n    prod.init_app(app)\n    return app\n',
    ),
    "name is taken": (
        "from flask import Flask\n\nprod = True\napp = Flask('x')\n",
        "from flask import Flask\nfrom flask_prod import ProdKit\n\nprod = True\n\nproduction = ProdKit()\n"
        "app = Flask('x')\nproduction.init_app(app)\n",
    ),
    "sorted imports": (
        "from flask import Flask\nfrom flask_cors import cross_origin\nfrom werkzeug.utils import redirect\n"
        "ANY = 'ä'; app = Flask('x')\n",
        "from flask import Flask\nfrom flask_cors import cross_origin\nfrom flask_prod import ProdKit\n"
        "from werkzeug.utils import redirect\n\nprod = ProdKit()\nANY = 'ä'; app = Flask('x')\n"
        "prod.init_app(app)\n",
    ),
    "extensions in the module": (
        "from flask import Flask\nfrom flask_caching import Cache\n\ncache = Cache()  # simple\n\n\n"
        "def create_app():\n    app = Flask('x')\n    return app\n",
        "from flask import Flask\nfrom flask_caching import Cache\nfrom flask_prod import ProdKit\n\n"
        "cache = Cache()  # simple\nprod = ProdKit()\n\n\ndef create_app():\n    app = Flask('x')\n"
        "    prod.init_app(app)\n    return app\n",
    ),
    "a kit that is not installed": (
        "from flask import Flask\nfrom flask_prod import ProdKit as Kit\n\nkit = Kit()\napp = Flask('x')\n",
        "from flask import Flask\nfrom flask_prod import ProdKit as Kit\n\nkit = Kit()\napp = Flask('x')\n"
        "kit.init_app(app)\n",
    ),
}


@pytest.mark.parametrize("what", RUNNING)
def test_source(what: str, wired: Wired, lives: Callable[..., None]) -> None:
    """Each source gets exactly these lines, runs with its kit, and gets none the second time."""
    source, expected = RUNNING[what]
    result = wired(source)

    assert result == expected
    assert wired(result) == result
    lives(result, lambda names: names["create_app"]() if "create_app" in names else names["app"])


def test_odd_bytes(wired: Wired, tmp_path: Path) -> None:
    """A file of another encoding, with a form feed in it and no end of its last line, keeps all of that."""
    source = "# -*- coding: latin-1 -*-\nfrom flask import Flask\n\x0cNAME = 'Käse'\napp = Flask(NAME)"
    wired(source.encode("latin-1"), show="other.py", other="")

    raw = (tmp_path / "app.py").read_bytes()
    assert (
        "\n\x0cNAME = 'Käse'\n\nprod = ProdKit()\napp = Flask(NAME)\nprod.init_app(app)\n".encode("latin-1") in raw
    )


HEAD = "from flask import Flask\n"

BY_HAND = {
    "async": ("async def create_app():\n    app = Flask('x')\n    return app\n", "async"),
    "no name": ("def create_app():\n    return Flask('x')\n", "without a name"),
    "main": ("if __name__ == '__main__':\n    app = Flask('x')\n", "gunicorn finds no application"),
    "no return": ("def create_app():\n    global app\n    app = Flask('x')\n", "does not return app"),
    "one line": ("def create_app(x=1):\n    app = Flask('x')\n    if x: return app\n", "the `return` in line 4"),
    "wrapped": ("def create_app():\n    app = Flask('x')\n    app = W(app)\n    return app\n", "from line 4 on"),
    "method": ("class Shop:\n    def f(self):\n        self.app = Flask('x')\n", "does not return self.app"),
}


@pytest.mark.parametrize("what", BY_HAND)
def test_by_hand(what: str, wired: Wired, tmp_path: Path) -> None:
    """Where the place cannot be told nothing changes; the message has file, line, reason and what to write."""
    source, reason = HEAD + BY_HAND[what][0], BY_HAND[what][1]
    with pytest.raises(ByHand) as caught:
        wired(source)

    message = str(caught.value)
    assert message.startswith("app.py, line ")
    assert reason in message
    assert "Flask('x')" in source.splitlines()[int(message.split(":")[0].split()[-1]) - 1]
    assert "`from flask_prod import ProdKit`" in message
    assert (tmp_path / "app.py").read_text() == source


LONG = f"from extensions import db as {'b' * 60}"

IMPORTS = {
    "extended": ("from extensions import db", "from extensions import db, prod"),
    "renamed": ("from extensions import db as base", "from extensions import db as base, prod"),
    "not ASCII": ("from extensions import db as bücher  # ü", "from extensions import db as bücher, prod  # ü"),
    "parenthesised": ("from extensions import (db)", "from extensions import (db, prod)"),
    "bracket": ("from extensions import (\n    db)", "from extensions import (\n    db, prod)"),
    "backslash": ("from extensions import \\\n    db", "from extensions import \\\n    db, prod"),
    "lines": ("from extensions import (\n    db,  # 1\n)", "from extensions import (\n    db,  # 1\n    prod,\n)"),
    "no comma": ("from extensions import (\n    db  #1\n)", "from extensions import (\n    db,  #1\n    prod,\n)"),
    "odd": ("from extensions import (db,\n)", "from extensions import (db,\n)"),
    "long": (LONG, LONG),
    "star": ("from extensions import *", "from extensions import *"),
}  # fmt: skip


@pytest.mark.parametrize("what", IMPORTS)
def test_import_of_the_kit(what: str, wired: Wired) -> None:
    """The import of the extensions is extended in its own form, or gets a sibling below."""
    before, after = IMPORTS[what]
    rest = "from flask import Flask\n\ndef create_app():\n    app = Flask('x')\n    return app\n"
    result = wired(f"{before}\n{rest}", extensions="db = dict()\n")

    sibling = "from extensions import prod\n" if before == after else ""
    installed = rest.replace("    return", "    prod.init_app(app)\n    return")
    assert result == f"{after}\n{installed}".replace("import Flask\n", f"import Flask\n{sibling}")
    compile(result, "app.py", "exec")


def test_module_of_extensions(wired: Wired, tmp_path: Path) -> None:
    """Who imports the module of extensions as a whole goes on to."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").write_text(
        "from flask import Flask\n\nfrom . import extensions as ext\n\n\ndef create_app():\n    app = Flask('x')\n"
        "    ext.cache.init_app(app)\n    return app\n"
    )
    (tmp_path / "shop" / "extensions.py").write_text(
        "from flask_caching import Cache\nfrom flask_migrate import Migrate\n\ncache = Cache()\n"
    )

    result = wired("", spec="shop", show="shop/__init__.py")

    assert "    ext.cache.init_app(app)\n    ext.prod.init_app(app)\n    return app\n" in result
    assert (tmp_path / "shop" / "extensions.py").read_text() == (
        "from flask_caching import Cache\nfrom flask_migrate import Migrate\nfrom flask_prod import ProdKit\n\n"
        "cache = Cache()\nprod = ProdKit()\n"
    )


def test_imports_at_the_bottom(wired: Wired) -> None:
    """A module whose views are imported at its end gets its kit before them."""
    result = wired(
        "from flask import Flask\n\napp = Flask('x')\napp.config['A'] = 1\n\nimport routes\n",
        routes="from app import app\n",
    )

    assert result.endswith("app.config['A'] = 1\nprod.init_app(app)\n\nimport routes\n")


@pytest.mark.parametrize("end", ["if __name__ == '__main__':\n    app.debug = serve(app)\n", "app.run()\n"])
def test_before_serving(end: str, wired: Wired) -> None:
    """What serves the application comes after its kit, and what gunicorn never runs is no place for it."""
    result = wired(f"from flask import Flask\n\napp = Flask('x')\n\n{end}")

    assert result.endswith(f"\nprod.init_app(app)\n\n{end}")


def test_followed_from_wsgi(wired: Wired) -> None:
    """From a module that only imports the factory, the factory is found."""
    result = wired(
        "from flask import Flask\ndef make_app():\n    app = Flask('x')\n    return app\n",
        spec="serve:application",
        serve="from app import make_app\napplication = make_app()\n",
    )

    assert "prod.init_app(app)" in result


@pytest.mark.parametrize("ready", ["ProdKit(app)", "prod = ProdKit(app)"])
def test_kit_made_with_its_application(ready: str, wired: Wired) -> None:
    """An application that has its kit already gets nothing."""
    source = f"from flask import Flask\nfrom flask_prod import ProdKit\napp = Flask('x')\n{ready}\n"

    assert wired(source) == source
