"""Messages for the ticket: kept first, told in order, each once, whatever the ticket system or the worker does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.fakes import World
from tests.unit.lanes import Run, tell_the_rest
from tests.unit.world_parts import Killed
from unlatch.deliveries import add_comment, attach_to_ticket, open_ticket, set_ticket_state
from unlatch.errors import ConfigError, TransientError
from unlatch.store.deliveries import CLAIM

DOWN = TransientError("the ticket system is out of reach")


@pytest.fixture
def run(world: World) -> Run:
    """An opened incident."""
    made = Run(world)
    made.open()
    return made


def said(world: World) -> list[str]:
    """The comments of the ticket, in their order."""
    return list(world.tickets.comments.values())


def say(run: Run, *texts: str) -> None:
    for text in texts:
        add_comment(run.incident, "voms", run.world.incident_ports, text, text)


def waiting(run: Run) -> list[tuple[str, str]]:
    return [(row.kind, row.state) for row in run.world.store.deliveries(run.incident)]


def test_what_cannot_be_told_is_told_later_in_order(run: Run) -> None:
    """It should keep the comments and the state of an outage, ask nobody before their time, and tell them in order."""
    world = run.world
    world.tickets.down = DOWN
    say(run, "first")
    calls = len(world.calls)
    say(run, "second")
    set_ticket_state(run.incident, world.incident_ports, "in progress")
    assert not [c.name for c in world.calls[calls:] if c.name.startswith("tickets.")], "a repair waited for it again"
    assert waiting(run) == [("comment", "waiting"), ("comment", "waiting"), ("state", "waiting")]
    world.tickets.down = None
    assert tell_the_rest(world, 1) == 0
    assert tell_the_rest(world, 30) == 3
    assert said(world) == ["first", "second"]
    assert world.tickets.states == ["in progress"]
    assert waiting(run) == []


def test_the_next_comment_tells_what_waits(run: Run) -> None:
    """It should not need the scheduled task when the incident itself goes on."""
    run.world.tickets.down = DOWN
    say(run, "first")
    run.world.tickets.down = None
    run.world.clock.pause(31)
    say(run, "second")
    assert said(run.world) == ["first", "second"]


def test_it_waits_longer_each_time(run: Run) -> None:
    """It should try after 30 s, 60 s, 120 s and so on, but at least every hour."""
    run.world.tickets.down = DOWN
    say(run, "first")
    pauses = []
    for _ in range(10):
        (row,) = run.world.store.deliveries(run.incident)
        pauses.append((row.next_at - run.world.clock.now()).total_seconds())
        tell_the_rest(run.world, pauses[-1])
    assert pauses == [30, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]


def test_a_ticket_that_could_not_be_opened_is_opened_later(world: World) -> None:
    """It should repair meanwhile, then open the ticket and tell everything that happened, in order."""
    world.tickets.down = DOWN
    run = Run(world)
    run.all()
    assert world.store.incident(run.incident).ticket is None
    world.tickets.down = None
    world.clock.pause(3600)
    tell_the_rest(world)
    assert world.store.incident(run.incident).ticket == f"TICKET-{run.incident}"
    assert len(world.tickets.opened) == 1
    assert "previous incarnation dead" in said(world)[0]
    assert "Run ended" in said(world)[-1]
    assert world.tickets.states == ["in progress"]


def test_the_audit_says_it_once(run: Run) -> None:
    """It should note the first failure and the late success, not every try."""
    run.world.tickets.down = DOWN
    say(run, "first")
    for _ in range(3):
        tell_the_rest(run.world, 3600)
    run.world.tickets.down = None
    tell_the_rest(run.world, 3600)
    rows = [r for r in run.world.store.audit_rows(incident=run.incident) if r.step == "update_ticket"]
    assert [(r.phase, r.instance) for r in rows] == [("failed", "voms"), ("delivered", "voms")]
    assert rows[0].detail["error"].startswith("the ticket system is out of reach")
    assert rows[1].detail["attempts"] == 5


def test_killed_between_post_and_mark_it_posts_once(run: Run) -> None:
    """It should find its marker when the worker died after posting and before anybody could note it."""
    world = run.world
    world.after("tickets.comment", lambda: (_ for _ in ()).throw(world.death("after the post")))
    with pytest.raises(Killed):
        say(run, "first")
    world.dead = False
    say(run, "second")
    assert said(world) == ["first"], "the lane is claimed by the dead until the claim ends"
    tell_the_rest(world, CLAIM.total_seconds() + 1)
    assert said(world) == ["first", "second"]


def test_two_workers_tell_one_message(run: Run) -> None:
    """It should leave a lane alone in which another worker is telling; that one tells what came meanwhile."""
    world = run.world
    world.after("tickets.comment", lambda: say(run, "of another lane, meanwhile"))
    say(run, "first")
    assert said(world) == ["first", "of another lane, meanwhile"]
    asked = [c for c in world.calls if c.name == "tickets.comment"]
    assert len(asked) == 2


def test_a_state_that_a_form_forbids_stops_no_words(run: Run) -> None:
    """It should go on with comments when only the state is refused, and try that again by itself."""
    world = run.world
    taken = world.tickets.set_state

    def refuse(*_: Any) -> None:
        raise ConfigError("a data policy asks for a field", next_step="add it")

    world.tickets.set_state = refuse
    set_ticket_state(run.incident, world.incident_ports, "waiting")
    say(run, "first")
    assert said(world) == ["first"]
    assert waiting(run) == [("state", "refused")]
    world.tickets.set_state = taken
    tell_the_rest(world, 120)
    assert world.tickets.states == ["waiting"]


def test_a_later_state_replaces_one_that_waits(run: Run) -> None:
    """It should not open a ticket again that was resolved meanwhile."""
    run.world.tickets.down = DOWN
    for state in ("waiting", "in progress", "resolved"):
        set_ticket_state(run.incident, run.world.incident_ports, state)
    run.world.tickets.down = None
    tell_the_rest(run.world, 60)
    assert run.world.tickets.states == ["resolved"]


def test_a_refused_comment_keeps_its_place_for_a_day(run: Run) -> None:
    """It should keep the order while somebody may correct what is wrong, and give one comment up after a day."""
    world = run.world
    takes = world.tickets.comment

    def refuse(reference: str, marker: str, text: str) -> None:
        if text == "poison":
            raise ConfigError("too long", next_step="shorten it")
        takes(reference, marker, text)

    world.tickets.comment = refuse
    say(run, "poison", "second")
    attach_to_ticket(run.incident, world.incident_ports, file_name="a.txt", content=b"a", content_type="text/plain")
    assert said(world) == []
    assert world.tickets.files == {"a.txt": b"a"}
    assert waiting(run) == [("comment", "refused"), ("comment", "waiting")]
    for _ in range(26):
        tell_the_rest(world, 3600)
    assert said(world) == ["second"]
    assert [row.state for row in world.store.deliveries(run.incident, waiting=False)][-3] == "given_up"
    phases = [r.phase for r in world.store.audit_rows(incident=run.incident) if r.step == "update_ticket"]
    assert phases == ["failed", "given_up"]


def test_what_is_wrong_with_a_plugin_ends_no_step(run: Run) -> None:
    """It should keep a message that the ticket system's own module stumbles over."""

    def stumble(*_: Any) -> None:
        raise KeyError("number")

    run.world.tickets.comment = stumble
    say(run, "first")
    (row,) = run.world.store.deliveries(run.incident)
    assert row.error == "KeyError: 'number'"


