"""Rows of the 2014 incident for the store's tests."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from unlatch.lifecycle import IncidentState
from unlatch.models import Certainty, CrashEvent
from unlatch.ports import IncidentRow

DIED_AT = datetime(2014, 10, 18, 3, 54, 52, tzinfo=UTC)
INCIDENT = "inc-20141018-035452-dbvrtg4037"


def event(**changes: Any) -> CrashEvent:
    values: dict[str, Any] = {
        "domain": "2130_dbvrtg4037",
        "hypervisor": "hv01",
        "at": DIED_AT,
        "cause": "its device model was killed by signal 11",
        "lines": ("Domain has crashed: name=2130_dbvrtg4037 id=2.",),
        "certainty": Certainty.CERTAIN,
        "guest": "dbvrtg4037",
        "signal": 11,
    }
    return CrashEvent(**values | changes)


def incident(**changes: Any) -> IncidentRow:
    values: dict[str, Any] = {
        "incident": INCIDENT,
        "guest": "dbvrtg4037",
        "state": IncidentState.DETECTED,
        "opened_at": datetime(2014, 10, 18, 3, 54, 54, tzinfo=UTC),
        "died_at": DIED_AT,
        "dry_run": False,
        "reason": "crash",
        "ticket": None,
        "event": event(),
    }
    return IncidentRow(**values | changes)
