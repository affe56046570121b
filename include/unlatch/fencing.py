"""Cutting the old holder off before anything is touched, where the site has declared how; and letting it in again.

A fence stands in for the hypervisor's word: it is applied when no log says that the guest died. One that was applied
and verified is a proof of death; one that failed is a veto, since the holder may live behind it. It is never applied to
a guest on which a database answers: a mistyped name must not power a healthy machine off.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Protocol

from unlatch.errors import CheckFailedError
from unlatch.in_parallel import in_parallel
from unlatch.models import Certainty, CrashEvent, Fence, Guest, Json
from unlatch.ports import IncidentPorts, Store
from unlatch.recording import Subject, fingerprint, recorded, tell

VERIFY_LIMIT_S = 120.0
"""How long a fence may take from the command's end until it is seen to hold: a power-off is not at once."""

_LOOK_S = 2.0


class Crashed(Subject, Protocol):
    """An incident, with what died."""

    @property
    def guest(self) -> Guest:
        """The guest that died, or is said to have died."""

    @property
    def event(self) -> CrashEvent | None:
        """What its hypervisor says of that."""


def needs_fence(incident: Crashed) -> bool:
    """Whether the site's fence has to be applied: it has one, and no log says for certain that the guest died."""
    certain = incident.event is not None and incident.event.certainty is Certainty.CERTAIN
    return incident.guest.fence is not None and not certain and not incident.dry_run


def in_force(store: Store, incident: str) -> bool | None:
    """Whether the incident's fence holds: True: the holder is cut off. False: it failed. None: none, or undone.

    A fence that failed stays a veto, also when it was undone since: what was behind it may live. One whose undoing was
    begun is in force no more, however that ended: it may have let somebody in.
    """
    fenced, undone = store.step(incident, "", "fence"), store.step(incident, "", "unfence")
    if fenced is None:
        return None
    if fenced.phase != "done":
        return False
    is_undone = undone is not None and undone.started_at >= fenced.started_at
    return None if is_undone else True


def fence_once(incident: Crashed, ports: IncidentPorts) -> None:
    """Apply and verify the fence, unless this incident has done so already; nothing where none is needed.

    Nor is it applied while a database of the guest answers, which is told: nothing is proven then, a person is asked.

    Raises:
        CheckFailedError: it could not be applied or is not seen to hold; no lane of the incident may go on.
    """
    if not needs_fence(incident) or in_force(ports.store, incident.incident) is True:
        return
    answering = _answering(incident, ports)
    if not answering:
        fence(incident, ports)
        return
    ports.store.note(
        incident.incident, "", "fence", "left_out", actor=ports.actor, detail={"answering": list(answering)}
    )
    words = (
        f"**{incident.guest.name} was not fenced**: {', '.join(answering)} takes connections. A fence would take that "
        "down. No log says that the guest died, so nothing is proven; see whether it is the right guest."
    )
    tell(incident, ports, f"fence/left_out/{fingerprint(words)}", words)


def _answering(incident: Crashed, ports: IncidentPorts) -> tuple[str, ...]:
    """The guest's databases that take connections, asked for or not: a fence cuts all of them off."""
    known = ports.inventory.instances_of(incident.guest.name)
    answers = in_parallel({f"{i.name} ({i.host}:{i.port})": partial(ports.accepts, i.host, i.port) for i in known})
    return tuple(name for name, is_open in answers.items() if is_open)


@recorded
def fence(incident: Crashed, ports: IncidentPorts) -> Json:
    """Run the site's command, then see that it holds. Applying it twice does no harm by the inventory's promise."""
    declared = _declared(incident)
    _insist(incident, ports, declared.apply, "could not be applied; its old incarnation may live: nothing is touched")
    deadline = ports.clock.now() + timedelta(seconds=VERIFY_LIMIT_S)
    while (seen := ports.run_on(declared.on, incident.guest.name, declared.verify)).code != 0:
        if ports.clock.now() >= deadline:
            raise CheckFailedError(
                f"The fence of {incident.guest.name} was applied, but is not seen to hold after "
                f"{VERIFY_LIMIT_S:.0f} s: {seen.output.strip()[:500]}. Nothing will be touched.",
                next_step=f"find out why {' '.join(declared.verify)} fails; then clear this task.",
            )
        ports.clock.pause(_LOOK_S)
    return {"applied": list(declared.apply), "verified": list(declared.verify), "on": declared.on}


def unfence_once(incident: Crashed, ports: IncidentPorts) -> None:
    """Undo a fence of this incident that has not been undone, whether it held or not.

    Raises:
        CheckFailedError: it could not be undone: somebody is still cut off.
    """
    fenced = ports.store.step(incident.incident, "", "fence")
    undone = ports.store.step(incident.incident, "", "unfence")
    declared = incident.guest.fence
    if fenced is None or declared is None or not declared.undo:
        return
    if undone is None or undone.phase != "done" or undone.started_at < fenced.started_at:
        unfence(incident, ports)


@recorded
def unfence(incident: Crashed, ports: IncidentPorts) -> Json:
    """Run the site's command that lets the fenced machine in again."""
    declared = _declared(incident)
    _insist(incident, ports, declared.undo, "could not be undone: somebody is still cut off")
    return {"undone": list(declared.undo)}


def _insist(incident: Crashed, ports: IncidentPorts, argv: tuple[str, ...], otherwise: str) -> None:
    declared = _declared(incident)
    answer = ports.run_on(declared.on, incident.guest.name, argv)
    if answer.code != 0:
        raise CheckFailedError(
            f"The fence of {incident.guest.name} {otherwise} (exit code {answer.code}): {answer.output.strip()[:500]}",
            next_step=f"run it by hand on the {declared.on}: {' '.join(argv)}; then clear this task.",
        )


def _declared(incident: Crashed) -> Fence:
    declared = incident.guest.fence
    if declared is None:
        raise CheckFailedError(
            f"{incident.guest.name} has no fence in the inventory any more.", next_step="restore its entry."
        )
    return declared
