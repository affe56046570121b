"""Loaded data directories, built once and copied for every lab: a fresh lab is up in seconds, 200 MB of rows included.

The build runs inside a throw-away machine, so it needs no path that the database users could reach on the host, no
service of the host and no free port.
"""

from __future__ import annotations

import contextlib
import hashlib
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lab import instances, rootfs
from lab.errors import LabError
from lab.instances import Instance
from lab.machine import Machine
from lab.state import exclusive

VERSION = 2
_LOAD_OPTIONS = (
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-doublewrite=0",
    "--innodb-buffer-pool-size=256M",
    "--skip-networking",
)
_ROW_BYTES = 1100
_PAYLOAD = "CONCAT(MD5(seq), REPEAT(SHA1(seq), 24), MD5(-seq))"
_SCHEMA = """
CREATE DATABASE app;
USE app;
CREATE TABLE app.t (id INT PRIMARY KEY, subject VARCHAR(64) NOT NULL, payload TEXT NOT NULL) ENGINE=InnoDB;
CREATE TABLE app.writer (id BIGINT PRIMARY KEY, at TIMESTAMP(6) DEFAULT CURRENT_TIMESTAMP(6), note TEXT) ENGINE=InnoDB;
CREATE TABLE app.acl (id INT PRIMARY KEY, acl TEXT) ENGINE=Aria;
INSERT INTO app.acl SELECT seq, SHA1(seq) FROM seq_1_to_2000;
CREATE USER app_owner@'127.0.0.1';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP ON app.* TO app_owner@'127.0.0.1';
"""
_POSTGRESQL_SCHEMA = """
CREATE ROLE app_owner LOGIN;
CREATE DATABASE app OWNER app_owner;
\\connect app
SET ROLE app_owner;
CREATE TABLE public.t AS SELECT i AS id, md5(i::text) AS name FROM generate_series(1, 20000) AS i;
ALTER TABLE public.t ADD PRIMARY KEY (id);
CREATE TABLE public.writer (id bigint PRIMARY KEY, at timestamptz DEFAULT now(), note text);
"""
_POSTGRESQL_CONF = """
listen_addresses = '127.0.0.1'
unix_socket_directories = '/run/db'
shared_buffers = 16MB
max_connections = 40
log_timezone = 'UTC'
"""


def ensure(cache: Path, voms_mb: int) -> Path:
    """Return a directory with the data directories voms, alvmysql and lxr, building it first if need be.

    Args:
        cache: Where templates are kept; several labs may share it.
        voms_mb: At least this many MB of rows go into the ibdata1 of voms.
    """
    target = cache / _key(voms_mb)
    if target.exists():
        return target
    with exclusive(cache / "build.lock"):
        if not target.exists():
            for leftover in cache.glob("building-*"):
                shutil.rmtree(leftover)
            building = Path(tempfile.mkdtemp(prefix="building-", dir=cache))
            building.chmod(0o755)
            _build(building, voms_mb)
            (building / "volume").rename(target)
            shutil.rmtree(building)
    return target


def copy(template: Path, volume: Path) -> None:
    """Put fresh copies of the template's data directories on a volume, in place of what is there."""
    sources = sorted(template.iterdir())
    for source in sources:
        shutil.rmtree(volume / source.name, ignore_errors=True)
    copies = [subprocess.Popen(["cp", "-a", "--reflink=auto", str(source), str(volume)]) for source in sources]
    failed = [source.name for source, child in zip(sources, copies, strict=True) if child.wait() != 0]
    if failed:
        raise LabError(f"copying {', '.join(failed)} from {template} to {volume} failed: is the disk full?")


def _key(voms_mb: int) -> str:
    servers = ("/usr/sbin/mariadbd", f"{instances.postgresql_bindir()}/postgres")
    versions = [
        subprocess.run([each, "--version"], capture_output=True, text=True, check=True).stdout for each in servers
    ]
    ids = "".join(f"{name}{_ids(name)}" for name in instances.OS_USERS)
    recipe = "".join((*versions, ids, _SCHEMA, _POSTGRESQL_SCHEMA, _POSTGRESQL_CONF, _PAYLOAD, str(VERSION)))
    return f"voms-{voms_mb}mb-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"


