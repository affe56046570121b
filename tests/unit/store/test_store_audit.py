"""The audit only grows, and whoever changes it behind the program's back is found."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from tests.unit.store.conftest import TickingClock
from unlatch.errors import CheckFailedError
from unlatch.store.audit import AuditReport, AuditRow, row_hash
from unlatch.store.sql_store import SqlStore

ROWS = 5


@pytest.fixture
def chain(store: SqlStore) -> SqlStore:
    """A store with a few rows in its audit."""
    for number in range(1, ROWS + 1):
        store.note("inc-1", "voms", "recreate_files", "copied", actor="airflow", detail={"number": number, "é": [1.5]})
    return store


@pytest.fixture
def behind(url: str) -> Iterator[Engine]:
    """The database without the store around it, as an intruder or a tired administrator has it."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg2:"))
    yield engine
    engine.dispose()


def run(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def unguard(engine: Engine) -> None:
    """Take the triggers away, which only the owner of the database can."""
    if engine.dialect.name == "sqlite":
        run(engine, *(f"DROP TRIGGER audit_{name}" for name in ("only_appends", "never_updated", "never_deleted")))
    else:
        run(engine, "ALTER TABLE audit DISABLE TRIGGER USER")


# --- the database refuses --------------------------------------------------------------------------------------------

COLUMNS = "sequence, at, incident, instance, step, phase, attempt, actor, detail, previous_hash, hash"
FORGED = "'2026', '', '', '', '', 0, 'eve', '{}'"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET actor = 'eve' WHERE sequence = 2",
        "UPDATE audit SET actor = 'eve'",
        "DELETE FROM audit WHERE sequence = 5",
        "DELETE FROM audit",
        f"INSERT INTO audit ({COLUMNS}) VALUES (7, {FORGED}, 'x', 'y')",
        f"INSERT INTO audit ({COLUMNS}) VALUES (0, {FORGED}, '', 'y')",
        f"INSERT INTO audit ({COLUMNS}) VALUES (6, {FORGED}, 'x', 'y')",
        f"INSERT INTO audit ({COLUMNS}) VALUES (2, {FORGED}, 'x', 'y') ON CONFLICT (sequence) DO UPDATE SET step = 'x'",
        pytest.param(f"INSERT OR REPLACE INTO audit ({COLUMNS}) VALUES (2, {FORGED}, 'x', 'y')", id="sqlite: REPLACE"),
        pytest.param("UPDATE OR REPLACE audit SET sequence = 1 WHERE sequence = 2", id="sqlite: UPDATE OR REPLACE"),
        pytest.param("TRUNCATE audit", id="postgresql: TRUNCATE"),
        pytest.param(
            "SET session_replication_role = replica; DELETE FROM audit", id="postgresql: triggers off for a session"
        ),
    ],
)
def test_the_database_refuses_to_change_the_audit(
    request: pytest.FixtureRequest, chain: SqlStore, behind: Engine, statement: str
) -> None:
    """It should refuse UPDATE, DELETE, TRUNCATE, REPLACE, and any row that is not the next one."""
    only = request.node.callspec.id.rpartition("-")[2].partition(":")[0]
    if only in {"sqlite", "postgresql"} and only != behind.dialect.name:
        with pytest.raises(DBAPIError):  # the other database's language
            run(behind, statement)
        return
    before = list(chain.export())
    with pytest.raises(DBAPIError, match="audit: "):
        run(behind, statement)
    assert list(chain.export()) == before
    assert chain.verify_audit().verified


def test_a_forked_row_is_refused(chain: SqlStore, behind: Engine) -> None:
    """It should refuse a second row behind the same one, even a well-hashed one."""
    second = chain.audit_rows(after=1, limit=1)[0]
    content = second.as_dict() | {"at": "2026", "actor": "eve"}
    values = content | {"hash": row_hash(content), "detail": "{}"}
    names = [name.strip() for name in COLUMNS.split(",")]
    insert = text(f"INSERT INTO audit ({COLUMNS}) VALUES ({', '.join(':' + name for name in names)})")
    with pytest.raises((DBAPIError, IntegrityError), match="audit: "), behind.begin() as connection:
        connection.execute(insert, values)


# --- verify finds ----------------------------------------------------------------------------------------------------


def _move(connection: Connection) -> None:
    for statement in ("= 99 WHERE sequence = 2", "= 2 WHERE sequence = 3", "= 3 WHERE sequence = 99"):
        connection.execute(text(f"UPDATE audit SET sequence {statement}"))


