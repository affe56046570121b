"""Airflow's listener: a component that forks imports what its children will need, once, before it forks them.

A task of a LocalExecutor is forked from a worker that is forked from the scheduler, and would import all of it again:
two thirds of a second of processor time for each of some thirty steps of a repair, while databases are down. It is the
same for the processes in which the DAG processor reads files.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
from typing import Any

from airflow.listeners import hookimpl

from unlatch import orchestration, wiring
from unlatch.errors import UnlatchError

_log = logging.getLogger(__name__)

_COMPONENT_WITH_CHILDREN = "Job"  # of the scheduler, the DAG processor, the triggerer; a task is a TaskRunnerMarker
_NEEDED_BY_TASKS = (
    "airflow.dag_processing.dagbag",
    "airflow.providers.common.compat.sdk",
    "airflow.providers.ssh.hooks.ssh",
    "airflow.providers.standard.operators.trigger_dagrun",
    "airflow.providers.standard.operators.hitl",
    "holidays",
    "psycopg2",
    "pymysql",
    "unlatch.store.sql_store",
    "unlatch.transport.host_agent",
    "unlatch.transport.hypervisor_log",
    "unlatch.transport.log_reader",
    "unlatch.transport.machine",
)


@hookimpl  # type: ignore[untyped-decorator]  # Airflow is untyped here
def on_starting(component: Any) -> None:
    """Import what tasks need. Idempotent. What cannot be imported is logged; the task that needs it will fail."""
    if type(component).__name__ != _COMPONENT_WITH_CHILDREN:
        return
    ours = (f"{orchestration.__name__}.{module.name}" for module in pkgutil.iter_modules(orchestration.__path__))
    for name in (*_NEEDED_BY_TASKS, *ours):
        try:
            importlib.import_module(name)
        except Exception:  # noqa: BLE001  # whatever a module does while it is imported: no reason not to start
            _log.exception("%s cannot be imported; tasks that need it will fail", name)
    try:
        wiring.load_inventory()  # with all plug-ins; it is read again when it has changed
    except UnlatchError as error:
        _log.warning("%s", error)
