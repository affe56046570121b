"""`hypervisors` of the inventory, with the logs that tell of crashes."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Discriminator, Field, Tag, model_validator

from unlatch import models
from unlatch.inventory.values import Absolute, Argv, ConnId, Entry, Match, Name, Positive, Unit, Zone


class FileLogEntry(Entry):
    """One of a hypervisor's `logs`. The time zone is never guessed: a wrong one would move a death in time."""

    format: Name
    path: Absolute
    timezone: Zone
    local: bool = False
    silent_after_s: Positive | None = None


class JournalEntry(Entry):
    """`journal` of a log: which entries."""

    unit: Unit | None = None
    match: Annotated[list[Match], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.unit is None) == (self.match is None):
            raise ValueError("needs either unit, or match: [FIELD=value, …]")
        return self

    def arguments(self) -> list[str]:
        """What selects them, for journalctl."""
        return self.match or [f"--unit={self.unit}"]


class JournalLogEntry(Entry):
    """The same for entries of the journal, which carries its own moments in UTC."""

    format: Name
    journal: JournalEntry
    local: bool = False
    silent_after_s: Positive | None = None


FILE_LOG, JOURNAL_LOG = "[file]", "[journal]"
"""Which of the two a complaint is about; no part of the key that people read."""


def _kind_of_log(given: object) -> str:
    keys = given if isinstance(given, dict) else vars(given) if isinstance(given, Entry) else ()
    return JOURNAL_LOG if "journal" in keys else FILE_LOG


LogEntry = Annotated[
    Annotated[FileLogEntry, Tag(FILE_LOG)] | Annotated[JournalLogEntry, Tag(JOURNAL_LOG)],
    Discriminator(_kind_of_log),
]


_MOST_JOURNALS = 8


class HypervisorEntry(Entry):
    """One of `hypervisors`."""

    conn_id: ConnId | None = None
    logs: Annotated[list[LogEntry], Field(min_length=1)]
    domains: Argv | None = None

    @model_validator(mode="after")
    def _sessions_for_all(self) -> Self:
        followed = [log for log in self.logs if isinstance(log, JournalLogEntry) and not log.local]
        if len(followed) > _MOST_JOURNALS:
            raise ValueError(
                f"needs fewer journals: an sshd allows ten sessions per connection, so at most {_MOST_JOURNALS} are "
                "followed; put matches of one format together with '+'"
            )
        return self

    def model(self, name: str) -> models.Hypervisor:
        """The hypervisor."""
        conn_id = self.conn_id or f"unlatch_hv_{name}"
        given = self.model_dump(exclude_none=True)
        for log, entry in zip(given["logs"], self.logs, strict=True):
            if isinstance(entry, JournalLogEntry):
                log["journal"] = entry.journal.arguments()
        return models.Hypervisor.from_dict({**given, "name": name, "conn_id": conn_id})
