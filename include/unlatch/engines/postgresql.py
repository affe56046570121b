"""PostgreSQL: no fcntl locks, but a `postmaster.pid` whose pid may by now be another program's; login by psycopg2.

The write probe makes a temporary table, inserts and commits, whereupon it is dropped. That writes catalog, table file
and WAL, and waits until the WAL is on disk; it is refused on a standby. Nothing is left. It needs TEMPORARY on the
database, which every user has by default.
"""

from __future__ import annotations

import re
import select
import time
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

import psycopg2
from psycopg2 import extensions, sql

from unlatch.engines._connections import CONNECT_LIMIT_S, QUERY_LIMIT_S, Login, login_of
from unlatch.engines._words import cause, explain, table_name
from unlatch.errors import CheckFailedError, ConfigError, TransientError, UnlatchError
from unlatch.models import AccessProof, Instance

ROWS_SEEN = 10

_TLS = ("sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl", "gssencmode", "krbsrvname")
_NOT_YET = {"57P01", "57P02", "57P03", "53300", "57014", "55P03"}
_NEXT_STEPS = {
    "25006": "the server is read-only or a standby: find out why, or set write_probe: false.",
    "28": "correct login or password of {conn_id}, or pg_hba.conf on the server.",
    "3D": "correct the schema of {conn_id}: it is the database's name, and the server has no such database.",
    "42P01": "correct read_table in the inventory; if the table should be there, the server runs on other files.",
    "42501": "grant the user that right, or correct the inventory (read_table, write_probe).",
    "XX": "its files are damaged: compare with a backup before anything else.",
}
# libpq gives no error code for a login that fails, only words. What is not known here is worth another try.
_REFUSED = re.compile(
    r"password authentication failed|authentication failed|no pg_hba\.conf entry|no password supplied|"
    r"role \"[^\"]*\" does not exist|database \"[^\"]*\" does not exist|not permitted to log in|permission denied",
    re.IGNORECASE,
)
_TLS_BROKEN = re.compile(r"\bSSL\b|certificate|sslmode", re.IGNORECASE)

_CAUSES = (
    cause(
        r"pre-existing shared memory block .* is still in use",
        "processes of an earlier server still run on this data directory: find and stop them, start nothing.",
    ),
    cause(
        r"lock file \"postmaster\.pid\" already exists",
        "postmaster.pid is left over and its pid belongs to a running process, so PostgreSQL takes it for a server.",
    ),
    cause(r"lock file \"([^\"]+)\" already exists", "another server uses the same port: its lock file {0} exists."),
    cause(r"no space left on device|disk full", "the file system is full."),
    cause(
        r"could not bind .*address already in use|could not create any tcp/ip sockets|is another postmaster already",
        "its TCP port is in use by another process.",
    ),
    cause(r"no locks available", "the lock service of the NFS mount does not work (rpc.statd is missing or stopped)."),
    cause(
        r"has (?:invalid permissions|group or world access|wrong ownership)",
        "owner or mode of its data directory is not right: it must belong to the server's user, mode 0700 or 0750.",
    ),
    cause(r"permission denied", "a file or directory is not readable or writable for the server's user."),
    cause(
        r"could not locate a valid checkpoint record|invalid checkpoint record|invalid page in block|"
        r"incorrect checksum|could not locate required checkpoint|PANIC:",
        "its files are damaged or belong to another point in time: compare with a backup, do NOT run pg_resetwal.",
    ),
    cause(
        r"database files are incompatible with server|was initialized by postgresql version",
        "its files are of another version of PostgreSQL than the server.",
    ),
    cause(
        r"(?:unrecognized configuration parameter|invalid value for parameter) \"([^\"]+)\"",
        "its configuration has an error at {0}.",
    ),
    cause(
        r"(?:directory|file) \"[^\"]*\"(?: does not exist|: no such file or directory)",
        "a file or directory of the database is missing: is its volume mounted?",
    ),
)


