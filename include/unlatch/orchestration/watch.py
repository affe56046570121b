"""The sensor of `watch_hypervisors`: waits without a worker until a log says something, then reads all that is new."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseOperator

from unlatch import wiring_watch
from unlatch.orchestration.hypervisor_trigger import HypervisorTrigger


class WatchHypervisors(BaseOperator):  # type: ignore[misc]  # Airflow's classes carry no types for mypy here
    """Returns one `remediate_guest` configuration per new crash event.

    The trigger only rings the bell. What is new is read here from the durable cursor of each log, so an event that
    gets lost between triggerer and worker costs nothing: the next look reads it.
    """

    def execute(self, context: Any) -> Any:  # noqa: ARG002  # Airflow's signature
        """What was asked for and never began starts at once; else wait for the bell, which rings for the rest."""
        requests = wiring_watch.read_new_crashes()
        if requests:
            return requests
        self.defer(trigger=HypervisorTrigger(**wiring_watch.watch_arguments()), method_name="rung")
        return None

    def rung(self, context: Any, event: dict[str, Any]) -> list[dict[str, Any]]:  # noqa: ARG002  # Airflow's signature
        """Read what the bell names, and start what is wanted."""
        self.log.info("bell: %s", {key: value for key, value in event.items() if key != "sights"})
        return wiring_watch.read_new_crashes(event)
