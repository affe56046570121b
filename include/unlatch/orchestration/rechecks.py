"""Re-checks and drills as Airflow tasks. All of them only look."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from airflow.sdk import get_current_context, task

from unlatch import wiring_rechecks

_log = logging.getLogger(__name__)


def _run() -> str:
    return str(get_current_context()["run_id"])


@task
def guests_to_drill() -> list[str]:
    """Those that the form names, or all."""
    return wiring_rechecks.guests_to_drill(get_current_context()["params"].get("guests") or ())


@task(map_index_template="{{ drilled }}")  # type: ignore[untyped-decorator]  # Airflow is untyped here
def drill_guest(guest: str) -> dict[str, Any]:
    """Drill one guest; what was lost since its last drill is told once."""
    context = get_current_context()
    context["drilled"] = guest
    found = wiring_rechecks.drill_guest(guest, run=_run(), dry_run=bool(context["params"].get("dry_run")))
    _log.info("%s: %s", guest, found["title"])
    for check in found["lost"]:
        _log.warning("lost since the last drill: %s %s: %s", check["privilege"], check["path"] or "", check["why"])
    return found


@task
def volumes_to_recheck() -> list[str]:
    """Those that the form names; else those that incidents have touched since the last re-check."""
    return wiring_rechecks.volumes_to_recheck(get_current_context()["params"].get("volumes") or ())


@task(map_index_template="{{ volume_name }}")  # type: ignore[untyped-decorator]  # Airflow is untyped here
def recheck_volume(volume: str) -> dict[str, Any]:
    """Everything on a volume that somebody should look at."""
    get_current_context()["volume_name"] = volume
    return {"volume": volume, "findings": wiring_rechecks.recheck_volume(volume)}


@task(trigger_rule="all_done")  # type: ignore[untyped-decorator]  # Airflow is untyped here
def report(
    volumes: Sequence[str] | None,
    looked: Iterable[Mapping[str, Any]],
    guests: Sequence[str] | None,
    drilled: Iterable[Mapping[str, Any]],
) -> dict[str, Any]:
    """One report of everything: kept in the store, sent, and in this task's log.

    Returns:
        `report` (`unlatch report ID` shows it), `title`, `findings` and the report itself as `markdown`.
    """
    context = get_current_context()
    params = context["params"]
    silent = {"kind": "not looked at", "words": "its look did not end", "command": "clear its task in Airflow"}
    by_volume = {name: [{**silent, "subject": name}] for name in volumes or ()}
    by_volume |= {one["volume"]: one["findings"] for one in looked or () if one}
    drills: dict[str, Any] = {name: {} for name in guests or ()}
    drills |= {one["guest"]: one for one in drilled or () if one}
    made = wiring_rechecks.report_recheck(
        _run(), by_volume, drills, dry_run=bool(params.get("dry_run")), whole_fleet=not params.get("volumes")
    )
    _log.info("%s", made.content["markdown"])
    return {
        "report": made.report,
        "title": made.title,
        "findings": made.content["findings"],
        "markdown": made.content["markdown"],
    }
