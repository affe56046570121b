"""Registers Unlatch with Airflow. The code behind it lives in `include/unlatch`."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from unlatch.orchestration import listener


class UnlatchPlugin(AirflowPlugin):
    """What Airflow loads."""

    name = "unlatch"
    listeners = [listener]  # noqa: RUF012  # Airflow's own way to declare it
