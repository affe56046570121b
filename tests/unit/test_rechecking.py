"""The Monday re-check: every kind of thing that somebody should look at is found, and nothing where all is well."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.unit.fakes import World
from tests.unit.lanes import Run
from tests.unit.morning_after import CALENDAR, DATADIR, Morning
from tests.unit.world_parts import NFS, Inode
from unlatch.errors import TransientError
from unlatch.models import Finding, HostFacts, Instance, LockKind, MountFact, OurFile, Report
from unlatch.ports import HostAgent
from unlatch.recheck_report import recheck_report
from unlatch.rechecking import RecheckPorts, look_at_volume, stuck_incidents, touched_volumes, unwatched

MONDAY = datetime(2026, 3, 9, 8, 0, tzinfo=UTC)


@pytest.fixture
def morning(world: World) -> Morning:
    """A repair that ended on a Saturday; its day has come."""
    return Morning.after_repair(world).comes()


def look(world: World) -> list[Finding]:
    @contextmanager
    def agent(_: Instance) -> Iterator[HostAgent]:
        yield world.agent

    ports = RecheckPorts(world.store, agent, lambda _: world.engine)
    return look_at_volume(world.volume, list(world.instances.values()), ports, world.clock.now())


def stuck(world: World) -> list[Finding]:
    return stuck_incidents(world.store, CALENDAR, world.policy, world.clock.now())


def stray(name: str, kind: str, *, days: int = 30) -> OurFile:
    written = MONDAY - timedelta(days=days)
    return OurFile(DATADIR / name, kind, 4096, int(written.timestamp() * 1e9), LockKind.NONE)


def test_nothing_where_all_is_well(morning: Morning) -> None:
    """It should find nothing while the originals wait for their purge, nor after it."""
    assert look(morning.world) == []
    assert stuck(morning.world) == []
    morning.nas_drops_locks().all()
    morning.world.clock.pause(30 * 86_400)
    assert look(morning.world) == []
    assert stuck(morning.world) == []


def test_it_touches_nothing(morning: Morning) -> None:
    """It should only look."""
    before, head = morning.world.touched(), morning.world.store.audit_head()
    look(morning.world)
    stuck(morning.world)
    assert morning.world.touched() == before
    assert morning.world.store.audit_head() == head


def test_stale_lock(morning: Morning) -> None:
    """It should name the file, and the dry run that says whose lock it is."""
    morning.world.names[DATADIR / "undo001"] = Inode(900, "x", LockKind.REMOTE)
    (found,) = look(morning.world)
    assert found.kind == "stale lock"
    assert "undo001" in found.words
    assert found.command.startswith("airflow dags trigger remediate_guest --conf")
    assert '"dry_run": true' in found.command


def test_leftovers_of_nobody(morning: Morning) -> None:
    """It should tell journals and files of no known incident, and how old they are."""
    morning.world.strays = (
        stray(".unlatch-inc-2014.journal", "journal"),
        stray("elsewhere/.unlatch-0123456789abcdef.new", "temp", days=0),
    )
    journal, copy = look(morning.world)
    assert "(30 days): of inc-2014, an incident that nobody knows" in journal.words
    assert journal.command.endswith("status --incident inc-2014 /ORA/dbs03/voms")
    assert "(new): no open incident accounts for it" in copy.words


def test_leftovers_of_a_closed_incident(morning: Morning) -> None:
    """It should tell what is still there of an incident that is closed."""
    morning.nas_drops_locks().all()
    morning.world.strays = (stray(f".unlatch-{morning.run.incident}.journal", "journal", days=2),)
    (found,) = look(morning.world)
    assert "which is closed" in found.words


def test_copy_of_a_repair_that_goes_on(world: World) -> None:
    """It should leave alone what a repair at work has put there."""
    run = Run(world)
    run.open()
    run.lane(end="recreate_files")
    world.strays = (stray(".unlatch-0123456789abcdef.new", "temp", days=0),)
    assert [found.kind for found in look(world)] == []


def test_volume_that_is_not_mounted(new_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch) -> None:
    """It should say so, and not that nothing is left there."""
    world = new_world(volume=NFS)
    facts = world.agent.facts()
    there = (MountFact(DATADIR, "/", "ext4"),)
    for paths in (there, ()):
        mounted: HostFacts = replace(facts, paths=paths)
        monkeypatch.setattr(world.agent, "facts", lambda _, mounted=mounted: mounted)
        (found,) = look(world)
        assert (found.kind, found.command) == ("not mounted", "mount /ORA/dbs03    # on dbvrtg4037")


def test_guest_that_does_not_answer(morning: Morning, monkeypatch: pytest.MonkeyPatch) -> None:
    """It should be a finding, not all well."""

    def silent(*_: object) -> None:
        raise TransientError("dbvrtg4037 does not answer.", next_step="start it.")

    monkeypatch.setattr(morning.world.agent, "our_files", silent)
    assert look(morning.world) == [Finding("not looked at", "voms", "dbvrtg4037 does not answer.", "start it.")]


def test_overdue_purge(morning: Morning) -> None:
    """It should be told four hours after its day, not at once, with the command."""
    morning.world.clock.pause(4 * 3600)
    assert stuck(morning.world) == []
    morning.world.clock.pause(1)
    (found,) = stuck(morning.world)
    assert found.kind == "overdue purge"
    assert "was to be deleted on Mon 2026-03-09 09:00 Europe/Zurich" in found.words
    assert found.command == f"unlatch clean-up {morning.run.incident} --dry-run"


def test_stuck_in_any_state(world: World) -> None:
    """It should tell an incident that waits, or was given up, for too long; the site sets its own limits."""
    run = Run(world)
    run.open()
    assert stuck(world) == []
    world.clock.pause(2 * 3600 + 1)
    (found,) = stuck(world)
    assert found.words.startswith("repairing since Sat 2026-03-07")
    world.units["voms"].fails_with = "disk full"
    run.attempt()
    assert run.state == "failed"
    assert stuck(world) == []
    world.policy = replace(world.policy, stuck_after_s={"failed": 600})
    world.clock.pause(601)
    (found,) = stuck(world)
    assert found.command.endswith(f"or: unlatch close {run.incident} --reason …")


def test_dry_run_is_nobodys_business(world: World) -> None:
    """It should not list what a dry run has opened."""
    Run(world, dry_run=True).open()
    world.clock.pause(10 * 86_400)
    assert stuck(world) == []


def test_touched_volumes(morning: Morning) -> None:
    """It should look where an incident worked since the last time, or has left something."""
    store, instances = morning.world.store, morning.world.instances.values()
    assert touched_volumes(store, instances, None) == ("dbs03",)
    assert touched_volumes(store, instances, MONDAY) == ("dbs03",), "its originals are still there"
    morning.nas_drops_locks().all()
    assert touched_volumes(store, instances, MONDAY - timedelta(days=1)) == ("dbs03",)
    assert touched_volumes(store, instances, MONDAY + timedelta(days=1)) == ()


def test_the_report() -> None:
    """It should have every finding with its command, in Markdown and HTML, and nothing that becomes markup."""
    findings = (
        Finding("leftover", "voms", "/x/<script>.orig (30 days)", "ls -li /x"),
        Finding("stuck", "inc-1", "failed since Mon", "unlatch show inc-1"),
    )
    drilled = [{"guest": "dbvrtg4037", "title": "12 ok, 1 missing, 0 not checked"}]
    made = recheck_report("recheck-1", findings, volumes=["dbs03"], drilled=drilled, at=MONDAY, zone="Europe/Zurich")
    assert made.title == "Re-check of Mon 2026-03-09 09:00 Europe/Zurich: 2 findings"
    for words in ("ls -li /x", "unlatch show inc-1", "12 ok, 1 missing", "dbs03"):
        assert words in made.content["markdown"]
        assert words in made.content["html"]
    assert "<script>" not in made.content["html"]
    assert Report.from_dict(made.as_dict()) == made
    fine = recheck_report("recheck-2", (), volumes=[], drilled=[], at=MONDAY, zone="UTC")
    assert fine.title.endswith("all is well")
    assert "no incident has touched any" in fine.content["markdown"]


def test_originals_that_nobody_watches(morning: Morning) -> None:
    """It should tell that an instance has originals in quarantine and has left the inventory: nobody looks at them."""
    world = morning.world
    assert unwatched(world.store, world.instances.values()) == []
    (found,) = unwatched(world.store, [])
    assert (found.kind, found.subject) == ("not watched", "voms")
    assert morning.run.incident in found.words
    moved = replace(world.instances["voms"], guest="dbvrtg4038")
    assert [f.kind for f in unwatched(world.store, [moved])] == ["not watched"]


def test_commands_take_no_orders_from_file_names(morning: Morning) -> None:
    """It should quote what is found on the volume: somebody pastes the command into a shell."""
    morning.world.strays = (
        stray(".unlatch-$(reboot).journal", "journal"),
        stray("a b/.unlatch-`id`.orig", "quarantine"),
    )
    commands = [found.command for found in look(morning.world)]
    assert [shlex.split(command, comments=True) for command in commands] == [
        ["python3", "unlatch-agent.pyz", "status", "--incident", "$(reboot)", str(DATADIR)],
        ["ls", "-li", f"{DATADIR}/a b/.unlatch-`id`.orig"],
    ]
    assert "'$(reboot)'" in commands[0]
    assert "`id`.orig'" in commands[1]
