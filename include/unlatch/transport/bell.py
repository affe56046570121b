"""The bell: what is followed, and why the waiting for it ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from unlatch.models import Json, Sight, SourceState
from unlatch.transport.log_access import FileLog, Journal

if TYPE_CHECKING:
    from unlatch.transport.log_follow import HypervisorFollower

CRASH, BACK, LOST, FIRST_CONTACT, NOISE, HOUSEKEEPING = (
    "crash",
    "back",
    "lost",
    "first contact",
    "noise",
    "housekeeping",
)
"""Why the bell rang, the most urgent first: a crash line; a log that did badly and does well again; one that does
badly; one whose end nobody has noted yet; many bytes without a crash line, or much time, so that durable positions
should move."""

GATHER_S = 2.0
"""How long a bell may wait for what others are just reading: when many guests crash at once, one bell tells of most."""

_GLANCE_S = 0.02
_CANCEL_AGAIN_S = 2.0

_ORDER = (CRASH, BACK, LOST, FIRST_CONTACT, NOISE)


@dataclass(eq=False)
class FollowedLog:
    """A log, how far it has been looked at, and how it does.

    Attributes:
        source: Its name in the store.
        access: Where and what it is.
        cursor: Where to begin; None: at the end.
        hears: Called with new lines, in order: does one tell of a crash?
        known: How the store thinks that it does.
        state: How it does; OK until something else has been seen for long enough.
        words: What is wrong.
        reached_at: When it was last reached.
        line_at: When something new was last in it.
    """

    source: str
    access: FileLog | Journal
    cursor: Json | None
    hears: Callable[[Sequence[str]], bool]
    known: SourceState = SourceState.OK
    state: SourceState = SourceState.OK
    words: str = ""
    reached_at: datetime | None = None
    line_at: datetime | None = None

    @property
    def sight(self) -> Sight | None:
        """What was seen of it; None while nothing has been."""
        if self.reached_at is None and self.state is SourceState.OK:
            return None
        return Sight(self.state, self.words, self.reached_at, self.line_at)


@dataclass(frozen=True)
class Bell:
    """Why the wait ended.

    Attributes:
        hypervisors: Whose logs should be read now.
        reason: The most urgent one.
        problems: Hypervisors that cannot be followed until someone corrects something.
        sights: What was seen of each log.
    """

    hypervisors: tuple[str, ...]
    reason: str
    problems: dict[str, str] = field(default_factory=dict)
    sights: dict[str, Sight] = field(default_factory=dict, compare=False)

    def as_dict(self) -> Json:
        """As JSON, for an event's payload."""
        return {
            "hypervisors": list(self.hypervisors),
            "reason": self.reason,
            "problems": dict(self.problems),
            "sights": {source: sight.as_dict() for source, sight in self.sights.items()},
        }


async def wait_for_bell(
    followers: Sequence[HypervisorFollower], *, longest_wait_s: float, most_noise_bytes: int
) -> Bell:
    """Follow all until one has something to tell, `longest_wait_s` seconds are over, or one read too much for nothing.

    All followers end with it, whichever way it ends.
    """
    if logging.getLogger("asyncssh").level == logging.NOTSET:
        logging.getLogger("asyncssh").setLevel(logging.WARNING)  # it tells every command, so every look
    rung: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    tasks = [
        asyncio.create_task(f.follow(lambda name, why: rung.put_nowait((name, why)), most_noise_bytes))
        for f in followers
    ]
    heard: list[tuple[str, str]] = []
    try:
        async with asyncio.timeout(longest_wait_s):
            heard = [await rung.get()]
        gathered_by = _now() + GATHER_S
        while not rung.empty() or (any(f.is_looking for f in followers) and _now() < gathered_by):
            heard += [rung.get_nowait()] if not rung.empty() else []
            await asyncio.sleep(0 if not rung.empty() else _GLANCE_S)
    except TimeoutError:
        pass
    finally:
        await end_all(tasks)
    reasons = [reason for reason in _ORDER if any(why == reason for _, why in heard)]
    return Bell(
        hypervisors=tuple(sorted({name for name, why in heard if why != LOST})),
        reason=reasons[0] if reasons else HOUSEKEEPING,
        problems=_problems(followers),
        sights={log.source: sight for f in followers for log in f.every_log if (sight := log.sight) is not None},
    )


def _now() -> float:
    return asyncio.get_running_loop().time()


def _problems(followers: Sequence[HypervisorFollower]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for follower in followers:
        if follower.problems:
            found.setdefault(follower.name, []).extend(follower.problems)
    return {name: " ".join(words) for name, words in found.items()}


async def end_all(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel and wait. Again and again: asyncio.wait_for of Python 3.11, which asyncssh uses, may swallow it.

    Whoever is cancelled here waits all the same: a task that outlived its follower would use a connection that another
    has by then.
    """
    pending = {task for task in tasks if not task.done()}
    is_cancelled = False
    while pending:
        for task in pending:
            task.cancel()
        try:
            _, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN_S)
        except asyncio.CancelledError:
            is_cancelled = True
            pending = {task for task in pending if not task.done()}
    for task in tasks:
        if not task.cancelled():
            task.exception()  # seen: whoever waited for the first one has it
    if is_cancelled:
        raise asyncio.CancelledError