def _insert(connection: Connection) -> None:
    for sequence in range(ROWS, 2, -1):
        connection.execute(text(f"UPDATE audit SET sequence = {sequence + 1} WHERE sequence = {sequence}"))
    previous = connection.execute(text("SELECT hash FROM audit WHERE sequence = 2")).scalar_one()
    names = [name.strip() for name in COLUMNS.split(",")]
    content = dict.fromkeys(names, "") | {"sequence": 3, "attempt": 0, "detail": {}, "previous_hash": previous}
    values = content | {"detail": "{}", "hash": row_hash(content)}
    connection.execute(text(f"INSERT INTO audit ({COLUMNS}) VALUES ({', '.join(':' + n for n in names)})"), values)


def _close_gap(connection: Connection) -> None:
    connection.execute(text("DELETE FROM audit WHERE sequence = 3"))
    for sequence in (4, 5):
        connection.execute(text(f"UPDATE audit SET sequence = {sequence - 1} WHERE sequence = {sequence}"))


def _to_the_end(connection: Connection) -> None:
    """Row 2 becomes the last one, and the others close the gap."""
    connection.execute(text("UPDATE audit SET sequence = 99 WHERE sequence = 2"))
    for sequence in (3, 4, 5, 99):
        connection.execute(text(f"UPDATE audit SET sequence = {min(sequence - 1, 5)} WHERE sequence = {sequence}"))


def _rehash(connection: Connection) -> None:
    """Change row 3 and give it a right hash: the row after it gives the change away."""
    row = dict(connection.execute(text(f"SELECT {COLUMNS} FROM audit WHERE sequence = 3")).mappings().one())
    digest = row_hash(row | {"actor": "eve", "detail": json.loads(row["detail"])})
    connection.execute(text("UPDATE audit SET actor = 'eve', hash = :hash WHERE sequence = 3"), {"hash": digest})


TAMPERING: dict[str, tuple[str | Callable[[Connection], None], int, str]] = {
    "changed": ("UPDATE audit SET actor = 'eve' WHERE sequence = 3", 3, "was changed"),
    "time changed": ("UPDATE audit SET at = '2014' WHERE sequence = 1", 1, "was changed"),
    "spaces in the detail": ("UPDATE audit SET detail = detail || ' ' WHERE sequence = 4", 4, "was changed"),
    "detail no JSON": ("UPDATE audit SET detail = '{' WHERE sequence = 4", 4, "was changed"),
    "hash changed": ("UPDATE audit SET hash = 'x' WHERE sequence = 5", 5, "was changed"),
    "changed and hashed again": (_rehash, 3, "row 3 was replaced: row 4 does not follow it"),
    "removed": ("DELETE FROM audit WHERE sequence = 3", 3, "row 3 is missing"),
    "first removed": ("DELETE FROM audit WHERE sequence = 1", 1, "row 1 is missing"),
    "several removed": ("DELETE FROM audit WHERE sequence IN (2, 3)", 2, "rows 2 to 3 are missing"),
    "removed and numbered anew": (_close_gap, 3, "a row was removed before row 3"),
    "reordered": (_move, 2, "row 2 was written as row 3: it was moved"),
    "moved to the end": (_to_the_end, 2, "rows 2 to 4 were written as others: they were moved"),
    "inserted": (_insert, 3, "row 3 was inserted: row 4 was written as row 3"),
    "two changed": ("UPDATE audit SET actor = 'eve' WHERE sequence IN (2, 4)", 2, "row 2 was changed"),
    "before the first": (f"INSERT INTO audit ({COLUMNS}) VALUES (0, {FORGED}, '', '')", 0, "row 0 comes next"),
}


@pytest.mark.parametrize(("tampering", "first_bad", "problem"), TAMPERING.values(), ids=TAMPERING.keys())
def test_verify_names_the_row(
    chain: SqlStore,
    behind: Engine,
    tampering: str | Callable[[Connection], None],
    first_bad: int,
    problem: str,
) -> None:
    """It should name the first sequence that is not as it was written."""
    unguard(behind)
    with behind.begin() as connection:
        if callable(tampering):
            tampering(connection)
        else:
            connection.execute(text(tampering))
    report = chain.verify_audit()
    assert (report.verified, report.first_bad) == (False, first_bad)
    assert problem in str(report.problem)
    assert AuditReport.from_dict(json.loads(json.dumps(report.as_dict()))).first_bad == first_bad
    list(chain.export())  # a damaged audit can still be taken away for a look


