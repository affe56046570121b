"""What a lab must remember between two commands, in one file that only root reads (it holds passwords)."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lab.errors import LabUnavailableError


@dataclass
class Ghost:
    """A process that keeps the locks of a dead guest, and the inodes that it was asked to lock."""

    pid: int
    start_ticks: int
    inodes: list[int]


@dataclass
class State:
    """The durable state of one lab."""

    ports: dict[str, int] = field(default_factory=dict)
    passwords: dict[str, str] = field(default_factory=dict)
    machines: dict[str, dict[str, int]] = field(default_factory=dict)
    boot_ids: dict[str, str] = field(default_factory=dict)
    ghosts: list[Ghost] = field(default_factory=list)
    writer: dict[str, int] | None = None
    domain_id: int = 1
    uid: int = 0
    stale_postmaster_pid: int | None = None
    provisioned: bool = False

    @classmethod
    def load(cls, path: Path) -> State:
        """Read the file; a lab that never ran has the default state."""
        try:
            document = json.loads(path.read_text())
        except FileNotFoundError:
            return cls()
        except PermissionError:
            raise LabUnavailableError(f"only root may read {path}: run it as root or through sudo") from None
        document["ghosts"] = [Ghost(**ghost) for ghost in document["ghosts"]]
        return cls(**document)

    def save(self, path: Path) -> None:
        """Write the file so that a reader sees the old or the new state, never a part."""
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            json.dump(asdict(self), stream, indent=1)
        temporary.replace(path)


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold a lock file, so that two commands on one lab (or two builds of one template) take turns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def choose_port(taken: set[int]) -> int:
    """Return a free TCP port of 127.0.0.1.

    The port lies outside the range from which the kernel takes the local ends of outgoing connections: it stays free
    while the guest is down between a crash and its next boot.
    """
    low, high = (int(word) for word in Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    candidates = [port for port in range(10240, 61000) if not low <= port <= high] or list(range(10240, 61000))
    for _ in range(200):
        port = secrets.choice(candidates)
        if port in taken:
            continue
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise OSError("no free TCP port found on 127.0.0.1 after 200 tries")
