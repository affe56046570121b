"""May a request work on an incident that is there already? One run at a time does, and none ends another's work."""

from __future__ import annotations

from unlatch.errors import RefusedError
from unlatch.lifecycle import WORKING_STATES, stuck_for
from unlatch.ports import IncidentPorts, IncidentRow, Store


def insist_on_same_kind(present: IncidentRow | None, *, dry_run: bool) -> None:
    """Every step asks the incident whether it may act, so a request must not join one of the other kind.

    Raises:
        RefusedError: the incident is a dry run and a repair was asked for, or the other way round.
    """
    if present is None or present.dry_run == dry_run:
        return
    is_one, asked = ("a dry run", "a repair") if present.dry_run else ("a repair", "a dry run")
    raise RefusedError(
        f"The incident {present.incident} is {is_one}, but {asked} was asked for; nothing was done.",
        next_step="start a new run and leave its field incident empty.",
    )


def take_the_incident(present: IncidentRow, run: str | None, ports: IncidentPorts) -> None:
    """Let this run alone work on the incident: leases are the incident's, so two of its runs would share them.

    A person who starts a run beside the watch's finds the same death, hence the same incident. Whoever worked on one
    that has ended, or is stuck, does so no more.

    Raises:
        RefusedError: another run repairs it.
    """
    if run is None or present.dry_run:
        return
    name, mine = f"run:{present.incident}", f"run:{run}"
    other = ports.store.take_lease(name, mine)
    if other is not None and _is_over(present, ports):
        ports.store.release_lease(name, other)
        other = ports.store.take_lease(name, mine)
    if other is not None:
        theirs = other.removeprefix("run:")
        raise RefusedError(
            f"{present.incident} is being repaired by the run {theirs} ({present.state}); nothing was done.",
            next_step=f"follow that run in Airflow and clear its failed tasks; should {theirs} be gone, another may go "
            "on when the incident counts as stuck (policy.stuck_after_s).",
        )


def _is_over(present: IncidentRow, ports: IncidentPorts) -> bool:
    if present.state not in WORKING_STATES:
        return True
    begun = ports.store.step(present.incident, "", "detect_crash")
    moments = (present.opened_at, ports.store.state_since(present.incident), begun.started_at if begun else None)
    since = max(moment for moment in moments if moment is not None)
    return stuck_for(present.state, since, ports.clock.now(), ports.policy.stuck_after_s) is not None


def was_opened(store: Store, incident: str) -> bool:
    """Whether an earlier request has opened the incident well: what this one asks wrongly must not end it."""
    opened = store.step(incident, "", "detect_crash")
    return opened is not None and "instances" in opened.result


def all_instances(store: Store, incident: str, wanted: tuple[str, ...]) -> list[str]:
    """Those that are wanted now, and those that an earlier request has worked on: it may owe their purge."""
    opened = store.step(incident, "", "detect_crash")
    earlier = opened.result.get("instances", []) if opened else []
    worked_on = (row.instance for row in store.steps(incident) if row.instance)
    return list(dict.fromkeys([*wanted, *earlier, *worked_on]))
