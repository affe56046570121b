"""One look at a guest asks each question once: an answer costs a login and a program start there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import PurePosixPath

from unlatch.memory import Memory
from unlatch.models import FileFact, HostFacts, Instance, LiveLock, OpenerScan
from unlatch.ports import Clock, HostAgent


@dataclass(frozen=True)
class _Told:
    """A guest's facts, and between which moments of our clock it told them."""

    facts: HostFacts
    before: datetime
    after: datetime


class RememberedGuest:
    """A `ports.GuestView` over an agent, for several threads. Make a new one for each look."""

    def __init__(self, agent: HostAgent, clock: Clock, memory: Memory | None = None) -> None:
        """Ask nothing yet."""
        self._agent = agent
        self._clock = clock
        self._memory = memory or Memory()

    def facts(self, paths: Sequence[PurePosixPath] = ()) -> HostFacts:
        """See `ports.HostAgent.facts`."""
        return self._told(paths).facts

    def clock_skew(self, paths: Sequence[PurePosixPath] = ()) -> timedelta:
        """See `ports.GuestView.clock_skew`."""
        told = self._told(paths)
        if told.facts.now > told.after:
            return told.facts.now - told.after
        return min(told.facts.now - told.before, timedelta(0))

    def check_locks(
        self, instance: Instance, paths: Sequence[PurePosixPath], pid_files: Sequence[PurePosixPath]
    ) -> tuple[FileFact, ...]:
        """See `ports.HostAgent.check_locks`."""
        asked = ("check_locks", instance.name, instance.datadir, tuple(paths), tuple(pid_files))
        return self._memory.ask(asked, lambda: self._agent.check_locks(instance, paths, pid_files))

    def openers(self, instance: Instance, executables: Sequence[str]) -> OpenerScan:
        """See `ports.HostAgent.openers`."""
        asked = ("openers", instance.name, instance.datadir, tuple(executables))
        return self._memory.ask(asked, lambda: self._agent.openers(instance, executables))

    def samples(self, instance: Instance, paths: Sequence[PurePosixPath]) -> tuple[FileFact, ...]:
        """See `ports.HostAgent.samples`."""
        asked = ("samples", instance.name, instance.datadir, tuple(paths))
        return self._memory.ask(asked, lambda: self._agent.samples(instance, paths))

    def live_locks(self, mountpoint: PurePosixPath | None = None) -> tuple[LiveLock, ...]:
        """See `ports.HostAgent.live_locks`."""
        return self._memory.ask(("live_locks", mountpoint), lambda: self._agent.live_locks(mountpoint))

    def connects(self, host: str, port: int) -> str:
        """See `ports.HostAgent.connects`."""
        return self._memory.ask(("connects", host, port), lambda: self._agent.connects(host, port))

    def anew(self) -> RememberedGuest:
        """See `ports.GuestView.anew`."""
        return RememberedGuest(self._agent, self._clock, self._memory.anew())

    def _told(self, paths: Sequence[PurePosixPath]) -> _Told:
        def ask() -> _Told:
            before = self._clock.now()
            facts = self._agent.facts(paths)
            return _Told(facts, before, self._clock.now())

        return self._memory.ask(("facts", tuple(paths)), ask)
