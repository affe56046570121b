"""Waiting for one's turn: copies at the same time are limited, per volume and in all; so are repairs of one instance.

Slots and leases are rows in the store, so they hold across workers. A lane that is killed keeps its slot until its
retry gives it back, or its incident ends: the copy job on the guest goes on without the lane, and still reads and
writes on the volume.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from unlatch.errors import TransientError
from unlatch.ports import Ports
from unlatch.recording import Case, refuse_while_stopped

PATIENCE_S = 600.0
"""How long a lane waits in one try of its task; Airflow's retries go on from there."""

LOOK_S = 5.0


@contextmanager
def repair_slot(case: Case, ports: Ports) -> Iterator[None]:
    """Copy inside: at most `policy.repairs_per_volume` lanes of a volume, and `policy.repairs_at_once` in all, may.

    Idempotent: a try that follows a killed one keeps the slots which that one took.

    Raises:
        TransientError: no slot became free within `PATIENCE_S`.
        RefusedError: the global stop was set while it waited.
    """
    owner = f"{case.incident}/{case.instance.name}"
    # All in the same order, so that two who have one slot each never wait for one another.
    wanted = (
        (f"volume:{case.volume.name}", ports.policy.repairs_per_volume, f"copies on the volume {case.volume.name}"),
        ("repairs", ports.policy.repairs_at_once, "copies"),
    )
    pools = [pool for pool, _, _ in wanted]
    try:
        for pool, size, what in wanted:
            wait_for_turn(
                case,
                ports,
                what=f"one of {size} {what} at the same time",
                take=functools.partial(ports.store.take_slot, pool, size, owner),
            )
    except Exception:
        _give_back(ports, pools, owner)
        raise
    try:
        yield
    except TransientError:
        raise  # the copy job may go on without the lane: its retry keeps the slots
    except Exception:
        if not ports.stop_requested():  # the stop ends the lane, not the copy job on the guest
            _give_back(ports, pools, owner)
        raise
    _give_back(ports, pools, owner)


def _give_back(ports: Ports, pools: Sequence[str], owner: str) -> None:
    for pool in pools:
        ports.store.release_slot(pool, owner)


def wait_for_turn(case: Case, ports: Ports, *, what: str, take: Callable[[], Sequence[str]]) -> None:
    """Try again and again to take what others have; that the running step waits is noted once.

    Args:
        case: Who waits.
        ports: The store, the clock, the global stop.
        what: What is waited for, in words.
        take: Takes it and returns nothing, or returns who has it.

    Raises:
        TransientError: it was not to be had within `PATIENCE_S`.
        RefusedError: the global stop was set meanwhile.
    """
    owners = tuple(take())
    if not owners:
        return
    detail = {"for": what, "taken_by": list(owners), "limit_s": PATIENCE_S}
    step = _running_step(case, ports)
    ports.store.note(case.incident, case.instance.name, step, "waiting", actor=ports.actor, detail=detail)
    deadline = ports.clock.now() + timedelta(seconds=PATIENCE_S)
    while ports.clock.now() < deadline:
        ports.clock.pause(LOOK_S)
        refuse_while_stopped(ports)
        owners = tuple(take())
        if not owners:
            return
    incidents = sorted({owner.partition("/")[0] for owner in owners})
    raise TransientError(
        f"{case.instance.name} waited {PATIENCE_S:.0f} s for {what}; taken by {', '.join(owners)}.",
        next_step=f"it is tried again; to see what keeps them: unlatch show {' / '.join(incidents)}",
    )


def _running_step(case: Case, ports: Ports) -> str:
    begun = (row.step for row in reversed(ports.store.steps(case.incident)) if row.instance == case.instance.name)
    return next(begun, "")
