"""A writer that survived goes on writing into the renamed original, where nobody looks: so it is looked at (rule 7).

Before the start, after it, at the confirmation of the access, and every few minutes until the purge.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from unlatch.assessment import planned
from unlatch.deliveries import set_ticket_state
from unlatch.errors import CheckFailedError, UnlatchError
from unlatch.incident_pages import every_incident
from unlatch.lifecycle import TRANSITIONS, WORKING_STATES, IncidentState
from unlatch.models import Json, Remedy
from unlatch.ports import IncidentRow, Ports, Store
from unlatch.recording import Case, fingerprint, result_of, tell

STEP = "late_writer"
"""The alarm's name among the steps of an instance."""


def no_late_writer(case: Case, ports: Ports) -> None:
    """Nobody may have written to an original of the repair that is going on.

    Raises:
        CheckFailedError: somebody has; the service is held, both files are kept.
    """
    repair = planned(case, ports)
    touched = (*repair.paths(Remedy.RECREATE), *repair.paths(Remedy.SET_ASIDE)) if repair else ()
    earlier = result_of(ports.store, case, "verdict")["earlier"]
    touched += tuple(PurePosixPath(path) for path in _quarantined(earlier["files"], earlier["set_aside"]))
    problems = _problems(case, ports, touched)
    if problems:
        raise _stop_it(case, ports, problems)


def quarantines(store: Store) -> tuple[tuple[str, str], ...]:
    """Incident and instance of everything in quarantine whose database was started again, well or badly.

    Instance by instance: what became of its siblings, or of the incident, makes its originals no safer. A repair that
    goes on looks at its originals itself; an instance whose alarm was raised is not watched until it is started again.
    """
    return tuple(
        (row.incident, instance)
        for row in every_incident(store)
        if not row.dry_run and row.state is not IncidentState.CLOSED
        for instance in sorted({s.instance for s in store.steps(row.incident) if s.instance})
        if quarantine_of(store, row.incident, instance) and _is_watched(store, row, instance)
    )


def _is_watched(store: Store, row: IncidentRow, instance: str) -> bool:
    started, alarm = (store.step(row.incident, instance, step) for step in ("restart_database", STEP))
    if started is None or (started.phase != "done" and row.state in WORKING_STATES):
        return False
    # An alarm whose worker was killed may have told nobody.
    return alarm is None or alarm.phase != "failed" or alarm.started_at < started.started_at


def quarantine_of(store: Store, incident: str, instance: str) -> tuple[PurePosixPath, ...]:
    """The originals of one instance that an incident keeps."""
    recreated, cleared = store.step(incident, instance, "recreate_files"), store.step(incident, instance, "clear_locks")
    files = recreated.result.get("files", []) if recreated else []
    aside = cleared.result.get("quarantine", []) if cleared else []
    return tuple(PurePosixPath(path) for path in _quarantined(files, aside))


def _quarantined(files: list[Json], aside: list[str]) -> list[str]:
    return [*(f["quarantine"] for f in files), *aside]


def look_for_late_writer(case: Case, ports: Ports) -> Json:
    """One look at what an ended repair has in quarantine. Records nothing while all is well.

    The global stop keeps it from stopping the database, not from raising the alarm.

    Raises:
        CheckFailedError: somebody wrote to an original; the database is stopped and held, the incident reopened.
        TransientError: the guest is out of reach: then nobody looks, which the task's retries and its failure show.
    """
    kept = quarantine_of(ports.store, case.incident, case.instance.name)
    problems = _problems(case, ports, kept)
    if problems:
        raise raise_alarm(case, ports, problems)
    return {"looked_at": len(kept)}


def raise_alarm(case: Case, ports: Ports, problems: tuple[str, ...]) -> CheckFailedError:
    """Stop the database, reopen the incident, tell the ticket. Waits for nobody: each moment widens the split.

    Returns:
        The error for the caller to raise.
    """
    subject = (case.incident, case.instance.name, STEP)
    ports.store.begin(*subject, actor=ports.actor, detail={"problems": list(problems)})
    error = _stop_it(case, ports, problems)
    row = ports.store.incident(case.incident)
    if row is not None and IncidentState.REOPENED in TRANSITIONS[row.state]:
        ports.store.set_state(case.incident, IncidentState.REOPENED)
    set_ticket_state(case.incident, ports, "in progress")
    words = f"**FAILED: {STEP} of {case.instance.name}**\n\n{error.what}\n\nNext: {error.next_step}"
    tell(case, ports, f"{STEP}/{fingerprint(words)}", words)
    ports.store.end(*subject, phase="failed", actor=ports.actor, result={"error": error.what, "next": error.next_step})
    return error


def _problems(case: Case, ports: Ports, kept: tuple[PurePosixPath, ...]) -> tuple[str, ...]:
    directories = tuple(sorted({path.parent for path in kept}))
    return ports.agent.verify(case.incident, case.instance, directories) if directories else ()


def _stop_it(case: Case, ports: Ports, problems: tuple[str, ...]) -> CheckFailedError:
    if ports.stop_requested():
        now = "Its service was NOT stopped, since the global stop is set"
    else:
        problem = _held(case, ports)
        now = f"Its service could NOT be held: {problem}" if problem else "Its service was stopped and held"
    return CheckFailedError(
        f"LATE WRITER on {case.instance.name}: {'; '.join(problems)}. A process that nobody sees still writes to "
        f"the original, so the database may be split. {now}; both files are kept.",
        next_step="find and stop the writer first; then compare the two files with the database's owner.",
    )


def _held(case: Case, ports: Ports) -> str | None:
    """Hold the service; why not, when that fails in whatever way: nothing may keep the alarm from being told."""
    try:
        held = ports.agent.service(case.instance, "hold")
    except (UnlatchError, OSError) as error:
        return str(error)
    return None if held.code == 0 else held.output.strip() or f"exit code {held.code}"
