"""From evidence to verdict, and when a verdict lets a step act. Pure: no IO, no clock; the moment is an argument.

The rules are the safety rules of docs/safety.md; the numbers in the comments are theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum

from unlatch.models import (
    Answer,
    Approval,
    Evidence,
    Instance,
    Verdict,
    VerdictKind,
    Volume,
    VolumeKind,
    digest_of,
)

PROOFS = frozenset({"hypervisor_log", "fence"})
"""Checks whose `dead` is a proof of death (rule 3). From any other check `dead` counts as `clear`."""

_EVERYWHERE = (
    "hypervisor_log",
    "guest_boot",
    "mount",
    "lock_holder",
    "openers",
    "processes",
    "port",
    "samples",
)
_BY_VOLUME: dict[VolumeKind, tuple[str, ...]] = {VolumeKind.LAB: (), VolumeKind.NFS: ("domain_elsewhere",)}
_BY_ENGINE: dict[str, tuple[str, ...]] = {"postgresql": ("pid_file",)}

# Shared storage can be written from machines that this guest cannot see, and no lock tells the living from the dead:
# either the NAS names the dead client as the holder, or every other machine that may mount the volume was looked at.
_ONE_OF_BY_VOLUME: dict[VolumeKind, tuple[str, ...]] = {VolumeKind.LAB: (), VolumeKind.NFS: ("peers", "nas_locks")}
_WHEN_DONE = ("fence",)

ALL_CHECKS = frozenset(
    {
        *_EVERYWHERE,
        *(c for names in (*_BY_VOLUME.values(), *_ONE_OF_BY_VOLUME.values(), *_BY_ENGINE.values()) for c in names),
    }
)
"""Every check that may be mandatory somewhere, installed or not: what a waiver can name."""


def mandatory_checks(instance: Instance, volume: Volume) -> tuple[str, ...]:
    """Every check that must itself answer before `dead` is possible for this instance on this volume (rule 2)."""
    names = [*_EVERYWHERE, *_BY_VOLUME[volume.kind], *_BY_ENGINE.get(instance.engine, ())]
    if instance.pid_files and "pid_file" not in names:
        names.append("pid_file")
    return tuple(names)


def attributing_checks(volume: Volume) -> tuple[str, ...]:
    """Checks of which at least one must answer before `dead`: they say whose the locks of others are."""
    return _ONE_OF_BY_VOLUME[volume.kind]


def wanted_checks(instance: Instance, volume: Volume) -> tuple[str, ...]:
    """Every check to ask: each can be a veto, mandatory or not."""
    return (*mandatory_checks(instance, volume), *attributing_checks(volume), *_WHEN_DONE)


def judge(instance: Instance, volume: Volume, evidence: Sequence[Evidence], *, incident: str, now: datetime) -> Verdict:
    """Was the previous incarnation of the instance dead, alive, or can it not be told?

    A sign of life wins over everything, also an old one and one from a check that is not mandatory. What is expired or
    missing was not observed. Several answers of one check count as the worst of them. The order does not matter.
    """
    worst = _worst_per_check(evidence, now)
    required = mandatory_checks(instance, volume)
    attributing = attributing_checks(volume)
    waived = {w.check: w for w in instance.waive}

    signs = [e for e in evidence if e.answer is Answer.ALIVE]
    proofs = [e for c, e in worst.items() if c in PROOFS and e.answer is Answer.DEAD]
    excused = {*waived, *(PROOFS if proofs else ())}  # one proof of death is enough
    open_questions = [c for c in required if _answer(worst, c) is Answer.NOT_OBSERVED and c not in excused]
    if all(_answer(worst, c) is Answer.NOT_OBSERVED and c not in waived for c in attributing):
        open_questions += attributing  # all of them, so that people see both ways out
    # Also what need not have an answer, by its nature or by a waiver, must have been asked: it may be a veto.
    wanted = wanted_checks(instance, volume)
    open_questions += [c for c in wanted if c not in worst and c not in open_questions]

    if signs:
        kind, reasons = VerdictKind.ALIVE, _said(signs)
    elif open_questions:
        kind = VerdictKind.UNKNOWN
        reasons = [f"{c}: {worst[c].summary if c in worst else 'was not asked'}" for c in open_questions]
    elif not proofs:
        kind = VerdictKind.UNKNOWN
        reasons = ["nothing proves that the previous incarnation is dead: no sign of life is not a proof"]
    else:
        kind, reasons = VerdictKind.DEAD, _said(proofs)
    reasons += [
        f"{c}: not observed, waived by {waived[c].by}: {waived[c].reason}"
        for c in (*required, *attributing)
        if c in waived and _answer(worst, c) is Answer.NOT_OBSERVED
    ]
    counted = tuple(worst[c] for c in sorted(worst))
    return Verdict(
        kind=kind,
        reasons=tuple(reasons),
        evidence=counted,
        digest=digest_of(counted, f"{incident}/{instance.name}"),
        expires_at=min((e.expires_at for e in counted), default=now),
    )


def _said(evidence: Iterable[Evidence]) -> list[str]:
    """Each answer in words, once, and in an order of its own: nobody should read more into who was asked first."""
    return sorted({f"{e.check}: {e.summary}" for e in evidence})


_SEVERITY = {Answer.DEAD: 0, Answer.CLEAR: 1, Answer.NOT_OBSERVED: 2, Answer.ALIVE: 3}


def _worst_per_check(evidence: Iterable[Evidence], now: datetime) -> dict[str, Evidence]:
    worst: dict[str, Evidence] = {}
    for item in evidence:
        counted = _as_counted(item, now)
        known = worst.get(item.check)
        if known is None or _rank(counted) > _rank(known):
            worst[item.check] = counted
    return worst


def _rank(item: Evidence) -> tuple[int, datetime, str]:
    return (_SEVERITY[item.answer], item.expires_at, item.summary)


def _as_counted(item: Evidence, now: datetime) -> Evidence:
    if item.answer is Answer.ALIVE:
        return item
    if item.expires_at <= now:
        return _answering(item, Answer.NOT_OBSERVED, f"{item.summary} (looked at {item.at:%H:%M:%S}, too long ago)")
    if item.answer is Answer.DEAD and item.check not in PROOFS:
        return _answering(item, Answer.CLEAR, item.summary)
    return item


def _answering(item: Evidence, answer: Answer, summary: str) -> Evidence:
    return Evidence(item.check, answer, summary, item.at, item.expires_at, item.detail)


def _answer(worst: dict[str, Evidence], check: str) -> Answer:
    return worst[check].answer if check in worst else Answer.NOT_OBSERVED


class Gate(StrEnum):
    """May a step act on the instance now?"""

    OPEN = "open"
    COLLECT_AGAIN = "collect_again"
    ASK = "ask"
    REFUSED = "refused"


def gate(verdict: Verdict, needs_person: str | None, approval: Approval | None, *, now: datetime) -> Gate:
    """The one gate before start, set aside and commit (rules 1 and 4).

    An approval can only ever stand in for a missing proof; it never outweighs a sign of life, and it falls with the
    evidence that it was given on. Who was silent when the person was asked may answer by now: so what is acted on was
    collected after the answer.
    """
    if verdict.kind is VerdictKind.ALIVE or (approval is not None and not approval.approved):
        return Gate.REFUSED
    if verdict.expires_at <= now:
        return Gate.COLLECT_AGAIN
    if verdict.kind is VerdictKind.DEAD and needs_person is None:
        return Gate.OPEN
    if approval is None or approval.digest != verdict.digest or approval.expires_at <= now:
        return Gate.ASK
    if any(answer.at < approval.at for answer in verdict.evidence):
        return Gate.COLLECT_AGAIN
    return Gate.OPEN
