"""The day after a repair, in the Airflow of `test_airflow`: its calendar is set ahead instead of waiting for Monday."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

AHEAD_S = 8 * 86_400  # a working day anywhere


def days_off() -> list[str]:
    """Yesterday, today and tomorrow: whatever day it is, a crash now is one of a weekend."""
    today = datetime.now(UTC).date()
    return [f"{today + timedelta(days=n)}" for n in (-1, 0, 1)]


def clean_up_on_the_next_working_day(world: Any, incident: str, calendar: Path) -> None:
    """See that nothing is started before that day; on it, wait until its run has ended."""
    run = f"cleanup-{incident}"
    world.lab.release_ghost()  # the NAS has noticed by then
    _look(world, f"before-{incident}")
    assert world.airflow.run_state("clean_up", run) is None
    calendar.write_text(str(AHEAD_S))
    try:
        _look(world, f"on-{incident}")
        ended = {"success", "failed"}
        state = world.until("the clean-up ends", lambda: (s := world.airflow.run_state("clean_up", run)) in ended and s)
        assert state == "success", world.airflow.tasks("clean_up", run)
        _look(world, f"after-{incident}")
    finally:
        calendar.unlink()


def _look(world: Any, run: str) -> None:
    """One run of `watch_quarantine`, as there is one every three minutes."""
    world.airflow.trigger("watch_quarantine", {}, run)
    ended = {"success", "failed"}  # it fails for an original of an earlier test, whose lab was reset
    world.until(f"watch_quarantine {run} ends", lambda: world.airflow.run_state("watch_quarantine", run) in ended)
