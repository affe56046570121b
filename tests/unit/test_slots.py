"""Turns: how many may copy at once, who waits for whom, and what a killed lane leaves behind."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import timedelta

import pytest

from tests.unit.fakes import World
from tests.unit.lanes import Run
from tests.unit.world_parts import Killed, instance
from unlatch.errors import RefusedError, TransientError
from unlatch.lifecycle import IncidentState
from unlatch.models import Policy
from unlatch.recording import Case
from unlatch.slots import LOOK_S, PATIENCE_S, repair_slot, wait_for_turn

OTHERS = ("inc-other/lxr", "inc-other/web")


@pytest.fixture
def case(world: World) -> Case:
    """An opened incident's lane, and another incident that works."""
    run = Run(world)
    run.open()
    row = world.store.incident(run.incident)
    world.store.open_incident(dataclasses.replace(row, incident="inc-other", state=IncidentState.DETECTED))
    return world.case(run.incident, "voms")


def taken(world: World) -> dict[str, str]:
    return {**world.store.slots("volume:dbs03"), **world.store.slots("repairs")}


def full(world: World) -> None:
    for owner in OTHERS:
        assert world.store.take_slot("volume:dbs03", 2, owner) == ()


def notes(world: World, case: Case) -> list[dict[str, object]]:
    return [r.detail for r in world.store.audit_rows(incident=case.incident) if r.phase == "waiting"]


def test_the_note_is_about_the_step_that_waits(world: World) -> None:
    """It should be found under the step that the person looks at, with its attempt."""
    run = Run(world)
    run.open()
    row = world.store.incident(run.incident)
    world.store.open_incident(dataclasses.replace(row, incident="inc-other", state=IncidentState.DETECTED))
    assert world.store.take_lease("instance:voms", "inc-other") is None
    with pytest.raises(TransientError, match=r"waited 600 s for its turn to be repaired; taken by inc-other\."):
        run.step("check_locks")
    (note,) = (r for r in world.store.audit_rows(incident=run.incident) if r.phase == "waiting")
    assert (note.instance, note.step, note.attempt) == ("voms", "check_locks", 1)


def test_a_lane_has_one_slot_of_each_kind(world: World, case: Case) -> None:
    """It should keep a slot of the volume and one in all while it copies, and none afterwards."""
    with repair_slot(case, world.ports):
        owner = f"{case.incident}/voms"
        assert taken(world) == {"volume:dbs03:1": owner, "repairs:1": owner}
    assert taken(world) == {}
    assert notes(world, case) == []


@pytest.mark.parametrize("error", [RefusedError("no space"), ValueError("a bug")])
def test_a_failure_gives_the_slots_back(world: World, case: Case, error: Exception) -> None:
    """It should leave nothing behind when the copy fails, and raise on what happened."""
    with pytest.raises(type(error)) as raised, repair_slot(case, world.ports):
        raise error
    assert raised.value is error
    assert taken(world) == {}


def test_a_copy_whose_end_is_not_known_keeps_its_slots(world: World, case: Case) -> None:
    """It should count a copy that may still run on the guest, until the lane's next try has seen its end."""
    with pytest.raises(TransientError), repair_slot(case, world.ports):
        raise TransientError("the guest does not answer.")
    assert len(taken(world)) == 2
    with repair_slot(case, world.ports):
        assert len(taken(world)) == 2
    assert taken(world) == {}


def test_it_waits_until_a_slot_is_free(world: World, case: Case) -> None:
    """It should wait for others on the volume, tell so once, and go on as soon as one of them has finished."""
    full(world)
    before = world.clock.now()
    pause, looks = world.clock.pause, []

    def passing(seconds: float) -> None:
        pause(seconds)
        looks.append(seconds)
        if len(looks) == 3:
            world.store.release_slot("volume:dbs03", OTHERS[0])

    world.clock.pause = passing  # type: ignore[method-assign]  # the others work while this one waits
    with repair_slot(case, world.ports):
        assert set(taken(world).values()) == {f"{case.incident}/voms", OTHERS[1]}
    assert world.clock.now() - before == timedelta(seconds=3 * LOOK_S)
    assert notes(world, case) == [
        {"for": "one of 2 copies on the volume dbs03 at the same time", "taken_by": list(OTHERS), "limit_s": PATIENCE_S}
    ]


