"""The day after: a crash on a Saturday, the clean-up on Monday at nine, and everything that may come in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath

import pytest

from tests.unit.fakes import World
from tests.unit.lanes import Run, refused
from tests.unit.morning_after import SITE, Morning
from tests.unit.world_parts import NFS, instance
from unlatch.closing import close_by_hand
from unlatch.deliveries import deliver_everything, ticket_post
from unlatch.errors import CheckFailedError, RefusedError, TransientError
from unlatch.lifecycle import IncidentState
from unlatch.models import Answer, ClearAnswer, LockKind, NasLock, NasView, Reach, Site, Waiver

MONDAY = datetime(2026, 3, 9, 8, 0, tzinfo=UTC)  # 09:00 in Zurich
NewWorld = Callable[..., World]


@pytest.fixture
def morning(world: World) -> Morning:
    """A repair that ended on a Saturday."""
    return Morning.after_repair(world)


def test_saturdays_crash_is_cleaned_up_on_monday(morning: Morning) -> None:
    """It should be due on Monday at nine and not a second before, delete everything once, and close the incident."""
    assert morning.day == MONDAY
    morning.world.clock.time = MONDAY - timedelta(seconds=1)
    assert morning.due() == ()
    morning.comes().nas_drops_locks()
    assert morning.due() == (f"cleanup-{morning.run.incident}",)
    result = morning.clean_up()
    assert [file["removed"].rsplit("/", 1)[1] for file in result["files"]] == [
        ".unlatch-server.pid.orig",
        ".unlatch-aria_log_control.orig",
        ".unlatch-ibdata1.orig",
    ]
    assert (result["freed_bytes"], result["not_freed_bytes"]) == (27, 0)
    assert morning.originals() == 0
    assert morning.close()["closed"]
    assert morning.run.state == "closed"
    assert morning.world.tickets.states[-1] == "closed"
    assert "3 files deleted, 27 B came back" in morning.world.tickets.text
    assert "Closed**: every database works" in morning.world.tickets.text
    assert "purged on Mon 2026-03-09 09:00 Europe/Zurich" in morning.world.tickets.text
    assert morning.due() == ()


def test_too_early(morning: Morning) -> None:
    """It should delete nothing before the day, and say when that is; a dry run may look at any time."""
    error = refused(morning.clean_up)
    assert "are kept until Mon 2026-03-09 09:00 Europe/Zurich" in error.what
    assert morning.clean_up(dry_run=True)["day"] == MONDAY.isoformat()
    assert morning.originals() == 3


def test_what_the_lock_still_holds_is_not_counted_as_freed(morning: Morning) -> None:
    """It should delete an original under a dead guest's lock, and say that its space did not come back."""
    result = morning.comes().clean_up()
    assert morning.nas_drops_locks().clean_up()["files"] == result["files"], "what was so then is told again"
    assert (result["freed_bytes"], result["not_freed_bytes"]) == (3, 24)
    assert set(result["why_not_freed"].values()) == {"dbvrtg4037 sees a lock"}
    assert "24 B did NOT come back" in morning.world.tickets.text
    purge = next(c for c in morning.world.calls if c.name == "agent.purge" and c.touches)
    assert len(purge.arguments[3]) == 64, "the digest of the evidence"


class Nas:
    """A NAS that lists locks on inodes."""

    name = "nas"

    def __init__(self, *inodes: int) -> None:
        self.inodes = inodes

    def list(self, _files: object) -> NasView:
        return NasView(tuple(NasLock(None, inode, "nfsv3") for inode in self.inodes))

    def reach(self, _view: NasView) -> Reach:
        return Reach.VOLUME

    def clear(self, _locks: object) -> ClearAnswer:
        raise AssertionError("nothing is cleared here")


def test_lock_that_only_the_nas_knows(morning: Morning) -> None:
    """It should believe the NAS when it lists a lock on an original that the guest does not see."""
    morning.comes().nas_drops_locks()
    entry = morning.world.journal[morning.run.incident, PurePosixPath("/ORA/dbs03/voms/ibdata1")]
    morning.world.clearer = Nas(entry.source.number)
    result = morning.clean_up()
    assert (result["freed_bytes"], result["not_freed_bytes"]) == (15, 12)


