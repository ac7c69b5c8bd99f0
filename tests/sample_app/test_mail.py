from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from email import message_from_bytes
from email.message import EmailMessage
from pathlib import Path

import pytest

from flask_prod.core.values import SecretUrl
from sample_app.mail import confirmation, deliver, euros, write_once
from sample_app.models import Order, OrderItem, User, now
from sample_app.settings import ShopSettings


class SmtpSink:
    """A mail server of one conversation at a time that keeps what it is given."""

    def __init__(self) -> None:
        self.mails: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"smtp://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, connection.makefile("rwb") as stream:
                self._talk(stream)

    def _talk(self, stream: object) -> None:
        def say(line: bytes) -> None:
            stream.write(line + b"\r\n")  # type: ignore[attr-defined]
            stream.flush()  # type: ignore[attr-defined]

        say(b"220 sink")
        for line in stream:  # type: ignore[attr-defined]
            word = line[:4].upper()
            if word == b"DATA":
                say(b"354 go on")
                self.mails.append(b"".join(iter(stream.readline, b".\r\n")))  # type: ignore[attr-defined]
            elif word == b"QUIT":
                say(b"221 bye")
                return
            say(b"250 ok")

    def close(self) -> None:
        """Stop listening."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)


@pytest.fixture
def smtp() -> Iterator[SmtpSink]:
    """Run a mail server."""
    sink = SmtpSink()
    yield sink
    sink.close()


def test_confirmation_says_what_was_bought() -> None:
    """The mail names the customer, every line, and the total."""
    text = _mail().get_content()

    assert "Dear Ada," in text
    assert "2 x Mug: €25.00" in text
    assert "Total: €25.00" in text
    assert _mail()["Subject"] == "Your order 7 at Harbour Goods"


def test_newline_in_a_name_adds_no_header() -> None:
    """A hostile name stays in the body."""
    mail = _mail(name="Ada\r\nBcc: everybody@example.com")

    assert mail["Bcc"] is None
    assert message_from_bytes(mail.as_bytes())["Bcc"] is None


def test_mail_goes_into_the_folder(tmp_path: Path) -> None:
    """Without a mail server the mail is a file called after its order."""
    deliver(_mail(), "7", ShopSettings(data_dir=str(tmp_path)))

    assert [path.name for path in (tmp_path / "mails").iterdir()] == ["7.eml"]
    assert message_from_bytes((tmp_path / "mails" / "7.eml").read_bytes())["To"] == "ada@example.com"


def test_mail_goes_to_the_server(tmp_path: Path, smtp: SmtpSink) -> None:
    """With MAIL_URL it is sent there, and no file is written."""
    deliver(_mail(), "7", ShopSettings(data_dir=str(tmp_path), mail_url=SecretUrl(smtp.url)))

    assert message_from_bytes(smtp.mails[0])["Message-ID"] == "<order-7@harbour-goods.example>"
    assert list(tmp_path.iterdir()) == []


def test_file_is_written_once_and_whole(tmp_path: Path) -> None:
    """Of sixteen threads that write one file, one does; what is there is whole, and no draft is left."""
    path = tmp_path / "7.eml"
    results: list[bool] = []
    contents = [bytes([65 + number]) * 100_000 for number in range(16)]
    threads = [threading.Thread(target=lambda c=c: results.append(write_once(path, c))) for c in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert sorted(results) == [False] * 15 + [True]
    assert path.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("cents", "text"), [(0, "€0.00"), (5, "€0.05"), (123456, "€1,234.56")])
def test_euros_are_written_for_people(cents: int, text: str) -> None:
    """Amounts have two decimals and groups of three."""
    assert euros(cents) == text


def _mail(name: str = "Ada") -> EmailMessage:
    order = Order(
        id=7, total_cents=2500, address="", created_at=now(), user=User(name=name, email="ada@example.com")
    )
    order.items = [OrderItem(name="Mug", price_cents=1250, quantity=2)]
    return confirmation(order, "Shop <shop@example.com>")
