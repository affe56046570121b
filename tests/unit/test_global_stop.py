"""The global stop: a person sets it, and from then on no step does anything, wherever the run is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from tests.unit.fakes import World
from tests.unit.lanes import LANE, NAMES, Run, refused
from tests.unit.world_parts import instance
from unlatch import casebook
from unlatch.models import Answer
from unlatch.runbook import confirm_by_owner, owner_question


def _asking(world: World) -> Run:
    """A run that waits for a person."""
    world.answers["port"] = Answer.NOT_OBSERVED
    run = Run(world)
    run.open()
    run.lane(end="verdict")
    return run


def _noted(world: World, run: Run, step: str) -> bool:
    rows = world.store.audit_rows(incident=run.incident)
    return any((r.step, r.phase) == (step, "refused") and "unlatch_stop" in str(r.detail) for r in rows)


def test_nothing_is_opened(world: World) -> None:
    """It should not open an incident, nor its ticket."""
    world.stop = True
    run = Run(world)
    assert "unlatch_stop" in refused(run.open).what
    assert world.tickets.opened == {}
    assert world.store.incident(run.incident) is None
    (row,) = world.store.audit_rows()
    assert (row.actor, row.step, row.phase) == ("eva", "detect_crash", "refused")
    assert row.detail["guest"] == "dbvrtg4037"


def test_nobody_waits_for_the_guest(world: World) -> None:
    """It should end the wait at once, and not when the guest is back or overdue."""
    run = Run(world)
    run.open()
    world.guest_answers, world.stop = False, True
    for step in (casebook.guest_is_back, casebook.wait_for_guest):
        assert "unlatch_stop" in refused(lambda step=step: step(run.whole, world.incident_ports)).what
    assert _noted(world, run, "wait_for_guest")
    world.guest_answers, world.stop = True, False
    assert casebook.guest_is_back(run.whole, world.incident_ports)
    casebook.wait_for_guest(run.whole, world.incident_ports)


def test_nobody_is_asked(world: World) -> None:
    """It should put no question to a person, and put it as soon as the stop is gone."""
    run = _asking(world)
    world.stop = True
    assert "unlatch_stop" in refused(run.question).what
    assert run.state == "repairing"
    assert _noted(world, run, "approve")
    world.stop = False
    assert run.question()
    assert run.state == "waiting_for_person"


def test_a_yes_is_not_taken(world: World) -> None:
    """It should not take an approval while the stop is set: the question comes again when the task is cleared."""
    run = _asking(world)
    run.question()
    world.stop = True
    assert "unlatch_stop" in refused(lambda: run.answer(approved=True)).what
    world.stop = False
    assert "needs a person's approval" in refused(lambda: run.step("clear_locks")).what
    run.question()
    run.answer(approved=True)
    run.lane(start="clear_locks")
    assert world.units["voms"].running


def test_a_no_is_kept(world: World) -> None:
    """It should keep a no in any case: it must outlast the stop."""
    run = _asking(world)
    run.question()
    world.stop = True
    assert "rejected by eva" in refused(lambda: run.answer(approved=False)).what
    world.stop = False
    refused(lambda: run.step("clear_locks"))
    assert world.touched() == ["agent.service hold"]


def test_a_copy_that_runs_is_not_followed_to_its_end(world: World) -> None:
    """It should leave a running copy within seconds, swap nothing, count it still, and use it once the stop is gone."""
    world.copy_looks = 100_000
    run = Run(world)
    run.open()
    run.lane(end="clear_locks")
    pause, began = world.clock.pause, world.clock.now()

    def passing(seconds: float) -> None:
        pause(seconds)
        world.stop = (world.clock.now() - began).total_seconds() > 60

    world.clock.pause = passing  # type: ignore[method-assign]  # somebody sets the stop after a minute
    assert "unlatch_stop" in refused(lambda: run.step("recreate_files")).what
    assert (world.clock.now() - began).total_seconds() < 70
    assert "agent.commit" not in world.touched()
    assert len({*world.store.slots("volume:dbs03"), *world.store.slots("repairs")}) == 2, "it goes on on the guest"
    world.clock.pause, world.stop, world.copy_looks = pause, False, 0  # type: ignore[method-assign]
    run.lane(start="recreate_files")
    run.finish()
    assert run.state == "awaiting_purge"
    assert set(world.swaps.values()) == {1}


@pytest.mark.parametrize("call", ["agent.prepare", "agent.status"])
def test_a_copy_that_has_ended_is_not_committed(world: World, call: str) -> None:
    """It should not swap what was copied when the stop was set during a copy that is too short to be asked."""
    run = Run(world)
    run.open()
    run.lane(end="clear_locks")
    world.after(call, lambda: setattr(world, "stop", True))
    assert "unlatch_stop" in refused(lambda: run.step("recreate_files")).what
    assert "agent.commit" not in world.touched()
    assert all(entry.state != "committed" for entry in world.journal.values())


@pytest.mark.parametrize("step", ["clear_locks", "recreate_files", "restart_database"])
def test_a_stop_in_the_midst_of_a_step(world: World, step: str) -> None:
    """It should come to its gate and not act, in a step that had begun when the stop was set."""
    run = Run(world)
    run.open()
    run.lane(end=NAMES[NAMES.index(step) - 1])
    before = len(world.touched())
    asked = iter([False])  # when the step begins; afterwards it is set
    ports = dataclasses.replace(world.ports, stop_requested=lambda: next(asked, True))
    case = world.case(run.incident, "voms")
    assert "unlatch_stop" in refused(lambda: LANE[NAMES.index(step)](case, ports)).what
    assert set(world.touched()[before:]) <= {"agent.service hold"}


def test_a_stop_while_it_waits_for_the_right_to_start(world: World) -> None:
    """It should not start a database when the stop was set while another lane was freeing locks."""
    run = Run(world)
    run.open()
    run.lane(end="recreate_files")
    assert world.store.take_lease("start:voms", "inc-other/lxr") is None
    pause = world.clock.pause

    def passing(seconds: float) -> None:
        pause(seconds)
        world.stop = True
        world.store.release_lease("start:voms", "inc-other/lxr")

    world.clock.pause = passing  # type: ignore[method-assign]
    assert "unlatch_stop" in refused(lambda: run.step("restart_database")).what
    assert world.units["voms"].starts == 0
    assert world.store.lease_owner("start:voms") is None


@pytest.mark.parametrize("confirmed", [True, False])
def test_the_owner(new_world: Callable[..., World], confirmed: bool) -> None:
    """It should not ask the owner, nor take a yes; a no is kept."""
    world = new_world(instance(owner_confirms=True))
    run = Run(world)
    run.open()
    run.lane()
    case = world.case(run.incident, "voms")
    world.stop = True
    assert "unlatch_stop" in refused(lambda: owner_question(case, world.ports)).what
    answer = lambda: confirm_by_owner(case, world.ports, approved=confirmed, by="eva", comment=None)  # noqa: E731
    if confirmed:
        assert "unlatch_stop" in refused(answer).what
        assert world.store.step(run.incident, "voms", "confirm_by_owner") is None
    else:
        with pytest.raises(Exception, match="does not confirm"):
            answer()


def test_the_end_of_the_run_is_still_told(world: World) -> None:
    """It should say in the ticket how it ended, although the stop is set: telling people touches nothing."""
    run = Run(world)
    run.open()
    run.lane(end="verdict")
    world.stop = True
    refused(lambda: run.step("clear_locks"))
    assert "1 of 1 instances" in run.finish_fails().what
    assert "Run ended" in world.tickets.text
    assert world.store.lease_owner("instance:voms") is None
