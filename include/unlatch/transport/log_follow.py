"""Following the logs of many hypervisors at once, to ring a bell as soon as one tells of a crash. asyncio and asyncssh.

What is read here moves no durable position: whoever hears the bell reads everything again from its own cursor. So a
follower may be killed at any moment, and may ring once too often, but never too late by more than one look.

Files are looked at when a command that waits over there says that they have changed; journals print as they grow. A
hypervisor that says nothing costs next to nothing, so hundreds of them fit into one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import UTC, datetime

import asyncssh

from unlatch.errors import ConfigError, TransientError
from unlatch.models import SourceState
from unlatch.transport.async_shell import AsyncShell, output_of
from unlatch.transport.bell import BACK, CRASH, FIRST_CONTACT, LOST, NOISE, FollowedLog, end_all
from unlatch.transport.journal_position import MAGIC, answer_body, entry_of, unread
from unlatch.transport.log_access import FileLog, Journal
from unlatch.transport.log_position import LogNews
from unlatch.transport.log_wait import wait_command

CHUNK_BYTES = 256 << 10
"""How much one look carries: little enough to be parsed between two turns of the event loop."""

LOST_AFTER_S = 30.0
"""How long a hypervisor may be out of reach, or a log away, before that is worth telling."""

_LOOK_LIMIT_S = 20.0
_WAIT_S = 15.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_AGAIN_PAUSE_S = 10.0  # before a bell that the reader may not be able to answer: else each would chase the other

_log = logging.getLogger(__name__)

Ring = Callable[[str, str], None]
"""Called with the hypervisor and the reason."""


class HypervisorFollower:
    """Follows the logs of one machine over one connection that it keeps open, and opens again when it is lost."""

    def __init__(
        self,
        name: str,
        connect: Callable[[], Awaitable[AsyncShell]],
        logs: Sequence[FollowedLog],
        *,
        poll_s: float = 0.5,
        lost_after_s: float = LOST_AFTER_S,
    ) -> None:
        """Take a way to connect, which raises `TransientError` and `ConfigError`.

        `is_looking` says that a log has changed and is being read.
        """
        self.name = name
        self.problems: list[str] = []
        self.noise_bytes = 0
        self.is_looking = False
        self.every_log = tuple(logs)
        self._connect = connect
        self._logs = list(logs)
        self._poll_s = poll_s
        self._lost_after_s = lost_after_s
        self._missed: dict[str, float] = {}
        self._ring: Ring = lambda *_: None
        self._most_noise_bytes = 0

    async def follow(self, ring: Ring, most_noise_bytes: int) -> None:
        """Follow until cancelled; calls `ring(hypervisor, reason)`. Ends by itself only when nothing can be followed.

        A hypervisor that is out of reach is tried again with growing pauses, and logged once. What needs a correction
        (`ConfigError`, above all another host key) is logged as an error and not tried again.
        """
        self._ring, self._most_noise_bytes = ring, most_noise_bytes
        loop = asyncio.get_running_loop()
        pause_s, lost_at = _FIRST_PAUSE_S, None
        while self._logs:
            try:
                shell, is_sound = await self._connect(), False
                try:
                    pause_s = _FIRST_PAUSE_S
                    if lost_at is not None:
                        _log.info("%s is followed again", self.name)
                        lost_at = None
                    await self._follow_all(shell)
                except asyncio.CancelledError:
                    is_sound = True  # nobody's fault: the bell has rung
                    raise
                finally:
                    await shell.close(is_sound=is_sound)
            except ConfigError as error:
                self._give_up(str(error), *self._logs)
                return
            except (TransientError, asyncssh.Error, OSError, TimeoutError) as error:
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    raise asyncio.CancelledError from error  # asyncssh takes the end of its own connecting for a loss
                words = str(error) or type(error).__name__
                if lost_at is None:
                    _log.warning("%s is out of reach and tried again: %s", self.name, words)
                    lost_at = loop.time()
                if loop.time() - lost_at >= self._lost_after_s:
                    self._note(SourceState.UNREACHABLE, words, *self._logs)
            except Exception as error:  # noqa: BLE001  # said below
                # One follower's bug must not silence the others, and must not vanish in a task nobody looks at.
                _log.exception("%s is not followed any more", self.name)
                self._give_up(f"{type(error).__name__}: {error}", *self._logs, is_logged=True)
                return
            await asyncio.sleep(pause_s * random.uniform(0.75, 1.25))  # noqa: S311  # spreads load, keeps no secret
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    async def _follow_all(self, shell: AsyncShell) -> None:
        files = [log for log in self._logs if isinstance(log.access, FileLog)]
        journals = [(log, log.access) for log in self._logs if isinstance(log.access, Journal)]
        await _until_one_fails([self._files(shell, files), *(self._journal(shell, *journal) for journal in journals)])

    # --- files -------------------------------------------------------------------------------------------------------

    async def _files(self, shell: AsyncShell, logs: list[FollowedLog]) -> None:
        # One that did well is only waited for: it is asked when it is not as it was left.
        seen = {log.access.where: _left(log) for log in logs}
        while logs:
            if all(seen.values()):
                self.is_looking = False
                wait = wait_command(seen, wait_s=_WAIT_S, poll_s=self._poll_s)
                await output_of(shell, wait, limit_s=_WAIT_S + _LOOK_LIMIT_S)
            self.is_looking = True
            behind, is_news = False, False
            for log in tuple(logs):
                is_new = log.cursor is None
                news = await self._look(shell, log)
                if log not in self._logs:
                    logs.remove(log)
                    del seen[log.access.where]
                    continue
                seen[log.access.where] = news.seen if news else ""
                if news is None:
                    continue
                behind = behind or news.carried_bytes >= CHUNK_BYTES
                is_news = is_news or bool(news.carried_bytes)
                self._heard(log, news.lines, news.carried_bytes)
                if is_new:
                    self._ring_later(FIRST_CONTACT)
            self.is_looking = behind
            if logs and not behind:
                # A file that is neither as it was nor has anything new must not be asked about without a pause.
                await asyncio.sleep(0 if is_news else self._poll_s)

    async def _look(self, shell: AsyncShell, log: FollowedLog) -> LogNews | None:
        asked_at = datetime.now(UTC)
        output = await output_of(shell, log.access.poll(log.cursor, CHUNK_BYTES), limit_s=_LOOK_LIMIT_S)
        try:
            news = log.access.news(output, log.cursor, host=self.name, asked_at=asked_at, limit_bytes=CHUNK_BYTES)
        except TransientError:
            return None  # rotated meanwhile: the next look sees it in order
        except ConfigError as error:
            self._give_up(str(error), log)
            return None
        self._reached(log, is_missing=news.missing)
        log.cursor = news.cursor
        return news

    # --- journals ----------------------------------------------------------------------------------------------------

    async def _journal(self, shell: AsyncShell, log: FollowedLog, access: Journal) -> None:
        try:
            if log.cursor is None:
                await self._look(shell, log)
                self._ring_later(FIRST_CONTACT)
            while log in self._logs:
                is_there = await self._stream(shell, log, access)
                await asyncio.sleep(_FIRST_PAUSE_S if is_there else _WAIT_S)
        except ConfigError as error:
            self._give_up(str(error), log)

    async def _stream(self, shell: AsyncShell, log: FollowedLog, access: Journal) -> bool:
        """Listen until journalctl ends; False: there is no journal at all.

        Raises:
            TransientError: it ended, and said why.
        """
        rest, begun, remarks, is_first = b"", False, list[bytes](), True
        async with contextlib.aclosing(shell.chunks(access.follow(log.cursor))) as chunks:
            async for chunk in chunks:
                rest += chunk
                if not begun:
                    if MAGIC not in rest:
                        continue
                    begun, rest = True, answer_body(rest, host=self.name, where=access.where)
                    self._reached(log, is_missing=rest.startswith(b"M\n"))
                *whole, rest = rest.split(b"\n")
                entries = [found for line in whole if (found := entry_of(line)) is not None]
                remarks += [line for line in whole if line and not line.startswith(b"{")]
                if entries:
                    new = unread(entries, log.cursor)[0] if is_first and log.cursor else entries
                    is_first, log.cursor = False, {"cursor": entries[-1][0], "read_at": None}
                    self._heard(log, [text for _, text in new], len(chunk) if new else 0)
                await asyncio.sleep(0)  # a journal that pours leaves the others their turn
        if not begun:
            answer_body(rest, host=self.name, where=access.where)
        if remarks == [b"M"]:
            return False
        if remarks:
            words = b" ".join(remarks[-3:]).decode("utf-8", "replace")
            raise TransientError(f"journalctl on {self.name} ended: {words}", next_step="see what it says there.")
        return True

    # --- what is seen ------------------------------------------------------------------------------------------------

    def _heard(self, log: FollowedLog, lines: Sequence[str], size_bytes: int) -> None:
        self.noise_bytes += size_bytes
        if size_bytes:
            log.line_at = datetime.now(UTC)
            if log.known is SourceState.SILENT:
                self._ring(self.name, BACK)
        if lines and log.hears(lines):
            self._ring(self.name, CRASH)
        if self.noise_bytes > self._most_noise_bytes:
            self._ring(self.name, NOISE)

    def _reached(self, log: FollowedLog, *, is_missing: bool) -> None:
        log.reached_at = datetime.now(UTC)
        now = asyncio.get_running_loop().time()
        where = log.access.where
        if is_missing:
            if where not in self._missed:
                _log.warning("there is no %s on %s now; it is followed when it appears", where, self.name)
            if now - self._missed.setdefault(where, now) >= self._lost_after_s:
                words = (
                    f"There is no {where} on {self.name}: correct its place in the inventory, or see who removed it."
                )
                self._note(SourceState.MISSING, words, log)
            return
        self._missed.pop(where, None)
        log.state, log.words = SourceState.OK, ""
        if log.known not in {SourceState.OK, SourceState.SILENT}:
            self._ring_later(BACK)

    def _note(self, state: SourceState, words: str, *logs: FollowedLog) -> None:
        for log in logs:
            log.state, log.words = state, words
        if any(log.known is not state for log in logs):
            self._ring(self.name, LOST)

    def _give_up(self, why: str, *logs: FollowedLog, is_logged: bool = False) -> None:
        if not is_logged:
            _log.error("%s", why)
        self.problems.append(why)
        self._logs = [log for log in self._logs if log not in logs]
        self._note(SourceState.WRONG, why, *logs)

    def _ring_later(self, reason: str) -> None:
        asyncio.get_running_loop().call_later(_AGAIN_PAUSE_S, self._ring, self.name, reason)


def _left(log: FollowedLog) -> str:
    """How a file was left when everything in it had been read; empty for one that should be looked at first."""
    if log.cursor is None or log.known is not SourceState.OK:
        return ""
    return f"{log.cursor.get('inode')} {log.cursor.get('offset')}"


async def _until_one_fails(coroutines: Sequence[Coroutine[None, None, None]]) -> None:
    """Run all at once; the first failure, or a cancellation, ends the others."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        for done in asyncio.as_completed(tasks):
            await done
    finally:
        await end_all(tasks)
