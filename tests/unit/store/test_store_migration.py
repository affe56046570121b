"""The schema: made by migrations, the same as the code believes, and never made twice."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text

from tests.unit.store.conftest import PrivatePostgres, TickingClock
from unlatch.errors import ConfigError
from unlatch.ports import Message
from unlatch.store.migration import HEAD, MIGRATIONS
from unlatch.store.schema import METADATA, VERSION_TABLE
from unlatch.store.sql_store import SqlStore


def driver(url: str) -> str:
    return url.replace("postgresql:", "postgresql+psycopg2:")


def test_the_migrated_schema_is_the_one_in_the_code(store: SqlStore, url: str) -> None:
    """It should leave Alembic nothing to add."""
    engine = create_engine(driver(url))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE, "compare_type": True})
        assert compare_metadata(context, METADATA) == []
    engine.dispose()


def test_the_head_in_the_code_is_the_newest_revision() -> None:
    """It should fail when someone adds a migration and forgets HEAD."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


def test_migrating_again_does_nothing(store: SqlStore) -> None:
    """It should keep every row, and not even load Alembic."""
    store.note("inc-1", "", "", "noted", actor="test", detail={})
    store.migrate()
    assert store.audit_head()[0] == 1


def test_a_store_that_is_up_to_date_does_not_load_alembic(store: SqlStore, url: str) -> None:
    """It should not make each task pay for what only the first start needs."""
    program = """
import sys
from tests.unit.store.writer import SystemClock
from unlatch.store.sql_store import SqlStore
SqlStore(sys.argv[1], clock=SystemClock()).migrate()
print("alembic" in sys.modules)
"""
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", program, url], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_threads_may_migrate_at_once(url: str, clock: TickingClock) -> None:
    """It should create the tables once; for processes, see test_store_writers."""
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: SqlStore(url, clock=clock).migrate(), range(6)))
    assert SqlStore(url, clock=clock).audit_head() == (0, "")


def test_the_store_may_share_a_database_with_airflow(url: str, clock: TickingClock) -> None:
    """It should leave another program's Alembic table alone."""
    engine = create_engine(driver(url))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('airflows')"))
    SqlStore(url, clock=clock).migrate()
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == "airflows"
        assert inspect(connection).has_table("audit")
    engine.dispose()


def test_a_newer_schema_is_refused(store: SqlStore, url: str) -> None:
    """It should not write into what it does not understand."""
    engine = create_engine(driver(url))
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(ConfigError, match=r"another version of Unlatch: .*9999"):
        store.migrate()


def test_a_half_made_schema_is_taken_back(url: str, clock: TickingClock) -> None:
    """It should leave no table behind when the migration fails in the middle (a foreign `audit` is in the way)."""
    engine = create_engine(driver(url))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE audit (x INTEGER)"))
    with pytest.raises(Exception, match="already exists"):
        SqlStore(url, clock=clock).migrate()
    assert inspect(engine).get_table_names() == ["audit"]
    engine.dispose()


def test_a_store_without_tables_says_so(url: str, clock: TickingClock) -> None:
    """It should tell what to do when nothing was migrated."""
    with pytest.raises(ConfigError, match="does not have the tables of this version"):
        SqlStore(url, clock=clock).audit_head()


def test_sqlite_is_opened_with_a_write_ahead_log(sqlite_url: str, clock: TickingClock) -> None:
    """It should let readers and the writer not block each other, and make the directory."""
    url = sqlite_url.replace("unlatch.db", "var/deep/unlatch.db")
    SqlStore(url, clock=clock).migrate()
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_a_user_without_rights_is_told(postgres: PrivatePostgres, clock: TickingClock) -> None:
    """It should be a matter of configuration, not of trying again."""
    name = postgres.new_database()
    postgres.sql(name, f"CREATE ROLE reader_{name} LOGIN")
    with pytest.raises(ConfigError, match=r"permission denied.* the rights of its user"):
        SqlStore(postgres.url(name, user=f"reader_{name}"), clock=clock).migrate()


def test_the_owner_of_the_audit_may_be_another_user(postgres: PrivatePostgres, clock: TickingClock) -> None:
    """It should need no more than reading and appending: then Unlatch itself could not drop the triggers."""
    name = postgres.new_database()
    SqlStore(postgres.url(name), clock=clock).migrate()
    user = f"writer_{name}"
    postgres.sql(
        name,
        f"CREATE ROLE {user} LOGIN",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {user}",
        f"REVOKE UPDATE, DELETE ON audit, {VERSION_TABLE} FROM {user}",
    )
    store = SqlStore(postgres.url(name, user=user), clock=clock)
    store.migrate()
    store.begin("inc-1", "voms", "verdict", actor="test", detail={})
    assert store.take_lease("instance:voms", "inc-1") is None
    assert store.verify_audit().rows == 1
    engine = create_engine(driver(postgres.url(name, user=user)))
    assert store.queue(Message("ticket", "inc-1", "", "comment", "a", {"text": "a"}))
    for statement in (
        "ALTER TABLE audit DISABLE TRIGGER ALL",
        "ALTER TABLE audit DISABLE TRIGGER audit_never_changed",
        "DROP TRIGGER audit_never_changed ON audit",
        "CREATE RULE mute AS ON INSERT TO audit DO INSTEAD NOTHING",
        "SET session_replication_role = replica",
        "DROP TABLE audit",
        "TRUNCATE audit",
        "UPDATE audit SET actor = 'eve'",
        "DELETE FROM audit",
        "INSERT INTO audit SELECT * FROM audit ON CONFLICT (sequence) DO UPDATE SET actor = 'eve'",
    ):
        with pytest.raises(Exception, match=r"must be owner|permission denied"), engine.begin() as connection:
            connection.execute(text(statement))
    engine.dispose()