def test_nas_that_does_not_answer(morning: Morning) -> None:
    """It should delete nothing while nobody can say whether the space would come back, and try again."""

    class Silent(Nas):
        def list(self, _files: object) -> NasView:
            raise TransientError("nas does not answer.")

    morning.comes().world.clearer = Silent()
    with pytest.raises(TransientError):
        morning.clean_up()
    assert morning.originals() == 3


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        ("hypervisor_log", Answer.NOT_OBSERVED),
        ("hypervisor_log", Answer.ALIVE),
        ("guest_boot", Answer.ALIVE),
        ("guest_boot", Answer.NOT_OBSERVED),
        ("domain_elsewhere", Answer.ALIVE),
        ("domain_elsewhere", Answer.NOT_OBSERVED),
        ("peers", Answer.ALIVE),
        ("peers", Answer.NOT_OBSERVED),
    ],
)
def test_locked_without_a_proof_of_death(new_world: NewWorld, check: str, answer: Answer) -> None:
    """It should keep a locked original when its holder's death is not proven afresh, and delete it when it is free."""
    morning = Morning.after_repair(new_world(volume=NFS)).comes()
    for entry in morning.world.journal.values():  # the notification has freed them: put them back
        entry.source.lock = LockKind.REMOTE
    morning.world.answers[check] = answer
    assert morning.originals() > 0
    assert "nothing proves now that their holder is dead" in refused(morning.clean_up).what
    morning.nas_drops_locks()
    assert morning.clean_up()["not_freed_bytes"] == 0


def test_waived_check(new_world: NewWorld) -> None:
    """It should go without a check that a person gave up for the instance, and never without a proof."""
    waived = instance(waive=(Waiver("guest_boot", "eva", "its clock is wrong"),))
    morning = Morning.after_repair(new_world(waived)).comes()
    morning.world.answers["guest_boot"] = Answer.NOT_OBSERVED
    assert morning.clean_up()["not_freed_bytes"] == 24


def test_file_modified_in_quarantine(morning: Morning) -> None:
    """It should delete nothing, stop the database, keep both files, and reopen the incident."""
    morning.comes().nas_drops_locks().write_to_an_original()
    with pytest.raises(CheckFailedError, match=r"LATE WRITER on voms: .*ibdata1"):
        morning.clean_up()
    assert morning.originals() == 3
    assert morning.world.units["voms"].held
    assert morning.run.state == "reopened"
    assert morning.due() == ()
    assert "reopened" in refused(morning.clean_up).what
    with pytest.raises(CheckFailedError, match="the incident stays open"):
        morning.close()


def test_dry_run_of_a_modified_file(morning: Morning) -> None:
    """It should say so, and leave the database as it is."""
    morning.comes().write_to_an_original()
    with pytest.raises(CheckFailedError, match="LATE WRITER"):
        morning.clean_up(dry_run=True)
    assert morning.world.units["voms"].running
    assert morning.run.state == "awaiting_purge"


def test_dry_run_touches_nothing(morning: Morning) -> None:
    """It should tell what would be deleted and what would come back, and keep all of it."""
    morning.comes().nas_drops_locks()
    before = morning.world.touched()
    result = morning.clean_up(dry_run=True)
    assert result["freed_bytes"] == 27
    assert morning.world.touched() == before
    assert morning.run.state == "awaiting_purge"
    with pytest.raises(CheckFailedError):
        morning.close()  # a dry run is no clean-up
    morning.all()
    morning.clean_up(dry_run=True)
    assert morning.close()["closed"], "and undoes none"


def test_database_that_is_down(morning: Morning) -> None:
    """It should keep the originals of a database that does not run, and not start it."""
    morning.comes().nas_drops_locks().world.units["voms"].running = False
    with pytest.raises(CheckFailedError, match="voms does not run on dbvrtg4037, so its originals are kept"):
        morning.clean_up()
    assert morning.originals() == 3


def test_name_that_stands_for_another_file(morning: Morning) -> None:
    """It should keep the originals when somebody replaced the file that the repair put there."""
    path = PurePosixPath("/ORA/dbs03/voms/ibdata1")
    morning.comes().nas_drops_locks().world.names[path] = morning.world.names[path.parent / "table.ibd"]
    assert "is not the file that the repair put there" in refused(morning.clean_up).what
    assert morning.originals() == 3


def test_killed_anywhere(morning: Morning, scratch: Path) -> None:
    """It should end as an uninterrupted one does, wherever it is killed, half of the files deleted included."""
    morning.comes().nas_drops_locks()
    whole = morning.copied(scratch / "whole.db")
    expected = whole.all()
    for number, call in enumerate(whole.world.calls):
        killed = morning.copied(scratch / f"killed-{number}.db")
        killed.world.dies_at = number
        assert killed.all() == expected, f"killed at {call}"
        assert killed.originals() == 0
        assert killed.run.state == "closed"


def test_killed_between_two_deletions(morning: Morning) -> None:
    """It should count what the killed try has deleted, too."""
    morning.comes().nas_drops_locks().world.die_inside_purge_after = 2
    assert morning.all() == {"freed_bytes": 27, "not_freed_bytes": 0, "closed": True}
    files = morning.run.row("clean_up").result["files"]
    assert len(files) == 3


