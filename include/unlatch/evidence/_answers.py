"""What all checks share: an answer with its time, and `not_observed` for all that could not be looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from unlatch.errors import UnlatchError
from unlatch.models import Answer, Evidence, Json, Opener
from unlatch.ports import Scene


@dataclass(frozen=True)
class Finding:
    """An answer in a DBA's words; `detail` is for the audit."""

    answer: Answer
    summary: str
    detail: Json = field(default_factory=dict)


def alive(summary: str, **detail: object) -> Finding:
    """A sign of life."""
    return Finding(Answer.ALIVE, summary, detail)


def dead(summary: str, **detail: object) -> Finding:
    """A proof of death."""
    return Finding(Answer.DEAD, summary, detail)


def clear(summary: str, **detail: object) -> Finding:
    """Looked, and saw no sign of life; no proof of anything."""
    return Finding(Answer.CLEAR, summary, detail)


def not_observed(summary: str, **detail: object) -> Finding:
    """Could not look, or what was seen can mean either."""
    return Finding(Answer.NOT_OBSERVED, summary, detail)


@dataclass(frozen=True)
class Check:
    """A check: its name and the look that it takes. Implements `ports.EvidenceCheck`."""

    name: str
    look: Callable[[Scene], Finding]

    def collect(self, scene: Scene) -> Evidence:
        """The answer, dated to the moment before the look: what happens during it may not have been seen."""
        at = scene.clock.now()
        try:
            finding = self.look(scene)
        except UnlatchError as error:
            finding = not_observed(f"could not be looked at: {error.what}", next=error.next_step)
        except OSError as error:
            finding = not_observed(f"could not be looked at: {error}")
        return Evidence(
            check=self.name,
            answer=finding.answer,
            summary=" ".join(finding.summary.split()),  # it goes into tickets, with what machines call their things
            at=at,
            expires_at=at + timedelta(seconds=scene.evidence_life_s),
            detail=finding.detail,
        )


def named(opener: Opener) -> str:
    """A process in a sentence."""
    command = " ".join(opener.cmdline)[:80] or opener.exe or "?"
    return f"pid {opener.pid} ({command})"


def what_of(error: Exception) -> str:
    """What an error says, without its advice."""
    return error.what if isinstance(error, UnlatchError) else str(error)
