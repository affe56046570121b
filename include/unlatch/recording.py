"""Every step is recorded before it acts and after: the decorator that all of the runbook's functions wear."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from unlatch.deliveries import TellingPorts, add_comment
from unlatch.errors import CheckFailedError, ConfigError, RefusedError, TransientError, UnlatchError
from unlatch.models import CrashEvent, Guest, Instance, Json, Volume
from unlatch.ports import Store


class Subject(Protocol):
    """What a step is about: an incident as a whole (`subject` is empty) or one instance of it."""

    @property
    def incident(self) -> str:
        """The incident's id."""

    @property
    def subject(self) -> str:
        """The instance's name, or the empty string."""

    @property
    def dry_run(self) -> bool:
        """Look, plan and estimate; touch nothing."""


@dataclass(frozen=True)
class Case:
    """One instance of one incident."""

    incident: str
    instance: Instance
    guest: Guest
    volume: Volume
    event: CrashEvent | None
    dry_run: bool

    @property
    def subject(self) -> str:
        """The instance's name."""
        return self.instance.name


class RecordingPorts(TellingPorts, Protocol):
    """The ports that recording itself needs."""

    @property
    def stop_requested(self) -> Callable[[], bool]:
        """Whether a person has set the global stop."""


CaseT = TypeVar("CaseT", bound=Subject)
PortsT = TypeVar("PortsT", bound=RecordingPorts)


def recorded(function: Callable[[CaseT, PortsT], Json]) -> Callable[[CaseT, PortsT], Json]:
    """Record the intent, run the step named like the function, record the outcome (rule 11).

    The step does not run when the intent cannot be recorded, nor while the global stop is set. Its result is kept in
    the store for the steps that follow. Every failure is recorded with its words and told to the ticket before it is
    raised on; a failing ticket system never hides the failure itself.
    """
    step = function.__name__

    @functools.wraps(function)
    def run(case: CaseT, ports: PortsT) -> Json:
        honour_stop(case, ports, step)
        ports.store.begin(case.incident, case.subject, step, actor=ports.actor, detail={"dry_run": case.dry_run})
        try:
            result = function(case, ports)
        except Exception as error:
            _record_failure(case, ports, step, error)
            raise
        ports.store.end(case.incident, case.subject, step, phase="done", actor=ports.actor, result=result)
        return result

    return run


def honour_stop(case: Subject, ports: RecordingPorts, step: str) -> None:
    """Refuse to begin a step while the global stop is set, and note it.

    A note and no intent, which would empty the result of a step that was done.

    Raises:
        RefusedError: the stop is set.
    """
    try:
        refuse_while_stopped(ports)
    except RefusedError as error:
        detail = {"error": error.what}
        ports.store.note(case.incident, case.subject, step, "refused", actor=ports.actor, detail=detail)
        raise


def refuse_while_stopped(ports: RecordingPorts) -> None:
    """Honour the global stop (the Airflow Variable `unlatch_stop`).

    Raises:
        RefusedError: the stop is set.
    """
    if ports.stop_requested():
        raise RefusedError(
            "The global stop is set (Airflow Variable unlatch_stop), so nothing was done.",
            next_step="delete the Variable or set it to false, then clear the failed task.",
        )


def result_of(store: Store, case: Case, step: str) -> Json:
    """What an earlier step of this case found.

    Raises:
        RefusedError: that step has not been done: acting without its result would be acting blind.
    """
    row = store.step(case.incident, case.instance.name, step)
    if row is None or row.phase != "done":
        raise RefusedError(
            f"{step} of {case.instance.name} has no result, which the present step needs.",
            next_step=f"clear the task {step} of this run in Airflow, with its downstream tasks.",
        )
    return row.result


def tell(case: Subject, ports: RecordingPorts, marker: str, text: str) -> None:
    """Comment on the incident's ticket, once per marker; what cannot be told now is told later, in order."""
    if ports.store.incident(case.incident) is None:
        return
    sequence, head = ports.store.audit_head()
    witness = f"\n\n_Audit head: row {sequence}, {head}_"
    add_comment(case.incident, case.subject, ports, marker, text + witness)


def fingerprint(text: str) -> str:
    """For the marker of a comment that may be made again in other words, when a task is cleared and runs once more."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


_PHASES: tuple[tuple[type[UnlatchError], str], ...] = (
    (RefusedError, "refused"),
    (TransientError, "retry"),
    (CheckFailedError, "failed"),
    (ConfigError, "failed"),
)


def _record_failure(case: Subject, ports: RecordingPorts, step: str, error: Exception) -> None:
    phase = next((name for kind, name in _PHASES if isinstance(error, kind)), "failed")
    words = error.what if isinstance(error, UnlatchError) else f"{type(error).__name__}: {error}"
    following = error.next_step if isinstance(error, UnlatchError) else "see the task's log in Airflow"
    detail = error.detail if isinstance(error, UnlatchError) else {}
    result = {**detail, "error": words, "next": following}
    ports.store.end(case.incident, case.subject, step, phase=phase, actor=ports.actor, result=result)
    if phase != "retry":
        of = f" of {case.subject}" if case.subject else ""
        heading = "REFUSED" if phase == "refused" else "FAILED"
        text = f"**{heading}: {step}{of}**\n\n{words}\n\nNext: {following}"
        tell(case, ports, f"{step}/{phase}/{fingerprint(text)}", text)
