"""Where the time went: every second between the death and the access belongs to exactly one phase."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from unlatch.postmortem.account import Account, Span

PHASES = {
    "detection": "waiting for detection",
    "guest": "waiting for the guest",
    "evidence": "collecting evidence",
    "person": "waiting for a person",
    "lease": "waiting for a lease",
    "turn": "waiting for its turn",
    "locks": "freeing locks",
    "copy": "copying files",
    "recovery": "database start and recovery",
    "failure": "after a failure, until the next attempt",
    "between": "between two steps",
}
"""The phases in the order in which they usually come."""

_OF_STEP = {
    "detect_crash": "detection",
    "wait_for_guest": "guest",
    "check_locks": "evidence",
    "hold_service": "evidence",
    "verdict": "evidence",
    "approve": "person",
    "clear_locks": "locks",
    "recreate_files": "copy",
    "restart_database": "recovery",
    "confirm_access": "recovery",
}


@dataclass(frozen=True)
class Stretch:
    """A time without a change of phase."""

    phase: str
    began: datetime
    ended: datetime

    @property
    def seconds(self) -> float:
        """How long it was."""
        return (self.ended - self.began).total_seconds()


def of_lane(account: Account, instance: str) -> tuple[Stretch, ...]:
    """The phases of one instance, without a gap, from the death to its access (else to the last word on it)."""
    end = account.accessible_at.get(instance) or account.last_at
    spans = [s for s in account.spans if s.instance in {"", instance} and s.step in _OF_STEP and s.began < end]
    inner = _inner(account, instance)
    stretches: list[Stretch] = []
    _add(stretches, "detection", account.began_at, min([end, *(s.began for s in spans)]))
    for number, span in enumerate(spans):
        following = spans[number + 1].began if number + 1 < len(spans) else end
        _add_span(stretches, span, min(span.ended or following, end), inner)
        _add_gap(stretches, span, spans[number + 1 :], min(following, end), account)
    return tuple(stretches)


def totals(stretches: Sequence[Stretch]) -> dict[str, float]:
    """Seconds per phase, in the order of `PHASES`; those that took none are left out."""
    sums = {phase: sum(s.seconds for s in stretches if s.phase == phase) for phase in PHASES}
    return {phase: seconds for phase, seconds in sums.items() if seconds > 0}


def _add(to: list[Stretch], phase: str, began: datetime, ended: datetime) -> None:
    """Go on from where the last stretch ended, whatever began before."""
    began = max([began, *([to[-1].ended] if to else [])])
    if ended <= began:
        return
    if to and to[-1].phase == phase:
        to[-1] = Stretch(phase, to[-1].began, ended)
    else:
        to.append(Stretch(phase, began, ended))


def _add_span(to: list[Stretch], span: Span, ended: datetime, inner: Sequence[Stretch]) -> None:
    phase = _OF_STEP[span.step]
    for part in inner:
        if span.began <= part.began < ended and part.phase in {"lease", "turn"}:
            _add(to, phase, span.began, part.began)
            _add(to, part.phase, part.began, min(part.ended, ended))
    _add(to, phase, span.began, ended)


def _add_gap(to: list[Stretch], span: Span, later: Sequence[Span], until: datetime, account: Account) -> None:
    """The time behind a span in which no step of the lane ran."""
    asked = not later or later[0].step == "approve"
    for began, ended in account.waits if asked else ():
        if (ended is None or ended > to[-1].ended if to else True) and began < until:
            _add(to, "failure" if span.went_wrong else "between", to[-1].ended if to else began, min(began, until))
            _add(to, "person", began, min(ended or until, until))
    _add(to, "failure" if span.went_wrong else "between", span.ended or until, until)


def _inner(account: Account, instance: str) -> list[Stretch]:
    """Waits within steps: for a server to forget a dead client, and for one's turn to copy."""
    waits: list[Stretch] = []
    lease: datetime | None = None
    turn: datetime | None = None
    for row in account.rows:
        if row.instance != instance:
            continue
        if row.phase == "remedy" and row.detail.get("remedy") == "wait_lease":
            lease = row.at
        elif row.phase == "tried" and lease is not None:
            waits.append(Stretch("lease", lease, row.at))
            lease = None
        elif row.phase == "waiting":
            turn = turn or row.at
        elif turn is not None:
            waits.append(Stretch("turn", turn, row.at))
            turn = None
    return waits
