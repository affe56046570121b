"""The audit's hash chain: how a row is hashed, appended under a lock, read and verified.

A row's hash is SHA-256 (with a key: HMAC-SHA256) over its canonical JSON without the hash itself, which includes the
hash of the row before. So `export` gives lines that anyone can verify without this program, and a head that is kept
elsewhere (in the ticket) vouches for everything before it.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, insert, select

from unlatch.errors import CheckFailedError
from unlatch.models import Json, Value, canonical_json
from unlatch.store.audit_chain import AuditReport, Chain, Link
from unlatch.store.audit_keys import NO_KEYS, AuditKeys
from unlatch.store.redaction import clean_text, redact
from unlatch.store.schema import AUDIT, iso

APPEND_LOCK = int.from_bytes(b"unlatch", "big")
"""PostgreSQL's advisory lock that serialises appends; per database, and held from the append to the commit only."""

READ_AT_ONCE = 1000
_CSV_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class AuditRow(Value):
    """One line of the audit. `instance`, `step` are `""` where the row is about the incident as a whole."""

    sequence: int
    at: datetime
    incident: str
    instance: str
    step: str
    phase: str
    attempt: int
    actor: str
    detail: Json
    previous_hash: str
    hash: str


def row_hash(content: Mapping[str, Any], keys: AuditKeys = NO_KEYS) -> str:
    """The hash of a row: `content` is the row with `detail` as JSON value, without (or ignoring) `hash`."""
    hashed = {column.name: content[column.name] for column in AUDIT.columns if column.name != "hash"}
    return keys.digest(canonical_json(hashed).encode())


def head(connection: Connection) -> tuple[int, str]:
    """Sequence and hash of the newest row; `(0, "")` in an empty store."""
    newest = select(AUDIT.c.sequence, AUDIT.c.hash).order_by(AUDIT.c.sequence.desc()).limit(1)
    row = connection.execute(newest).one_or_none()
    return (0, "") if row is None else (row.sequence, row.hash)


def append(
    connection: Connection,
    *,
    at: datetime,
    incident: str,
    instance: str,
    step: str,
    phase: str,
    attempt: int,
    actor: str,
    detail: Json,
    keys: AuditKeys = NO_KEYS,
) -> tuple[int, str]:
    """Add one row and return the new head.

    It must be the LAST statement of its transaction: on PostgreSQL it takes the lock that all writers share, and
    whoever waits for another row's lock while holding it would hold up every writer, or deadlock with one.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(APPEND_LOCK)))
    sequence, previous_hash = head(connection)
    content: Json = {
        "sequence": sequence + 1,
        "at": iso(at),
        "incident": clean_text(incident),
        "instance": clean_text(instance),
        "step": clean_text(step),
        "phase": clean_text(phase),
        "attempt": attempt,
        "actor": clean_text(actor),
        "detail": redact(detail),
        "previous_hash": previous_hash,
    }
    digest = row_hash(content, keys)
    connection.execute(insert(AUDIT).values(content | {"detail": canonical_json(content["detail"]), "hash": digest}))
    return sequence + 1, digest


def rows(
    connection: Connection, *, after: int, limit: int, incident: str | None, before: int | None = None
) -> tuple[AuditRow, ...]:
    """At most `limit` rows beyond sequence `after`, oldest first; with `before`, those below it, newest first.

    Both ways a page is found by its key, in the index: page 20,000 is as quick as the first.

    Raises:
        CheckFailedError: a row is so damaged that it cannot be read.
    """
    query = select(AUDIT).where(AUDIT.c.sequence > after).limit(limit)
    if before is None:
        query = query.order_by(AUDIT.c.sequence)
    else:
        query = query.where(AUDIT.c.sequence < before).order_by(AUDIT.c.sequence.desc())
    if incident is not None:
        query = query.where(AUDIT.c.incident == incident)
    return tuple(_row(dict(found)) for found in connection.execute(query).mappings())


def _row(stored: Json) -> AuditRow:
    try:
        return AuditRow.from_dict(stored | {"detail": json.loads(stored["detail"])})
    except (ValueError, TypeError) as error:
        raise CheckFailedError(
            f"Row {stored['sequence']} of the audit cannot be read: somebody changed it ({error}).",
            next_step="Run `unlatch audit verify`, and keep a copy of the database for whoever looks into it.",
        ) from error


def raw_rows(connection: Connection) -> Iterator[Json]:
    """All rows as they are stored (`detail` as text), oldest first, in constant memory."""
    query = select(AUDIT).order_by(AUDIT.c.sequence).execution_options(yield_per=READ_AT_ONCE)
    for row in connection.execute(query).mappings():
        yield dict(row)


def export_line(stored: Json) -> str:
    """A stored row as one line of canonical JSON; a damaged `detail` is shown as the text that it is."""
    try:
        detail = json.loads(stored["detail"])
    except (ValueError, TypeError):
        detail = str(stored["detail"])
    return canonical_json(stored | {"detail": detail})


def export_csv(connection: Connection) -> Iterator[str]:
    """The audit as CSV, a header first; `detail` as JSON text. A cell that a spreadsheet would run is made text."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(column.name for column in AUDIT.columns)
    for stored in raw_rows(connection):
        if out.tell() > _CSV_AT_ONCE:
            yield _taken(out)
        writer.writerow(_no_formula(stored[column.name]) for column in AUDIT.columns)
    yield _taken(out)


def _no_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in {"=", "+", "-", "@", "\t", "\r"} else value


def _taken(out: io.StringIO) -> str:
    text = out.getvalue().removesuffix("\n")
    out.seek(0)
    out.truncate()
    return text


def verify(connection: Connection, witness: tuple[int, str] | None = None, keys: AuditKeys = NO_KEYS) -> AuditReport:
    """Walk the chain from its first row; changed, removed, inserted and moved rows are named.

    Rows cut off at the end leave a chain that holds: only a `witness` shows them, a head (sequence, hash) that was
    kept outside, as in a ticket.
    """

    def exists(digest: str) -> bool:
        return connection.execute(select(AUDIT.c.sequence).where(AUDIT.c.hash == digest).limit(1)).first() is not None

    query = select(AUDIT).order_by(AUDIT.c.sequence).execution_options(yield_per=READ_AT_ONCE)
    return Chain(keys, witness, exists).walk(Link(*row) for row in connection.execute(query))
