"""Incidents as JSON, gathered from the store: what --json prints and what the tables are made of."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from unlatch.models import Json


def newest(limit: int) -> list[Json]:
    """The newest incidents, without their steps."""
    from unlatch import wiring  # noqa: PLC0415  # loaded by the commands that need it

    return [_incident(row) for row in wiring.store().incidents(limit)]


def whole(incident: str) -> Json | None:
    """One incident with its steps and, per instance, verdict, evidence, plan, files and access; None when unknown."""
    from unlatch import wiring  # noqa: PLC0415

    store = wiring.store()
    row = store.incident(incident)
    if row is None:
        return None
    steps = store.steps(incident)
    names = dict.fromkeys(step.instance for step in steps if step.instance)
    return {
        **_incident(row),
        "waiting_messages": len(store.deliveries(incident)),
        "steps": [_step(step) for step in steps],
        "instances": [_instance(name, {s.step: s.result for s in steps if s.instance == name}) for name in names],
    }


def _incident(row: Any) -> Json:
    return {
        "incident": row.incident,
        "guest": row.guest,
        "state": row.state.value,
        "opened_at": _time(row.opened_at),
        "died_at": _time(row.died_at),
        "dry_run": row.dry_run,
        "reason": row.reason,
        "ticket": row.ticket,
        "event": row.event.as_dict() if row.event else None,
    }


def _step(row: Any) -> Json:
    ended_at: datetime | None = row.ended_at
    return {
        "step": row.step,
        "instance": row.instance or None,
        "phase": row.phase,
        "attempt": row.attempt,
        "started_at": _time(row.started_at),
        "ended_at": _time(ended_at),
        "seconds": round((ended_at - row.started_at).total_seconds(), 3) if ended_at else None,
        "result": row.result,
    }


def _instance(name: str, results: dict[str, Json]) -> Json:
    judged = results.get("verdict", {})
    verdict, plan = judged.get("verdict"), judged.get("plan")
    access = results.get("confirm_access", {})
    return {
        "instance": name,
        "verdict": verdict["kind"] if verdict else None,
        "reasons": verdict["reasons"] if verdict else [],
        "evidence": verdict["evidence"] if verdict else [],
        "needs_person": plan["needs_person"] if plan else None,
        "approval": results.get("approve", {}).get("approval"),
        "files": _files(plan["files"] if plan else [], results),
        "access": access.get("access"),
        "login": access.get("proof"),
    }


def _files(planned: list[Json], results: dict[str, Json]) -> list[Json]:
    """What was planned for each file and what was done; files of an earlier plan of the incident come first."""
    swapped = {f["path"]: f for f in results.get("recreate_files", {}).get("files", [])}
    aside = results.get("clear_locks", {}).get("set_aside", [])
    earlier = [{"path": path} for path in swapped if path not in {f["path"] for f in planned}]
    return [
        {
            "path": file["path"],
            "state": file.get("state"),
            "remedy": file.get("remedy"),
            "why": file.get("why"),
            "size_bytes": file.get("size_bytes"),
            "done": file["path"] in swapped or file["path"] in aside,
            "inode_before": swapped.get(file["path"], {}).get("inode_before"),
            "inode_after": swapped.get(file["path"], {}).get("inode_after"),
            "quarantine": swapped.get(file["path"], {}).get("quarantine"),
        }
        for file in [*earlier, *planned]
    ]


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
