"""A Linux NAS: the agent's own answer about a made-up /proc, whose locks its clear command takes away.

NFSv3 locks name no client, and clearing takes all of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.contract.lock_clearers.samples import HELD, volume
from unlatch.errors import ConfigError, TransientError
from unlatch.lock_clearers import NasAccess
from unlatch.models import Reach
from unlatch.ports import CommandAnswer
from unlatch.root_commands import NAS_CLEAR, NAS_LIST
from unlatch_agent import naslist
from unlatch_agent.mounts import Mount

LOCKD = 170


@dataclass
class LinuxNas:
    directory: Path
    reach: Reach = Reach.VOLUME
    tells_address: bool = False
    grant: str = f"install -o root -g root -m 0755 unlatch-agent.pyz {NAS_CLEAR}"
    allowed: set[str] = field(default_factory=lambda: {NAS_LIST, NAS_CLEAR})
    asked: list[Sequence[str]] = field(default_factory=list)
    unplugged: bool = False
    garbled: bool = False
    access: NasAccess = field(init=False)

    def __post_init__(self) -> None:
        self.export = self.directory / "srv" / "dbs03"
        self.proc = self.directory / "proc"
        (self.proc / str(LOCKD)).mkdir(parents=True)
        (self.proc / str(LOCKD) / "comm").write_text("lockd\n")
        (self.proc / "fs" / "nfsd").mkdir(parents=True)
        (self.proc / "fs" / "nfsd" / "nfsv4leasetime").write_text("90\n")
        for wanted in HELD:
            (self.export / wanted.file).parent.mkdir(parents=True, exist_ok=True)
            (self.export / wanted.file).touch()
        self.set_locks([wanted.file for wanted in HELD])
        self.access = NasAccess(volume(str(self.export)), self.run)

    @property
    def inodes(self) -> dict[str, int]:
        return {wanted.file: (self.export / wanted.file).stat().st_ino for wanted in HELD}

    def set_locks(self, files: Sequence[str]) -> None:
        lines = []
        for number, name in enumerate(files, start=1):
            status = (self.export / name).stat()
            device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
            lines.append(f"{number}: POSIX  ADVISORY  WRITE {LOCKD} {device} 0 EOF\n")
        (self.proc / "locks").write_text("".join(lines))

    def run(self, argv: Sequence[str]) -> CommandAnswer:
        """What sshd, sudo and the agent under its two names do on the NAS."""
        if self.unplugged:
            raise TransientError("nas refuses connections.")
        self.asked.append(argv)
        if list(argv) == ["id", "-un"]:
            return CommandAnswer(0, "dbod\n")
        assert argv[:2] == ["sudo", "-n"]
        command, options = argv[2], list(argv[3:])
        assert options[:2] == ["--json", str(self.export)]
        if command not in self.allowed:
            raise ConfigError(
                "sudo on nas does not let Unlatch work as root: sudo: a password is required",
                detail={"login": "dbod"},
            )
        if self.garbled:
            return CommandAnswer(0, '{"schema": 1, "ok": true, "verb": "nas-list", "locks": [{"where": "here"}]}\n')
        before = self.document()
        if command == NAS_LIST:
            return CommandAnswer(0, json.dumps(before) + "\n")
        self.set_locks([])
        counts = {"locks_before": len(before["locks"]), "locks_after": 0}
        return CommandAnswer(0, json.dumps({"schema": 1, "verb": "nas-clear", "ok": True, **counts}) + "\n")

    def document(self) -> naslist.Json:
        """The agent's own answer."""
        mount = Mount(str(self.export), "ext4", "/dev/vdb", "rw", self.export.stat().st_dev)
        places = naslist.Places(proc=str(self.proc))
        found = naslist.listed(naslist.Export(str(self.export), mount), places, lambda _: None)
        return {"schema": 1, "verb": "nas-list", "ok": True, **found}

    def held(self) -> set[str]:
        text = (self.proc / "locks").read_text()
        return {name for name, inode in self.inodes.items() if f":{inode} 0 EOF" in text}

    def forbid(self) -> None:
        self.allowed.discard(NAS_CLEAR)

    def forbid_all(self) -> None:
        self.allowed.clear()

    def garble(self) -> None:
        self.garbled = True

    def unplug(self) -> None:
        self.unplugged = True


@contextmanager
def nas(directory: Path) -> Iterator[LinuxNas]:
    yield LinuxNas(directory)
