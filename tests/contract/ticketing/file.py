"""How the contract test looks into tickets that are files."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from unlatch.ticketing import TicketSettings

AT = datetime(2014, 10, 18, 17, 12, tzinfo=UTC)


def settings(directory: Path) -> TicketSettings:
    return TicketSettings(directory=directory / "tickets", now=lambda: AT)


def tickets(directory: Path) -> list[str]:
    return sorted(str(file) for file in (directory / "tickets").glob("*.md"))


def title(reference: str) -> str:
    return Path(reference).read_text().splitlines()[0].removeprefix("# ")


def state(reference: str) -> str:
    return Path(reference).read_text().partition("**State:** ")[2].splitlines()[0]


def body(reference: str) -> str:
    return re.split(r"^## ", Path(reference).read_text(), flags=re.MULTILINE)[0]


def comments(reference: str) -> list[str]:
    """The comments' texts in their order."""
    parts = re.split(r"^## .* UTC$\n\n<!-- unlatch: comment .* -->\n", Path(reference).read_text(), flags=re.MULTILINE)
    return [part.strip() for part in parts[1:]]
