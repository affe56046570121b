"""Runs the runbook's steps against a lab as Airflow's tasks would, without Airflow around them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import pytest

from lab import Lab
from unlatch import wiring
from unlatch.models import Json
from unlatch.store.sql_store import SqlStore

LANE = (
    "check_locks",
    "hold_service",
    "verdict",
    "clear_locks",
    "recreate_files",
    "restart_database",
    "confirm_access",
)
ACTOR = "test"


class Place(Protocol):
    """What Unlatch has to be told of a lab."""

    @property
    def inventory_path(self) -> Path:
        """Its inventory."""

    def connections(self) -> Mapping[str, Mapping[str, Any]]:
        """Its Airflow connections: the fields by connection id."""


P = TypeVar("P", bound=Place)


@dataclass
class Repair(Generic[P]):  # Python 3.11 has no other way to say it
    """One incident on one lab."""

    lab: P
    incident: str = ""
    results: dict[tuple[str, str], Json] = field(default_factory=dict)

    def open(self, **conf: Any) -> Json:
        """The first step: what the trigger form or the watch would ask for."""
        opened = wiring.detect_crash({"guest": "dbvrtg4037", **conf}, run_id="manual", actor=ACTOR)
        self.incident = opened["incident"]
        return opened

    def step(self, name: str, instance: str) -> Json:
        """One step of one instance."""
        result = wiring.run_step(name, self.incident, instance, actor=ACTOR)
        self.results[instance, name] = result
        return result

    def lane(self, instance: str, *, start: str = LANE[0], until: str = LANE[-1]) -> None:
        """The steps of one instance from `start` to `until`."""
        for name in LANE[LANE.index(start) : LANE.index(until) + 1]:
            self.step(name, instance)

    @property
    def store(self) -> SqlStore:
        """Unlatch's store."""
        return wiring.store()

    @property
    def ticket(self) -> str:
        """The text of the incident's ticket."""
        row = self.store.incident(self.incident)
        assert row is not None
        assert row.ticket is not None
        return Path(row.ticket).read_text()


def fingerprint(lab: Lab, instance: str) -> dict[str, tuple[int, int, int]]:
    """Inode, size and modification time of every file of an instance, to see that nothing was touched."""
    datadir = lab.host_path(lab.instance(instance).datadir)
    found = sorted(path for path in datadir.rglob("*") if path.is_file())
    return {str(p.relative_to(datadir)): (p.stat().st_ino, p.stat().st_size, p.stat().st_mtime_ns) for p in found}


def configure(lab: Place, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point Unlatch at the lab: the settings and connections that an Airflow would have."""
    monkeypatch.setenv("UNLATCH_INVENTORY", str(lab.inventory_path))
    monkeypatch.setenv("UNLATCH_STORE_URL", f"sqlite:///{home / 'unlatch.db'}")
    monkeypatch.setenv("UNLATCH_TICKETS", str(home / "tickets"))
    monkeypatch.setenv("AIRFLOW_VAR_UNLATCH_STOP", "")
    for conn_id, fields in lab.connections().items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))
