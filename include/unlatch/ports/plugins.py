"""What a plug-in must be able to do, and what an evidence check may look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Protocol

from unlatch.models import (
    AccessProof,
    ClearAnswer,
    Evidence,
    Guest,
    Instance,
    NasLock,
    NasView,
    Reach,
    Volume,
)
from unlatch.ports.machines import Clock, GuestView, HypervisorWatch


class Engine(Protocol):
    """What differs from one database product to the next."""

    name: str

    def lock_paths(self, instance: Instance) -> tuple[PurePosixPath, ...]:
        """Files or directories in which this engine leaves fcntl locks; empty when it takes none."""

    def pid_files(self, instance: Instance) -> tuple[PurePosixPath, ...]:
        """Files whose mere existence keeps the engine from starting."""

    def witnesses(self, instance: Instance) -> tuple[PurePosixPath, ...]:
        """Files that a live server writes to without locking them: redo log, headers, control file."""

    def executables(self, instance: Instance) -> tuple[str, ...]:
        """Base names of the server's programs."""

    def commit_order(self, paths: Iterable[PurePosixPath]) -> tuple[PurePosixPath, ...]:
        """The order of the swap."""

    def explain_failure(self, log_tail: str) -> str | None:
        """Why the server did not start, from the end of its error log, for a DBA; None when nothing is recognised."""

    def login(self, instance: Instance, *, write_probe: bool) -> AccessProof:
        """A real client login from here: SELECT 1, a read of `read_table`, on request a write that is undone.

        Raises:
            TransientError: the server does not accept the connection (yet).
            CheckFailedError: it does, but the login, the read or the write is refused.
            ConfigError: no connection is configured for the instance.
        """


class LockClearer(Protocol):
    """The NAS's own view of the locks on one volume, and a way to drop them."""

    name: str

    def list(self, files: Sequence[PurePosixPath]) -> NasView:
        """All locks on the volume's file system; those on `files` with the guest's path. Reads only."""

    def reach(self, view: NasView) -> Reach:
        """Whose locks `clear` would free."""

    def clear(self, locks: Sequence[NasLock]) -> ClearAnswer:
        """Free these locks, and no others than `reach` says. Again after success: nothing to do, no error.

        Raises:
            ConfigError: the privilege is missing, with what grants it.
        """


@dataclass(frozen=True)
class Peer:
    """Another host that may mount the volume. `foreign_ports`: ports there that are known to be other instances'."""

    name: str
    agent: GuestView
    foreign_ports: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Scene:
    """What an evidence check may look at: one instance of one incident, and ways to ask.

    Attributes:
        held: The service is held, so whatever of the instance still runs is not a start attempt of this guest's own.
        peers: Every other host that may mount the volume; None when the inventory does not say.
        nas: Asks the NAS for its locks, once per round; None when no lock clearer is declared.
        fenced: How a fence ended that this incident has applied: True: the holder is cut off, False: it failed.
        guest_hosts: Names or addresses under which Unlatch reaches the guest, beside its name in the inventory.
        evidence_life_s: How long an answer may be acted on.
    """

    instance: Instance
    guest: Guest
    volume: Volume
    died_at: datetime | None
    domain_id: int | None
    agent: GuestView
    engine: Engine
    hypervisor: HypervisorWatch
    clock: Clock
    held: bool
    peers: tuple[Peer, ...] | None = None
    nas: Callable[[], NasView] | None = None
    fenced: bool | None = None
    guest_hosts: tuple[str, ...] = ()
    evidence_life_s: int = 120


class EvidenceCheck(Protocol):
    """One question whose answer tells whether the previous incarnation lives."""

    name: str

    def collect(self, scene: Scene) -> Evidence:
        """The answer. What could not be looked at is `not_observed`, with the reason; it never raises for that."""


class Ticketing(Protocol):
    """A ticket system. Each call is idempotent: a marker is looked for before anything is posted."""

    name: str

    def open(self, incident: str, title: str, body: str, reference: str | None = None) -> str:
        """Open the incident's ticket, or find it (`reference`: one that a person gave); its reference."""

    def comment(self, reference: str, marker: str, text: str) -> None:
        """Add a comment once per `marker`."""

    def set_state(self, reference: str, state: str) -> None:
        """`open`, `in progress`, `waiting`, `resolved` or `closed`."""

    def attach(self, reference: str, file_name: str, content: bytes, content_type: str) -> None:
        """Attach a file, once per name."""

    def link(self, reference: str) -> str:
        """The ticket's address for people."""
