"""How long verifying a large audit takes, and one page of it: `python -m bench.audit [--rows 1000000]`.

The rows are written straight into a SQLite file, hashed and chained as the store does, since what is measured is the
reading. Prints one line per measurement.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy.dialects import sqlite

from unlatch.assembly import SystemClock
from unlatch.models import canonical_json
from unlatch.store.audit import row_hash
from unlatch.store.audit_keys import AuditKeys
from unlatch.store.schema import AUDIT, iso
from unlatch.store.sql_store import SqlStore

PAGE = 100
STEPS = (
    "check_locks",
    "hold_service",
    "verdict",
    "clear_locks",
    "recreate_files",
    "restart_database",
    "confirm_access",
)


def chained(count: int, keys: AuditKeys) -> Iterator[tuple[object, ...]]:
    """Rows as incidents of three instances leave them, some 0.5 KB each."""
    previous, began = "", datetime(2026, 1, 1, tzinfo=UTC)
    evidence = [{"check": f"check_{n}", "answer": "clear", "summary": "nothing of it runs there"} for n in range(4)]
    for sequence in range(1, count + 1):
        content = {
            "sequence": sequence,
            "at": iso(began + timedelta(seconds=sequence)),
            "incident": f"inc-{sequence // 60:08d}",
            "instance": ("voms", "lxr", "alvmysql")[sequence % 3],
            "step": STEPS[sequence // 2 % len(STEPS)],
            "phase": ("intent", "done")[sequence % 2],
            "attempt": 1,
            "actor": "airflow:manual",
            "detail": {"number": sequence, "evidence": evidence},
            "previous_hash": previous,
        }
        previous = row_hash(content, keys)
        stored = content | {"detail": canonical_json(content["detail"]), "hash": previous}
        yield tuple(stored[column.name] for column in AUDIT.columns)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--signed", action="store_true", help="with a key")
    options = parser.parse_args()
    keys = AuditKeys.parse("2026a " + "0123456789abcdef" * 4) if options.signed else AuditKeys()
    with tempfile.TemporaryDirectory(prefix="unlatch-audit-") as directory:
        file = Path(directory) / "unlatch.db"
        store = SqlStore(f"sqlite:///{file}", clock=SystemClock(), audit_keys=keys)
        store.migrate()
        insert = AUDIT.insert().compile(dialect=sqlite.dialect(paramstyle="qmark"))
        with sqlite3.connect(file) as connection:
            connection.executemany(str(insert), chained(options.rows, keys))
        load = os.getloadavg()[0]
        print(f"{options.rows} rows, {file.stat().st_size / 2**20:.0f} MiB, load of the machine {load:.1f}")
        _measure(store, options.rows)


def _measure(store: SqlStore, rows: int) -> None:
    began, used = time.monotonic(), time.process_time()
    report = store.verify_audit()
    print(f"verify: {time.monotonic() - began:.1f} s ({time.process_time() - used:.1f} s of CPU), {report.verified}")
    for what, page in (
        ("newest page", {"before": rows + 1}),
        ("page in the middle", {"before": rows // 2}),
        ("page of one incident", {"incident": f"inc-{rows // 120:08d}"}),
    ):
        began = time.monotonic()
        found = store.audit_rows(limit=PAGE, **page)
        print(f"{what}: {(time.monotonic() - began) * 1000:.1f} ms, {len(found)} rows")
    began = time.monotonic()
    lines = sum(1 for _ in store.export())
    print(f"export as JSON lines: {time.monotonic() - began:.1f} s, {lines} lines")


if __name__ == "__main__":
    main()
