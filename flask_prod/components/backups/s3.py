"""A bucket of Amazon S3, or of a server that speaks its language."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from flask_prod.core.errors import MissingExtra

from .manifest import BackupError
from .settings import BackupSettings
from .stores import ABANDONED, Writer, reader

PART = 16 * 1024**2
"""Bytes of one part; S3 wants at least 5 MB and at most 10,000 parts, so later ones are larger."""


class S3Store:
    """Files below a prefix of a bucket; each appears when its upload is completed."""

    def __init__(self, settings: BackupSettings) -> None:
        parts = urlsplit(settings.url)
        self._bucket = parts.netloc
        self._prefix = f"{parts.path.strip('/')}/".lstrip("/")
        self._client, self._failure = _client(settings)

    @contextmanager
    def create(self, name: str) -> Iterator[Writer]:
        """Upload in parts; the last call makes them a file, a failure throws them away."""
        with self._told("written"):
            upload = _Upload(self._client, self._bucket, self._prefix + name)
            try:
                yield upload
                upload.complete()
            except BaseException:
                with suppress(*self._failure):
                    upload.abort()
                raise

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Download a file."""
        with self._told("read"):
            body = self._client.get_object(Bucket=self._bucket, Key=self._prefix + name)["Body"]
            with closing(body):
                yield reader(body)

    def names(self) -> list[str]:
        """Return the names of all files."""
        with self._told("read"):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix
            )
            keys = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
        return [name for key in keys if "/" not in (name := key.removeprefix(self._prefix))]

    def delete(self, name: str) -> None:
        """Remove a file."""
        with self._told("written"):
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + name)

    def sweep(self) -> None:
        """Throw away uploads that began a day ago."""
        with self._told("read"):
            found = self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=self._prefix)
            for upload in found.get("Uploads", ()):
                if (datetime.now(UTC) - upload["Initiated"]).total_seconds() > ABANDONED:
                    self._client.abort_multipart_upload(
                        Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._failure as error:
            raise BackupError(f"s3://{self._bucket}/{self._prefix} cannot be {what}: {_words(error)}") from error


class _Upload:
    """One file on its way, a part at a time."""

    def __init__(self, client: Any, bucket: str, key: str) -> None:
        self._client = client
        self._where = {"Bucket": bucket, "Key": key}
        self._id = client.create_multipart_upload(**self._where)["UploadId"]
        self._held = bytearray()
        self._parts: list[dict[str, object]] = []

    def write(self, data: bytes) -> None:
        """Send a part whenever there is one."""
        self._held += data
        if len(self._held) >= PART * (1 + len(self._parts) // 1000):
            self._send()

    def complete(self) -> None:
        """Send what is left, and have the server put the parts together."""
        if self._held or not self._parts:
            self._send()
        self._client.complete_multipart_upload(
            **self._where, UploadId=self._id, MultipartUpload={"Parts": self._parts}
        )

    def abort(self) -> None:
        """Have the server forget the parts."""
        self._client.abort_multipart_upload(**self._where, UploadId=self._id)

    def _send(self) -> None:
        number = len(self._parts) + 1
        answer = self._client.upload_part(
            **self._where, UploadId=self._id, PartNumber=number, Body=bytes(self._held)
        )
        self._parts.append({"PartNumber": number, "ETag": answer["ETag"]})
        self._held.clear()


def _client(settings: BackupSettings) -> tuple[Any, tuple[type[Exception], ...]]:
    """Return boto3's client and what it raises."""
    try:
        from boto3.session import Session
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError as error:
        raise MissingExtra("BACKUP_URL", "boto3", "s3") from error
    given = {
        "endpoint_url": settings.s3_endpoint,
        "region_name": settings.s3_region or ("us-east-1" if settings.s3_endpoint else ""),
        "aws_access_key_id": settings.s3_access_key.reveal(),
        "aws_secret_access_key": settings.s3_secret_key.reveal(),
    }
    style = {"addressing_style": "path"} if settings.s3_endpoint else {}
    config = Config(
        connect_timeout=5, read_timeout=60, retries={"total_max_attempts": 4, "mode": "standard"}, s3=style
    )
    client = Session().client("s3", config=config, **{key: value for key, value in given.items() if value})
    return client, (BotoCoreError, ClientError)


def _words(error: Exception) -> str:
    """Return what the server said; boto3's own text names no secret."""
    said = getattr(error, "response", {}).get("Error", {})
    return f"{said['Code']}, {said.get('Message', '')}".strip(", ") if said.get("Code") else str(error)
