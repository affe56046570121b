"""Incidents: opened once, advanced along the state machine, every change audited."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, RowMapping, select, tuple_, update

from unlatch.errors import ConfigError
from unlatch.lifecycle import IncidentState, advance
from unlatch.models import CrashEvent, Json
from unlatch.ports import IncidentRow
from unlatch.store.part import Part
from unlatch.store.redaction import clean_text
from unlatch.store.schema import INCIDENT_INSTANCES, INCIDENTS


class Incidents(Part):
    """The part of the store that keeps incidents."""

    def open_incident(self, row: IncidentRow) -> IncidentRow:
        """Insert, or the row that is there already under that id."""
        values = {
            "incident": row.incident,
            "guest": clean_text(row.guest),
            "state": row.state.value,
            "opened_at": row.opened_at,
            "died_at": row.died_at,
            "dry_run": row.dry_run,
            "reason": clean_text(row.reason),
            "ticket": None if row.ticket is None else clean_text(row.ticket),
            "event": None if row.event is None else row.event.as_dict(),
        }
        with self._database.writing() as connection:
            inserted = connection.execute(
                self._database.insert(INCIDENTS)
                .values(values)
                .on_conflict_do_nothing(index_elements=["incident"])
                .returning(INCIDENTS.c.incident)
            ).scalar_one_or_none()
            present = self._locked(connection, row.incident)
            if inserted is not None:
                opened: Json = {"guest": row.guest, "died_at": row.died_at, "dry_run": row.dry_run}
                opened["reason"] = row.reason
                if row.event is not None:
                    opened["event"] = row.event.as_dict()
                self._record(connection, row.incident, "opened", opened)
            return present

    def incident(self, incident: str) -> IncidentRow | None:
        """One incident."""
        with self._database.reading() as connection:
            found = connection.execute(select(INCIDENTS).where(INCIDENTS.c.incident == incident)).mappings().first()
            return None if found is None else _row(found)

    def incidents(self, limit: int = 50, before: str | None = None) -> tuple[IncidentRow, ...]:
        """The newest incidents first.

        Args:
            limit: at most so many.
            before: an incident (the last of the page before): only those that were opened before it.
        """
        order = tuple_(INCIDENTS.c.opened_at, INCIDENTS.c.incident)
        query = select(INCIDENTS).order_by(INCIDENTS.c.opened_at.desc(), INCIDENTS.c.incident.desc()).limit(limit)
        with self._database.reading() as connection:
            if before is not None:
                mark = select(INCIDENTS.c.opened_at, INCIDENTS.c.incident).where(INCIDENTS.c.incident == before)
                at = connection.execute(mark).one_or_none()
                if at is None:
                    return ()
                query = query.where(order < tuple_(*at, types=[INCIDENTS.c.opened_at.type, INCIDENTS.c.incident.type]))
            return tuple(_row(found) for found in connection.execute(query).mappings())

    def set_state(self, incident: str, state: IncidentState) -> None:
        """Advance (`lifecycle.advance`); audited. The present state again changes nothing.

        Raises:
            ForbiddenTransitionError: `state` cannot follow the present one.
            ConfigError: there is no such incident.
        """
        with self._database.writing() as connection:
            present = self._locked(connection, incident).state
            if advance(present, state) is not present:
                detail = {"from": present.value, "to": state.value}
                self._change(connection, incident, {"state": state.value}, "state", detail)

    def set_ticket(self, incident: str, ticket: str) -> None:
        """Remember the ticket's reference; audited when it changes.

        Raises:
            ConfigError: there is no such incident.
        """
        ticket = clean_text(ticket)
        with self._database.writing() as connection:
            if self._locked(connection, incident).ticket != ticket:
                self._change(connection, incident, {"ticket": ticket}, "ticket", {"ticket": ticket})

    def update_event(self, incident: str, event: CrashEvent) -> None:
        """Keep what has become known of the crash since (restart time, later lines); audited when it changes.

        Raises:
            ConfigError: there is no such incident.
        """
        with self._database.writing() as connection:
            if self._locked(connection, incident).event != event:
                self._change(connection, incident, {"event": event.as_dict()}, "event", event.as_dict())

    def instances(self, incident: str) -> tuple[str, ...]:
        """The instances for which any step was begun, by name."""
        table = INCIDENT_INSTANCES
        query = select(table.c.instance).where(table.c.incident == incident).order_by(table.c.instance)
        with self._database.reading() as connection:
            return tuple(connection.execute(query).scalars())

    def _locked(self, connection: Connection, incident: str) -> IncidentRow:
        query = select(INCIDENTS).where(INCIDENTS.c.incident == incident).with_for_update()
        found = connection.execute(query).mappings().first()
        if found is None:
            raise ConfigError(
                f"There is no incident {incident} in the store at {self._database.shown}.",
                next_step="Check UNLATCH_STORE_URL: tasks, command line and demo must use the same store.",
            )
        return _row(found)

    def _change(self, connection: Connection, incident: str, values: Json, phase: str, detail: Json) -> None:
        connection.execute(update(INCIDENTS).where(INCIDENTS.c.incident == incident).values(values))
        self._record(connection, incident, phase, detail)


def _row(found: RowMapping) -> IncidentRow:
    values: dict[str, Any] = dict(found)
    event = values["event"]
    return IncidentRow(
        **values
        | {
            "state": IncidentState(values["state"]),
            "event": None if event is None else CrashEvent.from_dict(event),
        }
    )
