"""The durable memory: incidents, steps, events, cursors, leases, audit."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from unlatch.lifecycle import IncidentState
from unlatch.models import (
    CrashEvent,
    Json,
    Report,
    SourceHealth,
    SourceState,
)
from unlatch.ports.deliveries import Outbox


@dataclass(frozen=True)
class IncidentRow:
    """An incident as the store keeps it."""

    incident: str
    guest: str
    state: IncidentState
    opened_at: datetime
    died_at: datetime | None
    dry_run: bool
    reason: str
    ticket: str | None
    event: CrashEvent | None


@dataclass(frozen=True)
class StepRow:
    """The last word on one step of one instance (instance `""`: of the incident as a whole)."""

    incident: str
    instance: str
    step: str
    phase: str  # "intent" | "done" | "failed" | "refused" | "retry"
    attempt: int
    started_at: datetime
    ended_at: datetime | None
    result: Json


class Store(Outbox, Protocol):
    """Incidents, steps, events, cursors, leases, audit, and the queue of messages. Every write is one transaction.

    Raises `TransientError` while the database is out of reach or locked: without a record of the intent no step acts.
    """

    def open_incident(self, row: IncidentRow) -> IncidentRow:
        """Insert, or the row that is there already under that id."""

    def incident(self, incident: str) -> IncidentRow | None:
        """One incident."""

    def set_state(self, incident: str, state: IncidentState) -> None:
        """Advance (`lifecycle.advance`); audited."""

    def set_ticket(self, incident: str, ticket: str) -> None:
        """Remember the ticket's reference."""

    def update_event(self, incident: str, event: CrashEvent) -> None:
        """Keep what has become known of the crash since (restart time, later lines)."""

    def begin(self, incident: str, instance: str, step: str, *, actor: str, detail: Json) -> StepRow:
        """Record the intent in the step's row and the audit; counts the attempt."""

    def end(self, incident: str, instance: str, step: str, *, phase: str, actor: str, result: Json) -> StepRow:
        """Record the outcome in both."""

    def step(self, incident: str, instance: str, step: str) -> StepRow | None:
        """The last word on a step."""

    def steps(self, incident: str) -> tuple[StepRow, ...]:
        """All steps of an incident, in the order of their start."""

    def note(self, incident: str, instance: str, step: str, phase: str, *, actor: str, detail: Json) -> None:
        """An audit row without a step of its own (a phase of the copy, an answer, a refusal)."""

    def take_lease(self, name: str, owner: str) -> str | None:
        """Take a lease, or keep one's own: None; otherwise whose it is."""

    def release_lease(self, name: str, owner: str) -> None:
        """Give a lease back; nothing when it is another's."""

    def take_slot(self, pool: str, size: int, owner: str) -> tuple[str, ...]:
        """Take one of `size` leases, or keep one's own: `()`; otherwise whose they are. `owner`: INCIDENT/INSTANCE."""

    def release_slot(self, pool: str, owner: str) -> None:
        """Give one's slot back; nothing when one has none."""

    def record_event(self, event: CrashEvent, guest: str | None) -> bool:
        """Keep a crash event; False when it was there already (by its dedup key)."""

    def record_events_and_cursor(
        self, events: Iterable[CrashEvent], cursor: str, value: Json
    ) -> tuple[CrashEvent, ...]:
        """Keep crash events and move a log's cursor behind them in one transaction; the events that were new."""

    def events(self, since: datetime) -> tuple[CrashEvent, ...]:
        """The crash events since then (by the log's time), oldest first."""

    def incidents(self, limit: int = 50, before: str | None = None) -> tuple[IncidentRow, ...]:
        """The newest incidents first; `before`: only those opened before that one."""

    def keep_report(self, report: Report) -> bool:
        """Keep a report; False when one of that id was kept before."""

    def reports(self, kind: str, subject: str | None = None, limit: int = 20) -> tuple[Report, ...]:
        """The newest reports of a kind, about one subject or all, newest first."""

    def state_since(self, incident: str) -> datetime | None:
        """Since when an incident is in its present state."""

    def cursor(self, name: str) -> Json | None:
        """A durable position; None when it was never set."""

    def set_cursor(self, name: str, value: Json) -> None:
        """Move a durable position."""

    def sources(self) -> tuple[SourceHealth, ...]:
        """What is known of every log of every hypervisor, by name."""

    def keep_source(self, health: SourceHealth) -> None:
        """Keep how a log is doing; a state that it had not before is audited."""

    def source_told(self, source: str, state: SourceState, at: datetime) -> None:
        """Remember that people were told of that state; nothing when it is another one by now."""

    def forget_sources(self, but: Collection[str]) -> None:
        """Forget every log but these."""

    def audit_head(self) -> tuple[int, str]:
        """Sequence and hash of the newest audit row; (0, "") in an empty store."""
