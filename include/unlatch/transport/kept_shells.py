"""Connections that outlive a bell: the trigger that rang ends, and the next one needs the same hypervisors again.

A handshake costs both sides some milliseconds of computing; hundreds of them after every bell would keep the event loop
busy just when the crash that rang it is read. So a connection is kept for a while after its last use, in the process
and event loop that opened it, and never for so long that a change of its Airflow connection would go unnoticed.
"""

from __future__ import annotations

import asyncio
import weakref
from dataclasses import dataclass

from unlatch.transport.async_connect import open_through_airflow
from unlatch.transport.async_shell import AsyncShell, SshShell

KEPT_S = 60.0
"""How long a connection is kept that nobody uses."""

OLDEST_S = 900.0
"""How long one may be used in all, before its Airflow connection is read again."""

AT_ONCE = 16
"""Handshakes at the same time."""

_Key = tuple[str, str]


@dataclass
class _Kept:
    shell: SshShell
    opened_at: float
    timer: asyncio.TimerHandle | None = None


class KeptShells:
    """The connections of one event loop."""

    def __init__(self) -> None:
        """None yet."""
        self._idle: dict[_Key, _Kept] = {}
        self._turn = asyncio.Semaphore(AT_ONCE)

    async def open(self, conn_id: str, host: str) -> AsyncShell:
        """A shell there, over a connection that was kept or a new one; see `open_through_airflow` for what it raises.

        Its `close` gives the connection back.
        """
        loop, key = asyncio.get_running_loop(), (conn_id, host)
        kept = self._idle.pop(key, None)
        if kept is not None:
            if kept.timer is not None:
                kept.timer.cancel()
            if not kept.shell.connection.is_closed() and loop.time() - kept.opened_at < OLDEST_S:
                return _Borrowed(self, key, kept)
            kept.shell.connection.abort()
        async with self._turn:
            connection = await open_through_airflow(conn_id, host)
        return _Borrowed(self, key, _Kept(SshShell(connection), loop.time()))

    def give_back(self, key: _Key, kept: _Kept) -> None:
        """Keep a connection for whoever comes next; a second one to the same host is closed."""
        loop = asyncio.get_running_loop()
        if kept.shell.connection.is_closed() or key in self._idle:
            kept.shell.connection.abort()
            return
        self._idle[key] = kept
        kept.timer = loop.call_later(KEPT_S, self._drop, key)

    def _drop(self, key: _Key) -> None:
        kept = self._idle.pop(key, None)
        if kept is not None:
            kept.shell.connection.abort()

    def idle(self) -> frozenset[SshShell]:
        """Those that wait for somebody."""
        return frozenset(kept.shell for kept in self._idle.values())

    async def close(self) -> None:
        """End all that are kept."""
        kept = [self._idle.pop(key) for key in tuple(self._idle)]
        for one in kept:
            if one.timer is not None:
                one.timer.cancel()
            await one.shell.close(is_sound=False)


class _Borrowed(SshShell):
    def __init__(self, home: KeptShells, key: _Key, kept: _Kept) -> None:
        super().__init__(kept.shell.connection)
        self._home, self._key, self._kept = home, key, kept

    async def close(self, *, is_sound: bool) -> None:
        """Give it back, or end it."""
        if is_sound:
            self._home.give_back(self._key, self._kept)
        else:
            await super().close(is_sound=False)


_OF_LOOP: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, KeptShells] = weakref.WeakKeyDictionary()


def kept_shells() -> KeptShells:
    """Those of the running event loop."""
    loop = asyncio.get_running_loop()
    if loop not in _OF_LOOP:
        _OF_LOOP[loop] = KeptShells()
    return _OF_LOOP[loop]
