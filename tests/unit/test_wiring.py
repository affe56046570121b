"""An incident meets the inventory as it is now: an entry may have gone, or its instance may live elsewhere by then."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.instances import NAMES, the_three
from lab.inventory import GUEST, inventory
from unlatch import assembly, wiring
from unlatch.errors import RefusedError
from unlatch.lifecycle import IncidentState
from unlatch.ports import IncidentRow
from unlatch.store.sql_store import SqlStore

INCIDENT = "inc-20260307-055452-dbvrtg4037"


@pytest.fixture
def document() -> dict[str, Any]:
    """The lab's inventory, with a second guest."""
    found = inventory(the_three({name: 3306 + n for n, name in enumerate(NAMES)}, dict.fromkeys(NAMES, "x")))
    found["guests"]["dbvrtg4038"] = {**found["guests"][GUEST], "conn_id": "unlatch_guest_dbvrtg4038", "names": ["^x$"]}
    return found


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SqlStore:
    """A store in which an incident of one instance is open."""
    monkeypatch.setenv("UNLATCH_INVENTORY", str(tmp_path / "inventory.yaml"))
    monkeypatch.setenv("UNLATCH_STORE_URL", f"sqlite:///{tmp_path}/unlatch.db")
    monkeypatch.setenv("UNLATCH_TICKETS", str(tmp_path / "tickets"))
    made, now = assembly.store(), datetime.now(UTC)
    made.open_incident(IncidentRow(INCIDENT, GUEST, IncidentState.DETECTED, now, now, False, "", None, None))
    made.begin(INCIDENT, "", "detect_crash", actor="eva", detail={})
    made.end(INCIDENT, "", "detect_crash", phase="done", actor="eva", result={"instances": ["voms"]})
    return made


def declare(document: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "inventory.yaml").write_text(yaml.safe_dump(document))


@pytest.mark.usefixtures("store")
def test_instance_as_it_was(document: dict[str, Any], tmp_path: Path) -> None:
    """It should find the instance on the guest that died."""
    declare(document, tmp_path)
    with wiring.case_of(INCIDENT, "voms", "eva") as (case, _):
        assert (case.instance.name, case.guest.name) == ("voms", GUEST)


@pytest.mark.usefixtures("store")
def test_instance_that_was_moved(document: dict[str, Any], tmp_path: Path) -> None:
    """It should do nothing on the guest that died for an instance that runs on another one by now."""
    document["instances"]["voms"]["guest"] = "dbvrtg4038"
    declare(document, tmp_path)
    with pytest.raises(RefusedError, match="is on dbvrtg4038 by now"), wiring.case_of(INCIDENT, "voms", "eva"):
        pass


@pytest.mark.usefixtures("store")
def test_guest_that_has_gone(document: dict[str, Any], tmp_path: Path) -> None:
    """It should say which entry is missing, and not that nothing was opened."""
    document["guests"].pop(GUEST)
    document["instances"] = {}
    declare(document, tmp_path)
    with pytest.raises(RefusedError, match=f"{GUEST} is not in the inventory any more") as caught:
        wiring.incident_of(INCIDENT)
    assert "restore its entry" in caught.value.next_step
