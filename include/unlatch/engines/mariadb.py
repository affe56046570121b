"""MariaDB and MySQL: fcntl locks on the files of the data directory; login through PyMySQL.

The write probe makes a table `unlatch_write_probe` in the connection's schema, inserts, commits, reads and drops it. A
temporary table would not do: it is written outside the redo log, also on a read-only server. Should the probe be cut
off, the table stays until the next probe drops it. It needs CREATE, INSERT, SELECT and DROP on that schema.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

import pymysql
from pymysql.cursors import Cursor

from unlatch.engines._connections import CONNECT_LIMIT_S, QUERY_LIMIT_S, Login, login_of
from unlatch.engines._words import cause, explain, table_name
from unlatch.errors import CheckFailedError, ConfigError, TransientError, UnlatchError
from unlatch.models import AccessProof, Instance

ROWS_SEEN = 10
PROBE_TABLE = "unlatch_write_probe"

_TLS = ("ssl_ca", "ssl_cert", "ssl_key", "ssl_disabled", "ssl_verify_cert", "ssl_verify_identity")
_NOT_YET = {1040, 1053, 1158, 1159, 1160, 1161, 1205, 1927, 2002, 2003, 2006, 2013}
_TLS_BROKEN = 2026
_NEXT_STEPS = {
    1044: "grant the user that schema, or correct the schema of {conn_id}.",
    1045: "correct login or password of {conn_id}.",
    1049: "correct the schema of {conn_id}: the server has no such database.",
    1130: "let the server accept this worker's address.",
    1142: "grant the user that right, or correct the inventory (read_table, write_probe).",
    1146: "correct read_table in the inventory; if the table should be there, the server runs on other files.",
    1290: "the server is read-only: find out why, or set write_probe: false.",
    1836: "the server is read-only: find out why, or set write_probe: false.",
    1698: "correct login or password of {conn_id}.",
    1877: "do NOT drop the table: a lock or a missing file makes it look corrupt; check the locks on its .ibd file.",
}
_LAST = {"aria_log_control": 1, "ibdata1": 2}
# "#innodb_redo": MySQL from 8.0.30 on keeps its redo log there.
_WITNESSES = ("ib_logfile*", "#innodb_redo", "ibdata1", "aria_log_control", "aria_log.*")

_CAUSES = (
    cause(
        r"unable to lock \S*?([\w.#-]+) error: 37|can't lock aria control file '\S*?([\w.]+)'.*error: 37",
        "the lock service of the NFS mount does not work (error 37, ENOLCK: rpc.statd is missing or stopped). "
        "Nothing is wrong with the files; start rpc-statd on the guest.",
    ),
    cause(r"no locks available", "the lock service of the NFS mount does not work (rpc.statd is missing or stopped)."),
    cause(
        r"unable to lock \S*?([\w.#-]+) error: 11", "the file {0} is still locked by another process or a dead client."
    ),
    cause(
        r"can't lock aria control file '\S*?([\w.]+)'",
        "the file {0} is still locked by another process or a dead client.",
    ),
    cause(
        r"could not get an exclusive lock; file is probably in use",
        "the file aria_log_control is still locked by another process or a dead client.",
    ),
    cause(
        r"no space left on device|errcode: 28|os error: 28|error number 28|disk is full|disk full",
        "the file system is full.",
    ),
    cause(
        r"bind on tcp/ip port.*in use|another (?:mysqld )?server running on port:? ?(?:\d+)?",
        "its TCP port is in use by another process.",
    ),
    cause(
        r"permission denied|errcode: 13|does not have the access rights|must be writable",
        "a file or directory is not readable or writable for the server's user.",
    ),
    cause(
        r"page corruption|may be corrupt|corrupted|missing file_checkpoint|checksum mismatch|is in the future|"
        r"aria recovery failed|upgrade after a crash is not supported",
        "its files are damaged or belong to another point in time: compare with a backup before anything else.",
    ),
    cause(
        r"(?:was not found|no such file or directory|cannot find the file|could not find a valid tablespace)",
        "a file or directory of the database is missing: is its volume mounted?",
    ),
    cause(r"unknown (?:variable|option) '([^']+)'", "its configuration has an option that it does not know: {0}."),
)


class Mariadb:
    """See the module."""

    name = "mariadb"

    def lock_paths(self, instance: Instance) -> tuple[PurePosixPath, ...]:
        """The data directory: which of its files are locked depends on version and options."""
        return (instance.datadir,)

    def pid_files(self, instance: Instance) -> tuple[PurePosixPath, ...]:
        """None of its own: the server ignores a stale pid file."""
        return tuple(instance.datadir / name for name in instance.pid_files)

    def witnesses(self, instance: Instance) -> tuple[PurePosixPath, ...]:
        """The redo logs (the checkpoint's blocks are in their first 64 KiB) and the headers with the newest LSN."""
        return tuple(instance.datadir / name for name in _WITNESSES)

    def executables(self, instance: Instance) -> tuple[str, ...]:
        """The server and the scripts that start it again when it dies."""
        return ("mariadbd", "mysqld", "mariadbd-safe", "mysqld_safe", *instance.executables)

    def commit_order(self, paths: Iterable[PurePosixPath]) -> tuple[PurePosixPath, ...]:
        """By name, ibdata1 last: without it in place no InnoDB starts on half of a batch."""
        return tuple(sorted(paths, key=lambda path: (_LAST.get(path.name, 0), path)))

    def explain_failure(self, log_tail: str) -> str | None:
        """See `ports.Engine.explain_failure`."""
        return explain(log_tail, _CAUSES)

    def login(self, instance: Instance, *, write_probe: bool) -> AccessProof:
        """See `ports.Engine.login`; rows seen are counted up to `ROWS_SEEN`."""
        login = login_of(instance)
        started = time.monotonic()
        try:
            with _connect(login) as connection, connection.cursor() as cursor:
                version = _answers(cursor)
                rows = _read(cursor, instance) if instance.read_table else None
                if write_probe:
                    _write(connection, cursor, login)
        except pymysql.MySQLError as error:
            raise _in_plain_words(error, instance, login) from error
        return AccessProof(
            server_version=version,
            user=login.user,
            seconds=round(time.monotonic() - started, 3),
            table_rows_seen=rows,
            wrote=write_probe,
        )


def _connect(login: Login) -> pymysql.Connection[Cursor]:
    options: dict[str, Any] = login.options(*_TLS)
    tls = login.extra.get("ssl")
    if tls:
        options["ssl"] = json.loads(tls) if isinstance(tls, str) else tls
    try:
        return pymysql.connect(
            host=login.host,
            port=login.port,
            user=login.user,
            password=login.password,
            database=login.database,
            connect_timeout=CONNECT_LIMIT_S,
            read_timeout=QUERY_LIMIT_S,
            write_timeout=QUERY_LIMIT_S,
            **options,
        )
    except (OSError, ValueError, TypeError, RuntimeError) as error:  # TLS files, options, a missing crypto library
        raise ConfigError(
            f"The Airflow connection {login.conn_id} cannot be used: {type(error).__name__}: {error}",
            next_step="check the ssl_… options of its extra.",
        ) from error


def _answers(cursor: Cursor) -> str:
    cursor.execute("SELECT 1, VERSION()")
    row = cursor.fetchone()
    return str(row[1]) if row else ""


def _read(cursor: Cursor, instance: Instance) -> int:
    table = ".".join(f"`{part}`" for part in table_name(instance))
    cursor.execute(f"SELECT * FROM {table} LIMIT {ROWS_SEEN}")  # noqa: S608  # checked and quoted; names take no parameter
    return len(cursor.fetchall())


def _write(connection: pymysql.Connection[Cursor], cursor: Cursor, login: Login) -> None:
    if login.database is None:
        raise ConfigError(
            f"The write probe needs a schema to write to, and {login.conn_id} names none.",
            next_step=f"set the schema of {login.conn_id}, or write_probe: false in the inventory.",
        )
    cursor.execute(f"DROP TABLE IF EXISTS {PROBE_TABLE}")
    cursor.execute(f"CREATE TABLE {PROBE_TABLE} (n INT) ENGINE=InnoDB")
    try:
        cursor.execute(f"INSERT INTO {PROBE_TABLE} VALUES (1)")  # noqa: S608  # a constant
        connection.commit()
    finally:
        cursor.execute(f"DROP TABLE IF EXISTS {PROBE_TABLE}")


def _in_plain_words(error: pymysql.MySQLError, instance: Instance, login: Login) -> UnlatchError:
    code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    words = str(error.args[-1]) if error.args else type(error).__name__
    if code in _NOT_YET:
        return TransientError(
            f"{instance.name} at {login.where} does not accept a login: {words} ({code}).",
            next_step="see whether the server is still starting; its error log says how far it is.",
        )
    if code == _TLS_BROKEN:
        return ConfigError(
            f"No TLS connection to {instance.name} at {login.where}: {words}.",
            next_step=f"check the ssl_… options in the extra of {login.conn_id}.",
        )
    return CheckFailedError(
        f"{instance.name} at {login.where} refuses the user {login.user}: {words} ({code}).",
        next_step=_NEXT_STEPS.get(code, "look this error up in the server's manual.").format(conn_id=login.conn_id),
    )


PLUGIN = Mariadb()
