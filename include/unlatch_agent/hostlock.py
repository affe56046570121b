"""One agent per directory at a time, on this host, and the state directory that this needs.

The lock is a flock on a file of a local disk: on the volume it would hang with the volume, and a
crash would leave behind the very kind of lock that this program is here to cure.
"""

import fcntl
import hashlib
import os
import shlex
import stat
from typing import Iterable, List

from unlatch_agent import descriptors, facts, hostrows
from unlatch_agent.errors import HostError, Json, TryAgainError

STATE_VARIABLE = "UNLATCH_AGENT_STATE"


def _state_path() -> str:
    return os.environ.get(STATE_VARIABLE) or "/var/tmp/unlatch-{}".format(os.geteuid())  # noqa: S108 (checked to be private)


def _is_private(path: str) -> bool:
    status = os.lstat(path)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022


def state_row() -> Json:
    """Say whether `state_directory` would be there for this user; it is not made."""
    path, privilege = _state_path(), "state directory"
    base = os.path.dirname(path)
    if os.path.lexists(path):
        if not _is_private(path):
            why = "it is not a private directory of {}".format(facts.user_name(os.geteuid()))
            return hostrows.row(privilege, path, False, why, "rm -r {}".format(shlex.quote(path)))
        where, why = path, "it is there"
    else:
        where, why = base, "it would be made"
    if not os.access(where, os.W_OK | os.X_OK):
        why = "{} may not write in {}".format(facts.user_name(os.geteuid()), where)
        return hostrows.row(privilege, path, False, why, "mount it read-write; chmod 1777 {}".format(shlex.quote(base)))
    if not os.statvfs(where).f_bavail:
        return hostrows.row(privilege, path, False, "{} is full".format(where), "make room there")
    return hostrows.row(privilege, path, True, why, "")


def state_directory() -> str:
    """Return this user's private state directory on the local disk, making it when it is missing.

    Raises:
        HostError: it cannot be made, or others could write into it.
    """
    path = _state_path()
    advice = "remove {0}, or set {1} to a local directory that only this user can write".format(path, STATE_VARIABLE)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise HostError("state_directory", "cannot make {}: {}".format(path, error.strerror), advice) from error
    if not _is_private(path):
        raise HostError("state_directory", "{} is not a private directory of this user".format(path), advice)
    return path


def _lock_file(directory: str) -> str:
    key = hashlib.sha256(os.fsencode(directory)).hexdigest()[:32]
    return os.path.join(state_directory(), "{}.lock".format(key))


def acquire(directories: Iterable[str]) -> List[int]:
    """Lock directories (resolved paths) for this process and its children, until it ends.

    Returns:
        the descriptors that hold the locks; closing them all lets go.

    Raises:
        TryAgainError: another agent works on one of them (``busy``).
        HostError: ``too_many_files``: there are more than this user may have files open.
    """
    held: List[int] = []
    names = sorted(set(directories))
    descriptors.allow(0, directories=len(names))
    for directory in names:
        descriptor = os.open(_lock_file(directory), os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        held.append(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            for other in held:
                os.close(other)
            raise TryAgainError(
                "busy",
                "another agent works on {}".format(directory),
                "wait until it ends (status shows how far it is), then run the same command again",
            ) from None
    return held