def _ids(user: str) -> tuple[int, int]:
    status = pwd.getpwnam(user)
    return status.pw_uid, status.pw_gid


def _build(directory: Path, voms_mb: int) -> None:
    volume = directory / "volume"
    volume.mkdir()
    three = instances.the_three({"voms": 1, "alvmysql": 2, "lxr": 5432}, {"voms": "", "alvmysql": "", "lxr": ""})
    layout = rootfs.Layout(
        hostname="builder",
        account=rootfs.Account("nologin", rootfs.free_uid(), ""),
        ssh_port=0,
        system_users=instances.OS_USERS,
        directories=("var/log/db",),
    )
    machine = Machine(directory, directory / "machine", layout, binds={instances.VOLUME_PATH: volume}, daemons=())
    machine.build()
    machine.boot()
    try:
        machine.run(["install", "-d", "-m", "1777", "/run/db"])
        _build_mariadb(machine, three["alvmysql"], rows=1000)
        rows = max(1000, voms_mb * 1_000_000 // _ROW_BYTES)
        _build_mariadb(machine, three["voms"], rows=rows)
        _build_postgresql(machine, three["lxr"])
    finally:
        machine.kill()


def _build_mariadb(machine: Machine, instance: Instance, rows: int) -> None:
    machine.run(["install", "-d", "-o", "mysql", "-g", "mysql", "-m", "700", instance.datadir])
    machine.run(
        ["mariadb-install-db", "--no-defaults", f"--datadir={instance.datadir}", "--skip-test-db", *instance.options,
         "--auth-root-authentication-method=socket", "--auth-root-socket-user=root", "--innodb-log-file-size=16M"],
        user="mysql",
    )  # fmt: skip
    load = f"INSERT INTO app.t SELECT seq, CONCAT('/DC=ch/CN=', MD5(seq)), {_PAYLOAD} FROM app.seq_1_to_{rows};\n"
    with _server(machine, [*instance.server_argv(), *_LOAD_OPTIONS], instance.os_user):
        client = ["mariadb", "--no-defaults", f"--socket={instance.socket}"]
        machine.run(["mariadb-admin", *client[1:], "--wait=60", "--connect-timeout=60", "ping"])
        machine.run(client, stdin=_SCHEMA + load)
        machine.run(["mariadb-admin", *client[1:], "shutdown"])


def _build_postgresql(machine: Machine, instance: Instance) -> None:
    bindir = instances.postgresql_bindir()
    machine.run(["install", "-d", "-o", "postgres", "-g", "postgres", "-m", "700", instance.datadir])
    machine.run(
        [f"{bindir}/initdb", "-D", instance.datadir, "--locale=C.UTF-8", "--no-sync", "--auth-local=peer",
         "--auth-host=scram-sha-256", "--wal-segsize=1"],
        user="postgres",
    )  # fmt: skip
    machine.run(["tee", "-a", f"{instance.datadir}/postgresql.conf"], user="postgres", stdin=_POSTGRESQL_CONF)
    control = [f"{bindir}/pg_ctl", "-D", instance.datadir, "-l", instance.error_log, "-w"]
    machine.run(["install", "-o", "postgres", "/dev/null", instance.error_log])
    machine.run([*control, "-o", "-c listen_addresses=''", "start"], user="postgres")
    machine.run(["psql", "-h", "/run/db", "-v", "ON_ERROR_STOP=1"], user="postgres", stdin=_POSTGRESQL_SCHEMA)
    machine.run([*control, "-m", "fast", "stop"], user="postgres")


@contextlib.contextmanager
def _server(machine: Machine, argv: list[str], user: str) -> Iterator[None]:
    """Run a server inside the machine; the block must shut it down."""
    with (machine.directory / "server.log").open("ab") as log:
        server = subprocess.Popen(
            machine.argv([word for word in argv if not word.startswith("--user=")], user),
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield
        if server.wait(timeout=120) != 0:
            raise subprocess.CalledProcessError(server.returncode, argv)
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()
