"""The kinds of logs that can be read on from a position: files, and journals. Pure: commands there, answers back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from unlatch.models import HypervisorLog, Json
from unlatch.transport import journal_position, log_position
from unlatch.transport.log_position import LogNews


class LogAccess(Protocol):
    """One log; see `log_position` for what the answers may raise."""

    @property
    def where(self) -> str:
        """Its place, for messages."""

    def poll(self, cursor: Json | None, limit_bytes: int) -> list[str]:
        """The command that reads on behind a cursor; None: that finds the present end."""

    def news(self, output: bytes, cursor: Json | None, *, host: str, asked_at: datetime, limit_bytes: int) -> LogNews:
        """What that command printed means."""

    def tail(self, each_bytes: int) -> list[str]:
        """The command that prints the log's end."""

    def tail_lines(self, output: bytes, *, host: str) -> list[str]:
        """What that command printed means; the first lines may be torn."""


@dataclass(frozen=True)
class FileLog:
    """A file that grows, and is rotated."""

    path: str

    @property
    def where(self) -> str:
        """See `LogAccess`."""
        return self.path

    def poll(self, cursor: Json | None, limit_bytes: int) -> list[str]:
        """See `LogAccess`."""
        return log_position.poll_command(self.path, cursor, limit_bytes)

    def news(self, output: bytes, cursor: Json | None, *, host: str, asked_at: datetime, limit_bytes: int) -> LogNews:  # noqa: ARG002  # see `LogAccess`
        """See `LogAccess`."""
        return log_position.read_answer(output, cursor, host=host, path=self.path, asked_at=asked_at)

    def tail(self, each_bytes: int) -> list[str]:
        """See `LogAccess`."""
        return log_position.tail_command(self.path, each_bytes)

    def tail_lines(self, output: bytes, *, host: str) -> list[str]:
        """See `LogAccess`."""
        return log_position.tail_lines(output, host=host, path=self.path)


@dataclass(frozen=True)
class Journal:
    """Entries of a journal that journalctl's `arguments` select."""

    arguments: tuple[str, ...]
    where: str

    def poll(self, cursor: Json | None, limit_bytes: int) -> list[str]:
        """See `LogAccess`."""
        return journal_position.poll_command(self.arguments, cursor, limit_bytes)

    def news(self, output: bytes, cursor: Json | None, *, host: str, asked_at: datetime, limit_bytes: int) -> LogNews:
        """See `LogAccess`."""
        return journal_position.read_answer(
            output, cursor, host=host, where=self.where, asked_at=asked_at, limit_bytes=limit_bytes
        )

    def tail(self, each_bytes: int) -> list[str]:
        """See `LogAccess`."""
        return journal_position.tail_command(self.arguments, each_bytes)

    def tail_lines(self, output: bytes, *, host: str) -> list[str]:
        """See `LogAccess`."""
        return journal_position.tail_lines(output, host=host, where=self.where)

    def follow(self, cursor: Json | None) -> list[str]:
        """The command that prints entries from the cursor on as they come; it ends with its standard input."""
        return journal_position.follow_command(self.arguments, cursor)


def access_to(log: HypervisorLog) -> FileLog | Journal:
    """How a log of the inventory is read."""
    return Journal(log.journal, log.where) if log.path is None else FileLog(str(log.path))
