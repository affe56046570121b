"""The clean-up as Airflow tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import get_current_context, task

from unlatch import wiring_cleaning
from unlatch.orchestration.steps import DEFAULT_ARGS, actor, retry_policy

# Nobody waits for it, and a machine may be down all day: it tries for a day and a night before it says so.
PATIENT_ARGS: Mapping[str, Any] = {
    **DEFAULT_ARGS,
    "retries": 300,
    "retry_delay": timedelta(seconds=30),
    "retry_policy": retry_policy(timedelta(minutes=5)),
}


@task
def due_clean_ups() -> list[dict[str, Any]]:
    """What is due by the site's calendar: the runs of `clean_up` that must be there."""
    return wiring_cleaning.due_clean_ups()


def start_clean_ups(due: Any) -> None:
    """Start each of these runs, once: a run that is there already is skipped, whatever became of it."""
    TriggerDagRunOperator.partial(
        task_id="start_clean_up", trigger_dag_id="clean_up", skip_when_already_exists=True
    ).expand_kwargs(due)


@task
def find_leftovers() -> list[dict[str, Any]]:
    """The lanes of this run: `{"incident", "instance", "dry_run"}` each."""
    return wiring_cleaning.clean_up_lanes(get_current_context()["params"])


@task(map_index_template="{{ instance_name }}")  # type: ignore[untyped-decorator]  # Airflow is untyped here
def clean_up(incident: str, instance: str, dry_run: bool) -> dict[str, Any]:
    """Delete what the repair has left of one instance, after a last look at everything."""
    get_current_context()["instance_name"] = instance
    return wiring_cleaning.clean_up(incident, instance, dry_run=dry_run, actor=actor())


@task(trigger_rule="all_done")  # type: ignore[untyped-decorator]  # Airflow is untyped here
def close_incident(lanes: Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
    """Close incident and ticket. Fails when a lane has, so that the run's state tells the truth."""
    if not lanes:
        raise wiring_cleaning.nothing_found()
    names = [lane["instance"] for lane in lanes]
    return wiring_cleaning.close_incident(lanes[0]["incident"], names, dry_run=lanes[0]["dry_run"], actor=actor())
