"""The day after on real databases: originals under real locks are deleted, and the space that comes back is counted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from lab import Lab
from tests.integration.repair import ACTOR, Repair, configure
from unlatch import wiring, wiring_cleaning
from unlatch.errors import CheckFailedError, RefusedError
from unlatch.lifecycle import IncidentState
from unlatch.models import Json

pytest_plugins = ["tests.lab_fixtures"]


class Weekend:
    """A lab whose people are off today and tomorrow, whatever day it is, and a calendar that can be set ahead."""

    def __init__(self, lab: Lab, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make the inventory and the environment."""
        configure(lab, home, monkeypatch)
        document = yaml.safe_load(lab.inventory_path.read_text())
        today = datetime.now(UTC).date()
        free = [f"{today + timedelta(days=n)}" for n in (-1, 0, 1)]  # on any clock
        document["site"] = {"timezone": "Europe/Zurich", "holidays": free}
        inventory, self._ahead = home / "inventory.yaml", home / "ahead"
        inventory.write_text(yaml.safe_dump(document, sort_keys=False))
        monkeypatch.setenv("UNLATCH_INVENTORY", str(inventory))
        monkeypatch.setenv("UNLATCH_CALENDAR_FILE", str(self._ahead))
        self.repair, self.lab = Repair(lab), lab

    def repaired(self, *instances: str) -> str:
        """Crash and repair these; the incident."""
        opened = self.repair.open(reason="a test", instances=list(instances))
        for name in opened["instances"]:
            self.repair.lane(name)
        wiring.update_ticket(self.repair.incident, actor=ACTOR)
        return self.repair.incident

    def is_over(self) -> None:
        """Eight days later it is a working day anywhere."""
        self._ahead.write_text(str(8 * 86_400))

    def clean_up(self, instance: str, *, dry_run: bool = False) -> Json:
        """One instance."""
        return wiring_cleaning.clean_up(self.repair.incident, instance, dry_run=dry_run, actor=ACTOR)

    def ours(self) -> list[Path]:
        """Everything on the volume that only Unlatch makes."""
        return sorted(self.lab.host_path("/ORA/dbs03").rglob(".unlatch-*"))

    @property
    def state(self) -> IncidentState:
        """The incident's."""
        row = self.repair.store.incident(self.repair.incident)
        assert row is not None
        return row.state


@pytest.fixture
def weekend(crashed_lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Weekend:
    """A crash on a day off."""
    return Weekend(crashed_lab, tmp_path, monkeypatch)


def test_crash_on_a_day_off_is_cleaned_up_on_the_next_working_day(weekend: Weekend) -> None:
    """It should wait for that day, delete everything once, tell which space came back, and close ticket and incident.

    The locks on the files of voms still stand then, as on a NAS that has not noticed the crash.
    """
    incident = weekend.repaired()
    names = list(weekend.lab.instances)
    assert wiring_cleaning.due_clean_ups() == []
    with pytest.raises(RefusedError, match="are kept until"):
        weekend.clean_up("voms")
    kept = {path.name for path in weekend.ours() if path.suffix == ".orig"}
    planned = weekend.clean_up("voms", dry_run=True)
    assert planned["freed_bytes"] == 0
    assert planned["not_freed_bytes"] > 0

    weekend.is_over()
    assert wiring_cleaning.due_clean_ups() == [
        {"trigger_run_id": f"cleanup-{incident}", "conf": {"incident": incident}}
    ]
    found = {"voms": weekend.clean_up("voms")}
    weekend.lab.release_ghost()
    with pytest.raises(CheckFailedError, match="the incident stays open"):
        wiring_cleaning.close_incident(incident, names, dry_run=False, actor=ACTOR)
    found |= {name: weekend.clean_up(name) for name in names[1:]}
    closed = wiring_cleaning.close_incident(incident, names, dry_run=False, actor=ACTOR)

    assert closed["closed"]
    assert weekend.state is IncidentState.CLOSED
    assert weekend.ours() == []
    assert found["voms"]["not_freed_bytes"] == planned["not_freed_bytes"]
    assert found["alvmysql"]["not_freed_bytes"] == found["lxr"]["not_freed_bytes"] == 0
    assert {Path(file["removed"]).name for each in found.values() for file in each["files"]} == kept
    assert closed["freed_bytes"] > 0
    assert "did NOT come back" in weekend.repair.ticket
    assert "Closed**: every database works" in weekend.repair.ticket
    assert weekend.clean_up("voms")["files"] == found["voms"]["files"], "again, and nothing happens"
    assert {name: rows for name, rows in weekend.lab.writer().missing_after().items() if rows} == {}
    assert weekend.repair.store.verify_audit().verified


def test_original_that_was_written_to(weekend: Weekend) -> None:
    """It should delete nothing, stop the database, and reopen the incident."""
    incident = weekend.repaired("alvmysql")
    weekend.is_over()
    original = next(path for path in weekend.ours() if path.suffix == ".orig")
    with original.open("ab") as late:
        late.write(b"a row that nobody will find")
    before = weekend.ours()
    with pytest.raises(CheckFailedError, match="LATE WRITER on alvmysql"):
        weekend.clean_up("alvmysql")
    assert weekend.ours() == before
    assert weekend.state is IncidentState.REOPENED
    assert wiring_cleaning.due_clean_ups() == []
    with pytest.raises(RefusedError, match="reopened"):
        weekend.clean_up("alvmysql")
    wiring_cleaning.close_by_hand(incident, reason="it was a test", actor=ACTOR)
    assert weekend.state is IncidentState.CLOSED
