"""clone: the copy shares the original's blocks (FICLONE: xfs, btrfs, NFSv4.2 on such a server).

Reading such a copy back would read the original's own blocks and prove nothing. What can be proved is that
both files have the same extents; the file system then answers for the bytes, and the engine's checksums do.
"""

import os
from typing import Iterator, List, Optional

from unlatch_agent import syscalls
from unlatch_agent.requests import Advance, Request, unfit
from unlatch_agent.syscalls import Extent


def clone(request: Request, advance: Advance) -> None:
    """Share all blocks.

    Raises:
        UnfitError: the volume, or this file, cannot do that.
        OSError: anything else.
    """
    try:
        syscalls.clone(request.source, request.target)
    except OSError as error:
        raise unfit(error) from error
    advance(request.size_bytes)


def same_extents(first: int, second: int, size_bytes: int) -> Optional[bool]:
    """Say whether two files of the same size share all their blocks; None when the file system does not tell.

    A difference means that one of them was written to since it was cloned: shared blocks are never written in place.
    """
    if os.fstat(first).st_size != size_bytes or os.fstat(second).st_size != size_bytes:
        return False
    one, other = _merged(first), _merged(second)
    try:
        while True:
            mine, its = next(one, None), next(other, None)
            if mine is None or its is None:
                return mine is None and its is None
            if (mine.flags | its.flags) & syscalls.FIEMAP_EXTENT_NO_PLACE:
                return None
            if mine[:3] != its[:3]:
                return False
    except OSError:
        return None


def _merged(descriptor: int) -> Iterator[Extent]:
    """Yield written extents, those that touch each other as one: two files may cut the same blocks differently."""
    last: List[Extent] = []
    for extent in syscalls.extents(descriptor):
        if extent.flags & syscalls.FIEMAP_EXTENT_UNWRITTEN:
            continue
        if last:
            before = last.pop()
            touches = (before.start + before.size_bytes, before.place + before.size_bytes) == extent[:2]
            if touches and not (before.flags | extent.flags) & syscalls.FIEMAP_EXTENT_NO_PLACE:
                last.append(before._replace(size_bytes=before.size_bytes + extent.size_bytes))
                continue
            yield before
        last.append(extent)
    for extent in last:
        yield extent
