"""The incident's life as a state machine. Pure: which state may follow which, and how long each may last.

detected -> repairing -> accessible -> confirmed -> awaiting_purge -> closed
               |  ^                                       |            |
               v  |                                       v            v
         waiting_for_person                            reopened: somebody wrote to an original

any open state -> refused | failed; any state -> repairing again, when a task of its run is cleared. What was refused,
has failed or was reopened stays so until a person repairs it or closes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum


class IncidentState(StrEnum):
    """Where an incident is; the docstring of the module draws the way."""

    DETECTED = "detected"
    REPAIRING = "repairing"
    WAITING_FOR_PERSON = "waiting_for_person"
    ACCESSIBLE = "accessible"
    CONFIRMED = "confirmed"
    AWAITING_PURGE = "awaiting_purge"
    CLOSED = "closed"
    REFUSED = "refused"
    FAILED = "failed"
    REOPENED = "reopened"


_S = IncidentState
_STOPPED = frozenset({_S.REFUSED, _S.FAILED})

TRANSITIONS: dict[IncidentState, frozenset[IncidentState]] = {
    _S.DETECTED: frozenset({_S.REPAIRING}) | _STOPPED,
    _S.REPAIRING: frozenset({_S.WAITING_FOR_PERSON, _S.ACCESSIBLE}) | _STOPPED,
    _S.WAITING_FOR_PERSON: frozenset({_S.REPAIRING}) | _STOPPED,
    _S.ACCESSIBLE: frozenset({_S.CONFIRMED, _S.REPAIRING}) | _STOPPED,
    _S.CONFIRMED: frozenset({_S.AWAITING_PURGE, _S.CLOSED, _S.REPAIRING, _S.REOPENED}) | _STOPPED,
    _S.AWAITING_PURGE: frozenset({_S.CLOSED, _S.REPAIRING, _S.REOPENED}) | _STOPPED,
    _S.CLOSED: frozenset({_S.REPAIRING, _S.REOPENED}),  # another death before the next restart, or a late writer
    _S.REFUSED: frozenset({_S.REPAIRING, _S.CLOSED}),  # a person clears the run's failed tasks, or closes it
    _S.FAILED: frozenset({_S.REPAIRING, _S.CLOSED}),
    _S.REOPENED: frozenset({_S.REPAIRING, _S.CLOSED}) | _STOPPED,
}

OPEN_STATES = frozenset(IncidentState) - {_S.CLOSED}
"""States in which something is still owed."""

WORKING_STATES = frozenset({_S.DETECTED, _S.REPAIRING, _S.WAITING_FOR_PERSON, _S.ACCESSIBLE})
"""States in which an incident may hold the lease of an instance."""

GIVEN_UP_STATES = frozenset({_S.REFUSED, _S.FAILED, _S.REOPENED})
"""States that only a person ends: nothing goes on by itself there."""

STUCK_AFTER: Mapping[IncidentState, timedelta] = {
    _S.DETECTED: timedelta(minutes=10),
    _S.REPAIRING: timedelta(hours=2),
    _S.WAITING_FOR_PERSON: timedelta(hours=4),
    _S.ACCESSIBLE: timedelta(minutes=10),
    _S.CONFIRMED: timedelta(minutes=10),
    _S.AWAITING_PURGE: timedelta(hours=4),
    _S.REFUSED: timedelta(days=1),
    _S.FAILED: timedelta(days=1),
    _S.REOPENED: timedelta(hours=1),
}
"""How long an incident may stay in a state before somebody is told; `awaiting_purge` counts from the purge's day."""


class ForbiddenTransitionError(ValueError):
    """The asked-for state cannot follow the present one."""


def advance(present: IncidentState, wanted: IncidentState) -> IncidentState:
    """The new state. Asking for the present one again is allowed, so that a retried step does no harm.

    Raises:
        ForbiddenTransitionError: `wanted` cannot follow `present`.
    """
    if wanted is present or wanted in TRANSITIONS[present]:
        return wanted
    allowed = ", ".join(sorted(TRANSITIONS[present]))
    raise ForbiddenTransitionError(f"an incident that is {present} cannot become {wanted}; it can become: {allowed}")


def stuck_for(
    state: IncidentState, since: datetime, now: datetime, limits_s: Mapping[str, int] | None = None
) -> timedelta | None:
    """How much longer than its limit an incident has been in a state; None while it is not.

    Args:
        state: Where it is; one that is closed is never stuck.
        since: When that state began; for `awaiting_purge` when the purge was due.
        now: The present moment.
        limits_s: The site's own limits by the state's name, in seconds, before `STUCK_AFTER`.
    """
    limit = STUCK_AFTER.get(state)
    if limit is None:
        return None
    own_s = (limits_s or {}).get(state.value)
    over = now - since - (timedelta(seconds=own_s) if own_s is not None else limit)
    return over if over > timedelta() else None