def test_now_means_now(run: Run) -> None:
    """It should try everything at the next occasion once somebody has corrected the connection."""
    world = run.world
    world.tickets.down = ConfigError("wrong password", next_step="correct it")
    say(run, "first", "second")
    world.tickets.down = None
    assert world.store.deliver_now() == 1
    assert tell_the_rest(world, 0) == 2
    assert said(world) == ["first", "second"]


def test_the_same_message_is_kept_once(run: Run) -> None:
    """It should not tell a retried step's words again, nor ask the ticket system about them."""
    say(run, "first")
    calls = len(run.world.calls)
    say(run, "first")
    assert not [c.name for c in run.world.calls[calls:] if c.name.startswith("tickets.")]


def test_another_ticket_of_a_person_is_opened_too(run: Run) -> None:
    """It should continue in the ticket that a second request names."""
    open_ticket(run.incident, run.world.incident_ports, title="t", body="b", reference="GGUS-1")
    assert run.world.store.incident(run.incident).ticket == "GGUS-1"


@pytest.mark.parametrize("name", ["postmortem.html", "a/b.pdf"])
def test_a_file_is_not_kept_when_it_is_attached(run: Run, name: str) -> None:
    """It should attach a file once and forget its content."""
    for _ in range(2):
        attach_to_ticket(
            run.incident, run.world.incident_ports, file_name=name, content=b"\x00\xff", content_type="x/y"
        )
    assert run.world.tickets.files == {name: b"\x00\xff"}
    (row,) = [r for r in run.world.store.deliveries(run.incident, waiting=False) if r.kind == "attach"]
    assert row.payload == {}


def test_no_incident_waits_for_another(new_world: Callable[..., World]) -> None:
    """It should tell of one incident while another one's ticket is refused."""
    world = new_world()
    for incident in ("inc-1", "inc-2"):
        world.store.real.open_incident(_row(world, incident))
    world.tickets.down = DOWN
    add_comment("inc-1", "", world.incident_ports, "a", "of the first")
    world.tickets.down = None
    add_comment("inc-2", "", world.incident_ports, "a", "of the second")
    assert said(world) == ["of the second"]


def _row(world: World, incident: str) -> Any:
    from unlatch.lifecycle import IncidentState  # noqa: PLC0415
    from unlatch.ports import IncidentRow  # noqa: PLC0415

    now = world.clock.now()
    return IncidentRow(incident, "g", IncidentState.DETECTED, now, None, False, "", f"T-{incident}", None)
