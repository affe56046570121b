"""The incident's states: what may follow what, written down a second time, and how long each may last."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from unlatch.lifecycle import (
    GIVEN_UP_STATES,
    OPEN_STATES,
    STUCK_AFTER,
    WORKING_STATES,
    ForbiddenTransitionError,
    IncidentState,
    advance,
    stuck_for,
)

NOW = datetime(2026, 3, 9, 8, 0, tzinfo=UTC)

ALLOWED = {
    "detected": "repairing refused failed",
    "repairing": "waiting_for_person accessible refused failed",
    "waiting_for_person": "repairing refused failed",
    "accessible": "confirmed repairing refused failed",
    "confirmed": "awaiting_purge closed repairing reopened refused failed",
    "awaiting_purge": "closed repairing reopened refused failed",
    "closed": "repairing reopened",
    "refused": "repairing closed",
    "failed": "repairing closed",
    "reopened": "repairing closed refused failed",
}
PAIRS = [(a, b) for a in IncidentState for b in IncidentState if a is not b]
FORBIDDEN = [(a, b) for a, b in PAIRS if b.value not in ALLOWED[a.value].split()]


def test_every_state_has_its_followers() -> None:
    """It should know each state, and which may follow it."""
    assert set(ALLOWED) == {state.value for state in IncidentState}
    assert len(FORBIDDEN) + sum(len(words.split()) for words in ALLOWED.values()) == len(PAIRS)


@pytest.mark.parametrize(("present", "wanted"), FORBIDDEN, ids=lambda state: state.value)
def test_forbidden_transition(present: IncidentState, wanted: IncidentState) -> None:
    """It should refuse, and say what can follow instead."""
    with pytest.raises(ForbiddenTransitionError, match=f"{present} cannot become {wanted}; it can become: ") as caught:
        advance(present, wanted)
    assert all(word in str(caught.value) for word in ALLOWED[present.value].split())


@pytest.mark.parametrize(("present", "wanted"), [pair for pair in PAIRS if pair not in FORBIDDEN])
def test_allowed_transition(present: IncidentState, wanted: IncidentState) -> None:
    """It should advance; and stay where it is when that is asked for, so that a step may run twice."""
    assert advance(present, wanted) is wanted
    assert advance(present, present) is present


def test_nothing_is_closed_on_the_way() -> None:
    """It should close only what has ended: nothing in the midst of a repair can be closed."""
    closing = {state for state in IncidentState if "closed" in ALLOWED[state.value].split()}
    assert closing == {IncidentState.CONFIRMED, IncidentState.AWAITING_PURGE} | GIVEN_UP_STATES
    assert not closing & WORKING_STATES


def test_a_purge_can_only_follow_a_confirmed_access() -> None:
    """It should be impossible to owe a purge without having confirmed that the database works."""
    before = {state.value for state in IncidentState if "awaiting_purge" in ALLOWED[state.value].split()}
    assert before == {"confirmed"}


@pytest.mark.parametrize("state", list(IncidentState))
def test_stuck_by_time(state: IncidentState) -> None:
    """It should be stuck one second after its limit, not at it, and never once it is closed."""
    if state is IncidentState.CLOSED:
        assert stuck_for(state, NOW - timedelta(days=3650), NOW) is None
        return
    limit = STUCK_AFTER[state]
    assert stuck_for(state, NOW - limit, NOW) is None
    assert stuck_for(state, NOW - limit - timedelta(seconds=1), NOW) == timedelta(seconds=1)


def test_every_open_state_has_a_limit() -> None:
    """It should let no incident be forgotten, whatever its state."""
    assert set(STUCK_AFTER) == OPEN_STATES


def test_the_sites_own_limits() -> None:
    """It should take the site's limit for the states that it names, and only for those."""
    since = NOW - timedelta(hours=1)
    assert stuck_for(IncidentState.FAILED, since, NOW, {"failed": 600}) == timedelta(minutes=50)
    assert stuck_for(IncidentState.REFUSED, since, NOW, {"failed": 600}) is None
