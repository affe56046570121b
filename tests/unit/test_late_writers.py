"""The watch over quarantined originals: quiet while all is well, loud and quick when somebody writes to one."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from tests.unit.fakes import World
from tests.unit.lanes import Run
from tests.unit.world_parts import instance
from unlatch.errors import CheckFailedError, ConfigError, TransientError
from unlatch.late_writers import look_for_late_writer, quarantine_of, quarantines
from unlatch.models import OpenerScan

DATADIR = PurePosixPath("/ORA/dbs03/voms")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A repair that has ended and left its originals behind."""
    done = Run(World(tmp_path / "unlatch.db"))
    done.all()
    return done


def look(run: Run) -> object:
    return look_for_late_writer(run.world.case(run.incident, "voms"), run.world.ports)


def write_to_an_original(run: Run) -> None:
    """What a writer does that still has the old inode open."""
    entry = run.world.journal[run.incident, DATADIR / "ibdata1"]
    entry.source.mtime_ns += 1


def test_what_is_kept_is_watched(run: Run) -> None:
    """It should watch every instance whose originals are kept, while its incident waits for the purge."""
    assert quarantines(run.world.store) == ((run.incident, "voms"),)
    assert len(quarantine_of(run.world.store, run.incident, "voms")) == 3


def test_quiet_while_all_is_well(run: Run) -> None:
    """It should look at the originals and record nothing."""
    head = run.world.store.audit_head()
    assert look(run) == {"looked_at": 3}
    assert run.world.store.audit_head() == head
    assert run.world.units["voms"].running


def test_late_writer_stops_the_database(run: Run) -> None:
    """It should hold the service, reopen the incident, tell the ticket which file it was, and keep both files."""
    write_to_an_original(run)
    with pytest.raises(CheckFailedError, match=r"LATE WRITER on voms: .*ibdata1"):
        look(run)
    assert run.world.units["voms"].held
    assert run.state == "reopened"
    assert "FAILED: late_writer of voms" in run.world.tickets.text
    assert run.world.journal[run.incident, DATADIR / "ibdata1"].state == "committed"
    assert quarantines(run.world.store) == (), "the alarm is raised once"


def test_service_that_cannot_be_held_is_said(run: Run) -> None:
    """It should say so in the alarm when the database goes on running."""
    write_to_an_original(run)
    run.world.units["voms"].hold_code = 1
    with pytest.raises(CheckFailedError, match="could NOT be held: sudo: a password is required"):
        look(run)


def test_guest_out_of_reach_is_not_all_well(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It should fail, not pass, when nobody could look."""

    def silent(*_: object) -> None:
        raise TransientError("dbvrtg4037 does not answer.")

    monkeypatch.setattr(run.world.agent, "verify", silent)
    with pytest.raises(TransientError):
        look(run)


def test_repair_that_goes_on_is_not_watched_from_outside(tmp_path: Path) -> None:
    """It should leave a repair alone that is not over: it looks for itself, at each step."""
    run = Run(World(tmp_path / "unlatch.db"))
    run.open()
    run.lane(end="recreate_files")
    assert quarantines(run.world.store) == ()


def test_failed_sibling_does_not_end_the_watch(tmp_path: Path) -> None:
    """It should go on watching what was repaired, also an instance that did not start and its sibling that did."""
    world = World(tmp_path / "unlatch.db", instance("voms"), instance("alvmysql", port=3307))
    world.units["alvmysql"].fails_with = "disk full"
    run = Run(world)
    run.attempt()
    assert run.state == "failed"
    assert quarantines(world.store) == ((run.incident, "alvmysql"), (run.incident, "voms"))
    write_to_an_original(run)
    with pytest.raises(CheckFailedError, match="LATE WRITER on voms"):
        look(run)


def test_global_stop_does_not_silence_the_alarm(run: Run) -> None:
    """It should raise the alarm and leave the database as it is while the global stop is set."""
    write_to_an_original(run)
    run.world.stop = True
    with pytest.raises(CheckFailedError, match="was NOT stopped, since the global stop is set"):
        look(run)
    assert run.world.units["voms"].running
    assert run.state == "reopened"


@pytest.mark.parametrize("error", [ConfigError("sudo refuses."), TransientError("dbvrtg4037 does not answer.")])
def test_hold_that_cannot_even_be_tried_is_said(run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """It should raise the alarm, reopen the incident and tell the ticket also when nothing can be run on the guest."""

    def broken(*_: object) -> None:
        raise error

    write_to_an_original(run)
    monkeypatch.setattr(run.world.agent, "service", broken)
    with pytest.raises(CheckFailedError, match=r"LATE WRITER on voms: .* could NOT be held"):
        look(run)
    assert run.state == "reopened"
    assert "FAILED: late_writer of voms" in run.world.tickets.text


def test_alarm_that_was_killed_is_raised_by_the_next_look(run: Run) -> None:
    """It should go on watching when the worker died in the midst of the alarm: nobody was told yet."""
    write_to_an_original(run)
    run.world.store.begin(run.incident, "voms", "late_writer", actor="eva", detail={})
    assert quarantines(run.world.store) == ((run.incident, "voms"),)
    with pytest.raises(CheckFailedError, match="LATE WRITER on voms"):
        look(run)
    assert run.state == "reopened"


def test_database_whose_start_ended_badly_is_watched(tmp_path: Path) -> None:
    """It should watch the originals also where the server came up and a check after its start failed."""
    run = Run(World(tmp_path / "unlatch.db"))
    run.open()
    run.lane(end="recreate_files")
    openers = run.world.agent.openers
    run.world.agent.openers = lambda *_: OpenerScan((), ())  # type: ignore[method-assign]
    with pytest.raises(CheckFailedError, match="no process of dbvrtg4037 has its recreated files open"):
        run.step("restart_database")
    run.world.agent.openers = openers  # type: ignore[method-assign]
    assert quarantines(run.world.store) == (), "the repair is not over"
    run.finish_fails()
    assert run.world.units["voms"].running
    assert quarantines(run.world.store) == ((run.incident, "voms"),)
