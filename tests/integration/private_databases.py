"""MariaDB and PostgreSQL servers of the Debian packages, in temporary directories, on free loopback ports."""

from __future__ import annotations

import glob
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.private_sshd import free_port

MARIADBD = "/usr/sbin/mariadbd"


def postgres_bin() -> str | None:
    """Where the newest installed PostgreSQL has its programs."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin"))  # noqa: PTH207
    return found[-1] if found else None


def missing() -> str | None:
    """Why this cannot run here, or None."""
    if os.geteuid() != 0:
        return "private database servers run as mysql and postgres, so the tests need root"
    if not shutil.which(MARIADBD) or not shutil.which("mariadb-install-db"):
        return "mariadb-server is not installed (make setup installs it)"
    if postgres_bin() is None:
        return "postgresql is not installed (make setup installs it)"
    return None


@dataclass
class PrivateServer:
    """One server process; `is_ready` is a command that succeeds once it does more than listen."""

    argv: Sequence[str]
    user: str
    port: int
    log: Path
    is_ready: Sequence[str] = ("true",)
    server: subprocess.Popen[bytes] | None = None

    def launch(self) -> subprocess.Popen[bytes]:
        """Start it without waiting."""
        with self.log.open("ab") as output:
            self.server = subprocess.Popen(
                ["setpriv", "--reuid", self.user, "--regid", self.user, "--init-groups", *self.argv],
                stdout=output,
                stderr=output,
                cwd="/",
            )
        return self.server

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        server = self.launch()
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
            except ConnectionRefusedError:
                assert server.poll() is None, self.log.read_text()
                time.sleep(0.05)
            else:
                if subprocess.run(self.is_ready, check=False, cwd="/").returncode == 0:
                    return
                time.sleep(0.05)

    def stop(self) -> None:
        """End it the hard way."""
        if self.server is not None and self.server.poll() is None:
            self.server.kill()
            self.server.wait()


def mariadb(directory: Path, setup: str) -> PrivateServer:
    """A fresh MariaDB that runs `setup` (SQL, one statement a line) when it starts."""
    data, port = directory / "data", free_port()
    data.mkdir()
    shutil.chown(directory, "mysql", "mysql")
    shutil.chown(data, "mysql", "mysql")
    small = ["--innodb-log-file-size=4M", "--innodb-buffer-pool-size=16M"]
    subprocess.run(
        ["mariadb-install-db", "--no-defaults", "--user=mysql", f"--datadir={data}", "--skip-test-db", *small],
        check=True,
        capture_output=True,
    )
    (directory / "setup.sql").write_text(setup)
    argv = [MARIADBD, "--no-defaults", f"--datadir={data}", f"--port={port}", "--bind-address=127.0.0.1", *small]
    argv += [f"--socket={directory}/s", f"--pid-file={directory}/pid", f"--init-file={directory}/setup.sql"]
    return PrivateServer(argv, "mysql", port, directory / "log")


def postgresql(directory: Path, setup: str) -> PrivateServer:
    """A fresh PostgreSQL on which `setup` (SQL, one statement a line) was run."""
    data, port, programs = directory / "data", free_port(), postgres_bin()
    data.mkdir()
    shutil.chown(directory, "postgres", "postgres")
    shutil.chown(data, "postgres", "postgres")
    as_postgres = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--init-groups"]
    initdb = [
        f"{programs}/initdb",
        "-D",
        str(data),
        "-N",
        "--auth-host=scram-sha-256",
        "--auth-local=trust",
        "-E",
        "UTF8",
    ]
    subprocess.run([*as_postgres, *initdb], check=True, capture_output=True, cwd="/")
    for line in setup.splitlines():  # single-user mode takes one statement a line
        single = [f"{programs}/postgres", "--single", "-D", str(data), "postgres"]
        done = subprocess.run([*as_postgres, *single], input=line, text=True, check=True, capture_output=True, cwd="/")
        assert "ERROR" not in done.stderr, done.stderr
    argv = [f"{programs}/postgres", "-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", str(directory), "-F"]
    is_ready = [f"{programs}/pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
    return PrivateServer(argv, "postgres", port, directory / "log", is_ready=is_ready)
