"""Always running: reads the hypervisors' logs and starts one `remediate_guest` run per crash."""

from __future__ import annotations

from datetime import UTC, datetime

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
    # The run id is the incident: a crash that is read twice finds its run there already.
    WatchHypervisors(task_id="detect_crash", starts="remediate_guest")
