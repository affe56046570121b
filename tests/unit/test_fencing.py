"""The site's fence: applied when no log says that the guest died, verified, counted as evidence, undone at the end."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.unit.fakes import World
from tests.unit.lanes import Run, refused
from tests.unit.world_parts import GUEST, instance
from unlatch import fencing
from unlatch.casebook import Incident
from unlatch.errors import CheckFailedError
from unlatch.models import Answer, Certainty, Fence

FENCE = Fence("hypervisor", ("virsh", "reset"), ("fenced",), ("unfence",))
FENCED = dataclasses.replace(GUEST, fence=FENCE)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A guest that crashed, and a hypervisor whose log says nothing of it."""
    made = World(tmp_path / "unlatch.db")
    made.answers["hypervisor_log"] = Answer.NOT_OBSERVED
    return made


def subject(run: Run, *, certain: bool = False, dry_run: bool = False) -> Incident:
    """The incident, with or without a log line that says the death."""
    event = run.world.event if certain else None
    return Incident(run.incident, FENCED, ("voms",), event, dry_run)


def opened(world: World) -> Run:
    run = Run(world)
    run.open()
    return run


def test_fence_that_holds_is_a_proof(world: World) -> None:
    """It should run the command once, see that it holds, and let the repair go on without a person."""
    run = opened(world)
    for _ in range(2):
        fencing.fence_once(subject(run), world.incident_ports)
    assert world.run_on == [
        ("hypervisor", GUEST.name, ("virsh", "reset")),
        ("hypervisor", GUEST.name, ("fenced",)),
    ]
    run.lane(end="verdict")
    found = run.row("verdict").result
    assert found["verdict"]["kind"] == "dead"
    assert found["plan"]["needs_person"] is None


def test_fence_that_does_not_hold_is_a_veto(world: World) -> None:
    """It should fail, and no lane may act after it, whoever approves."""
    world.commands["fenced"] = 1
    run = opened(world)
    with pytest.raises(CheckFailedError, match="not seen to hold after 120 s: fenced says so"):
        fencing.fence_once(subject(run), world.incident_ports)
    run.lane(end="hold_service")
    assert "fence" in refused(lambda: run.step("verdict")).what


def test_fence_that_cannot_be_applied_says_how_to_try_it(world: World) -> None:
    """It should name the command and where it runs."""
    world.commands["virsh"] = 5
    run = opened(world)
    with pytest.raises(CheckFailedError) as caught:
        fencing.fence_once(subject(run), world.incident_ports)
    assert "exit code 5" in caught.value.what
    assert "on the hypervisor: virsh reset" in caught.value.next_step


def test_fence_is_not_needed_when_the_log_says_it(world: World) -> None:
    """It should not reset a guest whose death a log says for certain, nor in a dry run; a mere sign is not enough."""
    run = opened(world)
    assert not fencing.needs_fence(subject(run, certain=True))
    assert not fencing.needs_fence(subject(run, dry_run=True))
    ambiguous = dataclasses.replace(world.event, certainty=Certainty.AMBIGUOUS)
    assert fencing.needs_fence(dataclasses.replace(subject(run), event=ambiguous))


def test_fence_is_undone_once(world: World) -> None:
    """It should undo what it applied, once; and a fence that was undone proves nothing any more."""
    run = opened(world)
    fencing.unfence_once(subject(run), world.incident_ports)
    assert world.run_on == [], "nothing was fenced yet"
    fencing.fence_once(subject(run), world.incident_ports)
    for _ in range(2):
        fencing.unfence_once(subject(run), world.incident_ports)
    assert [argv[0] for _, _, argv in world.run_on] == ["virsh", "fenced", "unfence"]
    run.lane(end="verdict")
    assert run.row("verdict").result["verdict"]["kind"] == "unknown"


def test_fence_that_stays_is_told(world: World) -> None:
    """It should fail when it cannot be undone, and try again when the task is cleared."""
    run = opened(world)
    fencing.fence_once(subject(run), world.incident_ports)
    world.commands["unfence"] = 1
    with pytest.raises(CheckFailedError, match="could not be undone: somebody is still cut off"):
        fencing.unfence_once(subject(run), world.incident_ports)
    world.commands.clear()
    fencing.unfence_once(subject(run), world.incident_ports)
    assert world.store.step(run.incident, "", "unfence").phase == "done"


def test_failed_fence_stays_a_veto_after_it_was_undone(world: World) -> None:
    """It should not forget a fence that failed: what was behind it may live, whether it was let in again or not."""
    world.commands["fenced"] = 1
    run = opened(world)
    with pytest.raises(CheckFailedError):
        fencing.fence_once(subject(run), world.incident_ports)
    fencing.unfence_once(subject(run), world.incident_ports)
    assert fencing.in_force(world.store, run.incident) is False
    run.lane(end="hold_service")
    assert "fence" in refused(lambda: run.step("verdict")).what
    world.commands.clear()
    world.clock.pause(1)
    fencing.fence_once(subject(run), world.incident_ports)
    assert fencing.in_force(world.store, run.incident) is True, "a later one that holds counts"


def test_fence_is_applied_again_after_it_was_undone(world: World) -> None:
    """It should fence again when the run is cleared after its end."""
    run = opened(world)
    for _ in range(2):
        fencing.fence_once(subject(run), world.incident_ports)
        fencing.unfence_once(subject(run), world.incident_ports)
        world.clock.pause(1)
    assert [argv[0] for _, _, argv in world.run_on] == ["virsh", "fenced", "unfence"] * 2


@pytest.mark.parametrize("ends_in", ["failed", "intent"])
def test_fence_whose_undoing_has_begun_proves_nothing(world: World, ends_in: str) -> None:
    """It should not rely on a fence that may be lifted: its undoing failed half-way, or its worker was killed."""
    run = opened(world)
    fencing.fence_once(subject(run), world.incident_ports)
    if ends_in == "failed":
        world.commands["unfence"] = 1
        with pytest.raises(CheckFailedError):
            fencing.unfence_once(subject(run), world.incident_ports)
    else:
        world.store.begin(run.incident, "", "unfence", actor="eva", detail={})
    assert fencing.in_force(world.store, run.incident) is None
    run.lane(end="verdict")
    assert run.row("verdict").result["verdict"]["kind"] == "unknown"


def test_guest_whose_databases_answer_is_not_fenced(world: World) -> None:
    """It should not reset a guest on which any database takes connections, say so, and leave the answer to a person."""
    world.instances["alvmysql"] = instance("alvmysql", port=3307)
    world.listening = {("127.0.0.1", 3307)}
    run = opened(world)
    for _ in range(2):
        fencing.fence_once(subject(run), world.incident_ports)
    assert world.run_on == []
    assert fencing.in_force(world.store, run.incident) is None
    assert "dbvrtg4037 was not fenced" in world.tickets.text
    assert world.tickets.text.count("alvmysql (127.0.0.1:3307) takes connections") == 1
    run.lane(end="verdict")
    assert run.row("verdict").result["verdict"]["kind"] == "unknown"
    world.listening.clear()
    fencing.fence_once(subject(run), world.incident_ports)
    assert fencing.in_force(world.store, run.incident) is True, "nothing answers any more"
