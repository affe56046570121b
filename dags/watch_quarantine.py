"""Every few minutes: has anybody written to an original that a repair left in quarantine? Is its day to go there?"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG

from unlatch import wiring
from unlatch.orchestration.cleaning import due_clean_ups, start_clean_ups
from unlatch.orchestration.quarantine import look_for_late_writer, quarantines
from unlatch.orchestration.steps import DEFAULT_ARGS

with DAG(
    "watch_quarantine",
    schedule=timedelta(minutes=3),
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    tags=["unlatch"],
    doc_md=wiring.document("watch_quarantine"),
):
    look_for_late_writer.expand_kwargs(quarantines())
    start_clean_ups(due_clean_ups())
