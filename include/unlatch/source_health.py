"""Is a log doing well? Pure: no IO, no clock.

A sensor that has died says the same as one with nothing to say. So being reached, and having said something, are kept
apart; both are noted by the clock of whoever looks, so that no wrong clock of a hypervisor makes a log look alive.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from unlatch.models import HypervisorLog, Sight, SourceHealth, SourceState


def source_name(hypervisor: str, log: HypervisorLog) -> str:
    """Under which a log is known: one file may be read in several formats."""
    return f"{hypervisor}:{log.format}:{log.where}"


def judged(
    hypervisor: str, log: HypervisorLog, known: SourceHealth | None, sight: Sight, *, now: datetime
) -> SourceHealth:
    """What is known of a log after one more sight of it; the same value when nothing has changed but its times."""
    base = known or SourceHealth(source_name(hypervisor, log), hypervisor, SourceState.OK, now, told_at=now)
    seen = replace(
        base, reached_at=_later(base.reached_at, sight.reached_at), line_at=_later(base.line_at, sight.line_at)
    )
    state, words = sight.state, sight.words
    if state is SourceState.OK and _is_silent(seen, log, now):
        state = SourceState.SILENT
        words = (
            f"nothing new in {log.where} of {hypervisor} for more than {log.silent_after_s} s, though it can be read: "
            "see whether whatever writes it still runs, and whether this is still where it writes"
        )
    if state is base.state:
        return replace(seen, words=words)
    return replace(seen, state=state, since=now, words=words, told_at=None)


def silent_at(health: SourceHealth, log: HypervisorLog) -> datetime | None:
    """When its silence will be too long; None: it has no limit, or is not doing well already."""
    if log.silent_after_s is None or health.state is not SourceState.OK:
        return None
    return max(health.since, health.line_at or health.since) + timedelta(seconds=log.silent_after_s)


def _is_silent(health: SourceHealth, log: HypervisorLog, now: datetime) -> bool:
    """Whether a log that can be read is silent for too long; `health` still has its state from before."""
    if log.silent_after_s is None:
        return False
    if health.state is SourceState.SILENT:
        return health.line_at is None or health.line_at <= health.since
    limit = silent_at(health, log)  # one that comes back from something worse gets its time anew
    return limit is not None and now > limit


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    return max((moment for moment in (one, other) if moment is not None), default=None)


def told_words(health: SourceHealth) -> tuple[str, str]:
    """Title and text of the alert about a log's new state."""
    if health.state is SourceState.OK:
        return f"{health.source} is read again", f"{health.source} is read again since {_clock(health.since)}."
    reached = f"It was last reached at {_clock(health.reached_at)}." if health.reached_at else "It was never reached."
    heard = f" Something new was last in it at {_clock(health.line_at)}." if health.line_at else ""
    title = f"{health.source} is {health.state}: crashes of its guests may go unseen"
    return title, f"{health.words}\n\n{reached}{heard} `unlatch sources` lists all logs."


def _clock(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC" if moment else "never"
