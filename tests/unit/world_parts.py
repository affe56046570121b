"""What worlds are made of: the crash that all tests are about, files, journal entries, counted calls."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from unlatch.models import (
    Guest,
    Hypervisor,
    HypervisorLog,
    Instance,
    LockKind,
    Service,
    Volume,
    VolumeKind,
)

DIED_AT = datetime(2026, 3, 7, 5, 54, 52, tzinfo=UTC)
GUEST = Guest("dbvrtg4037", "hv01", "unlatch_guest_dbvrtg4037", (r"^\d+_dbvrtg4037$",), ("admin",))
HYPERVISOR = Hypervisor("hv01", "unlatch_hv_hv01", (HypervisorLog("xend", PurePosixPath("/x.log"), "UTC"),))
LAB = Volume("dbs03", VolumeKind.LAB, PurePosixPath("/ORA/dbs03"))
NFS = Volume("dbs03", VolumeKind.NFS, PurePosixPath("/ORA/dbs03"), server="nas", peers=())


class Killed(BaseException):
    """The worker got SIGKILL."""


@dataclass(frozen=True)
class Call:
    """One call of a port; `touches` says that it changes something on the guest."""

    name: str
    arguments: tuple[Any, ...]
    touches: bool

    @property
    def changes(self) -> bool:
        """Whether anything anywhere is different after it; the copy goes on with each look at it."""
        return self.touches or self.name.startswith(("store.", "tickets.", "agent.status"))


def counted(*, touches: bool | Callable[..., bool] = False) -> Callable[[Any], Any]:
    """Make a method a call that the world counts; `touches` may depend on its arguments."""

    def wrap(method: Any) -> Any:
        @functools.wraps(method)
        def called(self: Any, *arguments: Any, **named: Any) -> Any:
            does = touches(*arguments, **named) if callable(touches) else touches
            name = f"{self.port}.{method.__name__}"
            self.world.call(name, (*arguments, *named.values()), touches=does)
            result = method(self, *arguments, **named)
            self.world.then.pop(name, lambda: None)()
            return result

        return called

    return wrap


def instance(name: str = "voms", **changes: Any) -> Instance:
    """An instance with a data directory below /ORA/dbs03."""
    words = ("sudo", "-n", "dbservice")
    given = Instance(
        name=name,
        guest=GUEST.name,
        engine="mariadb",
        volume="dbs03",
        os_user="mysql",
        datadir=PurePosixPath(f"/ORA/dbs03/{name}"),
        host="127.0.0.1",
        port=3306,
        error_log=PurePosixPath(f"/ORA/dbs03/{name}/error.log"),
        service=Service(*((*words, action, name) for action in ("start", "stop", "status", "hold", "release"))),
    )
    return dataclasses.replace(given, **changes)


@dataclass
class Inode:
    """A file's content and who has it locked."""

    number: int
    content: str
    lock: LockKind = LockKind.NONE
    mtime_ns: int = 1_000
    pid: int | None = None


@dataclass
class Entry:
    """One file in the agent's journal of one incident."""

    state: str  # "prepared" | "swapping" | "committed" | "setting_aside" | "set_aside"
    source: Inode
    temp: Inode | None
    mtime_ns: int


@dataclass
class Unit:
    """The service of an instance."""

    running: bool = False
    held: bool = False
    starts: int = 0
    fails_with: str | None = None
    hold_code: int = 0
    status_says: tuple[int, str] | None = None
