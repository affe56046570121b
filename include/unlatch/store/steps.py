"""Steps: the intent before and the outcome after, each in the step's row and in the audit, in one transaction."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, RowMapping, func, select, update

from unlatch.models import Json
from unlatch.ports import StepRow
from unlatch.store import audit
from unlatch.store.part import Part
from unlatch.store.redaction import hide_passwords, redact
from unlatch.store.schema import INCIDENT_INSTANCES, STEPS

OUTCOMES = frozenset({"done", "failed", "refused", "retry"})
"""The phases that `end` may give a step."""


class Steps(Part):
    """The part of the store that keeps the last word on every step."""

    def begin(self, incident: str, instance: str, step: str, *, actor: str, detail: Json) -> StepRow:
        """Record the intent in the step's row and the audit, and count the attempt.

        A step that is done may begin again (whether it should is the runbook's decision): its row then says `intent`
        with an empty result; what it had said stays in the audit.
        """
        now = self._clock.now()
        others = STEPS.alias()
        last = select(func.coalesce(func.max(others.c.position), 0)).where(others.c.incident == incident)
        fresh = {"phase": "intent", "position": last.scalar_subquery() + 1, "started_at": now, "result": {}}
        with self._database.writing() as connection:
            row = connection.execute(
                self._database.insert(STEPS)
                .values(incident=incident, instance=instance, step=step, attempt=1, **fresh)
                .on_conflict_do_update(
                    index_elements=["incident", "instance", "step"],
                    set_={**fresh, "attempt": STEPS.c.attempt + 1, "ended_at": None},
                )
                .returning(STEPS)
            ).mappings()
            return self._said(connection, _row(row.one()), actor, detail, now)

    def end(self, incident: str, instance: str, step: str, *, phase: str, actor: str, result: Json) -> StepRow:
        """Record the outcome (`done`, `failed`, `refused` or `retry`) in the step's row and the audit.

        Raises:
            ValueError: another phase, or the step was never begun.
        """
        if phase not in OUTCOMES:
            raise ValueError(f"a step cannot end as {phase!r}; it can end as: {', '.join(sorted(OUTCOMES))}")
        now = self._clock.now()
        with self._database.writing() as connection:
            row = connection.execute(
                update(STEPS)
                .where(STEPS.c.incident == incident, STEPS.c.instance == instance, STEPS.c.step == step)
                .values(phase=phase, ended_at=now, result=redact(result, hide_passwords))
                .returning(STEPS)
            ).mappings()
            found = row.one_or_none()
            if found is None:
                raise ValueError(f"{step} of {incident} {instance} cannot end: it was never begun")
            return self._said(connection, _row(found), actor, result, now)

    def step(self, incident: str, instance: str, step: str) -> StepRow | None:
        """The last word on a step."""
        with self._database.reading() as connection:
            return _find(connection, incident, instance, step)

    def steps(self, incident: str) -> tuple[StepRow, ...]:
        """All steps of an incident, in the order of their (last) start."""
        query = select(STEPS).where(STEPS.c.incident == incident).order_by(STEPS.c.position, STEPS.c.started_at)
        with self._database.reading() as connection:
            return tuple(_row(found) for found in connection.execute(query).mappings())

    def note(self, incident: str, instance: str, step: str, phase: str, *, actor: str, detail: Json) -> None:
        """An audit row that leaves the step's row alone, numbered with its attempt. Every call is one more row."""
        with self._database.writing() as connection:
            known = _find(connection, incident, instance, step)
            attempt = 0 if known is None else known.attempt
            self._record(
                connection, incident, phase, detail, instance=instance, step=step, attempt=attempt, actor=actor
            )

    def _said(self, connection: Connection, row: StepRow, actor: str, detail: Json, now: datetime) -> StepRow:
        if row.instance:
            last = {"last_step": row.step, "last_phase": row.phase, "changed_at": now}
            connection.execute(
                self._database.insert(INCIDENT_INSTANCES)
                .values(incident=row.incident, instance=row.instance, **last)
                .on_conflict_do_update(index_elements=["incident", "instance"], set_=last)
            )
        audit.append(
            connection,
            at=now,
            incident=row.incident,
            instance=row.instance,
            step=row.step,
            phase=row.phase,
            attempt=row.attempt,
            actor=actor,
            detail=detail,
            keys=self._audit_keys,
        )
        return row


def _find(connection: Connection, incident: str, instance: str, step: str) -> StepRow | None:
    query = select(STEPS).where(STEPS.c.incident == incident, STEPS.c.instance == instance, STEPS.c.step == step)
    found = connection.execute(query).mappings().first()
    return None if found is None else _row(found)


def _row(found: RowMapping) -> StepRow:
    return StepRow(**{name: value for name, value in found.items() if name != "position"})
