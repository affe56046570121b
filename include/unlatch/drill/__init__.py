"""The drill: proves ahead of time that every privilege a repair needs is there. It changes nothing.

Every machine is asked in a thread of its own, a bounded number at a time, so that a dead one delays nobody. What hosts
share (hypervisors, servers, peers) is asked once and shown with every guest that needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from unlatch.drill import questions
from unlatch.drill.asking import Asking
from unlatch.drill.ports import DrillPorts, Machine
from unlatch.hosts import nas_connection, peers_of, place_of
from unlatch.models import Drill, DrillCheck, Guest, GuestDrill, Hypervisor, Instance, Volume, VolumeKind

__all__ = ["DrillPorts", "Machine", "run"]

_NAME_IT = "add the server to the volume, or the hypervisor to the guest, in the inventory."

MOST_AT_ONCE = 8
"""Machines that are asked at the same time."""

_Checks = tuple[DrillCheck, ...]
_Key = tuple[str, ...]


def run(ports: DrillPorts, names: Sequence[str] = ()) -> Drill:
    """Drill these guests; all of the inventory when none is named. A name that it does not have is a missing check."""
    at = ports.clock.now()
    wanted = list(dict.fromkeys(names or ports.inventory.guests))
    known = [ports.inventory.guests[name] for name in wanted if name in ports.inventory.guests]
    shared = _shared_questions(ports, known)
    pool = ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="drill")
    try:
        asked = {guest.name: pool.submit(_drill_guest, ports, guest) for guest in known}
        answers = {key: pool.submit(ask) for key, ask in shared.items()}
        site = Asking("worker")
        questions.ask_ticketing(site, ports.ticketing)
        found = {key: answer.result() for key, answer in answers.items()}
        guests = {name: drilled.result() for name, drilled in asked.items()}
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # who interrupts a drill does not wait for all that was queued
    complete = {g.name: _with_shared(ports, g, guests[g.name], found) for g in known}
    return Drill(
        at=at,
        guests=tuple(complete.get(name) or _not_in_the_inventory(name) for name in wanted),
        site=_on_worker(site.checks),
    )


def _on_worker(checks: Iterable[DrillCheck]) -> _Checks:
    return tuple(DrillCheck(c.privilege, c.ok, c.why, c.grant, c.path) for c in checks)


def _not_in_the_inventory(name: str) -> GuestDrill:
    check = DrillCheck(
        "inventory", False, f"{name} is not in the inventory", "add it under guests, or correct the name", path=name
    )
    return GuestDrill(name, reached=False, checks=(check,), instances=())


# --- one guest -------------------------------------------------------------------------------------------------------


def _drill_guest(ports: DrillPorts, guest: Guest) -> GuestDrill:
    instances = ports.inventory.instances_of(guest.name)
    asking = Asking(guest.name)
    ports.tell(f"{guest.name}: asking")
    with ports.machine(guest.conn_id, guest.name) as machine:
        reached = questions.log_in(asking, machine, guest.conn_id)
        works = reached and questions.deliver_agent(asking, machine.agent)
        drilled = []
        for instance in instances:
            if not works:
                drilled.append(questions.unreached(instance, guest.name, ports.policy.objective_s, reached=reached))
                continue
            ports.tell(f"{guest.name}: {instance.name}")
            drilled.append(questions.ask_instance(asking.anew(), machine, instance, ports))
    ports.tell(f"{guest.name}: {'done' if works else 'not reached' if not reached else 'the agent does not run there'}")
    return GuestDrill(guest.name, reached, tuple(asking.checks), tuple(drilled))


# --- what guests share -----------------------------------------------------------------------------------------------


def _shared_questions(ports: DrillPorts, guests: Sequence[Guest]) -> Mapping[_Key, Callable[[], _Checks]]:
    """What to ask of hypervisors, servers, peers and fences, by key: each once."""
    made: dict[_Key, Callable[[], _Checks]] = {}
    for guest in guests:
        for hypervisor in _hypervisors_of(ports, guest):
            made["hypervisor", hypervisor.name] = _hypervisor(ports, hypervisor)
        if guest.fence is not None:
            made["fence", guest.name] = _fence(ports, guest)
        for volume, instance in _volumes_of(ports, guest):
            if volume.clearer and volume.server:
                made["nas", volume.name] = _nas(ports, volume, volume.server)
            for peer in peers_of(ports.inventory, guest, volume) or ():
                made["peer", volume.name, peer] = _peer(ports, peer, instance)
    return made


def _with_shared(ports: DrillPorts, guest: Guest, drilled: GuestDrill, found: Mapping[_Key, _Checks]) -> GuestDrill:
    keys: list[_Key] = [("hypervisor", h.name) for h in _hypervisors_of(ports, guest)]
    keys.append(("fence", guest.name))
    declared: list[DrillCheck] = []
    for volume, _ in _volumes_of(ports, guest):
        if volume.kind is VolumeKind.NFS:
            declared.append(_whose_locks(volume))
        keys.append(("nas", volume.name))
        keys += [("peer", volume.name, peer) for peer in peers_of(ports.inventory, guest, volume) or ()]
    shared = [check for key in keys for check in found.get(key, ())]
    checks = tuple(dict.fromkeys((*drilled.checks, *shared, *declared)))
    return GuestDrill(guest.name, drilled.reached, checks, drilled.instances)


def _hypervisors_of(ports: DrillPorts, guest: Guest) -> list[Hypervisor]:
    """The guest's own; and all others for shared storage, where the guest could run on any of them."""
    known = ports.inventory.hypervisors
    own = [known[guest.hypervisor]] if guest.hypervisor in known else []
    if all(volume.kind is not VolumeKind.NFS for volume, _ in _volumes_of(ports, guest)):
        return own
    return [*own, *(h for h in known.values() if h.name != guest.hypervisor)]


