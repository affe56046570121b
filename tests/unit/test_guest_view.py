"""One look asks the guest each question once, also one that fails; and what its clock says counts from then."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.builders import instance
from unlatch.errors import RefusedError, TransientError, UnlatchError, UnreachableError
from unlatch.guest_view import RememberedGuest
from unlatch.memory import Memory

DATADIR = PurePosixPath("/ORA/dbs03/voms")
NOW = datetime(2026, 3, 7, 5, 55, tzinfo=UTC)


class CountingAgent:
    """Answers with the number of the question, or raises; each answer takes a while, and its clock may be off."""

    def __init__(self) -> None:
        self.asked = 0
        self.error: Exception | None = None
        self.takes = self.off = timedelta(0)
        self.time = NOW

    def now(self) -> datetime:
        return self.time

    def facts(self, *_: Any) -> Any:
        self._ask()
        at = self.time + self.off
        self.time += self.takes
        return SimpleNamespace(now=at, number=self.asked)

    def __getattr__(self, name: str) -> Any:
        def answer(*_: Any) -> Any:
            self._ask()
            return (name, self.asked)

        return answer

    def _ask(self) -> None:
        self.asked += 1
        if self.error is not None:
            raise self.error


def guest(agent: CountingAgent) -> RememberedGuest:
    return RememberedGuest(agent, agent)  # type: ignore[arg-type]  # doubles


def test_equal_questions_are_asked_once() -> None:
    """It should answer the same question from memory, and another one anew."""
    agent = CountingAgent()
    view = guest(agent)
    assert view.check_locks(instance(), (DATADIR,), ()) == view.check_locks(instance(), (DATADIR,), ())
    assert agent.asked == 1
    view.check_locks(instance(), (DATADIR,), (DATADIR / "x.pid",))
    view.openers(instance(), ("mariadbd",))
    view.openers(instance("lxr"), ("mariadbd",))
    view.facts([DATADIR])
    view.clock_skew([DATADIR])
    assert agent.asked == 5


def test_second_look_is_a_new_one() -> None:
    """It should ask again through `anew`, and keep the first look's answers: two samples of one memory are equal."""
    agent = CountingAgent()
    view = guest(agent)
    first = view.facts()
    assert view.anew().facts() != first
    assert view.facts() == first


@pytest.mark.parametrize(
    "error", [TransientError("no answer"), RefusedError("no", next_step="ask eva", detail={"a": 1})]
)
def test_failure_is_remembered_for_its_question_alone(error: UnlatchError) -> None:
    """It should not wait for the same failure twice, and raise it each time as a new error with the same words."""
    agent = CountingAgent()
    agent.error = error
    view = guest(agent)
    raised = []
    for _ in range(2):
        with pytest.raises(type(error)) as found:
            view.facts()
        raised.append(found.value)
    assert agent.asked == 1
    assert raised[0] is not raised[1]
    assert all((e.what, e.next_step, e.detail) == (error.what, error.next_step, error.detail) for e in raised)
    agent.error = None
    assert view.openers(instance(), ()) == ("openers", 2)


def test_silent_guest_is_asked_nothing_more() -> None:
    """It should not wait for the time limit of another question, also not in the second look."""
    agent = CountingAgent()
    agent.error = UnreachableError("silence")
    view = guest(agent)
    for ask in (view.facts, view.live_locks, view.anew().facts):
        with pytest.raises(UnreachableError, match="silence"):
            ask()
    assert agent.asked == 1


def test_what_the_guest_told_before_it_fell_silent_counts() -> None:
    """It should keep answers of before: a sign of life stays one."""
    agent = CountingAgent()
    view = guest(agent)
    seen = view.openers(instance(), ())
    agent.error = UnreachableError("silence")
    with pytest.raises(UnreachableError):
        view.facts()
    assert view.openers(instance(), ()) == seen


def test_mistakes_are_not_remembered() -> None:
    """It should let an error that is none of Unlatch's own through as it is, each time."""
    memory = Memory()
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            memory.ask("q", lambda: 1 // 0)
    assert memory.ask("q", lambda: 7) == 7


@given(st.integers(0, 90), st.integers(-3600, 3600), st.integers(0, 600))
def test_clock_skew_is_that_of_the_answer(takes_s: int, off_s: int, later_s: int) -> None:
    """It should compare the clocks as of the question, however late that is asked for; its own time is no skew."""
    agent = CountingAgent()
    agent.takes, agent.off = timedelta(seconds=takes_s), timedelta(seconds=off_s)
    view = guest(agent)
    view.facts()
    agent.time += timedelta(seconds=later_s)
    beyond = off_s if off_s < 0 else max(0, off_s - takes_s)
    assert view.clock_skew() == timedelta(seconds=beyond)
