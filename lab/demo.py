"""The whole life cycle, to watch: a guest with three databases crashes, Unlatch brings them back.

`make demo` leaves everything running until Ctrl-C; `DEMO_EXIT=1 make demo` ends with 0 only if everything holds.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from rich.console import Console
from rich.live import Live
from rich.markdown import Markdown

from lab.errors import LabError
from lab.lab import CrashReport, Lab
from lab.privilege import become_root
from lab.report import Summary, summarise, timeline
from lab.screen import picture
from lab.site import REPOSITORY
from lab.standalone import USER, Standalone
from unlatch.models import incident_id
from unlatch.store.sql_store import SqlStore
from unlatch.wiring import SystemClock

RUN_LIMIT_S = 600.0
_ENDED = {"success", "failed"}


class Demo:
    """One demo: a lab, an Airflow, a crash, and what came of it."""

    def __init__(self, root: Path, console: Console) -> None:
        """Keep everything below `root`; nothing is started."""
        self.root = root
        self.console = console
        self.lab = Lab(root / "lab")
        self.clock = SystemClock()
        self.airflow: Standalone | None = None

    def run(self) -> Summary:
        """Start, crash, watch, judge.

        Raises:
            LabError: the lab or Airflow did not start, or the repair did not begin.
        """
        self._start()
        crash = self._crash()
        incident = self._follow(crash)
        return self._judge(crash, incident)

    def stop(self) -> None:
        """End all that was started. Idempotent."""
        if self.airflow is not None:
            self.airflow.stop()
        self.lab.down()

    @property
    def _running(self) -> Standalone:
        if self.airflow is None:
            raise LabError("Airflow was not started")
        return self.airflow

    def _start(self) -> None:
        self.console.rule("1  A guest with three databases, a hypervisor, an Airflow")
        began = time.monotonic()
        with self.console.status("databases are loaded and started (the first time takes longest)…"):
            self.lab.up()
            self.lab.reset()
        self.console.print(self.lab.summary(), highlight=False)
        self.airflow = Standalone(
            self.root / "airflow",
            inventory=self.lab.inventory_path,
            connections=self.lab.connections(),
            var=self.root / "demo",
        )
        with self.console.status("Airflow starts (its first start builds its database: a minute or two)…"):
            self.airflow.start()
            self._wait_for_watch()
        self.console.print(f"All up after {time.monotonic() - began:.0f} s; the watch reads the hypervisor's log.\n")

    def _wait_for_watch(self, limit_s: float = 120.0) -> None:
        """The watch waits in the triggerer: from now on a crash line is seen."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            runs = self._running.call("GET", "/dags/watch_hypervisors/dagRuns?limit=1&order_by=-run_after")["dag_runs"]
            tasks = self._running.tasks("watch_hypervisors", runs[0]["dag_run_id"]) if runs else []
            if any(task["state"] == "deferred" for task in tasks):
                return
            time.sleep(0.5)
        raise LabError(f"the watch does not run after {limit_s:.0f} s:\n{self._running.log_tail()}")

    def _crash(self) -> CrashReport:
        self.console.rule("2  SIGSEGV: the guest dies while clients commit")
        self.lab.writer().start()
        crash = self.lab.crash()
        locked = ", ".join(str(self.lab.guest_path(path)) for path in crash.locked_files)
        self.console.print(f"Died at {crash.crashed_at:%H:%M:%S} UTC; locked by the dead: {locked}", highlight=False)
        self.console.print(f"Acknowledged commits: {dict(crash.acknowledged)}\n", highlight=False)
        return crash

    def _follow(self, crash: CrashReport) -> str:
        """Show the steps until the run has ended; the incident's id."""
        self.console.rule("3  Unlatch")
        store = SqlStore(self._running.store_url, clock=self.clock)
        incident, deadline = "", time.monotonic() + RUN_LIMIT_S
        names = list(self.lab.instances)
        with Live(console=self.console, refresh_per_second=4, transient=False) as live:
            while time.monotonic() < deadline:
                events = store.events(crash.crashed_at.replace(microsecond=0))
                incident = incident_id(events[-1].at, events[-1].guest or "") if events else ""
                rows = store.steps(incident) if incident else ()
                live.update(picture(names, rows, self._copying(store, incident), self.clock.now(), crash.crashed_at))
                if incident and self._running.run_state("remediate_guest", incident) in _ENDED:
                    return incident
                time.sleep(0.25)
        raise LabError(f"the run {incident or 'of this crash'} has not ended after {RUN_LIMIT_S:.0f} s")

    def _copying(self, store: SqlStore, incident: str) -> dict[str, str]:
        phases: dict[str, str] = {}
        for row in store.audit_rows(incident=incident, limit=10_000) if incident else ():
            if row.phase == "copying":
                done, total = row.detail["bytes_done"] / 2**20, row.detail["bytes_total"] / 2**20
                phases[row.instance] = f"{done:.0f}/{total:.0f} MB"
        return phases

    def _judge(self, crash: CrashReport, incident: str) -> Summary:
        self.console.print()
        self.console.rule("4  What came of it")
        self.lab.writer().stop()
        store = SqlStore(self._running.store_url, clock=self.clock)
        lost = {name: len(rows) for name, rows in self.lab.writer().missing_after().items()}
        summary = summarise(
            store, incident, crash, lost=lost, ghost={self.lab.guest_path(p) for p in self.lab.ghost_locks()}
        )
        target = self.root / "demo/summary.json"
        target.write_text(json.dumps(summary.document, indent=2) + "\n")
        self.console.print(timeline(store, incident, crash))
        ticket = summary.document["ticket"]
        if ticket:
            self.console.rule("ticket")
            self.console.print(Markdown(Path(ticket).read_text()))
        for report in summary.document["postmortem"]:
            self.console.print(f"post-mortem: {report}", highlight=False)
        audit = summary.document["audit"]
        self.console.print(f"audit verify: {audit['rows']} rows, {'intact' if audit['verified'] else 'DAMAGED'}")
        for problem in summary.problems:
            self.console.print(f"[red]does not hold:[/red] {problem}")
        self.console.print(f"summary: {target}\n")
        return summary


def main() -> int:
    """Run the demo; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m lab.demo", description=__doc__, epilog="example: DEMO_EXIT=1 python -m lab.demo"
    )
    parser.parse_args()
    become_root("lab.demo", ("DEMO_EXIT", "UNLATCH_DEMO_ROOT", "UNLATCH_LAB_CACHE"))
    console = Console()
    demo = Demo(Path(os.environ.get("UNLATCH_DEMO_ROOT") or REPOSITORY / "var"), console)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        summary = demo.run()
        if os.environ.get("DEMO_EXIT"):
            return 1 if summary.problems else 0
        _invite(demo, console, summary.document)
        signal.pause()
    except KeyboardInterrupt:
        console.print("\nstopping everything that was started…")
    except LabError as error:
        console.print(f"[red]{error}[/red]", highlight=False)
        return 4
    finally:
        demo.stop()
    return 0


def _invite(demo: Demo, console: Console, document: dict[str, Any]) -> None:
    airflow = demo.airflow
    if airflow is None:
        return
    run = f"{airflow.url}/dags/remediate_guest/runs/{document['incident']}"
    console.print(
        f"Airflow: {run}\n  user {USER}, password {airflow.password}\nCtrl-C stops everything.", highlight=False
    )


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
