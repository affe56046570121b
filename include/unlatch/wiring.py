"""The facade that tasks, sensors, DAG files and commands call: one function each, over the objects of `assembly`.

Transports need Airflow and are imported only where they are used, so that the command line starts quickly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib import resources
from typing import Any

from unlatch import casebook, crash_facts, fencing, late_writers, runbook
from unlatch.assembly import (
    SystemClock,
    incident_ports,
    instance_ports,
    load_inventory,
    store,
)
from unlatch.casebook import Incident, Request
from unlatch.errors import ConfigError, RefusedError
from unlatch.models import Json
from unlatch.ports import Ports
from unlatch.recording import Case
from unlatch.settings import settings

__all__ = ["load_inventory", "settings", "store"]

MOMENT_PATTERN = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:\d{2})$"
"""What the trigger form takes for a moment: with its offset, since a crash at 02:30 in autumn is two moments."""


# --- the facade: incidents -------------------------------------------------------------------------------------------


def detect_crash(conf: Mapping[str, Any], *, run_id: str, actor: str) -> Json:
    """Open the incident that a run is about. A run that was started by the watch has the incident as its id."""
    crashed_at = conf.get("crashed_at")
    request = Request(
        guest=conf["guest"],
        instances=tuple(conf.get("instances") or ()),
        crashed_at=_moment(crashed_at) if crashed_at else None,
        incident=conf.get("incident") or (run_id if run_id.startswith("inc-") else None),
        dry_run=bool(conf.get("dry_run")),
        reason=conf.get("reason") or "",
        ticket=conf.get("ticket") or None,
        run=run_id,
    )
    with incident_ports(actor) as ports:
        opened = casebook.detect_crash(request, ports)
        fencing.fence_once(incident_of(opened["incident"]), ports)
        return opened


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise RefusedError(
            f"{text!r} is no moment that can be understood; nothing was done.",
            next_step="start a new run with crashed_at like 2014-10-18T05:54:52+02:00.",
        )
    return moment


def guest_is_back(incident: str) -> bool:
    """One look whether the incident's guest answers."""
    with incident_ports("sensor") as ports:
        return casebook.guest_is_back(incident_of(incident), ports)


def guest_is_overdue(incident: str) -> bool:
    """Whether the policy's time for the guest's return is over, counted from when the incident was opened."""
    row = store().incident(incident)
    if row is None:
        raise not_opened()
    return SystemClock().now() - row.opened_at > timedelta(seconds=load_inventory().policy.guest_return_s)


def wait_for_guest(incident: str, *, actor: str) -> Json:
    """Record that the guest is back, or tell people that it is not."""
    with incident_ports(actor) as ports:
        return casebook.wait_for_guest(incident_of(incident), ports)


def keep_crash_facts(incident: str, *, actor: str) -> list[Json]:
    """Keep what is known of the crash with the incident; what was looked for, and what was found, in words."""
    with incident_ports(actor) as ports:
        kept = crash_facts.keep_crash_facts(incident_of(incident), ports)
    return [{key: fact[key] for key in ("host", "what", "words")} for fact in kept["facts"]]


def update_ticket(incident: str, *, actor: str) -> Json:
    """Say how the incident ended, and let in again what was fenced."""
    with incident_ports(actor) as ports:
        whole = incident_of(incident)
        try:
            fencing.unfence_once(whole, ports)  # before the last word, so that the ticket tells both
        finally:
            ended = casebook.update_ticket(whole, ports)
        return ended


def not_opened() -> RefusedError:
    """The error of a step whose incident was never opened."""
    return RefusedError(
        "This run has no open incident.", next_step="see the log of detect_crash, correct that, clear it."
    )


def incident_of(incident: str) -> Incident:
    """An incident as the steps on it want it.

    Raises:
        RefusedError: it was never opened, or its guest is not in the inventory any more.
    """
    row = store().incident(incident)
    opened = store().step(incident, "", "detect_crash")
    guest = load_inventory().guests.get(row.guest) if row else None
    if row is None or opened is None or "instances" not in opened.result:
        raise not_opened()
    if guest is None:
        raise RefusedError(
            f"{row.guest} is not in the inventory any more, so nothing is done for {incident}.",
            next_step="restore its entry, then clear this task.",
        )
    return Incident(incident, guest, tuple(opened.result["instances"]), row.event, row.dry_run)


