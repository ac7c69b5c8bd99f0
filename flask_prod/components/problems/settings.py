"""What can be set about error answers."""

from __future__ import annotations

from typing import ClassVar

from flask_prod.core.settings import Section


class ProblemSettings(Section, frozen=True, kw_only=True):
    """What an error answer says beside its status."""

    prefix: ClassVar[str] = "ERROR_"

    type_url: str = ""
    """Where problem types are explained: the status is put behind it (`https://docs.example.com/errors/`);
    empty gives `about:blank`, which says that the status explains itself."""

    contact: str = ""
    """One sentence for people on error pages: whom to tell, along with the request id."""
