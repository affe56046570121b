"""The record of a running copy: who runs it and how far it is, on the local disk.

Both a detached and an attached ``prepare`` keep one, so that ``status`` can answer from elsewhere.
"""

import hashlib
import json
import os
from typing import List, NamedTuple, Optional, Sequence

from unlatch_agent import bootclock, hostlock, processes
from unlatch_agent.errors import Json


class Job(NamedTuple):
    """One job's file.

    Attributes:
        facts: ``incident``, ``directories``, ``pid``, ``start_ticks``, ``boot_id``, ``progress``,
            ``files`` (bytes done by path), ``error``, ``exit_code`` (None while it runs).
    """

    path: str
    facts: Json

    @property
    def is_running(self) -> bool:
        """Say whether the job's process still lives: the same pid, start time and boot."""
        if self.facts["exit_code"] is not None or self.facts["boot_id"] != bootclock.boot_id():
            return False
        process = processes.read(self.facts["pid"])
        return process is not None and process.start_ticks == self.facts["start_ticks"] and process.state not in "ZX"

    def write(self, **changes: object) -> None:
        """Change the record; the file is replaced as a whole."""
        self.facts.update(changes)
        temporary = "{}.{}".format(self.path, os.getpid())
        with open(temporary, "w") as target:
            json.dump(self.facts, target)
        os.rename(temporary, self.path)


def begin(incident: str, directories: Sequence[str]) -> Job:
    """Make this process the job of an incident's directories."""
    names = sorted(set(directories))
    key = hashlib.sha256("\0".join([incident, *names]).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    process = processes.read(os.getpid())
    facts: Json = {
        "incident": incident,
        "directories": names,
        "pid": os.getpid(),
        "start_ticks": process.start_ticks if process else 0,
        "boot_id": bootclock.boot_id(),
        "started_at": bootclock.now_iso(),
        "progress": None,
        "files": {},
        "error": None,
        "exit_code": None,
    }
    job = Job(os.path.join(hostlock.state_directory(), "job-{}.json".format(key)), facts)
    job.write()
    return job


def find(incident: str, directories: Sequence[str]) -> Optional[Job]:
    """Return the job of an incident that works in one of the directories: a running one, else the latest."""
    state = hostlock.state_directory()
    found: List[Job] = []
    for name in sorted(os.listdir(state)):
        if not (name.startswith("job-") and name.endswith(".json")):
            continue
        path = os.path.join(state, name)
        try:
            with open(path) as source:
                job = Job(path, json.load(source))
        except (OSError, ValueError):
            continue
        if job.facts["incident"] == incident and set(directories) & set(job.facts["directories"]):
            found.append(job)
    found.sort(key=lambda job: (job.is_running, job.facts["started_at"]))
    return found[-1] if found else None


def forget(incident: str, directories: Sequence[str]) -> None:
    """Remove the records of ended jobs: their repair is purged."""
    job = find(incident, directories)
    while job is not None and not job.is_running:
        os.unlink(job.path)
        job = find(incident, directories)
