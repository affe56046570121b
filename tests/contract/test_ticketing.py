"""The contract of every ticket system.

A new one needs tests/contract/ticketing/NAME.py: its settings, and how to look into its tickets; `running(directory)`
is a context manager with the server, for systems that have one.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

from unlatch.discovery import load_plugins
from unlatch.ports import Ticketing

ROOT = Path(__file__).resolve().parents[2]
INCIDENT = "inc-20141018-035452-dbvrtg4037"
SYSTEMS = load_plugins("unlatch.ticketing")


class Desk(NamedTuple):
    """A ticket system, and a way to look into it."""

    name: str
    tickets: Ticketing
    look: ModuleType
    directory: Path

    def again(self) -> Ticketing:
        """The same system as another process of the same site sees it."""
        return SYSTEMS[self.name].PLUGIN(self.look.settings(self.directory))


@pytest.fixture(params=sorted(SYSTEMS))
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Desk]:
    try:
        look = importlib.import_module(f"tests.contract.ticketing.{request.param}")
    except ModuleNotFoundError:
        pytest.fail(f"tests/contract/ticketing/{request.param}.py is missing")
    with getattr(look, "running", nullcontext)(tmp_path):
        yield Desk(request.param, SYSTEMS[request.param].PLUGIN(look.settings(tmp_path)), look, tmp_path)


def test_the_plugin_is_called_like_its_module(desk: Desk) -> None:
    """It should be found under the name that the inventory writes."""
    assert SYSTEMS[desk.name].__name__ == f"unlatch.ticketing.{desk.name}"
    assert desk.tickets.name == desk.name


def test_opening_twice_is_one_ticket(desk: Desk) -> None:
    """It should find the ticket that is there, from another process too, and leave it as it is."""
    reference = desk.tickets.open(INCIDENT, "dbvrtg4037 crashed: voms, lxr", "Three databases are down.")
    desk.tickets.comment(reference, "voms/verdict", "dead")
    assert desk.again().open(INCIDENT, "Another title", "Another body") == reference
    assert len(desk.look.tickets(desk.directory)) == 1
    assert desk.look.title(reference) == "dbvrtg4037 crashed: voms, lxr"
    assert "Three databases are down." in desk.look.body(reference)
    assert desk.look.comments(reference) == ["dead"]


def test_another_incident_is_another_ticket(desk: Desk) -> None:
    """It should not mix incidents."""
    first = desk.tickets.open(INCIDENT, "one", "")
    second = desk.tickets.open(f"{INCIDENT}x", "two", "")
    assert first != second
    assert len(desk.look.tickets(desk.directory)) == 2


def test_a_comment_is_made_once_per_marker(desk: Desk) -> None:
    """It should add nothing when a step is retried, also with other words, and keep the order of first calls."""
    reference = desk.tickets.open(INCIDENT, "title", "body")
    for marker, text in [
        ("a", "first"),
        ("b", "second\n\nwith two paragraphs"),
        ("a", "first, retried"),
        ("c", "third"),
    ]:
        desk.tickets.comment(reference, marker, text)
    desk.again().comment(reference, "b", "second, retried")
    assert desk.look.comments(reference) == ["first", "second\n\nwith two paragraphs", "third"]


def test_markers_that_look_alike_are_told_apart(desk: Desk) -> None:
    """It should tell `a` from `a/b` and `a--b` from `a-b`."""
    reference = desk.tickets.open(INCIDENT, "title", "body")
    markers = ["a", "a/b", "a-b", "a--b", "a-->b", "a b", "%2d", "-", "--", "\u00e4", "A", "a\nb"]
    for marker in [*markers, *reversed(markers)]:
        desk.tickets.comment(reference, marker, f"text of {markers.index(marker)}")
    assert desk.look.comments(reference) == [f"text of {number}" for number in range(len(markers))]


def test_the_state_is_the_last_one_said(desk: Desk) -> None:
    """It should take every state of the contract, again and again, and refuse others."""
    reference = desk.tickets.open(INCIDENT, "title", "body")
    assert desk.look.state(reference) == "open"
    for state in ("in progress", "waiting", "waiting", "in progress", "resolved", "closed", "open"):
        desk.tickets.set_state(reference, state)
        assert desk.look.state(reference) == state
    with pytest.raises(ValueError, match="'done' is no state"):
        desk.tickets.set_state(reference, "done")
    assert desk.look.state(reference) == "open"


def test_text_cannot_forge_a_marker_or_a_state(desk: Desk) -> None:
    """It should treat the database's words as words: an error log must not keep a later comment out."""
    reference = desk.tickets.open(INCIDENT, "title\nsecond line", "<!-- unlatch: comment b -->\n**State:** closed")
    desk.tickets.comment(reference, "a", "<!-- unlatch: comment b -->\n<!--\n**State:** closed")
    desk.tickets.comment(reference, "b", "said \udc80")
    desk.tickets.set_state(reference, "waiting")
    assert desk.look.state(reference) == "waiting"
    assert desk.look.title(reference) == "title second line"
    assert desk.look.comments(reference)[1] == "said \\udc80"
    assert "**State:** closed" in desk.look.comments(reference)[0]


def test_a_reference_that_a_person_gave_is_kept(desk: Desk) -> None:
    """It should name the ticket that people already talk in."""
    reference = desk.tickets.open(INCIDENT, "title", "body", "GGUS-109455")
    assert "GGUS-109455" in desk.look.body(reference)
    desk.tickets.comment(reference, "a", "text")
    assert desk.look.comments(reference) == ["text"]


def test_processes_that_comment_at_once_lose_nothing(desk: Desk) -> None:
    """It should keep every comment of every process, and those with one marker once."""
    reference = desk.tickets.open(INCIDENT, "title", "body")
    command = [sys.executable, "-m", "tests.contract.ticketing.commenter", desk.name, str(desk.directory), reference]
    running = [subprocess.Popen([*command, name, "15"], cwd=ROOT) for name in ("voms", "lxr", "alvmysql")]
    assert [process.wait() for process in running] == [0, 0, 0]
    made = desk.look.comments(reference)
    for name in ("voms", "lxr", "alvmysql", "everyone"):
        assert [text for text in made if text.startswith(name)] == [f"{name} says {number}" for number in range(15)]
    assert len(made) == 60
    assert desk.look.state(reference) == "in progress"
