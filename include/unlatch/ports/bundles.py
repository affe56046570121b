"""What a step is given: everything that one on an incident, or on one instance, may use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from unlatch.models import (
    Guest,
    Hypervisor,
    Instance,
    Policy,
    Site,
    Volume,
)
from unlatch.ports.machines import Clock, CommandAnswer, HostAgent, HypervisorWatch
from unlatch.ports.plugins import Engine, EvidenceCheck, LockClearer, Ticketing
from unlatch.ports.records import Store


class InventoryView(Protocol):
    """What the inventory declares, by name."""

    @property
    def site(self) -> Site:
        """Where and when people work."""

    @property
    def guests(self) -> Mapping[str, Guest]:
        """All guests."""

    @property
    def hypervisors(self) -> Mapping[str, Hypervisor]:
        """All hypervisors."""

    @property
    def volumes(self) -> Mapping[str, Volume]:
        """All volumes."""

    def guest_of(self, domain: str, hypervisor: str | None = None) -> Guest | None:
        """The guest that a hypervisor calls `domain`."""

    def instances_of(self, guest: str) -> tuple[Instance, ...]:
        """The guest's instances, in the order of the file."""


@dataclass(frozen=True)
class PeerHost:
    """Another host that may mount the instance's volume; `foreign_ports` are taken by other instances there."""

    name: str
    agent: HostAgent
    foreign_ports: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Neighbour:
    """Another instance of the inventory on the same guest or on the same volume.

    `takes_locks`: its engine locks its files, so that it has something to lose when locks are freed in one sweep.
    """

    instance: Instance
    takes_locks: bool
    executables: tuple[str, ...] = ()


@dataclass(frozen=True)
class IncidentPorts:
    """Everything a step on an incident as a whole may use. `agent` and `hypervisor` find a guest's by its name.

    Attributes:
        run_on: Runs a site's own command for a guest: on its `hypervisor`, on the `nas` of its volumes, or on this
            `worker`; where, the guest's name, the argument vector.
        accepts: Whether something takes connections at a host and port, seen from this worker.
    """

    inventory: InventoryView
    agent: Callable[[str], HostAgent]
    hypervisor: HypervisorWatch
    store: Store
    ticketing: Ticketing
    clock: Clock
    policy: Policy
    actor: str
    stop_requested: Callable[[], bool]
    run_on: Callable[[str, str, Sequence[str]], CommandAnswer]
    accepts: Callable[[str, int], bool]


@dataclass(frozen=True)
class Ports:
    """Everything a step on one instance of one incident may use.

    Attributes:
        peers: Every other host that may mount the volume; None when the inventory does not say.
        clearer: The NAS's own view of the locks; None when no lock clearer is declared.
        neighbours: The other instances of the inventory on the same guest or volume.
        guest_hosts: See `Scene`.
    """

    agent: HostAgent
    engine: Engine
    hypervisor: HypervisorWatch
    checks: Mapping[str, EvidenceCheck]
    store: Store
    ticketing: Ticketing
    clock: Clock
    policy: Policy
    actor: str
    stop_requested: Callable[[], bool]
    peers: tuple[PeerHost, ...] | None = None
    clearer: LockClearer | None = None
    neighbours: tuple[Neighbour, ...] = ()
    guest_hosts: tuple[str, ...] = ()
