"""Commands for followers of logs: on a hypervisor over a connection that is kept, or on this machine. asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

import asyncssh

from unlatch.errors import TransientError

_CHUNK_BYTES = 64 << 10


class AsyncShell(Protocol):
    """Runs commands on one machine. The standard input of each stays open for as long as somebody listens."""

    def chunks(self, argv: Sequence[str]) -> AsyncGenerator[bytes, None]:
        """What the program prints, as it comes; it is ended when nobody listens any more.

        Raises:
            TransientError, asyncssh.Error, OSError: the connection was lost.
        """

    async def close(self, *, is_sound: bool) -> None:
        """Give it up; one that is sound may be used again by somebody else."""


class SshShell:
    """A machine at the other end of a connection."""

    def __init__(self, connection: asyncssh.SSHClientConnection) -> None:
        """Take the connection over."""
        self.connection = connection

    async def chunks(self, argv: Sequence[str]) -> AsyncGenerator[bytes, None]:
        """See `AsyncShell.chunks`."""
        process: asyncssh.SSHClientProcess[bytes] = await self.connection.create_process(
            shlex.join(argv), encoding=None, stderr=asyncssh.DEVNULL
        )
        try:
            while data := await process.stdout.read(_CHUNK_BYTES):
                yield data
            await process.wait_closed()
            if process.exit_status is None and process.exit_signal is None:
                raise TransientError("The connection was lost.")
        finally:
            process.close()

    async def close(self, *, is_sound: bool) -> None:  # noqa: ARG002  # see `AsyncShell`
        """End the connection."""
        self.connection.abort()
        await self.connection.wait_closed()


class LocalAsyncShell:
    """This machine."""

    async def chunks(self, argv: Sequence[str]) -> AsyncGenerator[bytes, None]:
        """See `AsyncShell.chunks`."""
        starting = asyncio.create_task(_started(argv))
        try:
            process = await asyncio.shield(starting)
        except asyncio.CancelledError:
            # asyncio that is interrupted in the midst of it waits for pipes which nobody will close.
            await _end(await starting)
            raise
        try:
            while process.stdout is not None and (data := await process.stdout.read(_CHUNK_BYTES)):
                yield data
        finally:
            await _end(process)

    async def close(self, *, is_sound: bool) -> None:
        """Nothing is open between two commands."""


async def output_of(shell: AsyncShell, argv: Sequence[str], *, limit_s: float) -> bytes:
    """Everything that a program prints.

    Raises:
        TimeoutError: it did not end in time.
        TransientError, asyncssh.Error, OSError: the connection was lost.
    """
    async with asyncio.timeout(limit_s), contextlib.aclosing(shell.chunks(argv)) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def _started(argv: Sequence[str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        process_group=0,
    )


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a program with its children: asyncio's `wait` ends when the pipes do too, and they hold them.

    Children of another user end with their standard input.
    """
    if process.stdin is not None:
        process.stdin.close()
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