def test_two_at_once(morning: Morning) -> None:
    """It should delete once and close once when another run does the same in the midst of it."""
    morning.comes().nas_drops_locks().world.after("store.set_cursor", lambda: None)
    results = []
    morning.world.then["agent.kept"] = lambda: results.append(morning.all())
    results.append(morning.all())
    assert results[0] == results[1] == {"freed_bytes": 27, "not_freed_bytes": 0, "closed": True}
    assert morning.world.tickets.text.count("Closed**") == 1
    assert morning.run.state == "closed"


def test_new_incident_on_the_same_instance(morning: Morning) -> None:
    """It should wait for a repair that goes on, and delete only what is its own afterwards."""
    other = "inc-20260309-070000-dbvrtg4037"
    row = morning.world.store.incident(morning.run.incident)
    assert row is not None
    morning.world.store.open_incident(type(row)(**{**vars(row), "incident": other, "state": IncidentState.REPAIRING}))
    assert morning.world.store.take_lease("instance:voms", other) is None
    morning.comes().nas_drops_locks()
    with pytest.raises(TransientError, match=f"voms is being repaired by {other}"):
        morning.clean_up()
    assert morning.originals() == 3
    morning.world.store.release_lease("instance:voms", other)
    assert morning.clean_up()["freed_bytes"] == 27


def test_repair_that_goes_on_again(morning: Morning) -> None:
    """It should not delete what a task that was cleared may still need; the day counts anew from its end."""
    morning.comes().nas_drops_locks()
    morning.run.step("check_locks")
    assert morning.day is None
    with pytest.raises(TransientError, match="is being repaired"):
        morning.clean_up()
    morning.run.lane(start="hold_service")
    morning.run.finish()
    assert morning.day == MONDAY + timedelta(days=1)
    assert morning.comes().due() == (f"cleanup-{morning.run.incident}-20260310",)


def test_repaired_again_after_the_clean_up(morning: Morning) -> None:
    """It should have a run of its own for what a second repair of the same incident has left."""
    morning.comes().nas_drops_locks().all()
    morning.run.lane()
    morning.run.finish()
    assert morning.run.state == "awaiting_purge"
    assert morning.comes().due() == (f"cleanup-{morning.run.incident}-20260310",)
    assert morning.all()["closed"]
    assert morning.due() == ()


def test_update_ticket_after_the_clean_up(morning: Morning) -> None:
    """It should stay closed when a person clears the last task of the repair: nothing is owed any more."""
    morning.comes().nas_drops_locks().all()
    morning.run.finish()
    assert morning.run.state == "closed"


def test_ticket_system_that_is_down(morning: Morning) -> None:
    """It should not undo the purge nor keep the incident open; the ticket is closed as soon as it answers."""
    morning.comes().nas_drops_locks().world.tickets.down = TransientError("the ticket system does not answer.")
    assert morning.all()["closed"]
    assert morning.run.state == "closed"
    assert morning.world.tickets.states[-1] != "closed"
    morning.world.tickets.down = None
    morning.world.clock.pause(3600)
    ports = morning.world.incident_ports
    deliver_everything(ports, lambda _: ticket_post(ports))
    assert morning.world.tickets.states[-1] == "closed"
    assert "27 B came back" in morning.world.tickets.text


def test_airflow_off_from_friday_to_wednesday(morning: Morning) -> None:
    """It should be due on any later day, once."""
    morning.comes(days=2).nas_drops_locks()
    assert morning.due() == (f"cleanup-{morning.run.incident}",)
    morning.all()
    assert morning.due() == ()


def test_holiday_that_is_added_later(morning: Morning) -> None:
    """It should move what was due that day to the next working day."""
    assert morning.day == MONDAY
    morning.site = Site(timezone=SITE.timezone, country="CH", holidays=("2026-03-09",))
    assert morning.day == MONDAY + timedelta(days=1)
    morning.world.clock.time = MONDAY
    assert morning.due() == ()
    assert "until Tue 2026-03-10 09:00" in refused(morning.clean_up).what


def test_one_instance_of_several(new_world: NewWorld) -> None:
    """It should clean up the one that was asked for and keep the incident open for the other."""
    both = Morning.after_repair(new_world(instance("voms"), instance("alvmysql", port=3307))).comes().nas_drops_locks()
    both.clean_up("voms")
    assert both.close("voms") == {
        "freed_bytes": 27, "not_freed_bytes": 0, "closed": False, "left": ["alvmysql"], "state": "awaiting_purge",
    }  # fmt: skip
    assert both.originals() == 3
    both.clean_up("alvmysql")
    assert both.close()["closed"]


