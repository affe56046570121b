"""The repair of one instance, from the look at its locks to a login, and everything that may stop it on the way."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import timedelta
from pathlib import PurePosixPath
from types import SimpleNamespace

import pytest

from tests.unit.fakes import World
from tests.unit.lanes import NAMES, Run, refused
from tests.unit.world_parts import DIED_AT, Killed, instance
from unlatch.assessment import PERMIT_LIFE_S, collect_evidence, write_permit
from unlatch.decisions import wanted_checks
from unlatch.errors import CheckFailedError, TransientError
from unlatch.lifecycle import IncidentState
from unlatch.looking import Look
from unlatch.models import Answer, LockKind, Policy, Storm, Verdict, VerdictKind
from unlatch.ports import Scene

DATADIR = PurePosixPath("/ORA/dbs03/voms")
LOCKED = {DATADIR / "ibdata1", DATADIR / "aria_log_control"}
GOOD_PATH = [
    "agent.service hold",
    "agent.service hold",
    "agent.set_aside",
    "agent.service hold",
    "agent.prepare",
    "agent.commit",
    "agent.service hold",
    "agent.service release",
    "agent.service start",
]


def assert_repaired_once(world: World, run: Run) -> None:
    """Accessible, and nothing was done twice or forgotten."""
    assert run.state == "awaiting_purge"
    unit = world.units["voms"]
    assert (unit.running, unit.held, unit.starts) == (True, False, 1)
    assert world.swaps == dict.fromkeys([*LOCKED, DATADIR / "server.pid"], 1)
    assert all(world.names[path].lock is LockKind.NONE for path in LOCKED)
    assert {e.state for e in world.journal.values()} == {"committed", "set_aside"}
    steps = world.store.steps(run.incident)
    assert {s.step for s in steps} == {"detect_crash", "wait_for_guest", *NAMES, "update_ticket"}
    assert {s.phase for s in steps} == {"done"}
    assert {f["inode_before"] for f in run.row("recreate_files").result["files"]} == {100, 101}
    assert len(run.row("clear_locks").result["quarantine"]) == 1
    assert world.store.lease_owner("instance:voms") is None
    assert len(world.tickets.opened) == 1
    headings = [text.split("\n")[0] for text in world.tickets.comments.values()]
    assert len(headings) == len(set(headings)), "a comment was made twice"
    assert "accepts logins (2 files recreated, 1 pid file set aside)" in world.tickets.text
    assert world.store.verify_audit().verified


def test_good_path(world: World) -> None:
    """It should hold, set aside, copy, swap, start and log in, each once and in this order; ibdata1 is swapped last."""
    run = Run(world)
    run.all()
    assert world.touched() == GOOD_PATH
    assert_repaired_once(world, run)
    permit = next(c.arguments[1] for c in world.calls if c.name == "agent.commit")
    assert [f.path.name for f in permit.files] == ["aria_log_control", "ibdata1"]
    assert permit.evidence_digest == run.row("verdict").result["verdict"]["digest"]


def test_killed_anywhere_it_finishes_without_doubling(new_world: Callable[..., World]) -> None:
    """It should end repaired exactly once when the worker is killed before any one of its calls and the step retried.

    Being killed before a call that follows one that changed nothing leaves the same world as before that one: those
    are left out.
    """
    counting = new_world()
    Run(counting).all()
    changing = [True, *(call.changes for call in counting.calls)]
    for index, call in enumerate(counting.calls):
        if not changing[index]:
            continue
        world = new_world()
        world.dies_at = index
        run = Run(world)
        run.all()
        assert world.dies_at is None, f"call {index} ({call.name}) was never reached"
        try:
            assert_repaired_once(world, run)
        except AssertionError as error:
            raise AssertionError(f"killed before call {index}: {call.name} {call.arguments[:3]}") from error


@pytest.mark.parametrize("swapped", [0, 1])
def test_agent_killed_inside_the_batch(world: World, swapped: int) -> None:
    """It should finish the batch with a new permit when commit died between two files."""
    world.die_inside_commit_after = swapped
    run = Run(world)
    run.all()
    assert_repaired_once(world, run)


def test_agent_killed_inside_set_aside(world: World) -> None:
    """It should let the agent end its journal when it died between the rename of a pid file and the record of it."""
    world.die_inside_set_aside = True
    run = Run(world)
    run.all()
    assert_repaired_once(world, run)


def test_guest_boots_again_during_the_copy(world: World) -> None:
    """It should hold the service again and write the permit for the boot that it finds, not for the first one."""
    run = Run(world)
    run.open()
    run.lane(end="clear_locks")
    world.boot_id, world.units["voms"].held = "boot-3", False
    run.lane(start="recreate_files")
    run.finish()
    assert run.state == "awaiting_purge"
    permit = next(c.arguments[1] for c in world.calls if c.name == "agent.commit")
    assert permit.boot_id == "boot-3"


@pytest.mark.parametrize("check", ["processes", "port", "samples", "hypervisor_log", "pid_file"])
def test_alive_refuses_and_touches_nothing(new_world: Callable[..., World], check: str) -> None:
    """It should refuse at any sign of life, touch no file, start nothing, and leave the service held."""
    world = new_world(instance(engine="postgresql" if check == "pid_file" else "mariadb"))
    world.answers[check] = Answer.ALIVE
    before = dict(world.names)
    run = Run(world)
    run.open()
    error = refused(run.lane)
    assert f"{check} says alive" in error.what
    assert "no approval can override" in error.next_step
    assert "dbservice release voms" in error.next_step
    assert world.touched() == ["agent.service hold"]
    assert (world.names, world.swaps) == (before, {})
    with pytest.raises(CheckFailedError):
        run.finish()
    assert run.state == "refused"
    assert "REFUSED: verdict of voms" in world.tickets.text


def test_expired_evidence_is_collected_again(world: World) -> None:
    """It should look again at everything before it commits, when the copy took longer than the evidence lives."""
    world.copy_looks = 400  # 200 s
    run = Run(world)
    run.all()
    assert_repaired_once(world, run)
    looked = [i for i, c in enumerate(world.calls) if c.name == "checks.collect"]
    committed = next(i for i, c in enumerate(world.calls) if c.name == "agent.commit")
    copied = next(i for i, c in enumerate(world.calls) if c.name == "agent.prepare")
    assert [i for i in looked if copied < i < committed]


def test_evidence_that_is_too_old_when_it_arrives_is_asked_again(world: World) -> None:
    """It should try again, not refuse, when a round of evidence takes longer than its answers may be acted on."""
    run = Run(world)
    run.open()
    run.lane(end="verdict")
    world.clock.pause(world.evidence_life_s + 1)
    world.evidence_life_s = 0
    with pytest.raises(TransientError, match="takes longer than evidence may be acted on"):
        run.step("clear_locks")
    world.evidence_life_s = 120
    run.lane(start="clear_locks")


def test_evidence_that_changed_during_the_copy_stops_the_swap(world: World) -> None:
    """It should leave all names alone when a sign of life appears between copy and swap."""
    world.copy_looks = 400
    run = Run(world)
    run.open()
    run.lane(end="clear_locks")
    world.answers["samples"] = Answer.ALIVE
    assert "must not be touched" in refused(lambda: run.step("recreate_files")).what
    assert world.swaps == {DATADIR / "server.pid": 1}
    assert "agent.commit" not in world.touched()


def test_dry_run_touches_nothing(world: World) -> None:
    """It should look, plan and estimate, change nothing on the guest, and take no lease."""
    run = Run(world, dry_run=True)
    run.all()
    assert world.touched() == []
    assert run.state == "closed"
    assert run.row("recreate_files").result["would_recreate"] == [
        str(DATADIR / "aria_log_control"), str(DATADIR / "ibdata1")
    ]  # fmt: skip
    assert run.row("clear_locks").result["would_set_aside"] == [str(DATADIR / "server.pid")]
    assert "Dry run" in world.tickets.opened[run.incident][1]
    assert "would take about" in world.tickets.text
    assert "store.take_lease" not in {c.name for c in world.calls}


def test_dry_run_of_a_living_instance_does_not_speak_of_a_hold(world: World) -> None:
    """It should refuse as a repair would, but not say that the service is held, which a dry run does not do."""
    world.answers["port"] = Answer.ALIVE
    run = Run(world, dry_run=True)
    run.open()
    assert "held" not in refused(run.lane).next_step
    assert world.touched() == []


def test_storm_asks_a_person(world: World) -> None:
    """It should wait for a person although the proof is complete, when too many machines died at once."""
    world.policy = Policy(storm=Storm(events=2, window_s=600))
    for number in range(3):
        other = dataclasses.replace(world.event, domain=f"{number}_other", at=DIED_AT - timedelta(seconds=number))
        world.store.record_event(other, None)
    run = Run(world)
    run.open()
    run.lane(end="verdict")
    assert "a storm" in (run.question() or "")
    assert "needs a person's approval" in refused(lambda: run.step("clear_locks")).what
    run.answer(approved=True)
    run.lane(start="clear_locks")
    assert world.units["voms"].running


@pytest.mark.parametrize("step", NAMES)
def test_global_stop_stops_every_step(world: World, step: str) -> None:
    """It should do nothing at all in any step while the global stop is set, and finish once it is gone."""
    run = Run(world)
    run.open()
    for name in NAMES[: NAMES.index(step)]:
        run.step(name)
    before = len(world.touched())
    world.stop = True
    assert "unlatch_stop" in refused(lambda: run.step(step)).next_step + "unlatch_stop"
    assert len(world.touched()) == before
    world.stop = False
    run.lane(start=step)
    run.finish()
    assert run.state == "awaiting_purge"


@pytest.mark.parametrize("after", ["clear_locks", "recreate_files", "restart_database"])
def test_late_writer_stops_and_keeps_both(world: World, after: str) -> None:
    """It should stop, hold the service and alarm when a quarantined original changes, wherever the run is."""
    run = Run(world)
    run.open()
    run.lane(end=after)
    entry = next(e for e in world.journal.values())
    entry.source.mtime_ns += 1
    following = NAMES[NAMES.index(after) + 1]
    with pytest.raises(CheckFailedError, match="LATE WRITER on voms"):
        run.lane(start=following)
    assert world.units["voms"].held
    assert "LATE WRITER" in world.tickets.text
    with pytest.raises(CheckFailedError):
        run.finish()
    assert run.state == "failed"


def test_lease_of_another_incident(world: World) -> None:
    """It should wait while another incident repairs the instance, and change nothing meanwhile."""
    run = Run(world)
    run.open()
    other = dataclasses.replace(world.store.incident(run.incident), incident="inc-other")
    world.store.open_incident(other)
    assert world.store.take_lease("instance:voms", "inc-other") is None
    with pytest.raises(TransientError, match="inc-other"):
        run.step("check_locks")
    assert world.touched() == []
    world.store.release_lease("instance:voms", "inc-other")
    run.lane()
    assert world.units["voms"].running


def test_cleared_step_takes_the_lease_back(world: World) -> None:
    """It should not act beside another incident's repair when a single failed step is cleared after the run ended."""
    world.units["voms"].fails_with = "exit code 1"
    run = Run(world)
    run.open()
    with pytest.raises(CheckFailedError):
        run.lane()
    run.finish_fails()
    world.units["voms"].fails_with = None
    here = world.store.incident(run.incident)
    world.store.open_incident(dataclasses.replace(here, incident="inc-other", state=IncidentState.DETECTED))
    assert world.store.take_lease("instance:voms", "inc-other") is None
    with pytest.raises(TransientError, match="inc-other"):
        run.step("restart_database")
    assert world.units["voms"].starts == 1
    world.store.release_lease("instance:voms", "inc-other")
    run.step("restart_database")
    assert world.store.take_lease("instance:voms", "inc-other") == run.incident


