"""Machines that are asked and acted on: guests and their peers through the agent, hypervisors; and the clock."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import PurePosixPath
from typing import Protocol

from unlatch.models import (
    DomainFact,
    FileFact,
    Guest,
    HostFacts,
    Hypervisor,
    HypervisorLog,
    Instance,
    Json,
    KeptFile,
    LiveLock,
    NotifyAnswer,
    OpenerScan,
    OurFile,
    Permit,
    PurgedFile,
    RepairStatus,
    SwappedFile,
)


class Clock(Protocol):
    """The controller's clock."""

    def now(self) -> datetime:
        """The present moment, aware, in UTC."""

    def pause(self, seconds: float) -> None:
        """Wait between two looks at something that does not call back."""


@dataclass(frozen=True)
class CommandAnswer:
    """A finished command on a host."""

    code: int
    output: str


@dataclass(frozen=True)
class Leave:
    """Whether something may be done, why that is known, what would grant it, and whether the program is there at all.

    `ok` is None where it cannot be told without doing it.
    """

    ok: bool | None
    why: str = ""
    grant: str | None = None
    there: bool = True


class HostAgent(Protocol):
    """One guest, reached through the agent. All calls may be repeated; the agent's journal makes them idempotent."""

    def facts(self, paths: Sequence[PurePosixPath] = ()) -> HostFacts:
        """Boot id, boot time, clocks; and the mounts that `paths` are on."""

    def check_locks(
        self, instance: Instance, paths: Sequence[PurePosixPath], pid_files: Sequence[PurePosixPath]
    ) -> tuple[FileFact, ...]:
        """Files of `paths`, below directories of `paths` only the locked ones, and existing `pid_files`; reads only."""

    def openers(self, instance: Instance, executables: Sequence[str]) -> OpenerScan:
        """Processes of the instance, through the root command that sudoers names."""

    def samples(self, instance: Instance, paths: Sequence[PurePosixPath]) -> tuple[FileFact, ...]:
        """How files look now, locked or not, with attributes from the server; those that do not exist are left out."""

    def live_locks(self, mountpoint: PurePosixPath | None = None) -> tuple[LiveLock, ...]:
        """Locks that processes of this host itself hold on that mount, or on any NFS mount."""

    def connects(self, host: str, port: int) -> str:
        """Whether a connection from this host is taken there: `open`, `refused` or `silent`."""

    def notify(self, *, check: bool = False) -> NotifyAnswer:
        """Free all NFSv3 locks of this host on every server, through the root command that sudoers names.

        `check` tells whether it would be done, and does nothing.

        Raises:
            RefusedError: a process of this host holds a lock that would be lost.
            ConfigError: the command or the right to run it is missing, with what grants it.
        """

    def prepare(self, incident: str, instance: Instance, paths: Sequence[PurePosixPath]) -> None:
        """Start copying in a detached job, or attach to the one that is running for this incident."""

    def status(self, incident: str, instance: Instance, directories: Sequence[PurePosixPath]) -> RepairStatus:
        """How far that job is."""

    def commit(self, instance: Instance, permit: Permit) -> tuple[SwappedFile, ...]:
        """Swap all files of the permit in one batch. Again after success: the same answer, nothing done."""

    def set_aside(self, instance: Instance, permit: Permit) -> tuple[PurePosixPath, ...]:
        """Rename the pid files of the permit to their quarantine names, which are returned."""

    def verify(self, incident: str, instance: Instance, directories: Sequence[PurePosixPath]) -> tuple[str, ...]:
        """What is wrong with the quarantined originals or the new files; empty when all is as it was left."""

    def kept(self, incident: str, instance: Instance, directories: Sequence[PurePosixPath]) -> tuple[KeptFile, ...]:
        """Every file that the incident's repair has swapped there, with its original; none once it is purged."""

    def purge(
        self,
        incident: str,
        instance: Instance,
        directories: Sequence[PurePosixPath],
        *,
        holder_dead: str | None = None,
        dry_run: bool = False,
    ) -> tuple[PurgedFile, ...]:
        """Delete what the incident's repair has left there: all of it or nothing. Again after success: nothing to do.

        Args:
            incident: Its id.
            instance: Whose files they are.
            directories: Where they are.
            holder_dead: Digest of fresh evidence that whoever has an original locked is dead.
            dry_run: Only tell what would be deleted.

        Raises:
            RefusedError: an original was written to, is locked without such evidence, or is open on this host.
            TransientError: another repair or purge works there.
        """

    def our_files(self, instance: Instance, paths: Sequence[PurePosixPath]) -> tuple[OurFile, ...]:
        """Every file below `paths` that only Unlatch makes, of whatever incident; reads only."""

    def service(self, instance: Instance, action: str) -> CommandAnswer:
        """Run the inventory's `start`, `stop`, `status`, `hold` or `release` command of the instance."""

    def tail(self, instance: Instance, path: PurePosixPath, lines: int) -> str:
        """The last lines of a text file of the instance's user; empty when there is none."""

    def command(self, argv: Sequence[str]) -> CommandAnswer:
        """Run a site's own command as the connection's login user."""


