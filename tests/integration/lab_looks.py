"""Ways to look at the lab that its tests share."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from lab import Lab


def until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not true within {timeout_s:g} s"
        time.sleep(0.05)


def error_log(lab: Lab, instance: str) -> str:
    return lab.host_path(lab.instance(instance).error_log).read_text(errors="replace")


def ssh(lab: Lab, conn_id: str, command: str, known_hosts: Path, host_key: str | None = None):
    """Log in as Unlatch would: with the connection's key, and no host key but the pinned one."""
    connection = lab.connections()[conn_id]
    port = connection["port"]
    known_hosts.write_text(f"[127.0.0.1]:{port} {host_key or connection['extra']['host_key']}\n")
    options = ["BatchMode=yes", "StrictHostKeyChecking=yes", f"UserKnownHostsFile={known_hosts}", "IdentitiesOnly=yes"]
    argv = ["ssh", "-F", "none", "-i", connection["extra"]["key_file"], "-p", str(port), "-l", connection["login"]]
    argv += [word for option in options for word in ("-o", option)]
    return subprocess.run([*argv, "127.0.0.1", command], capture_output=True, text=True, check=False)
