"""The three databases of the 2014 guest: what they are called, where they live, how their servers are started."""

from __future__ import annotations

import pwd
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import LabUnavailableError

NAMES = ("voms", "alvmysql", "lxr")
OS_USERS = ("mysql", "postgres")
VOLUME_PATH = "/ORA/dbs03"
RESTART_S = 2.0
"""Pause of the guest's supervisor between two start attempts."""


@dataclass(frozen=True)
class Instance:
    """One database of the lab.

    Attributes:
        name: Instance name.
        engine: `mariadb` or `postgresql`.
        os_user: The user that its server runs as.
        port: TCP port on 127.0.0.1, the same in the guest and outside.
        datadir: Data directory as the guest sees it.
        error_log: Error log as the guest sees it.
        login: Database user of the confirmation step.
        password: Its password.
        database: The schema that the login may use.
        read_table: A table with rows that the login may read.
        drops_privileges: The server starts as root and becomes `os_user` itself. Linux then hides its /proc/PID/fd even
            from that user, which is the harder case for whoever looks for open files.
        options: More server options.
    """

    name: str
    engine: str
    os_user: str
    port: int
    password: str
    login: str = "app_owner"
    database: str = "app"
    read_table: str = "app.t"
    drops_privileges: bool = False
    options: Sequence[str] = ()

    @property
    def datadir(self) -> str:
        """Data directory as the guest sees it."""
        return f"{VOLUME_PATH}/{self.name}"

    @property
    def error_log(self) -> str:
        """Error log as the guest sees it; not on the volume."""
        return f"/var/log/db/{self.name}.log"

    @property
    def socket(self) -> str:
        """Unix socket (MariaDB) or the directory that holds it (PostgreSQL)."""
        return f"/run/db/{self.name}.sock" if self.engine == "mariadb" else "/run/db"

    def server_argv(self) -> list[str]:
        """Return the command line of the server."""
        if self.engine == "postgresql":
            return [f"{postgresql_bindir()}/postgres", "-D", self.datadir, "-c", f"port={self.port}", *self.options]
        argv = ["/usr/sbin/mariadbd", "--no-defaults", f"--datadir={self.datadir}", f"--port={self.port}"]
        argv += [f"--socket={self.socket}", f"--pid-file=/run/db/{self.name}.pid", "--bind-address=127.0.0.1"]
        if self.drops_privileges:
            argv.append(f"--user={self.os_user}")
        return [*argv, *MARIADB_OPTIONS, *self.options]

    def unit(self) -> dict[str, Any]:
        """Return what the guest's supervisor must know."""
        return {
            "name": self.name,
            "engine": self.engine,
            "argv": self.server_argv(),
            "user": None if self.drops_privileges else self.os_user,
            "uid": pwd.getpwnam(self.os_user).pw_uid,
            "gid": pwd.getpwnam(self.os_user).pw_gid,
            "port": self.port,
            "log": self.error_log,
            "bindir": postgresql_bindir(),
            "restart_s": RESTART_S,
        }


MARIADB_OPTIONS = (
    "--innodb-buffer-pool-size=32M",
    "--innodb-log-file-size=16M",
    "--innodb-autoextend-increment=8",
    "--key-buffer-size=1M",
    "--aria-pagecache-buffer-size=1M",
    "--performance-schema=OFF",
    "--skip-name-resolve",
    "--skip-slave-start",
)
ONE_FILE = "--innodb-file-per-table=OFF"
"""All rows in ibdata1: the file that InnoDB locks is then the one that holds the data, as it was in 2014."""


def postgresql_bindir() -> str:
    """Return the directory of the newest installed PostgreSQL server.

    Raises:
        LabUnavailableError: There is none.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
    if not found:
        raise LabUnavailableError("no PostgreSQL server in /usr/lib/postgresql: apt-get install postgresql")
    return str(found[-1].parent)


def the_three(ports: dict[str, int], passwords: dict[str, str]) -> dict[str, Instance]:
    """Return voms, alvmysql and lxr, with the lab's ports and passwords."""
    made = (
        Instance(
            "voms", "mariadb", "mysql", ports["voms"], passwords["voms"], drops_privileges=True, options=(ONE_FILE,)
        ),
        Instance("alvmysql", "mariadb", "mysql", ports["alvmysql"], passwords["alvmysql"]),
        Instance("lxr", "postgresql", "postgres", ports["lxr"], passwords["lxr"], read_table="public.t"),
    )
    return {instance.name: instance for instance in made}
