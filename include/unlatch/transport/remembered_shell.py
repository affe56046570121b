"""Shells on hypervisors for one look: each command is run once there, and a silent hypervisor is asked once."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from unlatch.memory import Memory
from unlatch.transport.shell import FinishedCommand, Shell, ShellOpener


class RememberedShell:
    """A `Shell` that runs the same command once. Only for commands that change nothing."""

    def __init__(self, shell: Shell) -> None:
        """Run nothing yet."""
        self._shell = shell
        self._memory = Memory()

    def run(self, argv: Sequence[str], *, timeout_s: float) -> FinishedCommand:
        """See `Shell.run`."""
        return self._memory.ask(tuple(argv), lambda: self._shell.run(argv, timeout_s=timeout_s))


def remembering(shell_for: ShellOpener) -> ShellOpener:
    """Shells that remember, one for each hypervisor."""
    shells: dict[str, RememberedShell] = {}
    turn = threading.Lock()

    def opened(conn_id: str, name: str) -> RememberedShell:
        with turn:
            if name not in shells:
                shells[name] = RememberedShell(shell_for(conn_id, name))
            return shells[name]

    return opened
