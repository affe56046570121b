"""`SqlStore`: the ports' Store on SQLite or PostgreSQL, and what the watch, command line and console read beside it."""

from __future__ import annotations

from collections.abc import Iterator

from unlatch.ports import Clock
from unlatch.store import audit, migration
from unlatch.store.audit_chain import AuditReport
from unlatch.store.audit_keys import NO_KEYS, AuditKeys
from unlatch.store.crash_events import CrashEvents
from unlatch.store.database import Database
from unlatch.store.deliveries import Deliveries
from unlatch.store.incidents import Incidents
from unlatch.store.leases import Leases
from unlatch.store.part import Part
from unlatch.store.reports import Reports
from unlatch.store.sources import Sources
from unlatch.store.steps import Steps


class AuditLog(Part):
    """The part of the store that reads the audit; every other part writes it."""

    def audit_head(self) -> tuple[int, str]:
        """Sequence and hash of the newest audit row; (0, "") in an empty store."""
        with self._database.reading() as connection:
            return audit.head(connection)

    def audit_rows(
        self, after: int = 0, limit: int = 1000, *, incident: str | None = None, before: int | None = None
    ) -> tuple[audit.AuditRow, ...]:
        """A page of at most `limit` rows: beyond sequence `after`, oldest first; with `before`, below it, newest first.

        Of one incident, or of all.

        Raises:
            CheckFailedError: a row is so damaged that it cannot be read.
        """
        with self._database.reading() as connection:
            return audit.rows(connection, after=after, limit=limit, incident=incident, before=before)

    def verify_audit(self, witness: tuple[int, str] | None = None) -> AuditReport:
        """Walk the whole chain; `witness` is a head (sequence, hash) that was kept elsewhere, as in a ticket."""
        with self._database.reading() as connection:
            return audit.verify(connection, witness, self._audit_keys)

    def export(self) -> Iterator[str]:
        """The audit, one line of canonical JSON per row; a line without its `hash` is exactly what was hashed."""
        with self._database.reading() as connection:
            for stored in audit.raw_rows(connection):
                yield audit.export_line(stored)

    def export_csv(self) -> Iterator[str]:
        """The audit as CSV, a header first, many lines at a time."""
        with self._database.reading() as connection:
            yield from audit.export_csv(connection)


class SqlStore(Incidents, Steps, Leases, CrashEvents, Deliveries, Sources, Reports, AuditLog):
    """Incidents, steps, leases, crash events, cursors, audit. Safe across threads, processes and forks.

    Every method is one transaction. All raise `TransientError` while the database is locked or out of reach, and
    `ConfigError` when it is not this program's. Details and results are redacted (`unlatch.store.redaction`) before
    they are kept.
    """

    def __init__(self, url: str, *, clock: Clock, wait_s: float = 15.0, audit_keys: AuditKeys = NO_KEYS) -> None:
        """Connects to nothing yet.

        Args:
            url: `sqlite:///FILE` or `postgresql://USER:PASSWORD@HOST/DATABASE`.
            clock: gives the times of all rows.
            wait_s: how long to wait for another writer before `TransientError`.
            audit_keys: sign new rows of the audit, and verify those that are signed.

        Raises:
            ConfigError: the URL is not one of these.
        """
        super().__init__(Database(url, wait_s=wait_s), clock, audit_keys)

    def migrate(self) -> None:
        """Create or upgrade the tables; nothing when they are up to date. Concurrent calls are safe."""
        migration.migrate(self._database)
