"""From a line in a log to the first task: Unlatch in a real Airflow, beside Event-Driven Ansible doing the same.

Both read the same kind of line from a local file. Unlatch's moment is the first entry in its audit: what `detect_crash`
is about to do. The playbook's is the file that its first task writes. Each event ends before the next one.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from lab.standalone import Standalone
from unlatch.assembly import SystemClock
from unlatch.models import incident_id
from unlatch.store.sql_store import SqlStore

CRASH = "[{at:%Y-%m-%d %H:%M:%S} 4572] WARNING (XendDomainInfo:1907) Domain has crashed: name={name} id=7.\n"
INVENTORY = """\
version: 1
site: {{timezone: UTC}}
policy: {{storm: {{events: 1000, window_s: 600}}}}
hypervisors:
  hv01:
    conn_id: unlatch_hv_hv01
    logs: [{{format: xend, path: {log}, timezone: UTC, local: true}}]
volumes: {{}}
guests: {{}}
instances: {{}}
"""
RULEBOOK = """\
- name: crashes
  hosts: all
  sources:
    - crash_lines: {{path: {log}}}
  rules:
    - name: a guest crashed
      condition: event.domain is defined
      action:
        run_playbook: {{name: {playbook}}}
"""
PLAYBOOK = """\
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.copy: {{content: "{{{{ ansible_eda.event.domain }}}}", dest: {done}}}
"""
SOURCE = '''\
import asyncio, re

async def main(queue, args):
    """Tell of each crash line that is added to a file."""
    with open(args["path"]) as log:
        log.seek(0, 2)
        open(args["path"] + ".watched", "w").close()
        while True:
            line = log.readline()
            if not line:
                await asyncio.sleep(0.05)
            elif found := re.search(r"Domain has crashed: name=(\\S+) id=", line):
                await queue.put({"domain": found[1]})
'''

_LIMIT_S = 180.0
_PAUSE_S = 0.02

_T = TypeVar("_T")


def _until(what: str, look: Callable[[], _T | None], limit_s: float = _LIMIT_S) -> _T:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(_PAUSE_S)
    raise RuntimeError(f"{what}: not within {limit_s:.0f} s")


def unlatch_s(directory: Path, count: int) -> list[tuple[float, float]]:
    """From the line to the run, and to the first entry in the audit, in seconds, crash after crash."""
    log, home = directory / "xend.log", directory / "airflow"
    log.touch()
    inventory = directory / "inventory.yaml"
    inventory.write_text(INVENTORY.format(log=log))
    airflow = Standalone(home, inventory=inventory, connections={}, var=directory / "unlatch")
    try:
        airflow.start()
        store = SqlStore(airflow.store_url, clock=SystemClock())
        return [_one_incident(airflow, store, log, number) for number in range(count + 1)][1:]  # the first one warms
    finally:
        airflow.stop()


def _one_incident(airflow: Standalone, store: SqlStore, log: Path, number: int) -> tuple[float, float]:
    _until("the watch waits", lambda: _watch_waits(airflow))
    name, at = f"99_bench{number}", datetime.now(UTC)
    with log.open("a") as opened:
        opened.write(CRASH.format(at=at, name=name))
    written = time.time()
    incident = incident_id(at.replace(microsecond=0), name)
    begun = _until("the first entry in the audit", lambda: _first_entry(store, incident))
    _until("the run ends", lambda: airflow.run_state("remediate_guest", incident) in {"success", "failed"} or None)
    run = airflow.call("GET", f"/dags/remediate_guest/dagRuns/{incident}")
    return datetime.fromisoformat(run["queued_at"]).timestamp() - written, begun.timestamp() - written


def _first_entry(store: SqlStore, incident: str) -> datetime | None:
    return next((row.at for row in store.audit_rows(incident=incident) if row.step == "detect_crash"), None)


def _watch_waits(airflow: Standalone) -> bool:
    runs = airflow.call("GET", "/dags/watch_hypervisors/dagRuns?limit=1&order_by=-run_after")["dag_runs"]
    tasks = airflow.tasks("watch_hypervisors", runs[0]["dag_run_id"]) if runs else []
    return any(task["state"] == "deferred" for task in tasks)


def rulebook_missing() -> str:
    """What is not here of what Event-Driven Ansible needs; empty when all is."""
    return ", ".join(name for name in ("java", "ansible-rulebook", "ansible-playbook") if shutil.which(name) is None)


def rulebook_s(directory: Path, count: int) -> list[float]:
    """From the line to the file that the playbook's first task writes, in seconds."""
    log, done = directory / "crashes.log", directory / "done"
    log.touch()
    for name, text in {
        "rules.yml": RULEBOOK.format(log=log, playbook=directory / "play.yml"),
        "play.yml": PLAYBOOK.format(done=done),
        "hosts": f"localhost ansible_connection=local ansible_python_interpreter={sys.executable}\n",
        "crash_lines.py": SOURCE,
    }.items():
        (directory / name).write_text(text)
    with _rulebook(directory):
        _until("ansible-rulebook watches", (directory / "crashes.log.watched").exists)
        time.sleep(2)  # its rule engine says nowhere that it is ready
        return [_one_event(log, done, number) for number in range(count + 1)][1:]


@contextlib.contextmanager
def _rulebook(directory: Path) -> Iterator[None]:
    argv = ["ansible-rulebook", "--rulebook", "rules.yml", "--inventory", "hosts", "--source-dir", "."]
    with (directory / "rulebook.out").open("wb") as output:
        process = subprocess.Popen(argv, cwd=directory, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield
        except RuntimeError as error:
            error.add_note((directory / "rulebook.out").read_text(errors="replace")[-2000:])
            raise
        finally:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)
            process.kill()
            process.wait()


def _one_event(log: Path, done: Path, number: int) -> float:
    name = f"99_bench{number}"
    with log.open("a") as opened:
        opened.write(CRASH.format(at=datetime.now(UTC), name=name))
    written = time.time()
    _until("the playbook's first task", lambda: done.exists() and done.read_text() == name)
    seconds = done.stat().st_mtime - written
    time.sleep(1.5)  # for the playbook to end: the next event would wait for it
    return seconds


def median_words(seconds: Sequence[float]) -> str:
    """Median, and from where to where."""
    return f"median {statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f}), {len(seconds)} times"
