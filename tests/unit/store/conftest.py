"""Real databases for the store's tests: a SQLite file and a private PostgreSQL, each test with a new one."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg2
import pytest

from unlatch.store.sql_store import SqlStore

_names = itertools.count(1)


class TickingClock:
    """Each look at it is one second later."""

    def __init__(self) -> None:
        self._now = datetime(2026, 10, 18, 3, 54, 52, tzinfo=UTC)

    def now(self) -> datetime:
        self._now += timedelta(seconds=1)
        return self._now

    def pause(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)


class PrivatePostgres:
    """A PostgreSQL of the test's own on a unix socket; `postgres` refuses to run as root, so `nobody` does."""

    def __init__(self, directory: Path, programs: Path) -> None:
        self.directory = directory
        self._programs = programs
        self._as_user: list[str] = []
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(directory, nobody.pw_uid, nobody.pw_gid)
            self._as_user = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]

    def run(self, program: str, *arguments: str) -> None:
        log = self.directory / "commands.log"
        with log.open("ab") as output:
            command = [*self._as_user, str(self._programs / program), "-D", str(self.directory / "data"), *arguments]
            done = subprocess.run(command, cwd="/", stdout=output, stderr=output, check=False)
        assert done.returncode == 0, f"{command}:\n{log.read_text()}"

    def start(self) -> None:
        self.run("initdb", "-U", "unlatch", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
        options = f"-k {self.directory} -c listen_addresses= -c fsync=off -c shared_buffers=16MB -c max_connections=40"
        self.run("pg_ctl", "start", "-w", "-l", str(self.directory / "server.log"), "-o", options)

    def stop(self) -> None:
        self.run("pg_ctl", "stop", "-w", "-m", "immediate")

    def url(self, database: str, user: str = "unlatch") -> str:
        return f"postgresql://{user}@/{database}?host={self.directory}"

    def sql(self, database: str, *statements: str) -> None:
        connection = psycopg2.connect(host=str(self.directory), user="unlatch", dbname=database)
        try:
            connection.autocommit = True
            for statement in statements:
                connection.cursor().execute(statement)
        finally:
            connection.close()

    def new_schema(self) -> str:
        """The URL of an empty schema, which is as good as a database and a hundred times cheaper to make."""
        name = f"s{next(_names)}"
        self.sql("postgres", f"CREATE SCHEMA {name}")
        return f"{self.url('postgres')}&options=-csearch_path%3D{name}"

    def new_database(self) -> str:
        name = f"store{next(_names)}"
        self.sql("postgres", f"CREATE DATABASE {name}")
        return name


@pytest.fixture(scope="session")
def postgres() -> Iterator[PrivatePostgres]:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        pytest.skip("PostgreSQL's server programs are not installed (Debian package: postgresql)")
    directory = Path(tempfile.mkdtemp(prefix="unlatch-pg-"))
    server = PrivatePostgres(directory, found[-1].parent)
    try:
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/unlatch.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty store, on each of the two databases."""
    if request.param == "sqlite":
        return request.getfixturevalue("sqlite_url")
    server: PrivatePostgres = request.getfixturevalue("postgres")
    return server.new_schema()


@pytest.fixture
def clock() -> TickingClock:
    return TickingClock()


@pytest.fixture
def store(url: str, clock: TickingClock) -> SqlStore:
    """An empty store with its tables."""
    made = SqlStore(url, clock=clock)
    made.migrate()
    return made