class Postgresql:
    """See the module."""

    name = "postgresql"

    def lock_paths(self, instance: Instance) -> tuple[PurePosixPath, ...]:  # noqa: ARG002  # the port's signature
        """None: PostgreSQL takes no fcntl locks, so on shared storage nothing protects it from a second server."""
        return ()

    def pid_files(self, instance: Instance) -> tuple[PurePosixPath, ...]:
        """`postmaster.pid`."""
        return (instance.datadir / "postmaster.pid",)

    def witnesses(self, instance: Instance) -> tuple[PurePosixPath, ...]:
        """The control file (each checkpoint rewrites it), the newest segment of the WAL, and `postmaster.pid`."""
        return tuple(instance.datadir / name for name in ("global/pg_control", "pg_wal", "postmaster.pid"))

    def executables(self, instance: Instance) -> tuple[str, ...]:
        """The server under both of its names."""
        return ("postgres", "postmaster", *instance.executables)

    def commit_order(self, paths: Iterable[PurePosixPath]) -> tuple[PurePosixPath, ...]:
        """By name."""
        return tuple(sorted(paths))

    def explain_failure(self, log_tail: str) -> str | None:
        """See `ports.Engine.explain_failure`."""
        return explain(log_tail, _CAUSES)

    def login(self, instance: Instance, *, write_probe: bool) -> AccessProof:
        """See `ports.Engine.login`; rows seen are counted up to `ROWS_SEEN`."""
        login = login_of(instance)
        started = time.monotonic()
        try:
            connection = _connect(login)
            try:
                version = _answers(connection)
                rows = _read(connection, instance) if instance.read_table else None
                if write_probe:
                    _write(connection)
            finally:
                connection.close()
        except psycopg2.Error as error:
            raise _in_plain_words(error, instance, login) from error
        except TimeoutError as error:
            raise TransientError(
                f"{instance.name} at {login.where} does not answer: {error}.",
                next_step="see whether the server hangs on its volume.",
            ) from error
        return AccessProof(
            server_version=version,
            user=login.user,
            seconds=round(time.monotonic() - started, 3),
            table_rows_seen=rows,
            wrote=write_probe,
        )


def _connect(login: Login) -> extensions.connection:
    """Connect without blocking: a server that hangs on its volume accepts connections and then says nothing."""
    values: dict[str, Any] = {
        "host": login.host,
        "port": login.port,
        "user": login.user or None,
        "password": login.password or None,
        "dbname": login.database or None,
        "application_name": "unlatch",
        **login.options(*_TLS),
    }
    connection: extensions.connection = psycopg2.connect(
        async_=True, **{key: value for key, value in values.items() if value is not None}
    )
    _wait(connection, CONNECT_LIMIT_S)
    return connection


def _wait(connection: extensions.connection, limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while (state := connection.poll()) != extensions.POLL_OK:
        left = deadline - time.monotonic()
        if left <= 0:
            connection.close()
            raise TimeoutError(f"no answer within {limit_s:g} s")
        reading = [connection] if state == extensions.POLL_READ else []
        select.select(reading, [] if reading else [connection], [], left)


def _ask(connection: extensions.connection, statement: str | sql.Composable) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        _wait(connection, QUERY_LIMIT_S)
        return cursor.fetchall() if cursor.description else []


def _answers(connection: extensions.connection) -> str:
    _ask(connection, "SELECT 1")
    return f"PostgreSQL {_ask(connection, 'SHOW server_version')[0][0]}"


def _read(connection: extensions.connection, instance: Instance) -> int:
    table = sql.Identifier(*table_name(instance))
    return len(_ask(connection, sql.SQL("SELECT * FROM {} LIMIT {}").format(table, sql.Literal(ROWS_SEEN))))


def _write(connection: extensions.connection) -> None:
    _ask(connection, "BEGIN")
    _ask(connection, "CREATE TEMPORARY TABLE unlatch_write_probe (n int) ON COMMIT DROP")
    _ask(connection, "INSERT INTO unlatch_write_probe VALUES (1)")
    _ask(connection, "COMMIT")


def _in_plain_words(error: psycopg2.Error, instance: Instance, login: Login) -> UnlatchError:
    code = error.pgcode or ""
    words = " ".join(str(error).split()) or type(error).__name__
    if not code and _TLS_BROKEN.search(words) and not _REFUSED.search(words):
        return ConfigError(
            f"No TLS connection to {instance.name} at {login.where}: {words}",
            next_step=f"check the ssl… options in the extra of {login.conn_id}.",
        )
    if code in _NOT_YET or code.startswith("08") or (not code and not _REFUSED.search(words)):
        return TransientError(
            f"{instance.name} at {login.where} does not accept a login: {words}",
            next_step="see whether the server is still starting; its log says how far it is.",
        )
    if not code:
        code = "3D000" if re.search(r"database \"", words) else "28000"
    following = _NEXT_STEPS.get(code) or _NEXT_STEPS.get(code[:2], "look this error up in the server's manual.")
    return CheckFailedError(
        f"{instance.name} at {login.where} refuses the user {login.user}: {words} ({code})",
        next_step=following.format(conn_id=login.conn_id),
    )


PLUGIN = Postgresql()
