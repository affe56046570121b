"""What happened, read from the audit rows of one incident. Pure: no store, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from unlatch.errors import CheckFailedError
from unlatch.lifecycle import IncidentState
from unlatch.models import AuditEntry, CrashEvent, Json

OUTCOMES = frozenset({"done", "failed", "refused", "retry"})
NOTE = "note"
"""The step under which people's own words are kept (`unlatch note`)."""


@dataclass(frozen=True)
class Span:
    """One attempt of a step. `ended` is None and `phase` is `intent` when its worker was killed, or it still runs."""

    step: str
    instance: str
    began: datetime
    ended: datetime | None
    phase: str
    actor: str
    result: Json

    @property
    def went_wrong(self) -> bool:
        """Whether it ended, but not well."""
        return self.phase in {"failed", "refused", "retry"}


@dataclass(frozen=True)
class Account:
    """What happened.

    Attributes:
        rows: The rows that it was read from, oldest first.
        spans: Attempts of steps, in the order of their beginning.
        waits: When the incident waited for a person, the last one perhaps without an end.
        accessible_at: When each instance was first proven to be accessible.
    """

    incident: str
    guest: str
    died_at: datetime | None
    opened_at: datetime
    opened_by: str
    reason: str
    dry_run: bool
    event: CrashEvent | None
    instances: tuple[str, ...]
    objective_s: int | None
    state: IncidentState
    rows: tuple[AuditEntry, ...] = field(repr=False)
    spans: tuple[Span, ...]
    waits: tuple[tuple[datetime, datetime | None], ...]
    accessible_at: dict[str, datetime]

    @property
    def began_at(self) -> datetime:
        """The death, else the first word of it."""
        return self.died_at or self.opened_at

    @property
    def ended_at(self) -> datetime | None:
        """When all instances were accessible; None when one never was."""
        if not self.instances or len(self.accessible_at) < len(self.instances):
            return None
        return max(self.accessible_at.values())

    @property
    def seconds_to_access(self) -> float | None:
        """From the death to the access of the last instance."""
        return None if self.ended_at is None else (self.ended_at - self.began_at).total_seconds()

    @property
    def last_at(self) -> datetime:
        """The last row's moment."""
        return max(row.at for row in self.rows)

    def of(self, instance: str, step: str) -> Json:
        """What the last good end of a step said."""
        found = [s.result for s in self.spans if (s.instance, s.step, s.phase) == (instance, step, "done")]
        return found[-1] if found else {}


def read(incident: str, rows: Sequence[AuditEntry]) -> Account:
    """Read the audit rows of one incident, oldest first.

    Raises:
        CheckFailedError: they do not tell that the incident was opened.
    """
    opened = next((row for row in rows if row.phase == "opened"), None)
    if opened is None:
        raise CheckFailedError(
            f"The audit has no row that opens {incident}, so nothing can be told of it.",
            next_step="see whether it is another store's, and run `unlatch audit verify`.",
        )
    spans = tuple(_spans(rows))
    event, died_at = _event(rows), opened.detail.get("died_at")
    intent = next((row for row in rows if (row.step, row.phase) == ("detect_crash", "intent")), opened)
    states = [(row.at, IncidentState(row.detail["to"])) for row in rows if row.phase == "state"]
    names = next((s.result["instances"] for s in spans if s.step == "detect_crash" and "instances" in s.result), ())
    accessible: dict[str, datetime] = {}
    for span in spans:
        if (span.step, span.phase) == ("confirm_access", "done") and span.ended and "would" not in span.result:
            accessible.setdefault(span.instance, span.ended)
    return Account(
        incident=incident,
        guest=str(opened.detail.get("guest", "")),
        died_at=datetime.fromisoformat(died_at) if died_at else None,
        opened_at=opened.at,
        opened_by=intent.actor,
        reason=str(opened.detail.get("reason", "")),
        dry_run=bool(opened.detail.get("dry_run")),
        event=event,
        instances=tuple(names) or tuple(dict.fromkeys(row.instance for row in rows if row.instance)),
        objective_s=intent.detail.get("objective_s"),
        state=states[-1][1] if states else IncidentState.DETECTED,
        rows=tuple(rows),
        spans=spans,
        waits=tuple(_waits(states)),
        accessible_at=accessible,
    )


def _event(rows: Sequence[AuditEntry]) -> CrashEvent | None:
    """The crash as it was known at the end."""
    kept = [row.detail.get("event") for row in rows if row.phase == "opened"]
    kept += [row.detail for row in rows if row.phase == "event"]
    known = [found for found in kept if found]
    return CrashEvent.from_dict(known[-1]) if known else None


def _spans(rows: Iterable[AuditEntry]) -> list[Span]:
    begun: dict[tuple[str, str], int] = {}
    spans: list[Span] = []
    for row in rows:
        key = (row.instance, row.step)
        if row.phase == "intent":
            begun[key] = len(spans)
            spans.append(Span(row.step, row.instance, row.at, None, "intent", row.actor, row.detail))
        elif row.phase in OUTCOMES and key in begun:
            number = begun.pop(key)
            first = spans[number]
            spans[number] = Span(row.step, row.instance, first.began, row.at, row.phase, row.actor, row.detail)
    return spans


def _waits(states: Sequence[tuple[datetime, IncidentState]]) -> list[tuple[datetime, datetime | None]]:
    waits: list[tuple[datetime, datetime | None]] = []
    for number, (at, state) in enumerate(states):
        if state is IncidentState.WAITING_FOR_PERSON:
            waits.append((at, states[number + 1][0] if number + 1 < len(states) else None))
    return waits