def _volumes_of(ports: DrillPorts, guest: Guest) -> list[tuple[Volume, Instance]]:
    """Each volume that the guest's instances are on, with one of them."""
    first: dict[str, Instance] = {}
    for instance in ports.inventory.instances_of(guest.name):
        first.setdefault(instance.volume, instance)
    return [(ports.inventory.volumes[name], instance) for name, instance in first.items()]


def _whose_locks(volume: Volume) -> DrillCheck:
    """Without peers and without a NAS that tells, nobody can say whether a lock's holder is another, living host."""
    words = [f"peers: {', '.join(volume.peers) or 'none'}"] if volume.peers is not None else []
    words += [f"lock clearer: {volume.clearer}"] if volume.clearer else []
    if words:
        return DrillCheck("tell whose locks they are", True, "; ".join(words), path=volume.name)
    return DrillCheck(
        "tell whose locks they are",
        False,
        "the inventory declares neither peers nor a lock clearer: every repair there waits for a person",
        f"declare volumes.{volume.name}.peers (every other host that may mount it), or clearer and server",
        path=volume.name,
    )


def _hypervisor(ports: DrillPorts, hypervisor: Hypervisor) -> Callable[[], _Checks]:
    def ask() -> _Checks:
        asking = Asking(hypervisor.name)
        with ports.machine(hypervisor.conn_id, hypervisor.name) as machine:
            own = [guest for guest in ports.inventory.guests.values() if guest.hypervisor == hypervisor.name]
            questions.ask_hypervisor(asking, machine, hypervisor, own)
        ports.tell(f"{hypervisor.name}: done")
        return tuple(asking.checks)

    return ask


def _fence(ports: DrillPorts, guest: Guest) -> Callable[[], _Checks]:
    def ask() -> _Checks:
        where = guest.fence.on if guest.fence else "worker"
        place = place_of(ports.inventory, guest, where)
        if place is None and where != "worker":
            asking = Asking(guest.name)
            asking.note("fence", False, f"it runs on the {where}, but {guest.name} has none", _NAME_IT)
            return tuple(asking.checks)
        if place is None:
            asking = Asking("worker")
            questions.ask_fence(asking, None, guest)
            return _on_worker(asking.checks)
        asking = Asking(place[1])
        with ports.machine(*place) as machine:
            questions.ask_fence(asking, machine.may_run, guest)
        return tuple(asking.checks)

    return ask


def _nas(ports: DrillPorts, volume: Volume, server: str) -> Callable[[], _Checks]:
    def ask() -> _Checks:
        asking = Asking(server)
        with ports.machine(nas_connection(server), server) as machine:
            questions.ask_nas(asking, machine, volume, ports)
        ports.tell(f"{server}: done")
        return tuple(asking.checks)

    return ask


def _peer(ports: DrillPorts, peer: str, instance: Instance) -> Callable[[], _Checks]:
    def ask() -> _Checks:
        asking, conn_id = Asking(peer), ports.peer_connection(peer)
        with ports.machine(conn_id, peer) as machine:
            questions.ask_peer(asking, machine, conn_id, instance, ports.engines[instance.engine])
        ports.tell(f"{peer}: done")
        return tuple(asking.checks)

    return ask
