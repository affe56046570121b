"""What is measured: counters and times from the rows of the audit, levels from the store. Pure.

docs/metrics.md is the list for people; docs/grafana-dashboard.json draws it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from unlatch.lifecycle import IncidentState
from unlatch.models import AuditEntry, Json
from unlatch.ports import IncidentRow, StepRow

CURSOR = "metrics"


@dataclass(frozen=True)
class Measure:
    """One measurement. `kind`: `count`, `time` (seconds) or `level`."""

    name: str
    kind: str
    value: float
    tags: Mapping[str, str] = field(default_factory=dict)


def of_row(row: AuditEntry, incident: IncidentRow | None) -> Iterator[Measure]:
    """What a row of the audit adds to the counters and times."""
    if row.phase == "opened":
        yield _count("incidents", dry_run=str(bool(row.detail.get("dry_run"))).lower())
    elif row.phase == "tried":
        yield _count("remedies", remedy=str(row.detail.get("remedy")), outcome=str(row.detail.get("outcome")))
    elif row.phase in {"refused", "failed"} and row.step:
        yield _count("refusals" if row.phase == "refused" else "failures", step=row.step)
    verdict = row.detail.get("verdict") if (row.step, row.phase) == ("verdict", "done") else None
    if verdict:
        yield _count("verdicts", kind=str(verdict["kind"]))
    if row.step == "approve" and row.phase in {"done", "refused"}:
        yield _count("answers", answer="yes" if row.phase == "done" else "no")
    if incident is None or incident.died_at is None or incident.dry_run:
        return
    since = (row.at - incident.died_at).total_seconds()
    if row.phase == "opened":
        yield Measure("unlatch.time_to_detect", "time", since)
    elif (row.step, row.phase) == ("hold_service", "intent"):
        yield Measure("unlatch.time_to_act", "time", since)
    elif (row.step, row.phase) == ("confirm_access", "done"):
        yield Measure("unlatch.time_to_access", "time", since)


def levels(incidents: Sequence[IncidentRow], steps: Mapping[str, Sequence[StepRow]], waiting: int) -> Iterator[Measure]:
    """How things stand.

    Args:
        incidents: Those that are not closed, and perhaps others.
        steps: The steps of those that wait for their purge, by incident.
        waiting: How many messages wait.
    """
    states = Counter(row.state for row in incidents if not row.dry_run)
    for state in IncidentState:
        if state is not IncidentState.CLOSED:
            yield Measure("unlatch.open_incidents", "level", states[state], {"state": str(state)})
    yield Measure("unlatch.quarantine_bytes", "level", sum(_in_quarantine(rows) for rows in steps.values()))
    yield Measure("unlatch.messages_waiting", "level", waiting)


def _in_quarantine(rows: Iterable[StepRow]) -> int:
    """The sizes of the originals that an incident keeps, as they were planned."""
    rows = list(rows)
    results: dict[tuple[str, str], Json] = {(row.instance, row.step): row.result for row in rows}
    total = 0
    for instance in {row.instance for row in rows}:
        plan = results.get((instance, "verdict"), {}).get("plan") or {}
        sizes = {file["path"]: int(file.get("size_bytes") or 0) for file in plan.get("files", [])}
        kept = results.get((instance, "recreate_files"), {}).get("files", [])
        total += sum(sizes.get(file["path"], 0) for file in kept)
    return total


def _count(name: str, **tags: str) -> Measure:
    return Measure(f"unlatch.{name}", "count", 1, tags)
