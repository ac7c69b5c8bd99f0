"""Values over several processes: sums, restarts, the dead, and a directory that cannot be written."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flask_prod.components.metrics.exposition import merged
from flask_prod.components.metrics.store import FileStore
from tests.apps import MakeApp
from tests.servers import wait_for

from .conftest import Scrape

COUNTER = ("counter", ("hits", "hits_total"))
GAUGE = ("gauge_livesum", ("running", "running"))


@pytest.fixture
def failures() -> list[OSError]:
    return []


def open_store(folder: Path, failures: list[OSError]) -> FileStore:
    return FileStore(folder, "shop", failures.append)


def total(store: FileStore, name: str) -> float:
    samples = (sample for metric in merged(store) for sample in metric.samples)
    return sum(sample.value for sample in samples if sample.name == name)


def test_processes_add_up(tmp_path: Path, failures: list[OSError]) -> None:
    """Stores of one owner hold slots of their own, and a scrape of either sees the sum."""
    first, second = open_store(tmp_path, failures), open_store(tmp_path, failures)
    for store in (first, second):
        store.value(*COUNTER, [], "Hits").inc(2)

    assert total(first, "hits_total") == total(second, "hits_total") == 4
    assert [slot for slot, _ in sorted(first.living())] == [0, 1]
    first.close()
    second.close()


def test_restart(tmp_path: Path, failures: list[OSError]) -> None:
    """A successor goes on from the counter of the dead, and not from its gauge."""
    before = open_store(tmp_path, failures)
    before.value(*COUNTER, [], "Hits").inc(5)
    before.value(*GAUGE, [], "Running").inc(1)
    before.close()

    after = open_store(tmp_path, failures)
    hits, running = after.value(*COUNTER, [], "Hits"), after.value(*GAUGE, [], "Running")
    hits.inc(1)

    assert hits.get() == 6
    assert running.get() == total(after, "running") == 0
    after.close()


def test_restart_of_the_service(tmp_path: Path, failures: list[OSError]) -> None:
    """Once the parent has ended too, a new life begins: counters start at zero, of all slots."""
    code = (
        "import os, sys; from pathlib import Path\n"
        "from flask_prod.components.metrics.store import FileStore\n"
        "for _ in range(2):\n"
        "    if os.fork() == 0:\n"
        "        store = FileStore(Path(sys.argv[1]), 'shop', print)\n"
        "        store.value('counter', ('hits', 'hits_total'), [], 'Hits').inc(3)\n"
        "        os.read(0, 1); os._exit(0)\n"
        "sys.stdin.read(); [os.wait() for _ in range(2)]\n"
    )
    master = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE)
    reader = open_store(tmp_path, failures)
    wait_for(lambda: tmp_path.exists() and total(reader, "hits_total") == 6)
    master.communicate()

    store = open_store(tmp_path, failures)
    store.value(*COUNTER, [], "Hits").inc(1)

    assert total(store, "hits_total") == 1
    store.close()


def test_gauge_of_the_dead(tmp_path: Path, failures: list[OSError]) -> None:
    """A process that was killed leaves its counter in the scrape, and no live gauge."""
    code = (
        "import os, sys; from pathlib import Path\n"
        "from flask_prod.components.metrics.store import FileStore\n"
        "store = FileStore(Path(sys.argv[1]), 'shop', print)\n"
        "store.value('counter', ('hits', 'hits_total'), [], 'Hits').inc(3)\n"
        "store.value('gauge_livesum', ('running', 'running'), [], 'Running').inc(1)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)

    store = open_store(tmp_path, failures)

    assert total(store, "hits_total") == 3
    assert total(store, "running") == 0


def test_fork(tmp_path: Path, failures: list[OSError]) -> None:
    """A forked child counts in files of its own, starting from zero, and disturbs its parent's in nothing."""
    store = open_store(tmp_path, failures)
    hits = store.value(*COUNTER, [], "Hits")
    hits.inc(10)
    child = os.fork()
    if child == 0:
        store.after_fork()
        hits.inc(1)
        os._exit(0 if hits.get() == 1 and len(list(store.living())) == 2 else 1)
    _, status = os.waitpid(child, 0)
    hits.inc(10)

    assert status == 0
    assert total(store, "hits_total") == 21
    store.close()


def test_full_disk(tmp_path: Path, failures: list[OSError], monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk without room costs the values that found none, never the process, and is told once."""

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store = open_store(tmp_path, failures)
    hits = store.value(*COUNTER, [], "Hits")
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        for number in range(2000):
            store.value("counter", ("more", "more_total"), [("number", str(number))], "More" * 20).inc(1)
        hits.inc(1)

    assert [error.errno for error in failures] == [errno.ENOSPC]
    assert total(store, "hits_total") == 1
    store.close()


def test_file_size_limit(tmp_path: Path) -> None:
    """A limit of the kernel's, met for real: the process lives and counts on."""
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from flask_prod.components.metrics.store import FileStore\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "store = FileStore(Path(sys.argv[1]), 'shop', lambda error: print('told'))\n"
        "values = [store.value('counter', ('m', 'm_total'), [('n', str(n))], 'x' * 50) for n in range(3000)]\n"
        "[value.inc(1) for value in values]\n"
        "print(sum(value.get() for value in values))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )

    assert result.stdout.split() == ["told", "3000.0"]


def test_broken_file(tmp_path: Path, failures: list[OSError]) -> None:
    """A file that a crash left half written is replaced by its heir and left out by the others."""
    (tmp_path / "counter_shop.0.db").write_bytes(b"\xff\xff\x00\x00" + b"\x07" * 70_000)
    (tmp_path / "counter_shop.7.db").write_bytes(b"\x01")
    store = open_store(tmp_path, failures)
    store.value(*COUNTER, [], "Hits").inc(1)

    assert total(store, "hits_total") == 1
    store.close()


def test_broken_directory(
    make_app: MakeApp, scrape: Scrape, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An application whose metrics directory cannot be made serves and is scraped, each process for itself."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "file" / "below"))
    app = make_app(only=("metrics",))

    assert app.test_client().get("/").status_code == 404
    assert scrape(app).total("flask_http_request_total") == 1


def test_kit_metrics(make_app: MakeApp, scrape: Scrape, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over several processes the scrape has the same names, and tells of all living processes."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "made"))
    app = make_app(only=("metrics",))
    app.test_client().get("/")

    seen = scrape(app)

    assert seen.total("flask_http_request_total", {"status": "404"}) == 1
    assert seen.total("flask_http_request_duration_seconds_count") == 1
    assert seen.total("flask_prod_http_requests_in_flight") == 0
    assert seen.has("flask_exporter_info")
    assert seen.total("process_resident_memory_bytes") > 1_000_000
    assert seen.has("python_info")
    assert not any(sample.labels.get("pid") for sample in seen.samples)
