"""Which incidents owe a purge, and since when. Nothing is planned: it is computed at each look (docs/clean-up.md)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from unlatch.incident_pages import every_incident
from unlatch.lifecycle import IncidentState
from unlatch.ports import StepRow, Store
from unlatch.working_days import WorkCalendar, next_working_morning

STEP = "clean_up"
CLEAN_UPS = frozenset({STEP, "plan_clean_up"})
"""The clean-up, and its dry run: no part of the repair."""

_ENDS = frozenset({"confirm_access", "confirm_by_owner"})
_REPAIR = _ENDS | {
    "check_locks",
    "hold_service",
    "verdict",
    "approve",
    "clear_locks",
    "recreate_files",
    "restart_database",
}


def confirmed_at(steps: Sequence[StepRow], instance: str) -> datetime | None:
    """When the access to an instance was confirmed; None when it was not, or when a repair has begun again since.

    Args:
        steps: Those of an incident, in the order of their last start.
        instance: Its name.
    """
    mine = [row for row in steps if row.instance == instance and row.step in _REPAIR]
    if not mine or mine[-1].step not in _ENDS or mine[-1].phase != "done" or "would" in mine[-1].result:
        return None
    return mine[-1].ended_at


def is_cleaned_up(steps: Sequence[StepRow], instance: str) -> bool:
    """Whether what the newest repair of an instance has left is deleted."""
    mine = [row for row in steps if row.instance == instance and row.step in _REPAIR | {STEP}]
    return bool(mine) and mine[-1].step == STEP and mine[-1].phase == "done"


def run_of(store: Store, incident: str, day: datetime) -> str:
    """The id of the run that cleans up: `cleanup-<incident>`; with its day when an earlier repair had one before."""
    steps = store.steps(incident)
    repairs = [n for n, row in enumerate(steps) if row.step in _ENDS]
    is_later = any(row.step == STEP for row in steps[: repairs[-1]]) if repairs else False
    return f"cleanup-{incident}" + (f"-{day:%Y%m%d}" if is_later else "")


def purge_day(store: Store, incident: str, calendar: WorkCalendar, instance: str | None = None) -> datetime | None:
    """When what an incident has left may be deleted, in UTC; None while an access is not confirmed.

    Args:
        store: Where its steps are.
        incident: Its id.
        calendar: When people work.
        instance: One of its instances; None: all of them, so the latest counts.
    """
    opened = store.step(incident, "", "detect_crash")
    names = [instance] if instance else list(opened.result.get("instances", [])) if opened else []
    steps = store.steps(incident)
    moments = [confirmed_at(steps, name) for name in names]
    known = [moment for moment in moments if moment is not None]
    return next_working_morning(max(known), calendar) if known and len(known) == len(moments) else None


def due_incidents(store: Store, calendar: WorkCalendar, now: datetime) -> tuple[tuple[str, datetime], ...]:
    """The incidents whose purge is due, each with its day, the longest waiting first.

    What was missed on its day is due on a later one.
    """
    waiting = [
        (row.incident, day)
        for row in every_incident(store)
        if row.state is IncidentState.AWAITING_PURGE and not row.dry_run
        if (day := purge_day(store, row.incident, calendar)) is not None and day <= now
    ]
    return tuple(sorted(waiting, key=lambda pair: pair[1]))
