"""The watch over quarantined originals as Airflow tasks."""

from __future__ import annotations

from typing import Any

from airflow.sdk import get_current_context, task

from unlatch import wiring
from unlatch.orchestration.steps import actor


@task
def quarantines() -> list[dict[str, str]]:
    """What is in quarantine: `{"incident", "instance"}` each; nothing to do in most runs."""
    return [{"incident": incident, "instance": instance} for incident, instance in wiring.quarantines()]


@task(map_index_template="{{ watched }}")  # type: ignore[untyped-decorator]  # Airflow is untyped here
def look_for_late_writer(incident: str, instance: str) -> dict[str, Any]:
    """One look at one instance's originals; fails, and stops the database, when one was written to."""
    get_current_context()["watched"] = f"{instance} {incident}"
    return wiring.look_for_late_writer(incident, instance, actor=actor())
