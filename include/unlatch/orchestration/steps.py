"""The runbook's steps as Airflow tasks. Thin: every task calls one function of `unlatch.wiring`."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from airflow.sdk import get_current_context, task
from airflow.sdk.definitions.retry_policy import ExceptionRetryPolicy, RetryAction, RetryRule

from unlatch import wiring, wiring_telling

_log = logging.getLogger(__name__)

_STOP = ("RefusedError", "CheckFailedError", "ConfigError")


def retry_policy(pause: timedelta) -> ExceptionRetryPolicy:
    """Refusals and failed checks are for a person; what was out of reach or busy is tried again after a pause."""
    told = [
        RetryRule(exception=f"unlatch.errors.{name}", action=RetryAction.FAIL, reason="a person is told")
        for name in _STOP
    ]
    again = RetryRule(
        exception="unlatch.errors.TransientError",
        action=RetryAction.RETRY,
        retry_delay=pause,
        reason="out of reach or busy",
    )
    return ExceptionRetryPolicy(rules=[*told, again])


RETRY_POLICY = retry_policy(timedelta(seconds=5))

DEFAULT_ARGS: Mapping[str, Any] = {
    "owner": "unlatch",
    "retries": 10,  # also covers the moments in which Airflow's own API is not up yet
    "retry_delay": timedelta(seconds=5),
    "retry_policy": RETRY_POLICY,
}

_LOOK_S = 20.0
"""How long one look for the guest lasts before it gives its worker slot back."""


def actor() -> str:
    """Who started the present run: the Airflow user, or the way it was started."""
    run = get_current_context()["dag_run"]
    kind = getattr(run.run_type, "value", run.run_type)
    return str(getattr(run, "triggering_user_name", None) or f"airflow:{kind}")


@task
def detect_crash() -> list[dict[str, str]]:
    """Open the incident of this run; the lanes that it has: `{"incident", "instance"}` each."""
    context = get_current_context()
    opened = wiring.detect_crash(context["params"], run_id=context["run_id"], actor=actor())
    return [{"incident": opened["incident"], "instance": name} for name in opened["instances"]]


@task.sensor(mode="reschedule", poke_interval=10, timeout=86_400)  # type: ignore[untyped-decorator]  # untyped here
def wait_for_guest(lanes: Sequence[Mapping[str, str]]) -> bool:
    """Wait until the guest answers again; the policy's limit ends the wait with a message to people."""
    incident = lanes[0]["incident"]
    give_back = time.monotonic() + _LOOK_S
    while not (wiring.guest_is_back(incident) or wiring.guest_is_overdue(incident)):
        if time.monotonic() > give_back:
            return False
        time.sleep(1)
    wiring.wait_for_guest(incident, actor=actor())
    return True


def step(name: str) -> Any:
    """The task of one runbook function: call it with the incident's id and the instance's name."""

    @task(task_id=name, map_index_template="{{ instance_name }}")  # type: ignore[untyped-decorator]  # untyped here
    def run(incident: str, instance: str) -> dict[str, Any]:
        get_current_context()["instance_name"] = instance
        try:
            return wiring.run_step(name, incident, instance, actor=actor())
        except Exception:
            wiring_telling.tell_people(actor=actor())
            raise

    return run


# Also when the guest does not come back: what its hypervisor tells is then worth the most. Last in the queue: a lane
# that waits for a worker comes first.
@task(trigger_rule="all_done", priority_weight=1, weight_rule="absolute")  # type: ignore[untyped-decorator]
def keep_crash_facts(lanes: Sequence[Mapping[str, str]] | None) -> list[dict[str, Any]]:
    """Keep what is known of the crash. It never fails: a run whose databases are accessible has succeeded.

    Returns:
        What was looked for and what was found, in words; why nothing could be kept, when that is so.
    """
    if not lanes:
        return []
    try:
        return wiring.keep_crash_facts(lanes[0]["incident"], actor=actor())
    except Exception as error:  # noqa: BLE001  # see the docstring; the step's own record says it too
        _log.warning("what is known of the crash could not be kept", exc_info=True)
        return [{"words": f"nothing could be kept: {error}"}]


@task(trigger_rule="all_done")  # type: ignore[untyped-decorator]  # Airflow is untyped here
def update_ticket(lanes: Sequence[Mapping[str, str]] | None) -> dict[str, Any]:
    """Say how it ended. Fails when an instance is not accessible, so that the run's state tells the truth."""
    if not lanes:
        raise wiring.not_opened()
    incident = lanes[0]["incident"]
    ended = wiring.update_ticket(incident, actor=actor())
    wiring_telling.attach_postmortem(incident, actor=actor())
    wiring_telling.tell_people(actor=actor())
    return ended
