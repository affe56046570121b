"""The same act for each of many things, several of them side by side; what came of it is told in their order.

On NFS every call waits for the server, so many threads call at a time. Elsewhere a look costs this processor's time and
not the disk's, so several processes look: an interpreter runs on one processor.
"""

import contextlib
import itertools
from typing import Any, Callable, Dict, Iterable, Iterator, List, Sequence, TypeVar

from unlatch_agent import crew, ioguard, workers
from unlatch_agent.ioguard import Beat

Item = TypeVar("Item")
Result = TypeVar("Result")

# So many are on their way to a server before the next beat.
_ON_THEIR_WAY = 4 * workers.NFS_THREADS
# What a process is given at a time. Fewer are done before a process has begun.
_CHUNK = 512
# None of its own: a process that hangs beats no more, and then its parent does not either.
_LIMIT_S = 1e6


def do(items: Iterable[Item], act: Callable[[Item], None], beat: Beat, *, on_nfs: bool) -> None:
    """Act on each item; see :func:`here`."""
    for _ in here(items, act, beat, on_nfs=on_nfs):
        pass


def here(items: Iterable[Item], act: Callable[[Item], Result], beat: Beat, *, on_nfs: bool) -> "Iterator[Result]":
    """Yield what ``act`` makes of each item in this process: on NFS many at a time, else one after the other.

    Args:
        items: read a few ahead.
        act: what is done; on NFS in threads.
        beat: called before each touch, or each few of them.
        on_nfs: whether acts wait for a server.

    Raises:
        BaseException: the first error of ``act``. On NFS acts that were on their way then are done as well.
    """
    if not on_nfs:
        for item in items:
            beat(None)
            yield act(item)
        return
    left = iter(items)
    while True:
        some = list(itertools.islice(left, _ON_THEIR_WAY))
        if not some:
            return
        beat(None)
        for result in workers.results(some, act, min(workers.NFS_THREADS, len(some))):
            yield result


def each(items: Sequence[Item], look: Callable[[Item], Any], beat: Beat, *, on_nfs: bool) -> Iterator[Any]:
    """Yield what ``look`` says of each item; of many that are not on NFS several processes look.

    Args:
        items: what to look at.
        look: changes nothing that this process has: another may call it. Returns JSON, and not much of it.
        beat: called before each look, or each few of them.
        on_nfs: whether looks wait for a server.

    Raises:
        AgentError, OSError: raised by a look; of many not always by the first that is wrong.
    """
    chunks = [items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK)]
    processes = 0 if on_nfs else crew.size(len(chunks))
    seen = _apart(chunks, look, beat, processes) if processes else here(items, look, beat, on_nfs=on_nfs)
    for result in seen:
        yield result


def _apart(chunks: Sequence[Sequence[Item]], look: Callable[[Item], Any], beat: Beat, processes: int) -> Iterator[Any]:
    def looked(number: int, beat: Beat) -> List[Any]:
        return list(here(chunks[number], look, beat, on_nfs=False))

    early: Dict[int, List[Any]] = {}
    following = 0
    outcomes = ioguard.each(list(range(len(chunks))), looked, _LIMIT_S, processes, lambda: beat(None))
    with contextlib.closing(outcomes):  # ends the processes
        for outcome in outcomes:
            early[outcome.item] = outcome.value
            while following in early:
                for value in early.pop(following):
                    yield value
                following += 1
