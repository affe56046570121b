"""`unlatch sources`: what people see of the logs, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from lab.inventory import inventory
from tests.unit.fakes import World
from unlatch.alerting import LoggedAlerts
from unlatch.assembly import SystemClock, load_inventory, store
from unlatch.cli import main
from unlatch.models import Sight, SourceState
from unlatch.source_watch import SourcePorts, note_sights

NAME = "hv01:xend:/var/log/xen/xend.log"


@pytest.fixture(autouse=True)
def _site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, world: World) -> None:
    """The lab's inventory, and a store of its own."""
    file = tmp_path / "lab.yaml"
    file.write_text(yaml.safe_dump(inventory({})))
    monkeypatch.setenv("UNLATCH_INVENTORY", str(file))
    monkeypatch.setenv("UNLATCH_STORE_URL", str(world.store.real._database.url))


def seen(sight: Sight) -> None:
    """The watch has looked."""
    note_sights(SourcePorts(load_inventory(), store(), SystemClock(), LoggedAlerts()), {NAME: sight})


def test_never_seen(capsys: pytest.CaptureFixture[str]) -> None:
    """It should end with 4 and say that nobody looks, instead of showing an empty table that looks well."""
    assert main(["sources"]) == 4
    out = capsys.readouterr().out
    assert "unknown" in out
    assert "The watch has looked never: see whether watch_hypervisors is unpaused and the triggerer runs." in out


def test_all_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    """It should end with 0 and name every log."""
    now = SystemClock().now()
    seen(Sight(SourceState.OK, reached_at=now, line_at=now))
    assert main(["sources"]) == 0
    assert NAME in capsys.readouterr().out
    assert main(["sources", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["watch_is_overdue"], found["sources"][0]["state"]) == (True, False, "ok")


def test_one_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    """It should end with 4 and say why; what a machine says must not steer the terminal."""
    seen(Sight(SourceState.UNREACHABLE, "hv01 refuses\x1b[31m connections"))
    assert main(["sources"]) == 4
    out = capsys.readouterr().out
    assert "unreachable" in out
    assert "\x1b[31m" not in out
