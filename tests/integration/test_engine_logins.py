"""Client logins against real servers, and what is said when they fail."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any

import psycopg2
import pymysql
import pytest

from lab.private_sshd import directory_for_all, free_port
from tests.integration import private_databases
from tests.integration.private_databases import PrivateServer
from unlatch.engines import generic, mariadb, postgresql
from unlatch.errors import CheckFailedError, ConfigError, TransientError
from unlatch.models import Instance, Service

pytestmark = pytest.mark.skipif(private_databases.missing() is not None, reason=str(private_databases.missing()))

CONN_ID = "unlatch_db_test"
PASSWORD = "s3cret-of-the-test"

MARIADB_SETUP = f"""\
CREATE DATABASE app;
CREATE TABLE app.t (id INT PRIMARY KEY);
INSERT INTO app.t VALUES (1),(2),(3);
CREATE TABLE mysql.other (id INT);
CREATE USER 'reader'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';
GRANT SELECT ON app.* TO 'reader'@'127.0.0.1';
CREATE USER 'writer'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';
GRANT ALL ON app.* TO 'writer'@'127.0.0.1';
"""
POSTGRES_SETUP = f"""\
CREATE TABLE public.t (id int)
INSERT INTO public.t SELECT * FROM generate_series(1, 30)
CREATE TABLE public.hidden (id int)
CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'
GRANT SELECT ON public.t TO reader
CREATE ROLE frozen LOGIN PASSWORD '{PASSWORD}'
ALTER ROLE frozen SET default_transaction_read_only = on
CREATE ROLE crowded LOGIN PASSWORD '{PASSWORD}' CONNECTION LIMIT 0
"""


@pytest.fixture(scope="module")
def maria() -> Iterator[PrivateServer]:
    with directory_for_all() as directory:
        server = private_databases.mariadb(directory, MARIADB_SETUP)
        server.start()
        yield server
        server.stop()


@pytest.fixture(scope="module")
def postgres() -> Iterator[PrivateServer]:
    with directory_for_all() as directory:
        server = private_databases.postgresql(directory, POSTGRES_SETUP)
        server.start()
        yield server
        server.stop()


Make = Callable[..., Instance]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Make:
    """An instance with its Airflow connection."""

    def instance(
        port: int, *, user: str = "reader", password: str = PASSWORD, schema: str | None = None, **rest: Any
    ) -> Instance:
        extra = rest.pop("extra", {})
        fields = {"conn_type": "generic", "host": "127.0.0.1", "port": port, "login": user, "password": password}
        monkeypatch.setenv(f"AIRFLOW_CONN_{CONN_ID.upper()}", json.dumps({**fields, "schema": schema, "extra": extra}))
        words = ("true",)
        values = {
            "name": "voms",
            "guest": "g",
            "engine": "x",
            "volume": "v",
            "os_user": "mysql",
            "datadir": PurePosixPath("/d"),
            "host": "127.0.0.1",
            "port": port,
            "service": Service(words, words, words, words, words),
            "login_conn_id": CONN_ID,
        }
        return Instance(**{**values, **rest})

    return instance


class TestMariadb:
    """PyMySQL against a real MariaDB."""

    def test_login(self, maria: PrivateServer, make: Make) -> None:
        """It should log in, read, and say which server answered."""
        proof = mariadb.PLUGIN.login(make(maria.port, read_table="app.t"), write_probe=False)
        assert "MariaDB" in proof.server_version
        assert (proof.user, proof.table_rows_seen, proof.wrote) == ("reader", 3, False)

    def test_write_probe_leaves_nothing(self, maria: PrivateServer, make: Make) -> None:
        """It should write for real, twice, and leave the schema as it was."""
        instance = make(maria.port, user="writer", schema="app", read_table="t")
        for _ in range(2):
            assert mariadb.PLUGIN.login(instance, write_probe=True).wrote
        with (
            pymysql.connect(host="127.0.0.1", port=maria.port, user="writer", password=PASSWORD) as direct,
            direct.cursor() as cursor,
        ):
            cursor.execute("SHOW TABLES IN app")
            assert cursor.fetchall() == (("t",),)

    @pytest.mark.parametrize(
        ("changes", "write", "expected"),
        [
            ({"password": "wrong-" + PASSWORD}, False, ("Access denied", "login or password of unlatch_db_test")),
            ({"user": "nobody"}, False, ("Access denied", "login or password")),
            ({"user": "writer", "schema": "nothing"}, False, ("refuses", "schema of unlatch_db_test")),
            ({"read_table": "app.none"}, False, ("doesn't exist", "read_table")),
            ({"read_table": "mysql.other"}, False, ("denied", "grant")),
            ({"schema": "app"}, True, ("denied", "grant")),
        ],
    )
    def test_refused(
        self, maria: PrivateServer, make: Make, changes: dict[str, Any], write: bool, expected: tuple[str, str]
    ) -> None:
        """It should be no matter of trying again, say what to correct, and never show the password."""
        with pytest.raises(CheckFailedError, match=expected[0]) as caught:
            mariadb.PLUGIN.login(make(maria.port, **changes), write_probe=write)
        assert expected[1] in caught.value.next_step
        assert PASSWORD not in str(caught.value)

    def test_not_there_yet(self, make: Make) -> None:
        """It should be worth another try while nothing listens."""
        with pytest.raises(TransientError, match="does not accept a login"):
            mariadb.PLUGIN.login(make(free_port()), write_probe=False)

    def test_hanging_server(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        """It should not wait for ever on a server that accepts and then says nothing."""
        monkeypatch.setattr(mariadb, "CONNECT_LIMIT_S", 1)
        monkeypatch.setattr(mariadb, "QUERY_LIMIT_S", 1)
        with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(TransientError):
            mariadb.PLUGIN.login(make(listener.getsockname()[1]), write_probe=False)

    @pytest.mark.parametrize("table", ["a.b.c", "t; DROP TABLE t", "`t`", "", ".t", "t\n", "a" * 65])
    def test_table_names(self, maria: PrivateServer, make: Make, table: str) -> None:
        """It should refuse what is no name, and never make SQL of it."""
        instance = make(maria.port, read_table=table)
        if table:
            with pytest.raises(ConfigError, match="read_table"):
                mariadb.PLUGIN.login(instance, write_probe=False)
        else:
            assert mariadb.PLUGIN.login(instance, write_probe=False).table_rows_seen is None

    def test_write_probe_without_schema(self, maria: PrivateServer, make: Make) -> None:
        """It should say what is missing in the connection."""
        with pytest.raises(ConfigError, match="names none"):
            mariadb.PLUGIN.login(make(maria.port, user="writer"), write_probe=True)

    def test_tls_options_reach_the_client(self, maria: PrivateServer, make: Make) -> None:
        """It should not fall back to a plain connection when the CA file is not there."""
        with pytest.raises(ConfigError, match="No such file"):
            mariadb.PLUGIN.login(make(maria.port, extra={"ssl_ca": "/nowhere/ca.pem"}), write_probe=False)

    def test_explains_a_real_locked_file(self) -> None:
        """It should recognise what this very version writes when ibdata1 is locked by another process."""
        with directory_for_all() as directory:
            server = private_databases.mariadb(directory, "")
            with (directory / "data" / "ibdata1").open("r+b") as held:
                fcntl.lockf(held, fcntl.LOCK_EX)
                assert server.launch().wait(timeout=60) != 0
            meaning = mariadb.PLUGIN.explain_failure(server.log.read_text())
        assert meaning == "the file ibdata1 is still locked by another process or a dead client."


def answering(code: str, words: str) -> Callable[[socket.socket], None]:
    """A PostgreSQL that refuses every start-up packet with this error."""

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                request = client.recv(4096)
                if struct.unpack("!I", request[4:8])[0] == 80877103:  # SSLRequest
                    client.sendall(b"N")
                    client.recv(4096)
                body = b"".join(
                    kind + text.encode() + b"\0" for kind, text in ((b"S", "FATAL"), (b"C", code), (b"M", words))
                )
                client.sendall(b"E" + struct.pack("!I", len(body) + 5) + body + b"\0")

    return serve


class TestPostgresql:
    """psycopg2 against a real PostgreSQL."""

    def test_login(self, postgres: PrivateServer, make: Make) -> None:
        """It should log in, read a bounded number of rows, and say which server answered."""
        instance = make(postgres.port, schema="postgres", read_table="public.t")
        proof = postgresql.PLUGIN.login(instance, write_probe=False)
        assert proof.server_version.startswith("PostgreSQL 1")
        assert (proof.user, proof.table_rows_seen, proof.wrote) == ("reader", postgresql.ROWS_SEEN, False)

    def test_write_probe_leaves_nothing(self, postgres: PrivateServer, make: Make) -> None:
        """It should write for real, twice, and leave no table."""
        instance = make(postgres.port, schema="postgres")
        for _ in range(2):
            assert postgresql.PLUGIN.login(instance, write_probe=True).wrote
        direct = psycopg2.connect(
            host="127.0.0.1", port=postgres.port, user="reader", password=PASSWORD, dbname="postgres"
        )
        with direct.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_class WHERE relname LIKE 'unlatch%'")
            assert cursor.fetchone() == (0,)
        direct.close()

    @pytest.mark.parametrize(
        ("changes", "write", "expected"),
        [
            (
                {"password": "wrong-" + PASSWORD},
                False,
                ("password authentication failed", "password of unlatch_db_test"),
            ),
            ({"schema": "nothing"}, False, ("does not exist", "schema of unlatch_db_test")),
            ({"read_table": "public.none"}, False, ("does not exist", "read_table")),
            ({"read_table": "public.hidden"}, False, ("permission denied", "grant")),
            ({"user": "frozen"}, True, ("read-only", "read-only")),
        ],
    )
    def test_refused(
        self, postgres: PrivateServer, make: Make, changes: dict[str, Any], write: bool, expected: tuple[str, str]
    ) -> None:
        """It should be no matter of trying again, say what to correct, and never show the password."""
        with pytest.raises(CheckFailedError, match=expected[0]) as caught:
            postgresql.PLUGIN.login(make(postgres.port, **{"schema": "postgres", **changes}), write_probe=write)
        assert expected[1] in caught.value.next_step
        assert PASSWORD not in str(caught.value)

    def test_not_there_yet(self, make: Make) -> None:
        """It should be worth another try while nothing listens."""
        with pytest.raises(TransientError, match="does not accept a login"):
            postgresql.PLUGIN.login(make(free_port()), write_probe=False)

    def test_too_many_connections(self, postgres: PrivateServer, make: Make) -> None:
        """It should be worth another try: others may leave."""
        with pytest.raises(TransientError, match="too many connections"):
            postgresql.PLUGIN.login(make(postgres.port, user="crowded", schema="postgres"), write_probe=False)

    @pytest.mark.parametrize("words", ["the database system is starting up", "das Datenbanksystem startet"])
    def test_starting_up(self, make: Make, words: str) -> None:
        """It should be worth another try while the server recovers, in whatever language it says so."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            server = threading.Thread(target=answering("57P03", words), args=(listener,))
            server.start()
            try:
                with pytest.raises(TransientError, match=words):
                    postgresql.PLUGIN.login(make(listener.getsockname()[1]), write_probe=False)
            finally:
                listener.shutdown(socket.SHUT_RDWR)
                server.join()

    def test_hanging_server(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        """It should not wait for ever on a server that accepts and then says nothing."""
        monkeypatch.setattr(postgresql, "CONNECT_LIMIT_S", 0.5)
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            pytest.raises(TransientError, match="no answer within"),
        ):
            postgresql.PLUGIN.login(make(listener.getsockname()[1]), write_probe=False)

    def test_server_that_stops_in_the_middle(
        self, postgres: PrivateServer, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It should limit each answer: a server whose volume hangs keeps its connections."""
        monkeypatch.setattr(postgresql, "QUERY_LIMIT_S", 0.5)
        instance = make(postgres.port, schema="postgres")
        login = postgresql.login_of(instance)
        connection = postgresql._connect(login)
        backend = connection.get_backend_pid()
        os.kill(backend, signal.SIGSTOP)
        try:
            with pytest.raises(TimeoutError):
                postgresql._answers(connection)
        finally:
            os.kill(backend, signal.SIGCONT)

    def test_tls_options_reach_the_client(self, postgres: PrivateServer, make: Make) -> None:
        """It should not fall back to a plain connection when TLS is demanded."""
        instance = make(postgres.port, schema="postgres", extra={"sslmode": "require"})
        with pytest.raises(ConfigError, match="SSL"):
            postgresql.PLUGIN.login(instance, write_probe=False)

    def test_explains_a_real_stale_pid_file(self) -> None:
        """It should recognise what this very version writes when another process has the recorded pid."""
        with directory_for_all() as directory:
            server = private_databases.postgresql(directory, "")
            as_postgres = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--init-groups"]
            other = subprocess.Popen([*as_postgres, "sleep", "99"])
            try:
                pid_file = directory / "data" / "postmaster.pid"
                pid_file.write_text(f"{other.pid}\n{directory}/data\n1700000000\n{server.port}\n\n127.0.0.1\n")
                shutil.chown(pid_file, "postgres", "postgres")
                assert server.launch().wait(timeout=60) != 0
            finally:
                other.kill()
                other.wait()
            meaning = postgresql.PLUGIN.explain_failure(server.log.read_text())
        assert meaning is not None
        assert meaning.startswith("postmaster.pid is left over")


class TestGeneric:
    """A TCP connection."""

    def test_login(self, make: Make) -> None:
        """It should say that only the port was asked."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            proof = generic.PLUGIN.login(make(listener.getsockname()[1]), write_probe=False)
        assert (proof.server_version, proof.user, proof.wrote) == ("tcp", "", False)

    def test_refused(self, make: Make) -> None:
        """It should be worth another try."""
        with pytest.raises(TransientError, match="accepts no connection"):
            generic.PLUGIN.login(make(free_port()), write_probe=False)

    def test_cannot_write(self, make: Make) -> None:
        """It should not claim a write that it cannot do."""
        with pytest.raises(CheckFailedError, match="cannot write"):
            generic.PLUGIN.login(make(1), write_probe=True)

    def test_files(self, make: Make) -> None:
        """It should name plain files, and look at the whole directory for patterns."""
        assert generic.PLUGIN.lock_paths(make(1, files=("a", "b/c"))) == (
            PurePosixPath("/d/a"),
            PurePosixPath("/d/b/c"),
        )
        assert generic.PLUGIN.lock_paths(make(1, files=("a", "*.dbf"))) == (PurePosixPath("/d"),)
        assert generic.PLUGIN.lock_paths(make(1)) == (PurePosixPath("/d"),)


class TestConnections:
    """What the inventory and Airflow must have."""

    def test_no_login_conn_id(self, make: Make) -> None:
        """It should say what to add to the inventory."""
        for plugin in (mariadb.PLUGIN, postgresql.PLUGIN):
            with pytest.raises(ConfigError, match="no login_conn_id"):
                plugin.login(make(1, login_conn_id=None), write_probe=False)

    def test_no_such_connection(self, make: Make) -> None:
        """It should name the connection."""
        with pytest.raises(ConfigError, match="unlatch_db_none"):
            mariadb.PLUGIN.login(make(1, login_conn_id="unlatch_db_none"), write_probe=False)

    def test_password_is_not_shown(self, make: Make) -> None:
        """It should keep passwords and extras out of what a log would print."""
        login = mariadb.login_of(make(1, extra={"token": "t0ken"}))
        assert PASSWORD not in repr(login)
        assert "t0ken" not in repr(login)
