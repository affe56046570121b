"""What forked tasks find imported already, in a process of its own each time: what is imported here stays imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_PROGRAM = """
import json, sys
from airflow.listeners.listener import get_listener_manager
from airflow.jobs.job import Job
{starting}
before = set(sys.modules)
from airflow.dag_processing.dagbag import DagBag
errors = DagBag(dag_folder="dags").import_errors
from unlatch import assembly
from unlatch.transport import host_agent, hypervisor_log, machine, ssh
from unlatch.store import sql_store
assembly.load_inventory()
new = sorted(name for name in set(sys.modules) - before if name.split(".")[0] in {{"unlatch", "paramiko", "holidays"}})
print("\\n" + json.dumps({{"errors": errors, "new": new}}))
"""


def imported_by_a_task_after(starting: str, tmp_path: Path) -> list[str]:
    """The modules that reading the DAGs and looking at an inventory import, behind `starting`."""
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "UNLATCH_INVENTORY": str(ROOT / "inventory.example.yaml"),
    }
    program = _PROGRAM.format(starting=starting)
    argv = [sys.executable, "-c", program]
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["errors"] == {}
    return list(told["new"])


def test_a_task_finds_everything_imported_where_a_component_has_started(tmp_path: Path) -> None:
    """It should import nothing of Unlatch, nor what it stands on, in a task: each would pay for it anew."""
    assert imported_by_a_task_after("Job()", tmp_path) == []


def test_the_plugin_alone_imports_little(tmp_path: Path) -> None:
    """It should cost processes that fork no tasks nothing, such as the API server and every command of Airflow's."""
    new = imported_by_a_task_after("get_listener_manager()", tmp_path)
    assert "unlatch.transport.ssh" in new
    assert "paramiko" in new


def test_a_broken_inventory_stops_no_component(tmp_path: Path) -> None:
    """It should start all the same, and leave the error to the task that needs the inventory, which tells people."""
    missing = f"import os; os.environ['UNLATCH_INVENTORY'] = {str(tmp_path / 'none.yaml')!r}; Job()"
    back = f"os.environ['UNLATCH_INVENTORY'] = {str(ROOT / 'inventory.example.yaml')!r}"
    assert "unlatch.runbook" not in imported_by_a_task_after(f"{missing}; {back}", tmp_path)
