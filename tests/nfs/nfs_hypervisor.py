"""The machine under the guest: a real sshd that serves a real xend.log and tells which domains really run."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from lab.private_sshd import PrivateSshd
from lab.xend import XendLog
from tests.nfs.nfs_lab import NfsLab

GUEST = "dbvrtg4037"
TIMEZONE = "Europe/Zurich"

_XL = """#!/usr/bin/python3
# Lists domains as `xl list` does. One is listed while its machine's process runs, whatever any log says.
import os, sys

if sys.argv[1:] != ["list"]:
    sys.exit("xl: only list is allowed here")
print("Name                                        ID   Mem VCPUs\\tState\\tTime(s)")
print("Domain-0                                     0  2048     4     r-----   90210.5")
for name, number, machine in [line.split() for line in open(__file__ + ".domains")]:
    try:
        pid = int(open(os.path.join({run!r}, machine + ".pid")).read())
        words = open("/proc/%d/cmdline" % pid).read().split("\\0")
    except (OSError, ValueError):
        continue
    if machine in words:
        print("%-40s %5s  1536     1     -b----     123.4" % (name, number))
"""


@dataclass
class Hypervisor:
    """One hypervisor with the guest on it. It watches the lab and writes what xend would write."""

    lab: NfsLab
    domain_id: int = 2
    directory: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="unlatch-hv-")))
    sshd: PrivateSshd | None = None

    def __post_init__(self) -> None:
        self.directory.chmod(0o755)
        self.xend = XendLog(self.directory / "xend.log", TIMEZONE, GUEST)
        self.xl = self.directory / "xl"
        self.xl.write_text(_XL.format(run=self.lab.settings["RUN"]))
        self.xl.chmod(0o755)
        self.xend.started(self.domain_id)
        self._list()
        self.lab.watchers.append(self._saw)

    def start(self) -> None:
        """Serve, in the network namespace of the caller. An earlier server is ended: its network may be gone."""
        self.stop()
        self.sshd = PrivateSshd(self.directory / "sshd")
        self.sshd.start()

    def stop(self) -> None:
        """End the server."""
        if self.sshd is not None:
            self.sshd.stop()
            for path in (self.directory / "sshd").iterdir():
                path.unlink()
            self.sshd = None

    def connection(self) -> str:
        """The Airflow connection to it, as JSON."""
        assert self.sshd is not None
        return self.sshd.connection()

    def _saw(self, what: str, at: datetime) -> None:
        if what == "died":
            self.xend.crashed(self.domain_id, 11000 + self.domain_id, at)
        else:
            self.domain_id += 1
            self.xend.started(self.domain_id)
            self._list()

    def _list(self) -> None:
        Path(f"{self.xl}.domains").write_text(f"{self.xend.domain} {self.domain_id} client\n")
