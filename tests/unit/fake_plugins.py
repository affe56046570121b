"""One check and one engine of the world in memory: they say what the world holds."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from tests.unit.world_parts import counted
from unlatch import decisions
from unlatch.errors import TransientError
from unlatch.models import AccessProof, Answer, Evidence, Instance
from unlatch.ports import Scene

if TYPE_CHECKING:
    from tests.unit.fakes import World


class Check:
    """One evidence check: says what the world's `answers` holds for it, else what proves death."""

    port = "checks"

    def __init__(self, world: World, name: str) -> None:
        """Take the check's name."""
        self.world, self.name = world, name

    @counted()
    def collect(self, scene: Scene) -> Evidence:
        """Answer."""
        usual = Answer.DEAD if self.name in decisions.PROOFS else Answer.CLEAR
        if self.name == "fence":
            usual = {None: Answer.NOT_OBSERVED, True: Answer.DEAD, False: Answer.ALIVE}[scene.fenced]
        answer = self.world.answers.get(self.name, usual)
        now = scene.clock.now()
        expires_at = now + timedelta(seconds=self.world.evidence_life_s)
        return Evidence(self.name, answer, f"{self.name} says {answer}", now, expires_at)


class Engine:
    """See `ports.Engine`."""

    name, port = "mariadb", "engine"

    def __init__(self, world: World) -> None:
        """Servers of the world."""
        self.world = world

    def lock_paths(self, of: Instance) -> tuple[PurePosixPath, ...]:
        """The data directory."""
        return (of.datadir,)

    def witnesses(self, of: Instance) -> tuple[PurePosixPath, ...]:
        """The redo log."""
        return (of.datadir / "ib_logfile0",)

    def pid_files(self, of: Instance) -> tuple[PurePosixPath, ...]:
        """One pid file."""
        return (of.datadir / "server.pid",)

    def executables(self, _of: Instance) -> tuple[str, ...]:
        """The server."""
        return ("mariadbd",)

    def commit_order(self, paths: Iterable[PurePosixPath]) -> tuple[PurePosixPath, ...]:
        """By name, ibdata1 last."""
        return tuple(sorted(paths, key=lambda p: (p.name == "ibdata1", p.name)))

    def explain_failure(self, log_tail: str) -> str | None:
        """Knows one cause."""
        return "its disk is full" if "disk full" in log_tail else None

    @counted()
    def login(self, of: Instance, *, write_probe: bool) -> AccessProof:
        """A login works while the server runs."""
        if self.world.login_error is not None:
            raise self.world.login_error
        if not self.world.units[of.name].running:
            raise TransientError(f"{of.host}:{of.port} refuses the connection.")
        return AccessProof("10.11", "unlatch", 0.01, table_rows_seen=3, wrote=write_probe)
