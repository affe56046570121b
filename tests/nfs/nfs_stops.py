"""The agent on a guest, killed at its system calls while it works on a real NFS mount."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tests.faults.calls import Boundary
from tests.faults.stoppable import Ran, Stop, StoppableAgent
from tests.nfs.nfs_lab import EXPORT, MOUNTPOINT, NfsLab
from tests.nfs.nfs_scripts import ROOT

NAME = "unlatch-stops"
PLACE = f"/var/tmp/{NAME}"
"""On the guest's own disk: the tracing program, the agent, and the agent's state."""

DIRECTORY = PurePosixPath(MOUNTPOINT, NAME)
INCIDENT = "inc-stops"
FILES = ("ibdata1", "aria_log_control")
_PARTS = ("__init__", "agent/__init__", "agent/warm_agent", "faults/__init__", "faults/calls", "faults/ptrace")
_AS_MYSQL = "cd / && exec runuser -u mysql --"
_FRESH = """
import hashlib, json, os, sys
folder, state = sys.argv[1:3]
for place in (folder, state):
    for name in os.listdir(place) if os.path.isdir(place) else ():
        os.unlink(os.path.join(place, name))
block = hashlib.sha256(b"ibdata1").digest() * 512
contents = {"ibdata1": block + bytes(256 << 10) + block, "aria_log_control": b"aria" * 13}
for name, data in contents.items():
    descriptor = os.open(os.path.join(folder, name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
    os.write(descriptor, data)
    os.fsync(descriptor)
    os.close(descriptor)
"""


class GuestAgent(StoppableAgent):
    """The agent in an interpreter on the guest, as the databases' user."""

    def __init__(self, lab: NfsLab, agent: Path) -> None:
        """Put it there and start it."""
        lab.root("client", f"rm -rf {PLACE}; install -d -o mysql -g mysql {PLACE}/state", check=True)
        lab.root("client", f"tar -x -C {PLACE}", stdin=_packed(agent))
        program = f"{_AS_MYSQL} python3 {PLACE}/tests/faults/stopping_agent.py {PLACE}/agent.pyz"
        self._start(lab.shell("client", program))


def _packed(agent: Path) -> bytes:
    kept = io.BytesIO()
    with tarfile.open(fileobj=kept, mode="w") as tar:
        tar.add(agent, "agent.pyz")
        for part in (*_PARTS, "faults/stopping_agent"):
            tar.add(ROOT / "tests" / f"{part}.py", f"tests/{part}.py")
    return kept.getvalue()


@dataclass
class Volume:
    """A directory on the NAS with two database files of no database."""

    lab: NfsLab
    agent: GuestAgent

    def __post_init__(self) -> None:
        self.lab.root("nas", f"d={EXPORT}/{NAME}; mkdir -p $d; chown --reference={EXPORT}/ALVMYSQL/mysql $d")

    def fresh(self) -> dict[str, list[object]]:
        """New originals and nothing else; inode, size, time and digest of each."""
        self.lab.root("client", f"{_AS_MYSQL} python3 - {DIRECTORY} {PLACE}/state", stdin=_FRESH.encode())
        return self.look()

    def look(self) -> dict[str, list[object]]:
        """What the NAS really has, by name."""
        return self.lab.fingerprint_of(f"{EXPORT}/{NAME}")

    def run(self, verb: str, *words: object, stop: Stop | None = None) -> Ran:
        """A verb of the agent for the incident."""
        roots = {"volume": Path(DIRECTORY), "state": Path(PLACE, "state")}
        return self.agent.run([verb, "--incident", INCIDENT, *map(str, words)], roots, stop=stop)

    def recreate(self, stop: Stop | None = None) -> Ran:
        """Recreate both files."""
        return self.run("recreate", "--confirm", INCIDENT, *(DIRECTORY / name for name in FILES), stop=stop)

    def restore(self) -> Ran:
        """Undo whatever was done."""
        return self.run("restore", "--discard-temps", DIRECTORY)

    def purge(self) -> Ran:
        """Delete what is in quarantine."""
        return self.run("purge", DIRECTORY)

    def told(self) -> set[str]:
        """The names of the agent's own files that its status tells of."""
        status = self.run("status", DIRECTORY).answer.done().document
        paths = {*status["journals"], *(entry[key] for entry in status["files"] for key in ("temp", "quarantine"))}
        return {PurePosixPath(path).name for path in paths if path}


def boundaries(volume: Volume) -> list[Boundary]:
    """Every call with which one undisturbed recreate changes something on the volume, in order."""
    volume.fresh()
    ran = volume.recreate()
    ran.answer.done()
    return [at for at in ran.calls if at.changes and at.subject.startswith("volume")]


def sampled(found: list[Boundary], count: int) -> list[Boundary]:
    """The calls that change names, and some of the others, evenly."""
    naming = [at for at in found if at.call.startswith(("link", "rename"))]
    others = [at for at in found if at not in naming]
    step = max(1, len(others) // max(1, count - len(naming)))
    return [*naming, *others[::step]]


def shown(ran: Ran) -> str:
    """What a run answered, for a failure's words."""
    try:
        return json.dumps(ran.answer.document.get("error"))
    except ValueError:
        return ran.answer.text[:300] + ran.answer.errors[-300:]
