"""The audit under a key, in other forms, and page by page."""

from __future__ import annotations

import csv
import io
import json

import pytest
from sqlalchemy import Engine, text

from tests.unit.store.conftest import TickingClock
from tests.unit.store.test_store_audit import COLUMNS, behind, run, unguard  # noqa: F401  # behind is a fixture
from unlatch.errors import ConfigError
from unlatch.store.audit import row_hash
from unlatch.store.audit_keys import NO_KEYS, AuditKeys
from unlatch.store.sql_store import SqlStore

OLD = "2025a " + "1" * 64
NEW = "2026a " + "2" * 64


def keyed(url: str, clock: TickingClock, *lines: str) -> SqlStore:
    return SqlStore(url, clock=clock, audit_keys=AuditKeys.parse("\n".join(lines)))


def write(store: SqlStore, count: int = 2) -> None:
    for number in range(count):
        store.note("inc-1", "voms", "verdict", "noted", actor="airflow", detail={"number": number})


@pytest.fixture
def rotated(store: SqlStore, url: str, clock: TickingClock) -> SqlStore:
    """Rows 1-2 plain, 3-4 under the old key, 5-6 under the new one."""
    write(store)
    write(keyed(url, clock, OLD))
    newest = keyed(url, clock, OLD, "# since June", "", NEW)
    write(newest)
    return newest


def test_a_key_can_be_changed(rotated: SqlStore) -> None:
    """It should sign with the newest key and verify what older ones signed, and say how much no key vouches for."""
    report = rotated.verify_audit()
    assert (report.verified, report.rows, report.unsigned) == (True, 6, 2)
    assert report.head[1].startswith("2026a.")
    assert rotated.verify_audit(report.head).verified


def test_a_chain_written_anew_without_the_key_is_found(rotated: SqlStore, behind: Engine) -> None:  # noqa: F811
    """It should not take plain hashes behind a signed row, however well they fit."""
    unguard(behind)
    with behind.begin() as connection:
        rows = connection.execute(text(f"SELECT {COLUMNS} FROM audit WHERE sequence > 3 ORDER BY sequence")).mappings()
        previous = connection.execute(text("SELECT hash FROM audit WHERE sequence = 3")).scalar_one()
        for row in [dict(r) for r in rows]:
            forged = row | {"actor": "eve", "previous_hash": previous, "detail": json.loads(row["detail"])}
            previous = row_hash(forged, NO_KEYS)
            values = {"p": forged["previous_hash"], "h": previous, "s": row["sequence"]}
            update = "UPDATE audit SET actor = 'eve', previous_hash = :p, hash = :h WHERE sequence = :s"
            connection.execute(text(update), values)
    report = rotated.verify_audit()
    assert (report.first_bad, report.problem) == (4, "row 4 is not signed, although row 3 is")


def test_a_changed_signed_row_is_found(rotated: SqlStore, behind: Engine) -> None:  # noqa: F811
    """It should name it as any other."""
    unguard(behind)
    run(behind, "UPDATE audit SET actor = 'eve' WHERE sequence = 5")
    report = rotated.verify_audit()
    assert [(f.first, f.kind) for f in report.findings] == [(5, "changed")]


def test_without_the_key_it_says_so(rotated: SqlStore, store: SqlStore, url: str, clock: TickingClock) -> None:
    """It should not call a chain good that it cannot check, and name each key that is missing."""
    report = store.verify_audit()
    assert [f.problem for f in report.findings] == [
        "row 3 is signed with the key '2025a', which is not among the audit's keys"
    ]
    assert not keyed(url, clock, NEW).verify_audit().verified


@pytest.mark.parametrize("text_", ["2026a", "2026A " + "1" * 64, "a short", f"{OLD}\n{OLD}", "a b " + "1" * 64])
def test_keys_that_are_none(text_: str) -> None:
    """It should say which line is wrong, and never show it."""
    with pytest.raises(ConfigError, match=r"Line \d of the audit's keys is no key") as caught:
        AuditKeys.parse(text_)
    assert "1111" not in str(caught.value)
    assert "1111" not in repr(AuditKeys.parse(OLD))


def test_csv(store: SqlStore) -> None:
    """It should give a header and every row, without cells that a spreadsheet would run."""
    store.note("inc-1", "voms", "verdict", "noted", actor="=cmd|' /C calc'!A0", detail={"a": 'x, "y"\nz'})
    write(store, 300)
    rows = list(csv.DictReader(io.StringIO("\n".join(store.export_csv()))))
    assert len(rows) == 301
    assert [*rows[0]] == [name.strip() for name in COLUMNS.split(",")]
    assert rows[0]["actor"] == "'=cmd|' /C calc'!A0"
    assert json.loads(rows[0]["detail"]) == {"a": 'x, "y"\nz'}
    assert rows[-1]["hash"] == store.audit_head()[1]


def test_pages_go_both_ways(store: SqlStore) -> None:
    """It should page from the newest row down as well, of one incident or of all."""
    write(store, 5)
    store.note("inc-2", "", "", "opened", actor="eva", detail={})
    newest = store.audit_rows(before=2**31 - 1, limit=2)
    assert [row.sequence for row in newest] == [6, 5]
    assert [row.sequence for row in store.audit_rows(before=5, limit=2)] == [4, 3]
    assert [row.sequence for row in store.audit_rows(before=6, limit=9, incident="inc-1")] == [5, 4, 3, 2, 1]


def test_pages_are_found_in_an_index(store: SqlStore, behind: Engine) -> None:  # noqa: F811
    """It should never read the rows before a page."""
    write(store, 50)
    queries = [
        "SELECT * FROM audit WHERE sequence < 40 ORDER BY sequence DESC LIMIT 10",
        "SELECT * FROM audit WHERE incident = 'inc-1' AND sequence > 40 ORDER BY sequence LIMIT 10",
    ]
    with behind.begin() as connection:
        for query in queries:
            if behind.dialect.name == "sqlite":
                plan = [row[3] for row in connection.execute(text(f"EXPLAIN QUERY PLAN {query}"))]
                assert all("SEARCH audit USING" in step for step in plan), plan
            else:
                connection.execute(text("SET LOCAL enable_seqscan = off"))
                plan = [row[0] for row in connection.execute(text(f"EXPLAIN {query}"))]
                assert any("Index" in step for step in plan), plan
                assert not any("Sort" in step for step in plan), plan
