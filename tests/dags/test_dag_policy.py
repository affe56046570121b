"""What every DAG file must keep, and the shape of the life cycle in `remediate_guest`."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from unlatch.errors import RefusedError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def bag() -> Any:
    """All DAGs, as Airflow's own DAG processor would read them."""
    from airflow.dag_processing.dagbag import DagBag  # noqa: PLC0415  # after conftest has set AIRFLOW_HOME

    return DagBag(dag_folder=str(ROOT / "dags"))


def test_all_dags_are_read_without_error(bag: Any) -> None:
    """It should read every file, without an inventory too, so that a new installation shows its DAGs."""
    assert bag.import_errors == {}
    assert set(bag.dags) == {path.stem for path in (ROOT / "dags").glob("*.py")}


def test_every_dag_is_tagged_owned_and_documented(bag: Any) -> None:
    """It should be found in the UI by its tag, and explain itself there."""
    for dag in bag.dags.values():
        assert "unlatch" in dag.tags
        assert dag.doc_md
        assert len(dag.doc_md) > 200
        assert all(task.owner == "unlatch" for task in dag.tasks)


def test_every_task_is_tried_again(bag: Any) -> None:
    """It should survive a moment in which Airflow's own API does not answer."""
    for dag in bag.dags.values():
        for task in dag.tasks:
            assert task.retries >= 2, f"{dag.dag_id}.{task.task_id}"
            assert task.retry_policy is not None, f"{dag.dag_id}.{task.task_id}"


def test_dag_files_stay_thin() -> None:
    """It should read like the life cycle: wiring of tasks, no logic."""
    for path in (ROOT / "dags").glob("*.py"):
        assert len(path.read_text().splitlines()) <= 80, path.name


def test_steps_come_in_the_order_of_the_life_cycle(bag: Any) -> None:
    """It should run each step after the one that proves that it may."""
    dag = bag.dags["remediate_guest"]
    order = [
        "detect_crash",
        "wait_for_guest",
        *(
            f"repair.{name}"
            for name in (
                "check_locks",
                "hold_service",
                "verdict",
                "approve",
                "clear_locks",
                "recreate_files",
                "restart_database",
                "confirm_access",
                "confirm_by_owner",
            )
        ),
        "update_ticket",
    ]
    assert set(dag.task_ids) == {*order, "keep_crash_facts"}
    for before, after in itertools.pairwise(order):
        assert after in dag.get_task(before).downstream_task_ids, f"{before} >> {after}"


def test_keeping_facts_of_the_crash_holds_up_nothing(bag: Any) -> None:
    """It should run beside the lanes, also when the guest does not come back, with no lane or end waiting for it."""
    task = bag.dags["remediate_guest"].get_task("keep_crash_facts")
    assert "wait_for_guest" in task.upstream_task_ids
    assert task.downstream_task_ids == set()
    assert "all_done" in str(task.trigger_rule).lower()
    assert task.priority_weight == 1


@pytest.mark.parametrize("error", [RefusedError("unlatch_stop is set"), OSError("the store is away")])
def test_keeping_facts_of_the_crash_never_fails(monkeypatch: pytest.MonkeyPatch, bag: Any, error: Exception) -> None:
    """It should end well, and say why nothing was kept: the run's state is about the databases."""
    from unlatch.orchestration import steps  # noqa: PLC0415  # after conftest has set AIRFLOW_HOME

    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(steps.wiring, "keep_crash_facts", fails)
    monkeypatch.setattr(steps, "actor", lambda: "eva")
    keep = steps.keep_crash_facts.function
    assert keep([{"incident": "inc-1", "instance": "voms"}]) == [{"words": f"nothing could be kept: {error}"}]
    assert keep(None) == keep([]) == []


def test_lanes_stay_independent(bag: Any) -> None:
    """It should keep the default trigger rule inside lanes: any other makes all lanes wait for each other."""
    dag = bag.dags["remediate_guest"]
    for task in dag.tasks:
        if task.task_id.startswith("repair."):
            assert str(task.trigger_rule) in {"all_success", "TriggerRule.ALL_SUCCESS"}, task.task_id
    assert "all_done" in str(dag.get_task("update_ticket").trigger_rule).lower()


def test_the_trigger_form_takes_unknown_names(bag: Any) -> None:
    """It should leave it to the step to answer an unknown guest: the form suggests, it does not forbid."""
    params = bag.dags["remediate_guest"].params
    schema = params.get_param("guest").schema
    assert "enum" not in schema
    assert set(params) == {"guest", "instances", "dry_run", "reason", "ticket", "crashed_at", "incident"}


def test_the_watch_is_one_endless_task(bag: Any) -> None:
    """It should always run exactly once."""
    dag = bag.dags["watch_hypervisors"]
    assert dag.max_active_runs == 1
    assert "Continuous" in type(dag.timetable).__name__
    (task,) = dag.tasks
    assert task.task_id == "detect_crash"
    assert task.starts in bag.dags


@pytest.mark.parametrize(("name", "hour", "weekdays"), [("recheck_volumes", 9, {0}), ("drill", 7, set(range(7)))])
def test_schedules_by_the_sites_clock(bag: Any, name: str, hour: int, weekdays: set[int]) -> None:
    """It should run at the site's hour on these days, and not at once on a new installation."""
    from airflow.timetables.base import TimeRestriction  # noqa: PLC0415  # after conftest has set AIRFLOW_HOME

    dag = bag.dags[name]
    assert not dag.catchup
    restriction = TimeRestriction(earliest=dag.start_date, latest=None, catchup=False)
    info = _core(dag).timetable.next_dagrun_info(last_automated_data_interval=None, restriction=restriction)
    assert (info.run_after.hour, info.run_after.minute) == (hour, 0)
    assert info.run_after.weekday() in weekdays
    assert info.run_after > datetime.now(UTC)


def _core(dag: Any) -> Any:
    """The DAG as the scheduler has it."""
    from airflow.serialization.serialized_objects import DagSerialization  # noqa: PLC0415

    return DagSerialization.from_dict(DagSerialization.to_dict(dag))


def test_clean_up_is_started_once_per_incident(bag: Any) -> None:
    """It should be started by the run id of its incident, by what looks every few minutes, and wait patiently."""
    assert bag.dags["clean_up"].schedule is None
    start = bag.dags["watch_quarantine"].get_task("start_clean_up")
    assert start.partial_kwargs["trigger_dag_id"] == "clean_up"
    assert start.partial_kwargs["skip_when_already_exists"] is True
    tasks = bag.dags["clean_up"].tasks
    assert {task.task_id for task in tasks} == {"find_leftovers", "clean_up", "close_incident"}
    assert all(task.retries >= 288 for task in tasks), "a day, every five minutes"


def test_looks_never_wait_for_each_other(bag: Any) -> None:
    """It should report whatever became of the single looks."""
    assert "all_done" in str(bag.dags["recheck_volumes"].get_task("report").trigger_rule).lower()
