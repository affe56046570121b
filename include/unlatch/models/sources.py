"""What is known of the logs themselves: whether they are read, and whether they say anything."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from unlatch.models.base import Value


class SourceState(StrEnum):
    """How a log is doing. Everything but `ok` is told to people."""

    OK = "ok"
    UNREACHABLE = "unreachable"  # the hypervisor does not answer: it is tried again and again
    MISSING = "missing"  # it answers, but has no such log
    WRONG = "wrong"  # somebody must correct something: a key, a right, an inventory
    SILENT = "silent"  # it is read, and has said nothing for longer than its limit


@dataclass(frozen=True)
class Sight(Value):
    """What one look, or one time of following, saw of a log; never `silent`, which is for the limit to say.

    Attributes:
        state: How it went.
        words: What is wrong, for a person.
        reached_at: When it was last reached.
        line_at: When something new was last in it, by the clock of whoever looked.
    """

    state: SourceState
    words: str = ""
    reached_at: datetime | None = None
    line_at: datetime | None = None


@dataclass(frozen=True)
class SourceHealth(Value):
    """How a log is doing, as the store keeps it.

    Attributes:
        source: Its name: the hypervisor, the format and the place.
        hypervisor: Whose log it is.
        state: How it is doing.
        since: Since when it has been doing so.
        words: What is wrong, for a person; empty when nothing is.
        reached_at: When it was last reached.
        line_at: When something new was last in it.
        told_at: When people were told of this state; None: they have not been yet.
    """

    source: str
    hypervisor: str
    state: SourceState
    since: datetime
    words: str = ""
    reached_at: datetime | None = None
    line_at: datetime | None = None
    told_at: datetime | None = None
