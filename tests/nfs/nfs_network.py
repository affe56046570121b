"""The NFS lab's network: a namespace that threads and commands enter, and a race of the scripts that make it."""

from __future__ import annotations

import ctypes
import os
import re

# How often a script is run that has lost the race below.
TRIES = 5
_CLONE_NEWNET = 0x40000000
_RACE = re.compile(r"^(Error: ipv4: Address already assigned|.*File exists)", re.MULTILINE)


def setns(descriptor: int) -> None:
    """Move this thread into an open network namespace.

    Raises:
        OSError: it may not.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot enter the lab's network: {os.strerror(number)}")


def nsenter(namespace: str) -> tuple[str, ...]:
    """The words before a command that is to run in a network namespace, given by its file."""
    return ("nsenter", f"--net={namespace}")


def lost_the_race(said: str) -> bool:
    """Whether a script ended since it made what was there already; then it has started no machine and can be run again.

    They look for their network by `ip ... | grep -q` under pipefail: when grep is done first, `ip` dies of SIGPIPE.
    """
    return _RACE.search(said) is not None
