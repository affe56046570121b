"""Every minute: what could not be told when it happened is told now."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG

from unlatch import wiring
from unlatch.orchestration.messages import deliver_messages
from unlatch.orchestration.steps import DEFAULT_ARGS

with DAG(
    "deliver_messages",
    schedule=timedelta(minutes=1),
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    tags=["unlatch"],
    doc_md=wiring.document("deliver_messages"),
):
    deliver_messages()