def test_a_witness_shows_what_the_chain_cannot(chain: SqlStore, behind: Engine) -> None:
    """It should find a cut-off tail, and a chain written anew, by the head that a ticket kept."""
    witness = chain.audit_head()
    assert chain.verify_audit(witness).verified
    assert chain.verify_audit((2, "x" * 64)).first_bad == 2
    unguard(behind)
    run(behind, "DELETE FROM audit WHERE sequence > 3")
    assert chain.verify_audit().verified
    report = chain.verify_audit(witness)
    assert (report.verified, report.first_bad, report.rows) == (False, 4, 3)
    assert report.problem == "rows 4 to 5 are missing at the end"


def test_an_unreadable_row_is_told(chain: SqlStore, behind: Engine) -> None:
    """It should say which row cannot be shown, and what to run, instead of a parser's error."""
    unguard(behind)
    run(behind, "UPDATE audit SET at = 'yesterday' WHERE sequence = 2")
    with pytest.raises(CheckFailedError, match=r"Row 2 .*unlatch audit verify"):
        chain.audit_rows()


# --- reading ---------------------------------------------------------------------------------------------------------


def test_an_empty_audit_holds(store: SqlStore) -> None:
    """It should verify nothing as nothing."""
    assert store.verify_audit() == AuditReport(rows=0, verified=True, first_bad=None, problem=None, head=(0, ""))
    assert store.audit_head() == (0, "")
    assert list(store.export()) == []


def test_rows_are_paged_and_filtered(chain: SqlStore) -> None:
    """It should give pages behind a sequence, of one incident when asked."""
    chain.note("inc-2", "", "", "opened", actor="eva", detail={})
    assert [row.sequence for row in chain.audit_rows(after=2, limit=2)] == [3, 4]
    (row,) = chain.audit_rows(incident="inc-2")
    assert isinstance(row, AuditRow)
    assert (row.sequence, row.actor, row.hash) == (6, "eva", chain.audit_head()[1])
    assert AuditRow.from_dict(row.as_dict()) == row


def test_the_export_can_be_verified_without_this_program(chain: SqlStore, tmp_path: Path) -> None:
    """It should need ten lines of anyone's Python, nothing else."""
    exported = tmp_path / "audit.jsonl"
    exported.write_text("\n".join(chain.export()))
    check = """
import hashlib, json, sys
previous = ""
for line in open(sys.argv[1], encoding="utf-8"):
    row = json.loads(line)
    stated = row.pop("hash")
    text = json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert row["previous_hash"] == previous and hashlib.sha256(text.encode()).hexdigest() == stated
    previous = stated
print(previous)
"""
    done = subprocess.run([sys.executable, "-I", "-c", check, exported], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == chain.audit_head()[1]


def test_a_hash_never_changes_its_meaning() -> None:
    """It should give the same hash in ten years: stores of today must verify then."""
    row = {
        "sequence": 1,
        "at": "2014-10-18T03:54:52.000000+00:00",
        "incident": "inc-20141018-035452-dbvrtg4037",
        "instance": "voms",
        "step": "verdict",
        "phase": "done",
        "attempt": 1,
        "actor": "airflow",
        "detail": {"kind": "dead", "é": [1, 2.5, None]},
        "previous_hash": "",
    }
    text_ = (
        '{"actor":"airflow","at":"2014-10-18T03:54:52.000000+00:00","attempt":1,"detail":{"kind":"dead","é":[1,2.5,'
        'null]},"incident":"inc-20141018-035452-dbvrtg4037","instance":"voms","phase":"done","previous_hash":"",'
        '"sequence":1,"step":"verdict"}'
    )
    assert row_hash(row) == hashlib.sha256(text_.encode()).hexdigest()
    assert row_hash(row) == "5f8b1648af39fe26a14c68c7c4ab34b6c01e6a94f913fe6936aae6e2d418379c"


ANY_TEXT = st.text(st.characters(), max_size=8)  # with lone surrogates, which st.text() alone leaves out
JSON_DETAILS = st.dictionaries(
    ANY_TEXT,
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(details=st.lists(JSON_DETAILS, min_size=1, max_size=3))
def test_any_detail_can_be_kept_and_verified(store: SqlStore, clock: TickingClock, details: list) -> None:
    """It should keep any JSON, control characters and lone surrogates included, and verify it afterwards."""
    for detail in details:
        store.note("inc-1", "voms", "s", "noted", actor="hypothesis", detail=detail)
    assert store.verify_audit().verified
