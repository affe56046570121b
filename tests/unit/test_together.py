"""A hypervisor that takes several guests with it: one group, told in every ticket."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest

from tests.unit.fakes import World
from tests.unit.lanes import Run, refused
from tests.unit.world_parts import DIED_AT
from unlatch import casebook
from unlatch.lifecycle import IncidentState
from unlatch.models import Policy, Storm, incident_id
from unlatch.ports import IncidentRow
from unlatch.together import group_of


def another(world: World, guest: str, after_s: float, *, opened: bool = True) -> str:
    """Another guest of the same hypervisor died; its incident's id."""
    at = DIED_AT + timedelta(seconds=after_s)
    event = dataclasses.replace(world.event, domain=guest, guest=guest, at=at, restarted_at=None)
    world.store.record_event(event, guest)
    name = incident_id(at, guest)
    if opened:
        now, state = world.clock.now(), IncidentState.REPAIRING
        row = IncidentRow(name, guest, state, now, at, False, "", None, event)
        world.store.open_incident(row)
        world.store.set_ticket(name, f"TICKET-{guest}")
    return name


def detected(world: World) -> Run:
    """The incident of our guest, as the watch and `detect_crash` open it."""
    run = Run(world)
    run.open()
    return run


def test_every_ticket_names_the_others(world: World) -> None:
    """It should name the group, who died with it, and the ticket that leads; with who is known at that moment."""
    first = another(world, "db1", -20)
    another(world, "db2", 30, opened=False)
    run = detected(world)
    assert "**3 guests of hv01 died within 50 s** (group grp-" in world.tickets.text
    assert f"| db1 | {DIED_AT - timedelta(seconds=20):%Y-%m-%d %H:%M:%S} | {first} | TICKET-db1 |" in world.tickets.text
    assert "not opened yet" in world.tickets.text
    assert "The ticket of the group is that of its first incident: TICKET-db1." in world.tickets.text
    assert run.incident in world.tickets.text


def test_a_group_that_grew_is_told_again_and_only_then(world: World) -> None:
    """It should add what became known, and say nothing twice."""
    another(world, "db1", -20)
    run = detected(world)
    casebook.wait_for_guest(run.whole, world.incident_ports)
    told = [text for text in world.tickets.comments.values() if "(group grp-" in text]
    casebook.detect_crash(run.request, world.incident_ports)
    assert [text for text in world.tickets.comments.values() if "(group grp-" in text] == told
    another(world, "db2", 40)
    casebook.wait_for_guest(run.whole, world.incident_ports)
    assert len([text for text in world.tickets.comments.values() if "(group grp-" in text]) == len(told) + 1


def test_alone_it_is_no_group(world: World) -> None:
    """It should say nothing of a group when nobody died with it, or long before."""
    another(world, "db1", -600)
    detected(world)
    assert "group" not in world.tickets.text
    assert group_of(None, "x", world.store) is None


def test_storm_of_one_hypervisor_names_the_group(world: World) -> None:
    """It should tell whoever is asked that one cause may be behind all of them."""
    world.policy = Policy(storm=Storm(events=2, window_s=600))
    for number in range(3):
        another(world, f"db{number}", number - 5)
    run = detected(world)
    run.lane(end="verdict")
    question = run.question() or ""
    assert "a storm: 4 machines died" in question
    assert "4 of them on hv01, one soon after the other (group grp-" in question


def test_one_death_told_by_several_logs_is_no_storm(world: World) -> None:
    """It should count deaths, not the logs that tell of them."""
    world.policy = Policy(storm=Storm(events=2, window_s=600))
    for number in range(5):
        told = dataclasses.replace(world.event, source=f"kernel:/log{number}", at=DIED_AT + timedelta(seconds=number))
        world.store.record_event(told, world.event.guest)
    run = detected(world)
    run.lane(end="verdict")
    assert run.question() is None


@pytest.mark.parametrize("step", ["clear_locks", "recreate_files"])
def test_storm_that_comes_up_holds_a_repair_that_has_not_swapped(world: World, step: str) -> None:
    """It should ask a person before the next touch when more machines die after the plan, and go on with a yes."""
    world.policy = Policy(storm=Storm(events=2, window_s=600))
    run = detected(world)
    run.lane(end="verdict" if step == "clear_locks" else "clear_locks")
    assert run.question() is None
    for number in range(3):
        another(world, f"other{number}", after_s=number)
    assert "a storm: 4 machines died" in refused(lambda: run.step(step)).what
    assert {path.name for path in world.swaps} <= {"server.pid"}
    run.step("verdict")
    assert "a storm" in (run.question() or "")
    run.answer(approved=True)
    run.lane(start="clear_locks")
    assert world.units["voms"].running


def test_storm_does_not_leave_a_finished_repair_down(world: World) -> None:
    """It should start the database whose files are done, whatever dies meanwhile."""
    world.policy = Policy(storm=Storm(events=2, window_s=600))
    run = detected(world)
    run.lane(end="recreate_files")
    for number in range(3):
        another(world, f"other{number}", after_s=number)
    run.lane(start="restart_database")
    assert world.units["voms"].running
