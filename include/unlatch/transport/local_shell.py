"""Commands on this machine, for logs that are collected here; the counterpart of an SSH session."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from unlatch.errors import ConfigError, TransientError


@dataclass(frozen=True)
class LocalAnswer:
    """A finished command."""

    code: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Both outputs for a person to read, standard error last."""
        return (self.stdout + self.stderr).decode("utf-8", "replace")


class LocalShell:
    """Runs commands here as `SshSession` does there."""

    def run(self, argv: Sequence[str], *, timeout_s: float) -> LocalAnswer:
        """Run a program and wait for it.

        Raises:
            TransientError: it did not end in time.
            ConfigError: it is not there.
        """
        try:
            ran = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False)
        except subprocess.TimeoutExpired as error:
            raise TransientError(
                f"{argv[0]} on this machine did not end within {timeout_s:g} s.", next_step="see whether a disk hangs."
            ) from error
        except OSError as error:
            raise ConfigError(f"{argv[0]} cannot be run on this machine: {error.strerror}") from error
        return LocalAnswer(ran.returncode, ran.stdout, ran.stderr)
