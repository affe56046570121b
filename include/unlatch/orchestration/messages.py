"""The queue of messages as an Airflow task."""

from __future__ import annotations

from typing import Any

from airflow.sdk import task

from unlatch import wiring_telling
from unlatch.orchestration.steps import actor


@task
def deliver_messages() -> dict[str, Any]:
    """Tell what is due; it fails for nothing that a receiver says, since each message has its own next time."""
    return wiring_telling.deliver_messages(actor=actor())