def test_it_gives_up_for_this_try(world: World, case: Case) -> None:
    """It should let Airflow try again after ten minutes, say who has the slots, and leave nothing behind."""
    full(world)
    before = world.clock.now()
    with pytest.raises(TransientError, match="inc-other/lxr, inc-other/web") as raised, repair_slot(case, world.ports):
        pytest.fail("it has no slot")
    assert "unlatch show inc-other" in raised.value.next_step
    assert world.clock.now() - before == timedelta(seconds=PATIENCE_S)
    assert set(taken(world).values()) == set(OTHERS)


def test_the_limit_of_all_volumes_counts_too(world: World, case: Case) -> None:
    """It should wait for copies on other volumes when there are as many as the policy allows in all."""
    world.policy = Policy(repairs_at_once=1)
    assert world.store.take_slot("repairs", 1, "inc-other/far") == ()
    with pytest.raises(TransientError, match="one of 1 copies at the same time"), repair_slot(case, world.ports):
        pytest.fail("it has no slot")
    assert taken(world) == {"repairs:1": "inc-other/far"}


def test_slots_of_an_incident_that_ended_are_free(world: World, case: Case) -> None:
    """It should not wait for lanes that were killed and never came back, once their incident has ended."""
    full(world)
    world.store.set_state("inc-other", IncidentState.FAILED)
    with repair_slot(case, world.ports):
        assert f"{case.incident}/voms" in taken(world).values()
    assert notes(world, case) == []


def test_the_global_stop_ends_the_wait(world: World, case: Case) -> None:
    """It should stop waiting when a person sets the stop meanwhile."""
    full(world)
    pause = world.clock.pause

    def passing(seconds: float) -> None:
        pause(seconds)
        world.stop = True

    world.clock.pause = passing  # type: ignore[method-assign]
    with pytest.raises(RefusedError, match="unlatch_stop"), repair_slot(case, world.ports):
        pytest.fail("it has no slot")


def test_killed_anywhere_and_run_again(new_world: Callable[..., World]) -> None:
    """It should have one slot of each kind, and none at the end, wherever the first try was killed."""

    def lane(world: World) -> None:
        with repair_slot(world.case(Run(world).incident, "voms"), world.ports):
            assert len(taken(world)) == 2
            world.agent.facts()

    counting = new_world()
    Run(counting).open()
    first = len(counting.calls)
    lane(counting)
    last = len(counting.calls)
    assert last - first == 5
    for index in range(first, last):
        world = new_world()
        Run(world).open()
        world.dies_at = index
        with pytest.raises(Killed):
            lane(world)
        assert world.dies_at is None
        world.dead = False
        lane(world)
        assert taken(world) == {}, f"killed before call {index}"


def test_lanes_of_one_incident_share_the_limit(new_world: Callable[..., World]) -> None:
    """It should count two instances of one incident as two."""
    world = new_world(instance("voms"), instance("lxr", port=5432))
    world.policy = Policy(repairs_per_volume=1)
    run = Run(world)
    run.open()
    first, second = (world.case(run.incident, name) for name in ("voms", "lxr"))
    with (
        repair_slot(first, world.ports),
        pytest.raises(TransientError, match=f"taken by {run.incident}/voms"),
        repair_slot(second, world.ports),
    ):
        pytest.fail("it has no slot")
    assert taken(world) == {}


def test_waiting_for_the_lease_of_an_instance(world: World, case: Case) -> None:
    """It should wait for another incident's repair of the same instance in the same way."""
    assert world.store.take_lease("instance:voms", "inc-other") is None
    answers = iter([("inc-other",), ("inc-other",), ()])
    wait_for_turn(case, world.ports, what="the instance", take=lambda: next(answers))
    assert [note["taken_by"] for note in notes(world, case)] == [["inc-other"]]
    with pytest.raises(TransientError, match="waited 600 s for the instance"):
        wait_for_turn(case, world.ports, what="the instance", take=lambda: ("inc-other",))
