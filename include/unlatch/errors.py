"""The error tree: what a step raises decides whether Airflow tries again, stops, or a person is told.

A message says what happened, to what, and what to do next.
"""

from typing import Any


class UnlatchError(Exception):
    """Base of all errors that Unlatch raises on purpose.

    Attributes:
        what: What happened and to which file, host or instance.
        next_step: What the reader should do now; may be empty where there is nothing to do.
        detail: What the audit keeps of it beyond the words (JSON types).
    """

    exit_code = 4

    def __init__(self, what: str, *, next_step: str = "", detail: dict[str, Any] | None = None) -> None:
        """Keep both halves of the message apart, so that tickets can show them as two lines."""
        super().__init__(what, next_step)
        self.what = what
        self.next_step = next_step
        self.detail = detail or {}

    def __str__(self) -> str:
        """One line for logs."""
        return f"{self.what} Next: {self.next_step}" if self.next_step else self.what


class RefusedError(UnlatchError):
    """A safety rule forbids going on. Never retried; a person is told."""

    exit_code = 3


class CheckFailedError(UnlatchError):
    """Unlatch acted, and what should hold afterwards does not. Never retried; a person is told."""

    exit_code = 4


class ConfigError(UnlatchError):
    """The inventory, a connection, a privilege or a plug-in is wrong. Raised as early as possible; never retried."""

    exit_code = 5


class TransientError(UnlatchError):
    """Something was out of reach or busy for the moment. Airflow retries."""

    exit_code = 6


class UnreachableError(TransientError):
    """A machine did not answer at all: another question to it would wait as long for nothing."""
