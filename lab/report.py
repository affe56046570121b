"""What the demo reports: the summary with everything that must hold, and the time line beside that of 2014."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from lab.lab import CrashReport
from unlatch.ports import StepRow
from unlatch.store.sql_store import SqlStore

IN_2014 = (
    ("crash", "05:54", timedelta(0)),
    ("people are told", "10:47", timedelta(hours=4, minutes=53)),
    ("someone starts to look", "17:30", timedelta(hours=11, minutes=36)),
    ("locked files recreated", "19:00", timedelta(hours=13, minutes=6)),
    ("database restarted", "19:06", timedelta(hours=13, minutes=12)),
    ("access confirmed", "19:25", timedelta(hours=13, minutes=31)),
    ("ticket updated", "20:36", timedelta(hours=14, minutes=42)),
)
"""From the incident's public report: the step, the clock then, and the time since the crash."""


@dataclass(frozen=True)
class Summary:
    """The demo's outcome: what goes to summary.json, and what should hold but does not."""

    document: dict[str, Any]
    problems: tuple[str, ...]


def summarise(
    store: SqlStore, incident: str, crash: CrashReport, *, lost: Mapping[str, int], ghost: AbstractSet[Path]
) -> Summary:
    """Judge a finished incident.

    Args:
        store: Unlatch's store.
        incident: Its id.
        crash: What the lab did.
        lost: Acknowledged commits that are missing now, per instance.
        ghost: Files, as the guest names them, that the dead still lock.
    """
    steps = store.steps(incident)
    names = _row(steps, "", "detect_crash").result.get("instances", [])
    audit = store.verify_audit()
    row = store.incident(incident)
    ends = [s.ended_at for s in steps if s.step == "confirm_access" and s.phase == "done" and s.ended_at]
    accessible_at = max(ends) if len(ends) == len(names) else None
    document: dict[str, Any] = {
        "incident": incident,
        "crash_at": crash.crashed_at.isoformat(),
        "detected_at": _row(steps, "", "detect_crash").started_at.isoformat(),
        "accessible_at": accessible_at.isoformat() if accessible_at else None,
        "seconds_crash_to_access": _seconds(crash.crashed_at, accessible_at),
        "instances": [_instance(name, steps, ghost) for name in names],
        "committed_rows_lost": sum(lost.values()),
        "ticket": row.ticket if row else None,
        "postmortem": _attached(row.ticket) if row and row.ticket else [],
        "audit": {"rows": audit.rows, "verified": audit.verified},
    }
    return Summary(document, tuple(_problems(document, crash)))


def _instance(name: str, steps: tuple[StepRow, ...], ghost: AbstractSet[Path]) -> dict[str, Any]:
    verdict = _row(steps, name, "verdict").result
    states = {f["path"]: f["state"] for f in verdict.get("plan", {}).get("files", [])}
    access = _row(steps, name, "confirm_access").result
    return {
        "name": name,
        "engine": "postgresql" if name == "lxr" else "mariadb",
        "access": access.get("access") or access.get("error") or "not reached",
        "files": [
            {
                "path": f["path"],
                "verdict": states.get(f["path"]),
                "inode_before": f["inode_before"],
                "inode_after": f["inode_after"],
                "old_inode_still_locked": f["old_inode_still_locked"] and Path(f["quarantine"]) in ghost,
                "content_equal": f["content_equal"],
            }
            for f in _row(steps, name, "recreate_files").result.get("files", [])
        ],
    }


def _attached(ticket: str) -> list[str]:
    """The files beside a ticket that is a file."""
    return sorted(str(file) for file in Path(ticket).with_suffix(".files").glob("postmortem-*"))


def _not_told(document: dict[str, Any]) -> list[str]:
    if not document["ticket"] or not Path(document["ticket"]).exists():
        return ["there is no ticket"]
    return [] if document["postmortem"] else ["the post-mortem is not attached to the ticket"]


def _problems(document: dict[str, Any], crash: CrashReport) -> list[str]:
    problems = [f"{i['name']}: {i['access']}" for i in document["instances"] if i["access"] != "ok"]
    files = {f["path"]: f for i in document["instances"] for f in i["files"]}
    if len(document["instances"]) != len(crash.acknowledged):
        problems.append(f"{len(document['instances'])} instances repaired, {len(crash.acknowledged)} were hit")
    if len(files) != len(crash.locked_files):
        problems.append(f"{len(files)} files recreated, {len(crash.locked_files)} were locked")
    for path, f in files.items():
        if f["inode_before"] == f["inode_after"]:
            problems.append(f"{path} has its old inode")
        if not f["content_equal"]:
            problems.append(f"{path} differs from its original")
        if not f["old_inode_still_locked"]:
            problems.append(f"the original of {path} is not locked any more: so the lock was not what the copy cured")
    if document["committed_rows_lost"]:
        problems.append(f"{document['committed_rows_lost']} acknowledged commits are missing")
    problems += _not_told(document)
    if not document["audit"]["verified"]:
        problems.append("the audit chain is damaged")
    return problems


def timeline(store: SqlStore, incident: str, crash: CrashReport) -> Table:
    """What happened when, beside 2014."""
    steps = store.steps(incident)
    ours = {
        "crash": crash.crashed_at,
        "people are told": _row(steps, "", "detect_crash").ended_at,
        "someone starts to look": _first(steps, "check_locks"),
        "locked files recreated": _last(steps, "recreate_files"),
        "database restarted": _last(steps, "restart_database"),
        "access confirmed": _last(steps, "confirm_access"),
        "ticket updated": _last(steps, "update_ticket"),
    }
    table = Table(title="18 October 2014 and now", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    for column in ("2014", "after the crash", "now (UTC)", "after the crash"):
        table.add_column(column, justify="right")
    for what, clock, since in IN_2014:
        moment = ours[what]
        seconds = _seconds(crash.crashed_at, moment)
        hours, rest = divmod(int(since.total_seconds()) // 60, 60)
        table.add_row(
            what,
            clock,
            f"{hours} h {rest:02d} min",
            f"{moment:%H:%M:%S}" if moment else "—",
            f"{seconds:.1f} s" if seconds is not None else "—",
        )
    return table


def _row(steps: tuple[StepRow, ...], instance: str, step: str) -> StepRow:
    for row in steps:
        if (row.instance, row.step) == (instance, step):
            return row
    epoch = datetime.fromtimestamp(0).astimezone()
    return StepRow("", instance, step, "intent", 0, epoch, None, {})


def _first(steps: tuple[StepRow, ...], step: str) -> datetime | None:
    return min((row.started_at for row in steps if row.step == step), default=None)


def _last(steps: tuple[StepRow, ...], step: str) -> datetime | None:
    return max((row.ended_at for row in steps if row.step == step and row.ended_at), default=None)


def _seconds(since: datetime, until: datetime | None) -> float | None:
    return None if until is None else round((until - since).total_seconds(), 1)
