"""Crash events, each kept once, and the durable positions up to which logs were read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection, select, update

from unlatch.models import CrashEvent, Json, utc
from unlatch.store.part import Part
from unlatch.store.schema import CRASH_EVENTS, CURSORS


class CrashEvents(Part):
    """The part of the store that remembers what hypervisors said."""

    def record_event(self, event: CrashEvent, guest: str | None) -> bool:
        """Keep a crash event; False when it was there already (by its dedup key), with what is known of it now."""
        with self._database.writing() as connection:
            return self._keep(connection, replace(event, guest=guest))

    def record_events_and_cursor(
        self, events: Iterable[CrashEvent], cursor: str, value: Json
    ) -> tuple[CrashEvent, ...]:
        """Keep crash events and move a log's cursor behind them in ONE transaction; the events that were new.

        Killed before the commit, the log is read again from the old cursor. Killed after it, the events are no longer
        new although nobody acted on them: so act on every one of `events(since)` that has no incident yet.
        """
        with self._database.writing() as connection:
            new = tuple(event for event in events if self._keep(connection, event))
            self._move(connection, cursor, value)
            return new

    def events(self, since: datetime) -> tuple[CrashEvent, ...]:
        """The crash events since then (by the log's time), oldest first."""
        table = CRASH_EVENTS
        query = select(table.c.event).where(table.c.at >= utc(since)).order_by(table.c.at, table.c.dedup_key)
        with self._database.reading() as connection:
            return tuple(CrashEvent.from_dict(found) for found in connection.execute(query).scalars())

    def cursor(self, name: str) -> Json | None:
        """A durable position; None when it was never set."""
        query = select(CURSORS.c.value).where(CURSORS.c.name == name)
        with self._database.reading() as connection:
            value: Json | None = connection.execute(query).scalar_one_or_none()
            return value

    def set_cursor(self, name: str, value: Json) -> None:
        """Move a durable position."""
        with self._database.writing() as connection:
            self._move(connection, name, value)

    def _keep(self, connection: Connection, event: CrashEvent) -> bool:
        present = {"guest": event.guest, "event": event.as_dict()}
        new = connection.execute(
            self._database.insert(CRASH_EVENTS)
            .values(
                dedup_key=event.dedup_key,
                hypervisor=event.hypervisor,
                domain=event.domain,
                at=event.at,
                recorded_at=self._clock.now(),
                **present,
            )
            .on_conflict_do_nothing(index_elements=["dedup_key"])
            .returning(CRASH_EVENTS.c.dedup_key)
        )
        if new.scalar_one_or_none() is not None:
            return True
        # Its restart, or more lines: a death is first told while it is still going on.
        connection.execute(update(CRASH_EVENTS).where(CRASH_EVENTS.c.dedup_key == event.dedup_key).values(present))
        return False

    def _move(self, connection: Connection, name: str, value: Json) -> None:
        moved = {"value": value, "moved_at": self._clock.now()}
        connection.execute(
            self._database.insert(CURSORS)
            .values(name=name, **moved)
            .on_conflict_do_update(index_elements=["name"], set_=moved)
        )