class GuestView(Protocol):
    """A guest during one look: the same question is asked once and answered to all checks, also when it failed."""

    def facts(self, paths: Sequence[PurePosixPath] = ()) -> HostFacts:
        """See `HostAgent.facts`."""

    def clock_skew(self, paths: Sequence[PurePosixPath] = ()) -> timedelta:
        """How far the guest's clock is from ours, by the same `facts`: nothing where it may be the question's time."""

    def check_locks(
        self, instance: Instance, paths: Sequence[PurePosixPath], pid_files: Sequence[PurePosixPath]
    ) -> tuple[FileFact, ...]:
        """See `HostAgent.check_locks`."""

    def openers(self, instance: Instance, executables: Sequence[str]) -> OpenerScan:
        """See `HostAgent.openers`."""

    def samples(self, instance: Instance, paths: Sequence[PurePosixPath]) -> tuple[FileFact, ...]:
        """See `HostAgent.samples`."""

    def live_locks(self, mountpoint: PurePosixPath | None = None) -> tuple[LiveLock, ...]:
        """See `HostAgent.live_locks`."""

    def connects(self, host: str, port: int) -> str:
        """See `HostAgent.connects`."""

    def anew(self) -> GuestView:
        """The same guest, asked anew: for a second look at the same thing."""


class HypervisorWatch(Protocol):
    """A hypervisor's own account of its domains."""

    def domain_facts(self, guest: Guest, since: datetime, back_to: datetime | None = None) -> tuple[DomainFact, ...]:
        """What the hypervisor's logs say of the guest's domain from `since` on, oldest first.

        They count as not asked when not all since `back_to` could be read, whatever the rest says.
        """

    def facts_elsewhere(
        self, guest: Guest, since: datetime, besides: Collection[str] = (), back_to: datetime | None = None
    ) -> Mapping[str, tuple[DomainFact, ...]]:
        """What the logs of every other hypervisor say of this guest's names, by hypervisor; but not of `besides`.

        One that says nothing, and of which not all since `back_to` could be read, counts as not asked.
        """

    def lines_around(self, guest: Guest, moment: datetime, seconds: float) -> tuple[str, ...]:
        """All log lines of the guest's hypervisor from `seconds` before until `seconds` after a moment, as they are."""

    def running_on(self, guest: Guest) -> Mapping[str, bool | None]:
        """Whether each hypervisor lists the guest's domain as running; None where no command for that is declared."""

    def for_one_look(self) -> HypervisorWatch:
        """The same hypervisors, each of which is then asked the same thing once, and a silent one nothing more."""


class LogReader(Protocol):
    """Reads a hypervisor's log from a durable position on."""

    def read_new(self, hypervisor: Hypervisor, log: HypervisorLog, cursor: Json | None) -> tuple[list[str], Json]:
        """Whole new lines since `cursor` (None: from the end), over rotation and truncation, and the next cursor."""
