"""A lab, a real Airflow that watches it, and Unlatch's store: what tests of the whole life cycle ask and wait for."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lab import Lab
from lab.inventory import GUEST
from lab.standalone import Standalone
from unlatch.models import CrashEvent, incident_id
from unlatch.ports import IncidentRow, StepRow
from unlatch.store.sql_store import SqlStore
from unlatch.wiring import SystemClock

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
ENDED = {"success", "failed"}


class World:
    """A lab, an Airflow that watches it, and Unlatch's store."""

    def __init__(self, lab: Lab, airflow: Standalone, calendar: Path) -> None:
        self.lab = lab
        self.calendar = calendar
        self.airflow = airflow
        self.store = SqlStore(airflow.store_url, clock=SystemClock())

    def until(self, what: str, look: Callable[[], Any], *, limit_s: float = 240.0, pause_s: float = 0.2) -> Any:
        """Wait for something that others do; its first true value."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            found = look()
            if found:
                return found
            time.sleep(pause_s)
        pytest.fail(f"{what}: not within {limit_s:.0f} s\n{self.airflow.log_tail()}")

    def crash(self, prepare: Callable[[], object] = lambda: None) -> str:
        """Crash a fresh guest while clients commit; the incident's id, once the watch has read of it.

        `prepare` runs between the reset and the crash.
        """
        self.lab.reset()
        prepare()
        since = self.lab.crash().crashed_at.replace(microsecond=0)
        told = lambda: [event for event in self.store.events(since) if event.guest == GUEST]  # noqa: E731
        (event,) = self.until("the crash is detected", told)
        return incident_id(event.at, GUEST)

    def strangers(self, names: list[str]) -> list[CrashEvent]:
        """Crashes of guests that the inventory does not know, once the watch has read of all."""
        told = lambda: [e for e in self.store.events(LONG_AGO) if e.domain in names]  # noqa: E731
        self.until(f"{len(names)} deaths are detected", lambda: len(told()) == len(names))
        return told()

    def watch_waits(self) -> bool:
        """Whether the watch sits in the triggerer, so that it costs no worker."""
        return bool(self.waiting_watch())

    def waiting_watch(self) -> dict[str, Any]:
        """The watch's task while it sits in the triggerer; empty otherwise."""
        runs = self.airflow.call("GET", "/dags/watch_hypervisors/dagRuns?limit=1&order_by=-run_after")["dag_runs"]
        tasks = self.airflow.tasks("watch_hypervisors", runs[0]["dag_run_id"]) if runs else []
        return next((task for task in tasks if task["state"] == "deferred"), {})

    def runs(self, text: str) -> list[str]:
        """The runs of `remediate_guest` whose id has `text` in it."""
        found = self.airflow.call("GET", "/dags/remediate_guest/dagRuns?limit=100")["dag_runs"]
        return [run["dag_run_id"] for run in found if text in run["dag_run_id"]]

    def state(self, run: str) -> str:
        """The state in which a run of `remediate_guest` has ended; empty before."""
        state = self.airflow.run_state("remediate_guest", run)
        return state if state is not None and state in ENDED else ""

    def ended(self, run: str) -> str:
        """Wait for the end of a run of `remediate_guest`; its state."""
        return str(self.until(f"the run {run} ends", lambda: self.state(run)))

    def lanes(self, incident: str) -> list[str]:
        """The instances of an incident, in the order of their lanes; empty until they are known."""
        row = self.store.step(incident, "", "detect_crash")
        return list(row.result.get("instances", ())) if row else []

    def task(self, incident: str, name: str, instance: str | None = None) -> dict[str, Any]:
        """A task instance of an incident's run; empty while there is none."""
        if self.airflow.run_state("remediate_guest", incident) is None or (instance and not self.lanes(incident)):
            return {}
        lane = self.lanes(incident).index(instance) if instance else -1
        tasks = self.airflow.tasks("remediate_guest", incident)
        return next((t for t in tasks if t["task_id"].endswith(name) and t["map_index"] == lane), {})

    def step(self, incident: str, instance: str, step: str) -> StepRow:
        """The last word on a step."""
        row = self.store.step(incident, instance, step)
        assert row is not None, f"{step} of {instance} was never begun"
        return row

    def result(self, incident: str, instance: str, step: str) -> Any:
        """What a step found."""
        row = self.step(incident, instance, step)
        assert row.phase == "done", row
        return row.result

    def phases(self, incident: str, instance: str, step: str) -> list[str]:
        """What the audit says of a step: intents, waits and outcomes, in their order."""
        rows = self.store.audit_rows(incident=incident, limit=10_000)
        said = {"intent", "done", "failed", "refused", "retry", "waiting"}
        return [r.phase for r in rows if (r.instance, r.step) == (instance, step) and r.phase in said]

    def incident(self, incident: str) -> IncidentRow:
        """The incident's row."""
        row = self.store.incident(incident)
        assert row is not None
        return row

    def ticket(self, incident: str) -> str:
        """The text of the incident's ticket."""
        reference = self.incident(incident).ticket
        assert reference is not None
        return Path(reference).read_text()

    def lost_commits(self) -> dict[str, list[int]]:
        """Acknowledged commits that are missing now."""
        return {name: rows for name, rows in self.lab.writer().missing_after().items() if rows}

    def servers(self, instance: str) -> list[int]:
        """The processes that serve the instance's port, on the host."""
        return processes(f"--port={self.lab.instance(instance).port}".encode())


def processes(word: bytes) -> list[int]:
    """The processes whose command line has that word in it."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and word in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue  # it has just ended
    return found
