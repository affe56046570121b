"""Nobody starts a database while locks are swept away under it, and the other way round.

Freeing locks on a guest or on a whole volume also frees those that a database has just taken, and it never learns of
it. So each instance has a lease, the right to start it: a start takes its own, a sweep takes those of all instances
that it could hit, and keeps them until the locks have been looked at again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from unlatch.models import Reach
from unlatch.ports import Ports
from unlatch.recording import Case
from unlatch.slots import wait_for_turn


@contextmanager
def start_right(case: Case, ports: Ports) -> Iterator[None]:
    """Keep the right to start the instance; waits for a sweep that is going on.

    Raises:
        TransientError: the right was not to be had within `slots.PATIENCE_S`.
    """
    with _holding(case, ports, {case.instance.name}):
        yield


def give_back_start_rights(case: Case, ports: Ports) -> None:
    """Give back what a try of this lane that was killed has kept, for a start or a sweep; nothing of others'."""
    near = {case.instance.name, *(n.instance.name for n in ports.neighbours)}
    _give_back(ports, [f"start:{name}" for name in sorted(near)], _owner(case))


@contextmanager
def no_starts(case: Case, ports: Ports, reach: Reach) -> Iterator[None]:
    """Keep the rights to start the instance and all that a sweep of that reach could hit: on its guest, or its volume.

    Raises:
        TransientError: one of them was being started all the time.
        RefusedError: the global stop was set while it waited.
    """
    hit = {
        n.instance.name
        for n in ports.neighbours
        if (reach is Reach.VOLUME and n.instance.volume == case.instance.volume)
        or (reach is not Reach.FILES and n.instance.guest == case.instance.guest)
    }
    with _holding(case, ports, {case.instance.name, *hit}):
        yield


@contextmanager
def _holding(case: Case, ports: Ports, instances: set[str]) -> Iterator[None]:
    owner = _owner(case)
    names = [f"start:{name}" for name in sorted(instances)]
    what = f"the right to start {', '.join(sorted(instances))}"
    wait_for_turn(case, ports, what=what, take=lambda: _take_all(ports, names, owner))
    try:
        yield
    finally:
        _give_back(ports, names, owner)


def _owner(case: Case) -> str:
    return f"{case.incident}/{case.instance.name}"


def _take_all(ports: Ports, names: list[str], owner: str) -> tuple[str, ...]:
    """All or none, so that two who want each other's never wait for one another; who has one of them, or nobody."""
    for number, name in enumerate(names):
        other = ports.store.take_lease(name, owner)
        if other is not None:
            _give_back(ports, names[:number], owner)
            return (other,)
    return ()


def _give_back(ports: Ports, names: list[str], owner: str) -> None:
    for name in names:
        ports.store.release_lease(name, owner)
