"""How many files this process may have open at a time."""

import resource

from unlatch_agent.errors import HostError

# The journal, pipes, directories, a look at a file now and then.
_SPARE = 64


def allow(needed: int, wished: int = 0) -> int:
    """Allow as many open files as a batch has; some servers lock every table's file.

    A swap holds each new file open and locked until its end, so that number is a must, and it is better to know it
    before the copies are made.

    Args:
        needed: without which the repair could not be finished.
        wished: what would make it fast.

    Returns:
        how many files may be open.

    Raises:
        HostError: ``too_many_files``: the user may not have so many open.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return max(needed, wished)
    best = max(needed, wished) + _SPARE
    most = best if hard == resource.RLIM_INFINITY else min(best, hard)
    if most > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    allowed = max(soft, most) - _SPARE
    if allowed < needed:
        raise HostError(
            "too_many_files",
            "{} files would be held open in one batch, and this user may have {}".format(needed, allowed),
            "raise the hard limit of open files for this user (ulimit -Hn, /etc/security/limits.conf: nofile)",
        )
    return allowed
