"""Copying a file's bytes: the methods, and which one a file gets.

A method is tried when a cheap probe speaks for it, or when it was asked for by name. What it cannot do
it hands to the next, from where it was; whatever copied the bytes, they are verified afterwards.
"""

import errno
from typing import Callable, Dict, List, NamedTuple, Optional, Set, Tuple

from unlatch_agent import cloning, servercopy, streaming
from unlatch_agent.errors import HostError, Json
from unlatch_agent.requests import Advance, Request, UnfitError

_FULL = (errno.ENOSPC, errno.EDQUOT)
AUTO = "auto"

# The ways to copy, by name, from the cheapest to the one that always works.
METHODS: Dict[str, Callable[[Request, Advance], Optional[bytes]]] = {
    "clone": cloning.clone,
    "server": servercopy.server,
    "stream": streaming.stream,
}


class Asked(NamedTuple):
    """What the caller wants of all copies.

    Attributes:
        method: a key of METHODS, or auto.
        verification: one of VERIFICATIONS: full, sample, none.
        strict_metadata: refuse a copy that cannot keep all of the original's metadata.
        engine_check: also run the engine's own checksums over the copies.
    """

    method: str = AUTO
    verification: str = "full"
    strict_metadata: bool = False
    engine_check: bool = False


class Copied(NamedTuple):
    """How a file was copied.

    Attributes:
        method: by which one.
        fell_back: what went wrong with those before it.
        content: the bytes of a small file, when they went through this program.
    """

    method: str
    fell_back: List[Json]
    content: Optional[bytes] = None


class Chooser:
    """Chooses methods, and remembers what a volume has shown that it cannot do."""

    def __init__(self, asked: str) -> None:
        """Choose for the ``--method`` option."""
        self._asked = asked
        self._never: Set[Tuple[str, int]] = set()

    def methods(
        self, size_bytes: int, dev: int, *, is_begun: bool = False, may_copy_on_server: bool = False
    ) -> List[str]:
        """Return the methods to try for a file, in order.

        Args:
            size_bytes: its size.
            dev: its volume.
            is_begun: whether an earlier run has copied a part; what could be cloned would not have been begun.
            may_copy_on_server: whether the NFS server can copy by itself.
        """
        if self._asked != AUTO:
            return [self._asked]
        wanted = ["stream"]
        if size_bytes and may_copy_on_server:
            wanted.insert(0, "server")
        if size_bytes and not is_begun:
            wanted.insert(0, "clone")
        return [name for name in wanted if (name, dev) not in self._never]

    def copy(self, request: Request, advance: Advance) -> Copied:
        """Copy all bytes of a file.

        Args:
            request: what to copy.
            advance: called with the number of bytes done since the last call; holes count.

        Raises:
            HostError: ``no_space``; ``method_not_possible`` when the only method that was asked for is not.
            OSError: anything else.
        """
        fell_back: List[Json] = []
        unfit: Optional[UnfitError] = None
        for name in self.methods(
            request.size_bytes,
            request.dev,
            is_begun=bool(request.start_bytes),
            may_copy_on_server=request.may_copy_on_server,
        ):
            try:
                content = METHODS[name](request, advance)
            except UnfitError as why:
                unfit = why
                if why.is_for_good:
                    self._never.add((name, request.dev))
                fell_back.append({"method": name, "why": str(why), "at_bytes": why.done_bytes})
                request = request._replace(start_bytes=why.done_bytes)
            except OSError as error:
                if error.errno in _FULL:
                    raise no_space(error, request.path) from error
                raise
            else:
                return Copied(name, fell_back, content)
        raise HostError(
            "method_not_possible",
            "{} cannot be copied by {}: {}".format(request.path, self._asked, unfit),
            "use --method auto: it goes on with the next method where one cannot",
        )


def no_space(error: OSError, path: str) -> HostError:
    """Return the error for a full volume or quota."""
    what = "the quota is used up" if error.errno == errno.EDQUOT else "no space is left"
    return HostError(
        "no_space",
        "{} for the copy of {}".format(what, path),
        "make room on the volume or raise the quota (a copy needs the file's full size), then run the same "
        "command again: copies that are complete are kept",
    )


def too_little_space(directory: str, needed_bytes: int, free_bytes: int) -> HostError:
    """Return the error for a volume that cannot take the copies."""
    return HostError(
        "no_space",
        "{} has {} bytes free and the copies need {}".format(directory, free_bytes, needed_bytes),
        "make room on the volume (a copy needs the file's full size), then run the same command again",
    )
