"""Recording: the intent before, the outcome after, and the words of every failure."""

from __future__ import annotations

import pytest

from tests.unit.fakes import World
from tests.unit.lanes import Run
from tests.unit.world_parts import Killed
from unlatch.errors import CheckFailedError, ConfigError, RefusedError, TransientError
from unlatch.models import Json
from unlatch.ports import Ports
from unlatch.recording import Case, recorded, result_of


@pytest.fixture
def run(world: World) -> Run:
    """An opened incident."""
    made = Run(world)
    made.open()
    return made


def _step(outcome: Json | BaseException) -> object:
    @recorded
    def look(case: Case, ports: Ports) -> Json:
        ports.agent.facts()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return look


def _do(run: Run, outcome: Json | BaseException) -> Json:
    return _step(outcome)(run.world.case(run.incident, "voms"), run.world.ports)


def test_intent_comes_first(run: Run) -> None:
    """It should record the intent before the step looks at anything, and its result afterwards."""
    before = len(run.world.calls)
    assert _do(run, {"seen": 1}) == {"seen": 1}
    assert [c.name for c in run.world.calls[before:]] == ["store.begin", "agent.facts", "store.end"]
    row = run.row("look")
    assert (row.phase, row.result, row.attempt) == ("done", {"seen": 1}, 1)


def test_no_intent_no_act(run: Run) -> None:
    """It should not run the step when the intent cannot be recorded."""

    def broken(*_: object, **__: object) -> None:
        raise TransientError("the store is locked")

    run.world.store.begin = broken
    before = len(run.world.calls)
    with pytest.raises(TransientError, match="locked"):
        _do(run, {})
    assert run.world.calls[before:] == []


@pytest.mark.parametrize(
    ("error", "phase", "told"),
    [
        (RefusedError("it lives", next_step="look"), "refused", True),
        (CheckFailedError("it is not there", next_step="look"), "failed", True),
        (ConfigError("no sudo", next_step="grant it"), "failed", True),
        (TransientError("no answer", next_step="wait"), "retry", False),
        (ZeroDivisionError("division by zero"), "failed", True),
    ],
)
def test_failures_are_recorded_in_words(run: Run, error: Exception, phase: str, told: bool) -> None:
    """It should record what happened and what to do, tell the ticket unless it is tried again, and raise on."""
    with pytest.raises(type(error)):
        _do(run, error)
    row = run.row("look")
    assert row.phase == phase
    assert str(getattr(error, "what", error)) in row.result["error"]
    assert row.result["next"]
    assert ("look of voms" in run.world.tickets.text) is told


def test_killed_leaves_the_intent(run: Run) -> None:
    """It should not catch what ends the process."""
    with pytest.raises(Killed):
        _do(run, Killed())
    assert run.row("look").phase == "intent"


def test_each_failure_is_told_once(run: Run) -> None:
    """It should tell a second, other failure of the same step, and not repeat the same one."""
    for words in ("disk full", "disk full", "port in use"):
        with pytest.raises(CheckFailedError):
            _do(run, CheckFailedError(words))
    told = [text.splitlines()[2] for text in run.world.tickets.comments.values()]
    assert told == ["disk full", "port in use"]
    assert run.row("look").attempt == 3


def test_ticket_that_fails_does_not_hide_the_failure(run: Run) -> None:
    """It should raise the step's own error although the ticket system is down."""
    run.world.tickets.down = ConnectionError("no route")
    with pytest.raises(RefusedError, match="it lives"):
        _do(run, RefusedError("it lives"))


def test_stop_is_asked_before_the_intent(run: Run) -> None:
    """It should refuse without an intent while the global stop is set, and the audit should say so."""
    run.world.stop = True
    with pytest.raises(RefusedError, match="global stop"):
        _do(run, {})
    assert run.world.store.step(run.incident, "voms", "look") is None
    last = run.world.store.audit_rows(incident=run.incident, limit=1000)[-1]
    assert (last.step, last.phase) == ("look", "refused")


@pytest.mark.parametrize("outcome", [None, RefusedError("it lives"), TransientError("no answer")])
def test_result_of_a_step_that_is_not_done(run: Run, outcome: Exception | None) -> None:
    """It should refuse to act on the result of a step that did not end well, or not at all."""
    if outcome is not None:
        with pytest.raises(type(outcome)):
            _do(run, outcome)
    with pytest.raises(RefusedError, match="look of voms has no result"):
        result_of(run.world.store, run.world.case(run.incident, "voms"), "look")