def test_sibling_that_failed(new_world: NewWorld) -> None:
    """It should find nothing due while one instance is not accessible; what works may be cleaned up by hand."""
    world = new_world(instance("voms"), instance("alvmysql", port=3307))
    world.units["alvmysql"].fails_with = "disk full"
    run = Run(world)
    run.attempt()
    morning = Morning(run)
    world.clock.time = MONDAY
    assert morning.due() == ()
    morning.nas_drops_locks()
    assert "was not confirmed" in refused(lambda: morning.clean_up("alvmysql")).what
    assert morning.clean_up("voms")["freed_bytes"] == 27
    assert morning.close("voms")["state"] == "failed"


def test_global_stop(morning: Morning) -> None:
    """It should delete nothing while the global stop is set."""
    morning.comes().nas_drops_locks().world.stop = True
    with pytest.raises(RefusedError, match="unlatch_stop"):
        morning.clean_up()
    assert morning.originals() == 3


def test_repair_that_left_nothing(new_world: NewWorld) -> None:
    """It should need no look at an instance that was up all the time."""
    world = new_world()
    world.names.clear()
    world.units["voms"].running = True
    world.names[PurePosixPath("/ORA/dbs03/voms/ibdata1")] = next(iter(new_world().names.values()))
    morning = Morning.after_repair(world)
    assert morning.run.state == "closed"
    morning.comes()
    calls = len(world.calls)
    assert morning.clean_up()["why"] == "the repair left nothing behind"
    assert not [c for c in world.calls[calls:] if c.name.startswith("agent.")]
    assert morning.close()["closed"]


def test_closed_by_hand(morning: Morning) -> None:
    """It should close what only a person can end, with the reason for all to read, and nothing else."""
    ports, whole = morning.world.incident_ports, morning.run.whole
    morning.world.store.set_state(morning.run.incident, IncidentState.REPAIRING)
    assert "is being worked on" in refused(lambda: close_by_hand(whole, ports, reason="tidy")).what
    morning.run.finish()
    morning.comes().write_to_an_original()
    with pytest.raises(CheckFailedError):
        morning.clean_up()
    assert close_by_hand(whole, ports, reason="compared with the owner: a backup's flag")["was"] == "reopened"
    assert close_by_hand(whole, ports, reason="again")["was"] == "closed"
    assert morning.run.state == "closed"
    assert "Closed by eva** (reopened): compared with the owner" in morning.world.tickets.text
    assert morning.originals() == 3


def test_volume_unmounted_on_monday(new_world: NewWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """It should not take an empty mount point for a clean volume, and try again until it is mounted."""
    morning = Morning.after_repair(new_world(volume=NFS)).comes()
    mounted = morning.world.agent.facts
    monkeypatch.setattr(morning.world.agent, "facts", lambda paths=(): replace(mounted(paths), paths=()))
    with pytest.raises(TransientError, match="/ORA/dbs03 is not mounted on dbvrtg4037"):
        morning.clean_up()
    assert morning.run.state == "awaiting_purge"
    monkeypatch.undo()
    morning.nas_drops_locks()
    assert morning.all()["closed"]


def test_originals_that_vanished(morning: Morning) -> None:
    """It should not say that it deleted what somebody else has, and leave it to a person to close the incident."""
    for entry in morning.world.journal.values():
        entry.state = "purged"
    error = refused(morning.comes().clean_up)
    assert "3 of the originals" in error.what
    assert "are not found" in error.what
    assert "unlatch close" in error.next_step


def test_dry_run_of_the_clean_up_does_not_end_the_repair(morning: Morning) -> None:
    """It should be of no matter to the repair that somebody looked what would be deleted."""
    morning.world.clock.pause(1)
    morning.clean_up(dry_run=True)
    morning.run.finish()
    assert morning.run.state == "awaiting_purge"


def test_repair_that_begins_during_the_clean_up_keeps_its_lease(morning: Morning) -> None:
    """It should not give back the lease of a repair of the same incident that was begun meanwhile."""
    morning.comes().nas_drops_locks()
    store = morning.world.store

    def a_person_clears_the_run() -> None:
        store.take_lease("instance:voms", morning.run.incident)
        store.set_state(morning.run.incident, IncidentState.REPAIRING)

    morning.world.after("agent.kept", a_person_clears_the_run)
    morning.clean_up()
    assert store.lease_owner("instance:voms") == morning.run.incident


def test_global_stop_between_the_look_and_the_deletion(morning: Morning) -> None:
    """It should delete nothing when a person sets the stop while everything is looked at once more."""
    morning.comes().nas_drops_locks()
    morning.world.after("agent.purge", lambda: setattr(morning.world, "stop", True))  # of the look, which is a dry run
    refused(morning.clean_up)
    assert morning.originals() == 3