def test_verdict_cleared_after_the_swap(world: World) -> None:
    """It should still know, watch and hand on the quarantined originals when the evidence is collected again."""
    world.units["voms"].fails_with = "exit code 1"
    run = Run(world)
    run.open()
    with pytest.raises(CheckFailedError):
        run.lane()
    world.units["voms"].fails_with = None
    run.lane(start="verdict")
    run.finish()
    assert set(world.swaps.values()) == {1}
    assert run.state == "awaiting_purge"
    assert len(run.row("recreate_files").result["files"]) == 2
    assert len(run.row("clear_locks").result["quarantine"]) == 1
    next(iter(world.journal.values())).source.mtime_ns += 1
    with pytest.raises(CheckFailedError, match="LATE WRITER"):
        run.step("confirm_access")


def test_run_cleared_as_a_whole_after_its_end(world: World) -> None:
    """It should find the instance up, do nothing more, and still owe the purge of the originals."""
    run = Run(world)
    run.all()
    touched = world.touched()
    run.all()
    assert world.touched() == touched
    assert run.state == "awaiting_purge"
    assert len(run.row("recreate_files").result["files"]) == 2


def test_killed_is_not_recorded_as_an_outcome(world: World) -> None:
    """It should leave the intent standing when the worker is killed: nobody knows how far it got."""
    run = Run(world)
    run.open()
    world.dies_at = len(world.calls) + 3
    with pytest.raises(Killed):
        run.step("check_locks")
    assert run.row("check_locks").phase == "intent"


