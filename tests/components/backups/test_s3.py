"""Backups in a bucket, of a real server that speaks S3."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_prod.components.backups import s3
from flask_prod.components.backups.engine import Backups
from flask_prod.components.backups.manifest import BackupError
from tests.servers import HOST, Process, free_port, wait_for

from .conftest import KEY, Build

SECRET = "the-secret-of-the-bucket"


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run an S3 server with a bucket called backups."""
    from urllib.request import urlopen

    port = free_port()
    server = Process(tmp_path_factory.mktemp("s3"))
    server.launch([sys.executable, "-W", "ignore", "-m", "moto.server", "-H", HOST, "-p", str(port)])
    url = f"http://{HOST}:{port}"

    def answers() -> bool:
        try:
            with urlopen(url, timeout=1):
                return True
        except OSError:
            return False

    try:
        wait_for(answers, 30, "the S3 server's first answer")
        yield url
    finally:
        server.kill()


@pytest.fixture
def options(endpoint: str, request: pytest.FixtureRequest) -> dict[str, str]:
    """Give settings of a bucket of this test's own."""
    return {
        "BACKUP_URL": f"s3://{request.node.name.replace('_', '-').lower()[:60]}/daily",
        "BACKUP_S3_ENDPOINT": endpoint,
        "BACKUP_S3_ACCESS_KEY": "shop",
        "BACKUP_S3_SECRET_KEY": SECRET,
    }


@pytest.fixture
def backups(build: Build, sqlite_url: str, options: dict[str, str]) -> Iterator[Backups]:
    """Give backups in a bucket."""
    made = build(sqlite_url, BACKUP_KEY=KEY, **options)
    client = client_of(made)
    client.create_bucket(Bucket=bucket_of(made))
    yield made
    client.close()


def client_of(backups: Backups) -> Any:
    return s3._client(backups.settings)[0]


def bucket_of(backups: Backups) -> str:
    return backups.settings.url.removeprefix("s3://").partition("/")[0]


def test_there_and_back(backups: Backups, tmp_path: Path) -> None:
    """A backup in a bucket is listed, verified and restored."""
    made = backups.run()

    assert backups.all() == [made]
    backups.verify()
    backups.restore("latest", f"sqlite:///{tmp_path / 'copy.db'}")


def test_large_file(backups: Backups, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is larger than a part is uploaded in several, and comes back whole."""
    import os

    monkeypatch.setattr(s3, "PART", 5 * 1024**2)
    store = backups._store()
    data = os.urandom(13 * 1024**2)
    with store.create("large") as sink:
        for start in range(0, len(data), 1024**2):
            sink.write(data[start : start + 1024**2])

    assert store.names() == ["large"]
    with store.open("large") as stream:
        assert stream.read() == data


def test_failed_upload_leaves_nothing(backups: Backups, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload that breaks off is no file, and its parts are given up; a killed one's are a day later."""
    store = backups._store()
    with pytest.raises(RuntimeError, match="broken"), store.create("half") as sink:  # noqa: PT012  # as it happens
        sink.write(b"x" * (s3.PART + 1))
        raise RuntimeError("broken")
    client, bucket = client_of(backups), bucket_of(backups)
    assert "Uploads" not in client.list_multipart_uploads(Bucket=bucket)

    client.create_multipart_upload(Bucket=bucket, Key="daily/killed")
    with monkeypatch.context() as patch:
        patch.setattr(s3, "ABANDONED", 1e12)  # this server says of every upload that it began in 2010
        store.sweep()
    assert len(client.list_multipart_uploads(Bucket=bucket)["Uploads"]) == 1
    store.sweep()
    assert "Uploads" not in client.list_multipart_uploads(Bucket=bucket)
    assert store.names() == []
    client.close()


def test_delete(backups: Backups) -> None:
    """What is deleted is gone from the bucket, and may be deleted again."""
    first = backups.run()
    store = backups._store()
    store.delete(first.name + ".json")
    store.delete(first.name + ".backup")
    store.delete(first.name + ".backup")

    assert store.names() == []


def test_away(build: Build, sqlite_url: str, options: dict[str, str]) -> None:
    """A bucket that is not there is told with the server's words, and no secret."""
    backups = build(sqlite_url, **options)

    with pytest.raises(BackupError, match=r"s3://test-away/daily/ cannot be \w+: NoSuchBucket") as caught:
        backups.run()
    assert SECRET not in str(caught.value)
