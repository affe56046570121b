"""Brings the store's schema to this version's: Alembic, with the migrations that are packaged beside this module."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path

from sqlalchemy import Connection, column, func, inspect, select, table

from unlatch.errors import ConfigError, TransientError
from unlatch.store.database import Database
from unlatch.store.schema import VERSION_TABLE

HEAD = "0004"
"""The newest revision, known without loading Alembic: every task asks, and almost always nothing is to do."""

MIGRATIONS = Path(__file__).parent / "migrations"

_MIGRATION_LOCK = int.from_bytes(b"unlatch", "big") + 1
_one_at_a_time = threading.Lock()  # Alembic keeps its context in module globals


def migrate(database: Database) -> None:
    """Create or upgrade the tables; does nothing when they are up to date. Safe to call from anywhere at any time.

    Raises:
        TransientError: the database is locked or out of reach.
        ConfigError: it is another program's, a newer Unlatch's, or may not be written.
    """
    with database.reading() as connection:
        if _revision(connection) == HEAD:
            return
    if database.is_sqlite:
        _use_write_ahead_log(database)
    with _one_at_a_time, database.writing() as connection:
        if not database.is_sqlite:
            connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
        if _revision(connection) != HEAD:  # another may have done it while this one waited for the lock
            _upgrade(connection, database.shown)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    revision: str | None = connection.execute(select(column("version_num")).select_from(table(VERSION_TABLE))).scalar()
    return revision


def _upgrade(connection: Connection, shown: str) -> None:
    from alembic import command  # noqa: PLC0415  # 0.3 s that only the first start pays
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise ConfigError(
            f"The store at {shown} was written by another version of Unlatch: {error}.",
            next_step="Install the version that wrote it, or a newer one; there is no way back to an older schema.",
        ) from error


def _use_write_ahead_log(database: Database) -> None:
    """Let readers and the one writer not block each other; the setting stays in the file.

    SQLite does not wait (busy_timeout) for the moment alone that this needs, so the loop does.
    """
    deadline = time.monotonic() + 30
    while True:
        connection = sqlite3.connect(str(database.url.database), timeout=1, isolation_level=None)
        try:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            mode = str(error)
        except sqlite3.DatabaseError as error:
            raise ConfigError(
                f"{database.url.database} is no SQLite database: {error}.",
                next_step="Set UNLATCH_STORE_URL to a new file; the one that is there was left as it is.",
            ) from error
        finally:
            connection.close()
        if mode == "wal":
            return
        if time.monotonic() > deadline:
            raise TransientError(
                f"The store at {database.shown} cannot be switched to a write-ahead log: {mode}.",
                next_step="Close other programs that have the file open; it must be on a local disk, not on NFS.",
            )
        time.sleep(0.05)
