"""The sensor of `watch_hypervisors`: waits without a worker until a log says something, then starts what must run."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseOperator

from unlatch import wiring_watch
from unlatch.orchestration.hypervisor_trigger import HypervisorTrigger
from unlatch.orchestration.starting import start_runs


class WatchHypervisors(BaseOperator):  # type: ignore[misc]  # Airflow's classes carry no types for mypy here
    """Starts one run of `starts` per crash; its run id is the incident's. Returns the ids of those that are there.

    The trigger only rings the bell. What is new is read here from the durable cursor of each log, and what must run is
    asked of the store: so an event or a worker that gets lost costs nothing, the next look starts what is missing.
    """

    def __init__(self, *, starts: str, **kwargs: Any) -> None:
        """Take the id of the DAG that repairs."""
        super().__init__(**kwargs)
        self.starts = starts

    def execute(self, context: Any) -> Any:  # noqa: ARG002  # Airflow's signature
        """What was asked for and never began starts at once; then wait for the bell, which rings for the rest."""
        start_runs(self.starts, wiring_watch.read_new_crashes())
        self.defer(trigger=HypervisorTrigger(**wiring_watch.watch_arguments()), method_name="rung")

    def rung(self, context: Any, event: dict[str, Any]) -> list[str]:  # noqa: ARG002  # Airflow's signature
        """Read what the bell names, and start what is wanted."""
        self.log.info("bell: %s", {key: value for key, value in event.items() if key != "sights"})
        return start_runs(self.starts, wiring_watch.read_new_crashes(event))