# --- the facade: instances -------------------------------------------------------------------------------------------


@contextmanager
def case_of(incident: str, instance: str, actor: str) -> Iterator[tuple[Case, Ports]]:
    """One instance of an incident, with all that a step on it may use."""
    known, whole = load_inventory(), incident_of(incident)
    if instance not in known.instances:
        raise RefusedError(
            f"{instance} is not in the inventory any more.", next_step="restore its entry, clear this task."
        )
    subject = known.instances[instance]
    if subject.guest != whole.guest.name:
        raise RefusedError(
            f"{instance} is on {subject.guest} by now, and {incident} is about {whole.guest.name}: nothing was done.",
            next_step=f"see what {incident} has left on {whole.guest.name}; to go on there, restore its entry and "
            "clear this task.",
        )
    case = Case(incident, subject, whole.guest, known.volumes[subject.volume], whole.event, whole.dry_run)
    with instance_ports(whole.guest, subject, actor) as ports:
        yield case, ports


_STEPS = {
    function.__name__: function
    for function in (
        runbook.check_locks,
        runbook.hold_service,
        runbook.verdict,
        runbook.clear_locks,
        runbook.recreate_files,
        runbook.restart_database,
        runbook.confirm_access,
    )
}


def run_step(step: str, incident: str, instance: str, *, actor: str) -> Json:
    """Run one step of the runbook for one instance."""
    with case_of(incident, instance, actor) as (case, ports):
        return _STEPS[step](case, ports)


def question(incident: str, instance: str, *, actor: str) -> str | None:
    """What a person must decide before the repair, or None."""
    with case_of(incident, instance, actor) as (case, ports):
        return runbook.question(case, ports)


def approve(incident: str, instance: str, *, approved: bool, by: str, comment: str | None) -> Json:
    """Keep a person's decision."""
    with case_of(incident, instance, by) as (case, ports):
        return runbook.approve(case, ports, approved=approved, by=by, comment=comment)


def owner_question(incident: str, instance: str, *, actor: str) -> str | None:
    """What the owner is asked after the repair, or None."""
    with case_of(incident, instance, actor) as (case, ports):
        return runbook.owner_question(case, ports)


def confirm_by_owner(incident: str, instance: str, *, approved: bool, by: str, comment: str | None) -> Json:
    """Keep the owner's word."""
    with case_of(incident, instance, by) as (case, ports):
        return runbook.confirm_by_owner(case, ports, approved=approved, by=by, comment=comment)


def quarantines() -> tuple[tuple[str, str], ...]:
    """Incident and instance of everything in quarantine whose repair has ended; what left the inventory is left out."""
    known = load_inventory()
    watched = []
    for incident, instance in late_writers.quarantines(store()):
        row = store().incident(incident)
        if row is not None and instance in known.instances and known.instances[instance].guest == row.guest:
            watched.append((incident, instance))
    return tuple(watched)


def look_for_late_writer(incident: str, instance: str, *, actor: str) -> Json:
    """One look at an instance's quarantined originals."""
    with case_of(incident, instance, actor) as (case, ports):
        return late_writers.look_for_late_writer(case, ports)


def approvers(incident: str) -> tuple[str, ...]:
    """Who may answer for the incident's guest; empty means everyone who may act in Airflow."""
    return incident_of(incident).guest.approvers


def approval_timeout_s() -> int:
    """How long a question waits; the default while there is no valid inventory, so that DAGs can still be parsed."""
    try:
        return load_inventory().policy.approval_timeout_s
    except ConfigError:
        return 3600


# --- the facade: DAG files -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choices:
    """What the trigger form suggests."""

    guests: Sequence[str]
    instances: Sequence[str]


def form_choices() -> Choices:
    """Suggestions for the trigger form; none while there is no valid inventory (the steps then say what is wrong)."""
    try:
        known = load_inventory()
    except ConfigError:
        return Choices([], [])
    return Choices(sorted(known.guests), sorted(known.instances))


def document(dag: str) -> str:
    """The page that Airflow shows for a DAG."""
    return resources.files("unlatch.orchestration").joinpath(f"dag_docs/{dag}.md").read_text()
