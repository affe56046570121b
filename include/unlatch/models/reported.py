"""Reports: what was found on one day, for people and for the next report to compare with."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from unlatch.models.base import Json, Value


@dataclass(frozen=True)
class Finding(Value):
    """One thing that somebody should look at.

    Attributes:
        kind: What sort of thing it is, in the report's words: `stale lock`, `leftover`, `overdue purge`, …
        subject: The instance, incident, guest or volume that it is about.
        words: What was seen.
        command: What to do about it: a command, or advice where no single command does.
    """

    kind: str
    subject: str
    words: str
    command: str


@dataclass(frozen=True)
class Report(Value):
    """A report as the store keeps it.

    Attributes:
        report: Its id.
        kind: `recheck` or `drill`.
        subject: Whom it is about: the drilled guest; empty for the whole fleet.
        at: When it was made.
        title: One line.
        content: `markdown` and `html` for people, and what the next one compares with.
    """

    report: str
    kind: str
    subject: str
    at: datetime
    title: str
    content: Json = field(default_factory=dict)
