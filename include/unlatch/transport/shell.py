"""What runs commands on a machine, whichever way it is reached."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol


class FinishedCommand(Protocol):
    """What a command left."""

    @property
    def code(self) -> int:
        """Its exit code."""

    @property
    def stdout(self) -> bytes:
        """What it printed."""

    @property
    def stderr(self) -> bytes:
        """What it complained about."""


class Shell(Protocol):
    """Runs commands on one machine, as `SshSession` and `LocalShell` do."""

    def run(self, argv: Sequence[str], *, timeout_s: float) -> FinishedCommand:
        """Run a program and wait for it.

        Raises:
            TransientError: the machine is out of reach.
            ConfigError: the connection is wrong, or the host key is not the pinned one.
        """


ShellOpener = Callable[[str, str], Shell]
"""From an Airflow connection's id and the machine's name (for messages) to a shell there."""
