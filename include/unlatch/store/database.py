"""One database behind one URL: connections, transactions, and its errors in the project's own words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, NullPool, Table, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError

from unlatch.errors import ConfigError, TransientError

_WRITES = "unlatch_writes"

# psycopg2 gives no SQLSTATE for a connection that was refused, so those are known by their (English) text alone;
# one that is not recognised is taken for out of reach, which only costs some retries.
_WRONG_SETTING = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry|(database|role) \".*\" does not exist"
    r"|is not permitted to log in|unable to open database file|readonly database|file is not a database"
    r"|invalid (dsn|port|connection option|integer value)|root certificate|certificate verify failed"
)
_NO_SCHEMA = re.compile(r"no such (table|column)|has no column named|(relation|column) \".*\" (of .*)?does not exist")


class Database:
    """Transactions on the store's database. Safe to share between threads, and across fork: nothing is kept open."""

    def __init__(self, url: str, *, wait_s: float) -> None:
        """Connects to nothing yet.

        Args:
            url: `sqlite:///var/unlatch.db` or `postgresql://user:password@host/database`.
            wait_s: how long a statement waits for another's lock before `TransientError`.

        Raises:
            ConfigError: the URL is none of these.
        """
        self.url = _checked(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.shown = self.url.render_as_string(hide_password=True)
        self._wait_ms = round(wait_s * 1000)
        # NullPool: Airflow forks its task processes, and a SQLite or libpq connection must not cross a fork (closing
        # the child's copy drops the parent's file locks, or ends its session).
        self._engine = create_engine(self.url, poolclass=NullPool, **_arguments(self.url))
        (_tune_sqlite if self.is_sqlite else _tune_postgresql)(self._engine, self._wait_ms)
        self._writer = self._engine.execution_options(**{_WRITES: True})

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction for looking, rolled back at its end.

        Raises:
            TransientError: locked or out of reach.
            ConfigError: no such database, no right to it, or no schema in it.
        """
        with self._plain_errors(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction, committed at the end; an error rolls all of it back.

        Raises:
            TransientError: locked or out of reach. Should the connection break during the commit, nobody can tell
                whether it counted: callers must be able to say the same thing again.
            ConfigError: no such database, no right to it, or no schema in it.
        """
        with self._plain_errors(), self._writer.begin() as connection:
            yield connection

    def insert(self, table: Table) -> Any:
        """An INSERT that knows ON CONFLICT, which both databases spell alike but SQLAlchemy keeps apart."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise self._translated(error) from error

    def _translated(self, error: DBAPIError) -> Exception:
        text = " ".join(str(error.orig).split())
        state = str(getattr(error.orig, "pgcode", None) or "")
        if _NO_SCHEMA.search(text) or state in {"42P01", "42703"}:
            return ConfigError(
                f"The store at {self.shown} does not have the tables of this version: {text}.",
                next_step="Check UNLATCH_STORE_URL; then let Unlatch create them (any `unlatch` command does).",
            )
        if _WRONG_SETTING.search(text) or state in {"42501", "28P01", "28000", "3D000"}:
            return ConfigError(
                f"The store at {self.shown} cannot be used: {text}.",
                next_step="Check UNLATCH_STORE_URL, that the database exists, and the rights of its user.",
            )
        # 40*: rolled back by a conflict; 53*: out of connections, memory or disk; 55P03: lock not available;
        # 57*: the server is stopping or starting; 08*: connection lost.
        if isinstance(error, (OperationalError, InterfaceError)) or state[:2] in {"08", "40", "53", "57"}:
            return TransientError(
                f"The store at {self.shown} is locked or out of reach: {text}.",
                next_step="It is tried again; if it stays so, look at the database and its disk.",
            )
        return error


def _checked(url: str) -> URL:
    advice = "Set UNLATCH_STORE_URL to sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE."
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, ValueError) as error:  # the text may hold a password, so it is not shown
        raise ConfigError("The store's URL cannot be read.", next_step=advice) from error
    if backend == "postgres":  # the spelling of libpq and of many hosting services
        backend = "postgresql"
    if backend not in {"sqlite", "postgresql"}:
        raise ConfigError(f"The store cannot live in {backend!r}.", next_step=advice)
    parsed = parsed.set(drivername="sqlite" if backend == "sqlite" else "postgresql+psycopg2")
    if backend == "sqlite":
        if parsed.database in {None, "", ":memory:"}:
            raise ConfigError("A store in memory would forget every incident.", next_step=advice)
        try:
            Path(str(parsed.database)).absolute().parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"The store's directory {Path(str(parsed.database)).parent} cannot be made: {error.strerror}.",
                next_step="Make it, writable for the user that runs Airflow, or change UNLATCH_STORE_URL.",
            ) from error
    return parsed


def _arguments(url: URL) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return {}
    # A server that vanished (cable, fence) must not hold a step for the hours that TCP would.
    patience = {"connect_timeout": 10, "keepalives_idle": 30, "tcp_user_timeout": 30_000, "application_name": "unlatch"}
    return {
        # The head of the chain is read after the lock was got: only this level sees what was committed meanwhile.
        "isolation_level": "READ COMMITTED",
        "connect_args": {key: value for key, value in patience.items() if key not in url.query},
    }


def _tune_sqlite(engine: Engine, wait_ms: int) -> None:
    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver must not begin or commit on its own: `begun` does
        connection.execute(f"PRAGMA busy_timeout = {wait_ms}")
        connection.execute("PRAGMA synchronous = FULL")  # an intent that a power cut forgets is none

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        # IMMEDIATE: a reader that turns writer half-way fails at once, whatever the timeout, when another was faster.
        writes = connection.get_execution_options().get(_WRITES)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _tune_postgresql(engine: Engine, wait_ms: int) -> None:
    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        if connection.get_execution_options().get(_WRITES):
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = {wait_ms}")
