"""What a drill needs from the world, as Protocols."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

from unlatch.models import FileFact, HostFacts, Instance, Json, NotifyAnswer, OpenerScan, Policy, Volume
from unlatch.ports import Clock, CommandAnswer, Engine, InventoryView, Leave, LockClearer


class AskedAgent(Protocol):
    """Those verbs of the agent that change nothing. The first call puts the agent's file there."""

    def version(self) -> str:
        """The version of the agent that runs on the machine."""

    def preflight(self, instance: Instance) -> Sequence[Json]:
        """What the instance's OS user may do there: `{"privilege", "path", "ok", "why", "grant"}` each."""

    def facts(self, paths: Sequence[PurePosixPath] = ()) -> HostFacts:
        """See `ports.HostAgent.facts`."""

    def check_locks(
        self, instance: Instance, paths: Sequence[PurePosixPath], pid_files: Sequence[PurePosixPath]
    ) -> tuple[FileFact, ...]:
        """See `ports.HostAgent.check_locks`."""

    def openers(self, instance: Instance, executables: Sequence[str]) -> OpenerScan:
        """See `ports.HostAgent.openers`."""

    def notify(self, *, check: bool = False) -> NotifyAnswer:
        """See `ports.HostAgent.notify`; a drill only ever asks with `check`."""

    def service(self, instance: Instance, action: str) -> CommandAnswer:
        """See `ports.HostAgent.service`; a drill only ever asks for `status`."""

    def tail(self, instance: Instance, path: PurePosixPath, lines: int) -> str:
        """See `ports.HostAgent.tail`."""


class Machine(Protocol):
    """Any machine that is reached by SSH."""

    @property
    def agent(self) -> AskedAgent:
        """The agent there."""

    def login_user(self) -> str:
        """Who we are there; connects with the pinned host key."""

    def run(self, argv: Sequence[str]) -> CommandAnswer:
        """Run a command that changes nothing."""

    def may_run(self, argv: Sequence[str], granted: Sequence[str] | None = None) -> Leave:
        """Ask whether a command may be run, without running it; `granted` is what a sudoers line should name."""


@dataclass(frozen=True)
class DrillPorts:
    """Everything a drill may use.

    Attributes:
        machine: Opens a machine, from its Airflow connection and its name. Called in the thread that uses it.
        peer_connection: The Airflow connection of a host that may mount a volume.
        clearer: The lock clearer of a volume that declares one, asking through its server.
        tell: Is told of the progress, one line each, from several threads.
    """

    inventory: InventoryView
    policy: Policy
    engines: Mapping[str, Engine]
    machine: Callable[[str, str], AbstractContextManager[Machine]]
    peer_connection: Callable[[str], str]
    clearer: Callable[[Volume, Machine], LockClearer]
    ticketing: object
    clock: Clock
    tell: Callable[[str], None]
