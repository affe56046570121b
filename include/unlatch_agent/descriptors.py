"""How many files this process may have open at a time."""

import resource

from unlatch_agent.errors import HostError

# Pipes, directories, a look at a file now and then.
_SPARE = 64
# Of each directory the journal and the lock between agents stay open.
_OF_A_DIRECTORY = 2


def allow(needed: int, wished: int = 0, *, directories: int = 0) -> int:
    """Allow as many open files as a batch has; some servers lock every table's file.

    A swap holds each new file open and locked until its end, so that number is a must, and it is better to know it
    before the copies are made.

    Args:
        needed: without which the repair could not be finished.
        wished: what would make it fast.
        directories: how many the files are in.

    Returns:
        how many files may be open, besides those of the directories.

    Raises:
        HostError: ``too_many_files``: the user may not have so many open.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return max(needed, wished)
    spare = _SPARE + _OF_A_DIRECTORY * directories
    best = max(needed, wished) + spare
    most = best if hard == resource.RLIM_INFINITY else min(best, hard)
    if most > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    allowed = max(soft, most) - spare
    if allowed < needed:
        raise HostError(
            "too_many_files",
            "{} files would be held open in one batch, besides {} of the agent, and this user may have {}".format(
                needed, spare, allowed + spare
            ),
            "raise the hard limit of open files for this user (ulimit -Hn, /etc/security/limits.conf: nofile)",
        )
    return allowed
