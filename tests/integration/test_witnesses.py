"""The engines' witnesses on real servers: what a server writes at a commit is seen in two samples, lock or no lock."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import psycopg2
import pytest

from lab.private_sshd import directory_for_all
from tests.integration import private_databases
from tests.integration.private_databases import PrivateServer
from unlatch.engines import generic, mariadb, postgresql
from unlatch.models import Instance, Service
from unlatch_agent import sampling

pytestmark = pytest.mark.skipif(private_databases.missing() is not None, reason=str(private_databases.missing()))


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory for a server."""
    with directory_for_all() as path:
        yield path


@pytest.fixture
def running() -> Iterator[list[PrivateServer]]:
    """Servers that end with the test."""
    servers: list[PrivateServer] = []
    yield servers
    for server in servers:
        server.stop()


def look(engine: Any, data: Path, **declared: Any) -> dict[str, Any]:
    """The samples of an engine's witnesses, by the file's name."""
    words = ("true",)
    instance = Instance(
        name="voms",
        guest="g",
        engine=engine.name,
        volume="dbs03",
        os_user="mysql",
        datadir=PurePosixPath(data),
        host="127.0.0.1",
        port=1,
        service=Service(words, words, words, words, words),
        **declared,
    )
    found = sampling.run([str(path) for path in engine.witnesses(instance)], 60)["files"]
    return {Path(entry["path"]).name: entry["sample"] for entry in found}


def test_mariadb(directory: Path, running: list[PrivateServer]) -> None:
    """It should see a commit in the redo log, of which no lock tells anything."""
    server = private_databases.mariadb(directory, "CREATE DATABASE app;\nCREATE TABLE app.t (id INT);\n")
    running.append(server)
    server.start()
    engine, data = mariadb.PLUGIN, directory / "data"
    before = look(engine, data)
    assert {"ib_logfile0", "ibdata1", "aria_log_control", "aria_log.00000001"} <= set(before)
    subprocess.run(
        ["mariadb", "--no-defaults", f"--socket={directory}/s", "-e", "INSERT INTO app.t VALUES (1)"], check=True
    )
    assert look(engine, data)["ib_logfile0"] != before["ib_logfile0"]


def connected(directory: Path, port: int) -> Any:
    """A connection, once the server has recovered: it listens before that."""
    while True:
        try:
            return psycopg2.connect(host=str(directory), port=port, user="postgres", dbname="postgres")
        except psycopg2.OperationalError as error:
            if "starting up" not in str(error):
                raise
            time.sleep(0.05)


def test_postgresql(directory: Path, running: list[PrivateServer]) -> None:
    """It should see a commit in the newest segment of the WAL, and a checkpoint in the control file."""
    server = private_databases.postgresql(directory, "CREATE TABLE public.t (id int)")
    running.append(server)
    server.start()
    engine, data = postgresql.PLUGIN, directory / "data"
    connection = connected(directory, server.port)
    connection.autocommit = True
    before = look(engine, data)
    assert {"pg_control", "postmaster.pid"} <= set(before)
    assert len(before) == 3
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO public.t VALUES (1)")
        committed = look(engine, data)
        cursor.execute("CHECKPOINT")
    connection.close()
    assert {name for name in committed if committed[name] != before.get(name)} - {"pg_control"}
    assert look(engine, data)["pg_control"] != before["pg_control"]


def test_generic(directory: Path) -> None:
    """It should look at the files that the inventory names, also by a pattern."""
    for name in ("system01.dbf", "system02.dbf", "control.ctl"):
        (directory / name).write_text("x")
    assert set(look(generic.PLUGIN, directory, files=("*.dbf", "control.ctl", "none"))) == {
        "system01.dbf",
        "system02.dbf",
        "control.ctl",
    }
    assert look(generic.PLUGIN, directory) == {}
