"""One writer at a time: ticket systems have no "add unless it is there", so looking and adding must not interleave."""

from __future__ import annotations

import errno
import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unlatch.errors import ConfigError, TransientError

_WAIT_S = 60.0
_LOOK_AGAIN_S = 0.05


@contextmanager
def turn(directory: Path, system: str) -> Iterator[None]:
    """Be the only one who writes to `system`, among all workers that share `directory`.

    The lock goes with the process, so a killed writer leaves none behind.

    Raises:
        TransientError: another writer does not finish, or the disk is full.
        ConfigError: the directory cannot be written.
    """
    deadline = time.monotonic() + _WAIT_S
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / f".{system}.lock").open("a")
    except OSError as error:
        raise not_writable(error, directory) from error
    with lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise TransientError(
                        f"Another writer of tickets to {system} has not finished for {_WAIT_S:.0f} s.",
                        next_step=f"it is tried again; if it stays so, see who has {lock.name} open.",
                    ) from error
            time.sleep(_LOOK_AGAIN_S)
        yield


def not_writable(error: OSError, directory: Path) -> ConfigError | TransientError:
    """What the directory of tickets did not allow: a person's business, or one that may pass."""
    if error.errno in {
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EEXIST,
        errno.ENAMETOOLONG,
    }:
        return ConfigError(
            f"Tickets cannot be written in {directory}: {error.strerror}.",
            next_step="make it a directory that the user who runs Airflow may write, or set UNLATCH_TICKETS.",
        )
    return TransientError(
        f"A ticket could not be written in {directory}: {error.strerror}.",
        next_step="it is tried again; if it stays so, look at that disk.",
    )
