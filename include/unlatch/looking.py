"""One look at a case from all sides: every machine is asked each thing once, and none waits for another."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath

from unlatch.errors import UnlatchError
from unlatch.guest_view import RememberedGuest
from unlatch.memory import Memory
from unlatch.models import FileFact, NasView
from unlatch.ports import HypervisorWatch, LockClearer, Peer, Ports
from unlatch.recording import Case


@dataclass(frozen=True)
class RememberedNas:
    """The NAS's own view of the locks during one look."""

    clearer: LockClearer
    memory: Memory

    def list(self, files: tuple[PurePosixPath, ...]) -> NasView:
        """See `ports.LockClearer.list`; asked once, whatever the files."""
        return self.memory.ask("list", lambda: self.clearer.list(files))


@dataclass(frozen=True)
class Look:
    """Answers about one case since one moment. Never kept for an act: what is looked at before it is a new look.

    Attributes:
        began: No answer is older than this.
        agent: The guest.
        peers: Every other host that may mount the volume; None when the inventory does not say.
        nas: The NAS; None when no lock clearer is declared.
        hypervisor: All hypervisors.
    """

    began: datetime
    agent: RememberedGuest
    peers: tuple[Peer, ...] | None
    nas: RememberedNas | None
    hypervisor: HypervisorWatch

    @classmethod
    def begin(cls, ports: Ports) -> Look:
        """A new look, in which nothing has been asked yet."""
        return cls(
            began=ports.clock.now(),
            agent=RememberedGuest(ports.agent, ports.clock),
            peers=None
            if ports.peers is None
            else tuple(Peer(p.name, RememberedGuest(p.agent, ports.clock), p.foreign_ports) for p in ports.peers),
            nas=None if ports.clearer is None else RememberedNas(ports.clearer, Memory()),
            hypervisor=ports.hypervisor.for_one_look(),
        )

    def files(self, case: Case, ports: Ports) -> tuple[FileFact, ...]:
        """The instance's locked files and its pid files."""
        engine, instance = ports.engine, case.instance
        return self.agent.check_locks(instance, engine.lock_paths(instance), engine.pid_files(instance))

    def nas_locks(self, case: Case, ports: Ports) -> NasView:
        """What the NAS lists; also where the guest cannot name its files, for another client's lock is a veto anyway.

        Raises:
            UnlatchError: the NAS cannot be asked.
        """
        if self.nas is None:
            raise AssertionError("no lock clearer is declared")
        try:
            paths = tuple(file.path for file in self.files(case, ports))
        except (UnlatchError, OSError):
            paths = ()
        return self.nas.list(paths)
