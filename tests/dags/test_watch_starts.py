"""What the watch does with a crash, between Airflow and the store: one run per incident, without a further task."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog

from unlatch import wiring_watch

CRASH = {"hypervisors": ["hv01"], "reason": "crash", "problems": {}, "sights": {}}


def request(number: int) -> dict[str, Any]:
    """What the store wants to run."""
    incident = f"inc-20141018-055453-db{number}"
    return {"trigger_run_id": incident, "conf": {"guest": f"db{number}", "incident": incident}}


class Supervisor:
    """Airflow's side of a task: knows runs by their ids, and cannot start some."""

    def __init__(self, there: Sequence[str] = (), broken: Sequence[str] = ()) -> None:
        """Begin with the runs that are there."""
        self.there = list(there)
        self.messages: list[Any] = []
        self._broken = broken

    def send(self, message: Any) -> Any:
        """Start a run, as the execution API does."""
        from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType  # noqa: PLC0415  # after conftest
        from airflow.sdk.execution_time.comms import ErrorResponse, OKResponse  # noqa: PLC0415

        self.messages.append(message)
        if message.run_id in self._broken:
            raise AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR))
        if message.run_id in self.there:
            return ErrorResponse(error=ErrorType.DAGRUN_ALREADY_EXISTS)
        self.there.append(message.run_id)
        return OKResponse(ok=True)


@pytest.fixture
def supervised(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a supervisor the one of this process."""
    from airflow.sdk.execution_time import task_runner  # noqa: PLC0415  # after conftest has set AIRFLOW_HOME

    def install(supervisor: Supervisor) -> Supervisor:
        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)
        return supervisor

    return install


def start_runs(requests: Sequence[dict[str, Any]]) -> list[str]:
    """The function under test."""
    from unlatch.orchestration.starting import start_runs as start  # noqa: PLC0415  # after conftest

    return start("remediate_guest", requests)


def test_a_request_is_started_once(supervised: Any) -> None:
    """It should start what is new, and take what is there already for started: a watch that was killed asks again."""
    supervisor = supervised(Supervisor(there=[request(1)["trigger_run_id"]]))
    wanted = [request(n)["trigger_run_id"] for n in (1, 2)]
    assert start_runs([request(1), request(2)]) == wanted
    assert start_runs([request(1), request(2)]) == wanted
    assert supervisor.there == wanted


def test_one_that_cannot_be_started_holds_up_no_other(supervised: Any) -> None:
    """It should start all others first, and fail then: the store asks again for what has no incident."""
    from airflow.sdk.exceptions import AirflowRuntimeError  # noqa: PLC0415  # after conftest has set AIRFLOW_HOME

    supervisor = supervised(Supervisor(broken=[request(1)["trigger_run_id"]]))
    with pytest.raises(AirflowRuntimeError):
        start_runs([request(1), request(2), request(3)])
    assert supervisor.there == [request(n)["trigger_run_id"] for n in (2, 3)]


def test_the_message_is_the_one_of_airflows_own_operator(supervised: Any) -> None:
    """It should say to Airflow what TriggerDagRunOperator says: a release that changes the one changes the other."""
    from airflow.sdk.exceptions import DagRunTriggerException  # noqa: PLC0415  # after conftest has set AIRFLOW_HOME
    from airflow.sdk.execution_time import task_runner  # noqa: PLC0415

    supervisor = supervised(Supervisor())
    start_runs([request(1)])
    asked = DagRunTriggerException(
        trigger_dag_id="remediate_guest",
        dag_run_id=request(1)["trigger_run_id"],
        conf=request(1)["conf"],
        logical_date=None,
        reset_dag_run=False,
        skip_when_already_exists=True,
        wait_for_completion=False,
        allowed_states=[],
        failed_states=[],
        poke_interval=60,
        deferrable=False,
    )

    class Instance:
        """As much of a task instance as a run that is there already takes."""

        rendered_map_index = None

    (ours,) = supervisor.messages
    assert ours.run_after is not None
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
    assert f"{ours.run_after:%Y-%m-%d %H:%M:%S.%f}" <= now, "SQLite compares these texts: it would begin a second later"
    asked.run_after = ours.run_after
    task_runner._handle_trigger_dag_run(asked, {}, Instance(), structlog.get_logger())  # type: ignore[arg-type, typeddict-item]
    airflows = supervisor.messages[-1]
    assert type(ours) is type(airflows)
    assert ours.model_dump() == airflows.model_dump()


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The watch's task, whose store wants what it's told here."""
    from unlatch.orchestration import watch as module  # noqa: PLC0415  # after conftest has set AIRFLOW_HOME

    reads: list[Any] = []
    wanted: list[dict[str, Any]] = []

    def read(bell: Any = None) -> list[dict[str, Any]]:
        reads.append(bell)
        return wanted

    monkeypatch.setattr(wiring_watch, "read_new_crashes", read)
    monkeypatch.setattr(wiring_watch, "watch_arguments", lambda: {"logs": [], "longest_wait_s": 30.0})
    task = module.WatchHypervisors(task_id="detect_crash", starts="remediate_guest")
    task.reads, task.wanted = reads, wanted
    return task


def test_what_was_asked_for_and_never_began_starts_before_the_wait(watch: Any, supervised: Any) -> None:
    """It should start it and then wait in the triggerer, in one go: a worker may have died before it told."""
    from airflow.sdk.exceptions import TaskDeferred  # noqa: PLC0415  # after conftest has set AIRFLOW_HOME

    supervisor = supervised(Supervisor())
    watch.wanted.append(request(1))
    with pytest.raises(TaskDeferred) as caught:
        watch.execute({})
    assert supervisor.there == [request(1)["trigger_run_id"]]
    assert caught.value.method_name == "rung"
    assert watch.reads == [None]


def test_a_bell_starts_what_was_read(watch: Any, supervised: Any) -> None:
    """It should read what the bell names, start a run for each, and say which."""
    supervisor = supervised(Supervisor())
    watch.wanted += [request(1), request(2)]
    assert watch.rung({}, CRASH) == supervisor.there == [request(n)["trigger_run_id"] for n in (1, 2)]
    assert watch.reads == [CRASH]
    assert {message.dag_id for message in supervisor.messages} == {"remediate_guest"}
