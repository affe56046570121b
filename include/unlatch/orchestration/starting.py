"""Starting runs of another DAG from within a task, at once: a further task for it would cost a second of an outage."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import ErrorResponse, TriggerDagRun

_log = logging.getLogger(__name__)


def start_runs(dag_id: str, requests: Iterable[Mapping[str, Any]]) -> list[str]:
    """Start a run for each request, unless it is there already; the ids of all that are there now.

    Idempotent: the run id is the request's, and Airflow has it once. It may be killed between any two of them. The
    message is the one with which a task of TriggerDagRunOperator's starts its run (docs/adr/0032).

    Args:
        dag_id: Of which DAG.
        requests: `{"trigger_run_id", "conf"}` each, as TriggerDagRunOperator takes them.

    Raises:
        AirflowRuntimeError: one could not be started; every other has been tried as well.
    """
    there: list[str] = []
    failed: AirflowRuntimeError | None = None
    for request in requests:
        run_id = request["trigger_run_id"]
        # Airflow begins no run that is due after its database's "now". SQLite compares texts: its "now" has no fraction
        # of a second, and so stands before the same second with one.
        due = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=1)
        message = TriggerDagRun(dag_id=dag_id, run_id=run_id, logical_date=None, run_after=due, conf=request["conf"])
        try:
            answer = task_runner.SUPERVISOR_COMMS.send(message)
        except AirflowRuntimeError as error:
            _log.exception("%s of %s cannot be started", run_id, dag_id)
            failed = failed or error
            continue
        is_new = not (isinstance(answer, ErrorResponse) and answer.error == ErrorType.DAGRUN_ALREADY_EXISTS)
        _log.info("%s of %s %s", run_id, dag_id, "is started" if is_new else "is there already")
        there.append(run_id)
    if failed is not None:
        raise failed
    return there
