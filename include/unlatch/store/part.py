"""What every part of the store has: the database, the clock, and a way to add to the audit."""

from __future__ import annotations

from sqlalchemy import Connection

from unlatch.models import Json
from unlatch.ports import Clock
from unlatch.store import audit
from unlatch.store.audit_keys import NO_KEYS, AuditKeys
from unlatch.store.database import Database


class Part:
    """Base of the store's parts. Each public method of a part is one transaction."""

    def __init__(self, database: Database, clock: Clock, audit_keys: AuditKeys = NO_KEYS) -> None:
        self._database = database
        self._clock = clock
        self._audit_keys = audit_keys

    def _record(
        self,
        connection: Connection,
        incident: str,
        phase: str,
        detail: Json,
        *,
        instance: str = "",
        step: str = "",
        attempt: int = 0,
        actor: str = "unlatch",
    ) -> None:
        """Add to the audit; the last thing that a transaction does (see `audit.append`)."""
        audit.append(
            connection,
            at=self._clock.now(),
            incident=incident,
            instance=instance,
            step=step,
            phase=phase,
            attempt=attempt,
            actor=actor,
            detail=detail,
            keys=self._audit_keys,
        )
