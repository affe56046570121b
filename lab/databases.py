"""What the lab does with the databases themselves once their servers run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lab.instances import Instance
from lab.machine import Machine

DBSERVICE = "/usr/local/sbin/dbservice"


def await_all(guest: Machine, instances: Iterable[Instance]) -> None:
    """Return when every instance accepts connections.

    Raises:
        LabError: One does not start; the message has the last lines of its error log.
    """
    for instance in instances:
        guest.run([DBSERVICE, "start", instance.name])


def all_accept(guest: Machine, instances: Iterable[Instance]) -> bool:
    """Say whether every instance runs now."""
    return all(guest.run([DBSERVICE, "status", each.name], check=False).returncode == 0 for each in instances)


def set_password(guest: Machine, instance: Instance) -> None:
    """Give the instance's login the password of this lab. The password travels on stdin, in no argument."""
    if instance.engine == "postgresql":
        client = ["psql", "-q", "-h", instance.socket, "-p", str(instance.port), "-v", "ON_ERROR_STOP=1"]
        statement = f"ALTER ROLE {instance.login} PASSWORD '{instance.password}';\n"
        guest.run(client, user=instance.os_user, stdin=statement)
    else:
        client = ["mariadb", "--no-defaults", f"--socket={instance.socket}"]
        statement = f"ALTER USER {instance.login}@'127.0.0.1' IDENTIFIED BY '{instance.password}';\n"
        guest.run(client, stdin=statement)


def postmaster_pid(datadir: Path) -> int | None:
    """Return the pid that a PostgreSQL data directory's postmaster.pid records, None without the file."""
    try:
        return int((datadir / "postmaster.pid").read_text().splitlines()[0])
    except (FileNotFoundError, IndexError):
        return None


def postmaster_started_at(datadir: Path) -> float:
    """Return when a postmaster.pid says that its server was started (seconds since the epoch), 0 without the file."""
    try:
        return float((datadir / "postmaster.pid").read_text().splitlines()[2])
    except (FileNotFoundError, IndexError):
        return 0.0
