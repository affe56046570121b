"""The steps that concern an incident as a whole: opening it, waiting for its guest, telling how it ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from unlatch import limits, service_hours
from unlatch.crash_events import fold
from unlatch.deliveries import open_ticket, set_ticket_state
from unlatch.errors import CheckFailedError, ConfigError, RefusedError, TransientError
from unlatch.joining import all_instances, insist_on_same_kind, take_the_incident, was_opened
from unlatch.lifecycle import TRANSITIONS, IncidentState
from unlatch.models import Certainty, CrashEvent, Guest, Instance, Json, incident_id
from unlatch.ports import IncidentPorts, IncidentRow, StepRow
from unlatch.purge_days import CLEAN_UPS, is_cleaned_up, purge_day
from unlatch.recording import fingerprint, honour_stop, recorded, refuse_while_stopped, tell
from unlatch.site_calendar import calendar_of
from unlatch.together import tell_of_group
from unlatch.wording import InstanceOutcome, closing_comment, opening_comment
from unlatch.working_days import in_words


@dataclass(frozen=True)
class Request:
    """What the trigger form, the watch or the API asks for; names are not checked yet.

    `run` is the id of the Airflow run: a try that is repeated finds by it the incident that the first one opened.
    """

    guest: str
    instances: tuple[str, ...] = ()
    crashed_at: datetime | None = None
    incident: str | None = None
    dry_run: bool = False
    reason: str = ""
    ticket: str | None = None
    run: str | None = None


@dataclass(frozen=True)
class Incident:
    """An opened incident: the subject of the steps below."""

    incident: str
    guest: Guest
    instances: tuple[str, ...]
    event: CrashEvent | None
    dry_run: bool

    @property
    def subject(self) -> str:
        """No single instance."""
        return ""


def detect_crash(request: Request, ports: IncidentPorts) -> Json:
    """Open the incident and its ticket; find what the hypervisor says of the crash; refuse what must not be repaired.

    Idempotent: the same request finds the incident that it opened. A request without a crash event still gets an
    incident: without the hypervisor's word there is no proof of death, so a person will be asked.

    Returns:
        `{"incident": id, "instances": names, "dry_run": bool}`, with the instances of this request.

    Raises:
        RefusedError: guest or instance unknown, or the event too old; a new incident is open and says so, one that
            was there is left as it is. Or another run repairs it, or it is a dry run while this request is none, or
            the other way round.
    """
    with _refusals_noted(request, ports):
        refuse_while_stopped(ports)
    now = ports.clock.now()
    guest = ports.inventory.guests.get(request.guest)
    named = request.incident or _opened_before(request, ports)
    known = ports.store.incident(named) if named else None
    event = known.event if known and known.event else _find_event(request, guest, ports)
    died_at = event.at if event else request.crashed_at
    incident = named or _name(died_at or now, request)
    if request.run is not None and named is None:
        ports.store.set_cursor(_run_cursor(request.run), {"incident": incident})
    wanted = _wanted(request, guest, ports)
    with _refusals_noted(request, ports):
        insist_on_same_kind(ports.store.incident(incident), dry_run=request.dry_run)
    problem = _problem(request, guest=guest, wanted=wanted, event=event, ports=ports, now=now)
    if problem is not None and was_opened(ports.store, incident):
        with _refusals_noted(request, ports):
            raise problem

    row = ports.store.open_incident(
        IncidentRow(
            incident=incident,
            guest=request.guest,
            state=IncidentState.DETECTED,
            opened_at=now,
            died_at=died_at,
            dry_run=request.dry_run,
            reason=request.reason,
            ticket=None,
            event=event,
        )
    )
    with _refusals_noted(request, ports):
        take_the_incident(row, request.run, ports)
    every = all_instances(ports.store, incident, tuple(i.name for i in wanted))
    asked = {"guest": request.guest, "objective_s": ports.policy.objective_s}
    ports.store.begin(incident, "", "detect_crash", actor=ports.actor, detail=asked)
    _open_ticket(row, request, wanted=wanted, event=event, ports=ports)
    if problem is not None:
        ports.store.end(
            incident,
            "",
            "detect_crash",
            phase="refused",
            actor=ports.actor,
            result={"error": problem.what, "next": problem.next_step},
        )
        words = f"**REFUSED: nothing was touched.**\n\n{problem.what}\n\nNext: {problem.next_step}"
        tell(_subject(row), ports, f"detect_crash/refused/{fingerprint(words)}", words)
        ports.store.set_state(incident, IncidentState.REFUSED)
        raise problem
    ports.store.set_state(incident, IncidentState.REPAIRING)
    tell_of_group(_subject(row), row.guest, event, ports)
    result: Json = {"incident": incident, "instances": every, "dry_run": row.dry_run}
    ports.store.end(incident, "", "detect_crash", phase="done", actor=ports.actor, result=result)
    return {**result, "instances": [i.name for i in wanted]}


def guest_is_back(incident: Incident, ports: IncidentPorts) -> bool:
    """One look: does the guest answer over SSH?

    Raises:
        ConfigError: it answers, but not as the inventory says (host key, login): waiting would not help.
        RefusedError: the global stop is set.
    """
    honour_stop(incident, ports, "wait_for_guest")
    try:
        ports.agent(incident.guest.name).facts()
    except TransientError:
        return False
    return True


@recorded
def wait_for_guest(incident: Incident, ports: IncidentPorts) -> Json:
    """Record that the guest is back, or tell people that it is not (the waiting itself is the DAG's).

    Raises:
        CheckFailedError: the guest does not answer and the policy's time is over.
        TransientError: it does not answer yet.
    """
    try:
        facts = ports.agent(incident.guest.name).facts()
    except TransientError as error:
        row = ports.store.incident(incident.incident)
        limit = timedelta(seconds=ports.policy.guest_return_s)
        if row is not None and ports.clock.now() - row.opened_at > limit:
            raise CheckFailedError(
                f"{incident.guest.name} is not back {limit.total_seconds():.0f} s after the incident was opened: "
                f"{error.what}",
                next_step="start the guest on its hypervisor, then clear this task.",
            ) from error
        raise
    tell_of_group(incident, incident.guest.name, incident.event, ports)
    return {"boot_id": facts.boot_id, "booted_at": facts.booted_at.isoformat()}


def update_ticket(incident: Incident, ports: IncidentPorts) -> Json:
    """Say in the ticket how each instance ended, advance the incident, give leases back.

    Runs also when lanes failed, and says so with its own failure, so that the run's state tells the truth.

    Raises:
        CheckFailedError: at least one instance is not accessible.
    """
    steps = ports.store.steps(incident.incident)
    outcomes = tuple(_outcome(name, [s for s in steps if s.instance == name]) for name in incident.instances)
    ports.store.begin(incident.incident, "", "update_ticket", actor=ports.actor, detail={})
    tell_of_group(incident, incident.guest.name, incident.event, ports)
    bad = [o for o in outcomes if not o.ok]
    day = purge_day(ports.store, incident.incident, calendar_of(ports.inventory.site))
    until = in_words(day, ports.inventory.site.timezone) if day is not None and not bad else None
    words = closing_comment(outcomes, dry_run=incident.dry_run, until=until)
    tell(incident, ports, f"update_ticket/{fingerprint(words)}", words)
    _advance(incident, outcomes, ports)
    for name in incident.instances:
        ports.store.release_lease(f"instance:{name}", incident.incident)
    result: Json = {"instances": {o.instance: o.words for o in outcomes}}
    ports.store.end(
        incident.incident, "", "update_ticket", phase="failed" if bad else "done", actor=ports.actor, result=result
    )
    if bad:
        raise CheckFailedError(
            f"{len(bad)} of {len(outcomes)} instances of {incident.guest.name} are not accessible: "
            + "; ".join(f"{o.instance}: {o.words}" for o in bad),
            next_step="each failed task says what to do; clear it, and this one runs again after it.",
        )
    return result


def _advance(incident: Incident, outcomes: Sequence[InstanceOutcome], ports: IncidentPorts) -> None:
    if incident.dry_run:
        path = [IncidentState.REFUSED, IncidentState.CLOSED]  # nothing was repaired and nothing is owed
    elif all(o.ok for o in outcomes):
        owed = IncidentState.AWAITING_PURGE if any(o.quarantine for o in outcomes) else IncidentState.CLOSED
        path = [IncidentState.ACCESSIBLE, IncidentState.CONFIRMED, owed]
    elif any(o.refused for o in outcomes):
        path = [IncidentState.REFUSED]
    else:
        path = [IncidentState.FAILED]
    row = ports.store.incident(incident.incident)
    if row is None:
        return
    if row.state is not path[-1]:
        if path[0] is not row.state and path[0] not in TRANSITIONS[row.state]:
            path.insert(0, IncidentState.REPAIRING)  # a task that was cleared made another end of it
        for state in path:
            ports.store.set_state(incident.incident, state)
    set_ticket_state(incident.incident, ports, "resolved" if path[-1] is IncidentState.CLOSED else "in progress")


def _outcome(instance: str, steps: Sequence[StepRow]) -> InstanceOutcome:
    """What became of an instance: the last step that did not end well, or its access.

    `steps` are in the order of their last start: what lies before a login that worked was made good by it, and a step
    that began after it (but the owner's word) belongs to a later round that has not come to a login yet.
    """
    every, steps = steps, [row for row in steps if row.step not in CLEAN_UPS]
    position = next((n for n, row in enumerate(steps) if row.step == "confirm_access" and row.phase == "done"), None)
    for row in reversed(steps[position or 0 :]):
        if row.phase in {"refused", "failed", "retry", "intent"}:
            words = f"{row.step} {row.phase}: {row.result.get('error', 'did not finish')}"
            return InstanceOutcome(instance, ok=False, refused=row.phase == "refused", words=words)
    by_step = {row.step: row.result for row in steps}
    access = by_step.get("confirm_access")
    if access is None or any(row.step != "confirm_by_owner" for row in steps[(position or 0) + 1 :]):
        return InstanceOutcome(instance, ok=False, refused=False, words="its steps did not run to the end")
    files = by_step.get("recreate_files", {}).get("files", [])
    aside = by_step.get("clear_locks", {}).get("quarantine", [])
    quarantine = (*(f["quarantine"] for f in files), *aside)
    if "would" in access:
        plan = by_step.get("verdict", {}).get("plan")
        words = "dry run: " + (f"would take about {plan['estimate_s']:.0f} s" if plan else "is up, nothing to do")
        return InstanceOutcome(instance, ok=True, refused=False, words=words)
    if is_cleaned_up(every, instance):
        quarantine = ()
    done = [*_freed(by_step.get("clear_locks", {}))]
    done += [f"{len(files)} files recreated"] * bool(files) + [f"{len(aside)} pid file set aside"] * bool(aside)
    if not done and by_step.get("restart_database", {}).get("started"):
        done = ["its files were free, it was only started"]
    words = "accepts logins" + (f" ({', '.join(done)})" if done else " (nothing had to be done)")
    return InstanceOutcome(instance, ok=True, refused=False, words=words, quarantine=quarantine)


def _freed(cleared: Json) -> list[str]:
    """What was freed without a copy, and by which remedy."""
    worked = [tried["remedy"] for tried in cleared.get("tried", []) if tried["outcome"] == "freed"]
    return [f"{len(cleared['freed'])} files freed by {' and '.join(worked)}"] * bool(worked and cleared.get("freed"))


def _name(at: datetime, request: Request) -> str:
    """A dry run has an incident of its own: it must neither act in the name of the repair nor stand in its way."""
    name = incident_id(at, request.guest)
    return f"dry-{name.removeprefix('inc-')}" if request.dry_run else name


@contextmanager
def _refusals_noted(request: Request, ports: IncidentPorts) -> Iterator[None]:
    """Who asked for what is kept also when it is refused before any incident is opened."""
    try:
        yield
    except RefusedError as error:
        detail = {"guest": request.guest, "dry_run": request.dry_run, "reason": request.reason, "error": error.what}
        ports.store.note(request.incident or "", "", "detect_crash", "refused", actor=ports.actor, detail=detail)
        raise


def _run_cursor(run: str) -> str:
    return f"run:{run}"


def _opened_before(request: Request, ports: IncidentPorts) -> str | None:
    """The incident that an earlier try of this run has named: without a crash event its name is its own moment's."""
    kept = ports.store.cursor(_run_cursor(request.run)) if request.run is not None else None
    return str(kept["incident"]) if kept else None


def _wanted(request: Request, guest: Guest | None, ports: IncidentPorts) -> tuple[Instance, ...]:
    if guest is None:
        return ()
    every = ports.inventory.instances_of(guest.name)
    return tuple(i for i in every if not request.instances or i.name in request.instances)


def _problem(
    request: Request,
    *,
    guest: Guest | None,
    wanted: tuple[Instance, ...],
    event: CrashEvent | None,
    ports: IncidentPorts,
    now: datetime,
) -> RefusedError | None:
    if guest is None:
        names = ", ".join(sorted(ports.inventory.guests)) or "none"
        return RefusedError(
            f"No guest {request.guest!r} is in the inventory (it has: {names}).",
            next_step="correct the name, or add the guest and its instances to the inventory and start a new run.",
        )
    unknown = sorted(set(request.instances) - {i.name for i in wanted})
    if unknown or not wanted:
        return RefusedError(
            f"{guest.name} has no instance {', '.join(unknown) or 'at all'} in the inventory.",
            next_step="start a new run with the right names, or complete the inventory.",
        )
    if event is not None and not request.dry_run:
        stale = limits.event_refusal(event, ports.policy, now=now)
        if stale is not None:
            return RefusedError(
                f"This crash event must not start a repair: {stale}.",
                next_step="if the databases are down now, start a dry run to see the evidence, and repair by hand.",
            )
    return None


def _find_event(request: Request, guest: Guest | None, ports: IncidentPorts) -> CrashEvent | None:
    """The crash that the watch has read; for a run that a person started, the newest that the log still tells."""
    if request.incident and request.crashed_at:
        for event in ports.store.events(request.crashed_at):
            if incident_id(event.at, request.guest) == request.incident:
                return event
    if guest is None:
        return None
    age = timedelta(seconds=ports.policy.max_event_age_s)
    since = request.crashed_at - timedelta(seconds=60) if request.crashed_at else ports.clock.now() - age
    try:
        facts = ports.hypervisor.domain_facts(guest, since)
    except (TransientError, ConfigError):
        return None  # the verdict asks again and says that it was not observed
    certain = [e for e in fold(facts, guest.hypervisor) if e.certainty is Certainty.CERTAIN]
    return replace(certain[-1], guest=guest.name) if certain else None


def _open_ticket(
    row: IncidentRow,
    request: Request,
    *,
    wanted: tuple[Instance, ...],
    event: CrashEvent | None,
    ports: IncidentPorts,
) -> None:
    title = f"{request.guest} crashed: {', '.join(i.name for i in wanted) or 'no known instance'}"
    body = opening_comment(request.reason, wanted, event, dry_run=row.dry_run)
    outside = service_hours.outside_words(ports.policy, now=ports.clock.now())
    body = f"{body}\n\n{outside}" if outside else body
    open_ticket(row.incident, ports, title=title, body=body, reference=request.ticket)


def _subject(row: IncidentRow) -> Incident:
    return Incident(row.incident, Guest(row.guest, "", ""), (), row.event, row.dry_run)
