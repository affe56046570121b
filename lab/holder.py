"""A living process of the guest that locks a file: what a repair must refuse to touch."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from lab.errors import LabError


class LocalHolder(subprocess.Popen[str]):
    """The holder's `Popen`; `kill()` or `terminate()` ends it, `wait()` returns when its lock is gone."""

    def __init__(self, argv: Sequence[str]) -> None:
        """Start it and return when it holds the lock.

        Raises:
            LabError: It did not get the lock; the message has its last words.
        """
        super().__init__(
            list(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        first = self.stdout.readline().strip() if self.stdout else ""
        if first != "locked":
            words, _nothing = self.communicate()
            raise LabError(f"the local holder got no lock: {first}\n{words.strip()}")

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end of the holder, not only of the program that took it into the guest's namespaces."""
        returncode = super().wait(timeout)
        if self.stdout is not None and not self.stdout.closed:
            self.stdout.read()  # ends when the last process that can write to the pipe has ended
            self.stdout.close()
        return returncode
