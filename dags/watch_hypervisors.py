"""Always running: reads the hypervisors' logs and starts one `remediate_guest` run per crash."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG

from unlatch import wiring
from unlatch.orchestration.steps import DEFAULT_ARGS
from unlatch.orchestration.watch import WatchHypervisors

with DAG(
    "watch_hypervisors",
    schedule="@continuous",
    # Without one the first run's interval is empty, the second gets the same logical date, and is skipped for ever.
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    tags=["unlatch"],
    doc_md=wiring.document("watch_hypervisors"),
):
    crashes = WatchHypervisors(task_id="detect_crash")

    # The run id is the incident: a crash that is read twice finds its run there already and is skipped.
    TriggerDagRunOperator.partial(
        task_id="remediate",
        trigger_dag_id="remediate_guest",
        skip_when_already_exists=True,
    ).expand_kwargs(crashes.output)
