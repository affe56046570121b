"""Commands on another machine: one SSH connection, kept for all commands of a session, each with a time limit."""

from __future__ import annotations

import codecs
import functools
import select
import shlex
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import paramiko

from unlatch.errors import CheckFailedError, TransientError, UnreachableError
from unlatch.transport.ssh_connect import connect_through_airflow

LARGEST_ANSWER_BYTES = 32 << 20
"""What a command may print: more is a machine gone mad, and would fill this worker's memory."""

_CHUNK_BYTES = 64 << 10
_POLL_S = 0.25  # the exit status does not wake the select; only output does
_LINGER_S = 1.0
"""How long to wait for more output after the end: a daemon that the command left behind may keep the pipe open."""


@dataclass(frozen=True)
class RemoteAnswer:
    """A finished command: its exit code and what it wrote."""

    code: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Both outputs for a person to read, standard error last."""
        return (self.stdout + self.stderr).decode("utf-8", "replace")


class SshSession:
    """Runs commands on one machine. Connects at the first command, and again when the connection was lost.

    Several threads may use it: it runs one command at a time.
    """

    def __init__(self, connect: Callable[[], paramiko.SSHClient], *, host: str) -> None:
        """Take a way to connect, which raises `TransientError` and `ConfigError`, and the machine's name."""
        self.host = host
        self._connect = connect
        self._client: paramiko.SSHClient | None = None
        self._turn = threading.RLock()

    @classmethod
    def through_airflow(cls, conn_id: str, *, host: str) -> Self:
        """A session over the Airflow connection `conn_id`."""
        return cls(functools.partial(connect_through_airflow, conn_id, host), host=host)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. The session may be used again: it then connects anew."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        stdin: bytes | None = None,
        on_stderr_line: Callable[[str], None] | None = None,
    ) -> RemoteAnswer:
        """Run a program, without a terminal, as the connection's login user.

        Args:
            argv: Program and arguments; quoted here for the login shell.
            timeout_s: Seconds from its start to the end of the command. The connection is cut when they are over; the
                command itself may go on.
            stdin: What the program reads; nothing when None.
            on_stderr_line: Called with each line of standard error as soon as it is there (progress).

        Raises:
            UnreachableError: the machine is out of reach, or the time is over.
            TransientError: the connection broke. Also then it is not known whether the command ran to its end.
            ConfigError: the connection is wrong.
            CheckFailedError: the command printed more than `LARGEST_ANSWER_BYTES`.
        """
        with self._turn:
            return self._run(argv, timeout_s=timeout_s, stdin=stdin, on_stderr_line=on_stderr_line)

    def _run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        stdin: bytes | None,
        on_stderr_line: Callable[[str], None] | None,
    ) -> RemoteAnswer:
        deadline = time.monotonic() + timeout_s
        channel = self._channel(timeout_s)
        try:
            channel.settimeout(timeout_s)
            channel.exec_command(shlex.join(argv))
            _feed(channel, stdin)
            out, err = self._read(channel, argv, deadline, timeout_s, _Lines(on_stderr_line))
            if not channel.status_event.wait(max(0.0, deadline - time.monotonic())):
                raise self._too_slow(argv, timeout_s)
            code = channel.recv_exit_status()
        except (OSError, EOFError, paramiko.SSHException) as error:
            self.close()
            raise self._broke(argv) from error
        finally:
            channel.close()
        if code < 0:
            raise self._broke(argv)
        return RemoteAnswer(code, out, err)

    def upload(self, data: bytes, path: str, *, mode: int) -> None:
        """Write a file in one step: nobody ever sees half of it under its name.

        Raises:
            CheckFailedError: it could not be written there.
        """
        script = 'umask 077; t="$1.$$" && cat >"$t" && chmod "$2" "$t" && mv -f "$t" "$1" || { rm -f "$t"; exit 1; }'
        answer = self.run(["sh", "-c", script, "upload", path, f"{mode:o}"], stdin=data, timeout_s=120)
        if answer.code != 0:
            raise CheckFailedError(
                f"{path} could not be written on {self.host}: {answer.text.strip()}",
                next_step="see whether that file system is full or read-only.",
            )

    def _channel(self, timeout_s: float) -> paramiko.Channel:
        transport = self._client.get_transport() if self._client else None
        if transport is None or not transport.is_active():
            self.close()
            self._client = self._connect()
            transport = self._client.get_transport()
        if transport is None:  # closed between the two lines
            raise TransientError(f"The connection to {self.host} was closed.")
        try:
            return transport.open_session(timeout=timeout_s)
        except (OSError, EOFError, paramiko.SSHException) as error:
            self.close()
            raise UnreachableError(
                f"{self.host} opened no session: {error}", next_step="see MaxSessions of its sshd, and its load."
            ) from error

    def _read(
        self, channel: paramiko.Channel, argv: Sequence[str], deadline: float, timeout_s: float, lines: _Lines
    ) -> tuple[bytes, bytes]:
        out, err = bytearray(), bytearray()
        ended_at: float | None = None
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._too_slow(argv, timeout_s)
            select.select([channel], [], [], min(left, _POLL_S))
            quiet = True
            while channel.recv_ready():
                out += channel.recv(_CHUNK_BYTES)
                quiet = False
            while channel.recv_stderr_ready():
                piece = channel.recv_stderr(_CHUNK_BYTES)
                err += piece
                lines.feed(piece)
                quiet = False
            if len(out) + len(err) > LARGEST_ANSWER_BYTES:
                raise CheckFailedError(
                    f"{self.host} answered more than {LARGEST_ANSWER_BYTES >> 20} MiB to {_short(argv)}.",
                    next_step="run that command there by hand and see what it prints.",
                )
            if quiet and (channel.eof_received or channel.closed):
                break
            if not quiet or not channel.exit_status_ready():
                ended_at = None
            elif ended_at is None:
                ended_at = time.monotonic()
            elif time.monotonic() - ended_at > _LINGER_S:
                break
        lines.end()
        return bytes(out), bytes(err)

    def _too_slow(self, argv: Sequence[str], timeout_s: float) -> UnreachableError:
        return UnreachableError(
            f"{self.host} did not finish {_short(argv)} within {timeout_s:g} s; it may still run there.",
            next_step="see whether the machine or one of its mounts hangs.",
        )

    def _broke(self, argv: Sequence[str]) -> TransientError:
        return TransientError(
            f"{self.host} ended {_short(argv)} without an exit code: the connection broke or the program was killed.",
            next_step="the next try looks how far it came.",
        )


class _Lines:
    """Cuts a stream of bytes into lines for the callback."""

    def __init__(self, tell: Callable[[str], None] | None) -> None:
        self._tell = tell
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._rest = ""

    def feed(self, piece: bytes) -> None:
        if self._tell is None:
            return
        *whole, self._rest = (self._rest + self._decode(piece)).split("\n")
        for line in whole:
            self._tell(line)

    def end(self) -> None:
        if self._tell is not None and self._rest:
            self._tell(self._rest)


def _feed(channel: paramiko.Channel, data: bytes | None) -> None:
    """Give the program its input. One that ends without reading it says why in its answer, which is still to come."""
    try:
        if data:
            channel.sendall(data)
        channel.shutdown_write()
    except OSError:
        if channel.closed and not channel.exit_status_ready():
            raise


def _short(argv: Sequence[str]) -> str:
    text = shlex.join(argv)
    return text if len(text) <= 120 else text[:117] + "…"  # noqa: PLR2004  # one line of a log