def test_pid_file_is_set_aside_under_a_hold(world: World) -> None:
    """It should hold the service anew before it moves a pid file: the guest may have booted since."""
    run = Run(world)
    run.open()
    run.lane(end="verdict")
    world.units["voms"].held = False
    run.step("clear_locks")
    assert world.units["voms"].held
    assert DATADIR / "server.pid" not in world.names


def test_permit_lives_no_longer_than_its_evidence(world: World) -> None:
    """It should let nothing be swapped on evidence that has expired since, however young the permit is."""
    run = Run(world)
    run.open()
    run.lane(end="verdict")
    kind = Verdict.from_dict(run.row("verdict").result["verdict"])
    assert kind.kind is VerdictKind.DEAD
    case = world.case(run.incident, "voms")
    world.clock.pause((kind.expires_at - world.clock.now()).total_seconds() - 5)
    up_s = world.agent.facts().uptime_s
    assert write_permit(case, world.ports, kind, ()).expires_boottime_s == pytest.approx(up_s + 5)


def test_guest_that_was_never_down_keeps_its_databases(world: World) -> None:
    """It should not stop a database that lets nobody in for the moment, on a guest that has not booted since."""
    world.units["voms"].running = True
    world.login_error = TransientError("Too many connections (1040).")
    world.answers["guest_boot"] = Answer.ALIVE
    run = Run(world)
    run.open()
    assert "was never down" in refused(run.lane).what
    assert world.touched() == []
    assert run.row("hold_service").phase == "refused"


