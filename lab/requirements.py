"""What the lab needs from the machine it runs on, said in words that name the package to install."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from lab.errors import LabError, LabUnavailableError

_PROGRAMS = {
    "/usr/sbin/mariadbd": "mariadb-server",
    "/usr/bin/mariadb-install-db": "mariadb-server",
    "/usr/bin/mariadb": "mariadb-client",
    "/usr/bin/psql": "postgresql-client",
    "/usr/sbin/sshd": "openssh-server",
    "/usr/bin/ssh-keygen": "openssh-client",
    "/usr/bin/sudo": "sudo",
    "/usr/bin/python3": "python3",
    "/usr/bin/unshare": "util-linux",
    "/usr/bin/nsenter": "util-linux",
    "/usr/bin/setpriv": "util-linux",
}


def unavailable_reason() -> str | None:
    """Return why the lab can't run here, or None."""
    try:
        check()
    except LabUnavailableError as error:
        return str(error)
    return None


def check() -> None:
    """Raise `LabUnavailableError` unless the lab can run here."""
    if sys.platform != "linux":
        raise LabUnavailableError("the lab needs Linux: it makes its machines from namespaces")
    packages = sorted({package for program, package in _PROGRAMS.items() if not Path(program).exists()})
    if not any(Path("/usr/lib/postgresql").glob("*/bin/postgres")):
        packages.append("postgresql")
    if packages:
        raise LabUnavailableError(f"the lab needs programs that are missing: apt-get install {' '.join(packages)}")
    if not Path("/proc/self/ns/time").exists():
        raise LabUnavailableError("the lab needs time namespaces: a kernel with CONFIG_TIME_NS (Linux 5.6 or later)")
    check_root()


def check_root() -> None:
    """Raise `LabUnavailableError` unless this process is root and may make namespaces."""
    if os.geteuid() != 0:
        sudo = "run it through sudo" if shutil.which("sudo") else "sudo is not installed either: become root first"
        raise LabUnavailableError(f"the lab needs root, to make namespaces and mounts; {sudo}")
    effective = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff"))
    if not int(effective.split()[1], 16) >> 21 & 1:
        raise LabUnavailableError("this root lacks CAP_SYS_ADMIN (an unprivileged container?): the lab can't run in it")


def build_agent(repository: Path) -> Path:
    """Return dist/unlatch-agent.pyz, built from the sources of now.

    Raises:
        LabError: The build failed; the message has its output.
    """
    argv = ["/usr/bin/python3", str(repository / "tools/build_agent.py")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=repository)
    built = repository / "dist/unlatch-agent.pyz"
    if done.returncode != 0 or not built.exists():
        raise LabError(f"building the agent failed: {' '.join(argv)}\n{done.stdout}{done.stderr}")
    return built
