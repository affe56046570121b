"""A store that cannot be written: which error, and what it says."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg2
import pytest

from tests.unit.store.conftest import PrivatePostgres, TickingClock
from unlatch.errors import ConfigError, TransientError
from unlatch.store.audit import APPEND_LOCK
from unlatch.store.sql_store import SqlStore


@contextmanager
def another_writer(url: str) -> Iterator[None]:
    """Someone else in the middle of an append."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield
    else:
        with closing(psycopg2.connect(url)) as connection:
            connection.cursor().execute("SELECT pg_advisory_xact_lock(%s)", (APPEND_LOCK,))
            yield


def test_a_locked_store_is_transient(store: SqlStore, url: str, clock: TickingClock) -> None:
    """It should give up after its time limit, so that Airflow retries; without a record no step acts."""
    impatient = SqlStore(url, clock=clock, wait_s=0.1)
    with another_writer(url):
        with pytest.raises(TransientError, match="locked or out of reach"):
            impatient.begin("inc-1", "voms", "recreate_files", actor="test", detail={})
        assert impatient.step("inc-1", "voms", "recreate_files") is None  # and reading goes on meanwhile
    assert impatient.begin("inc-1", "voms", "recreate_files", actor="test", detail={}).attempt == 1


def test_a_server_that_is_down_is_transient(tmp_path: Path, clock: TickingClock) -> None:
    """It should be tried again: a database server restarts."""
    store = SqlStore(f"postgresql://unlatch:hunter2@/x?host={tmp_path}", clock=clock)
    with pytest.raises(TransientError, match="out of reach") as raised:
        store.migrate()
    assert "hunter2" not in str(raised.value)


def test_a_session_that_is_cut_is_transient(postgres: PrivatePostgres, clock: TickingClock) -> None:
    """It should roll back and be tried again when the server ends the session in the middle."""
    name = postgres.new_database()
    store = SqlStore(postgres.url(name), clock=clock)
    store.migrate()
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND application_name = 'unlatch'"

    class CuttingClock(TickingClock):
        def now(self):
            with closing(psycopg2.connect(postgres.url("postgres"))) as connection:
                connection.cursor().execute(cut, (name,))
            return super().now()

    with pytest.raises(TransientError):  # the clock is asked in the middle of the transaction
        SqlStore(postgres.url(name), clock=CuttingClock()).note("inc-1", "", "", "x", actor="test", detail={})
    assert store.audit_head() == (0, "")


def test_a_database_that_does_not_exist_is_configuration(postgres: PrivatePostgres, clock: TickingClock) -> None:
    """It should not be tried again for ever."""
    for wrong in (postgres.url("no_such_database"), postgres.url("postgres", user="nobody_knows")):
        with pytest.raises(ConfigError, match="does not exist"):
            SqlStore(wrong, clock=clock).migrate()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "cannot be read"),
        ("not a url:hunter2@", "cannot be read"),
        ("postgresql://u:hunter2@host:port/x", "cannot be read"),
        ("mysql://u:hunter2@host/x", "cannot live in 'mysql'"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("sqlite:////proc/unlatch/x.db", "cannot be made"),
    ],
)
def test_a_wrong_url_is_told_at_once(url: str, message: str, clock: TickingClock) -> None:
    """It should name what is accepted, and never show a password."""
    with pytest.raises(ConfigError, match=message) as raised:
        SqlStore(url, clock=clock)
    assert "hunter2" not in str(raised.value)
    assert "UNLATCH_STORE_URL" in str(raised.value)


def test_a_file_of_something_else_is_left_alone(tmp_path: Path, clock: TickingClock) -> None:
    """It should say that it is no database and not touch it."""
    file = tmp_path / "unlatch.db"
    file.write_text("minutes of the meeting of 20 October\n" * 100)
    before = (file.read_bytes(), file.stat().st_mtime_ns)
    with pytest.raises(ConfigError, match="not a database"):
        SqlStore(f"sqlite:///{file}", clock=clock).migrate()
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before


def test_a_url_as_hosting_services_write_it_works(postgres: PrivatePostgres, clock: TickingClock) -> None:
    """It should accept postgres:// and a driver's name, and always use psycopg2."""
    url = postgres.url(postgres.new_database())
    for spelling in ("postgres:", "postgresql+psycopg2:"):
        SqlStore(url.replace("postgresql:", spelling), clock=clock).migrate()