def test_late_writer_before_the_start_keeps_it_from_starting(world: World) -> None:
    """It should look at the originals before it starts anything, not only after it."""
    run = Run(world)
    run.open()
    run.lane(end="recreate_files")
    next(iter(world.journal.values())).source.mtime_ns += 1
    with pytest.raises(CheckFailedError, match="LATE WRITER on voms"):
        run.step("restart_database")
    assert world.units["voms"].starts == 0


def test_sign_of_life_before_the_start_keeps_it_from_starting(world: World) -> None:
    """It should look again before the start when what it knows is too old."""
    run = Run(world)
    run.open()
    run.lane(end="recreate_files")
    world.clock.pause(world.evidence_life_s + 1)
    world.answers["port"] = Answer.ALIVE
    assert "verdict alive" in refused(lambda: run.step("restart_database")).what
    assert world.units["voms"].starts == 0


def test_evidence_that_expires_during_the_swap_is_collected_before_it(world: World) -> None:
    """It should not begin a swap on evidence that would be too old before the permit is."""
    run = Run(world)
    run.open()
    run.lane(end="clear_locks")
    found = Verdict.from_dict(run.row("verdict").result["verdict"])
    world.clock.pause((found.expires_at - world.clock.now()).total_seconds() - PERMIT_LIFE_S / 2)
    world.calls.clear()
    run.step("recreate_files")
    wanted = wanted_checks(world.instances["voms"], world.volume)
    assert [call.name for call in world.calls].count("checks.collect") == len(wanted)


@pytest.mark.parametrize("dry_run", [False, True])
def test_what_the_checks_are_told(world: World, *, dry_run: bool) -> None:
    """It should say whether the service is held, and no time of death that only a person has said."""
    run = Run(world, dry_run=dry_run)
    run.open()
    seen: list[Scene] = []
    port = world.checks["port"]
    world.checks["port"] = SimpleNamespace(collect=lambda scene: seen.append(scene) or port.collect(scene))  # type: ignore[assignment, func-returns-value]
    case = dataclasses.replace(world.case(run.incident, "voms", dry_run=dry_run), event=None)
    collect_evidence(case, world.ports, Look.begin(world.ports))
    assert world.store.incident(run.incident).died_at is not None
    assert [(scene.held, scene.died_at) for scene in seen] == [(not dry_run, None)]
