"""A few threads at a time, inside the guarded child: they end before anything else is begun.

No thread may live when this program forks, so none outlives the call that started it.
"""

import threading
from typing import Callable, Dict, Generic, Iterable, Iterator, List, Sequence, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# So many calls at a time wait for an NFS server.
NFS_THREADS = 16


class _Shared(Generic[Item]):
    """What the threads of one call share: the items that are left, and the first error."""

    def __init__(self, items: Iterable[Item]) -> None:
        self.errors: List[BaseException] = []
        self._lock = threading.Lock()
        self._items = iter(items)

    def taken(self) -> Iterator[Item]:
        """Yield items, each to one thread only, until there are none or a thread has failed."""
        while True:
            with self._lock:
                if self.errors:
                    return
                try:
                    item = next(self._items)
                except StopIteration:
                    return
            yield item

    def run(self, act: Callable[[Iterator[Item]], None]) -> None:
        """Work in one thread, and keep its error for the thread that started it."""
        try:
            act(self.taken())
        except BaseException as error:  # noqa: BLE001 (raised again by the caller of the threads)
            self.errors.append(error)


def share(items: Iterable[Item], act: Callable[[Iterator[Item]], None], count: int) -> None:
    """Run ``act(mine)`` in several threads; ``mine`` yields the items that fall to that thread.

    Args:
        items: read one by one, by whichever thread asks: they need not fit in memory.
        act: runs once in each thread, so that it can keep its own buffers.
        count: how many threads; one means the calling thread.

    Raises:
        BaseException: the first error of any thread; the others take no new items after it.
    """
    shared: "_Shared[Item]" = _Shared(items)
    if count <= 1:
        shared.run(act)
    else:
        threads = [threading.Thread(target=shared.run, args=(act,), daemon=True) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if shared.errors:
        raise shared.errors[0]


def each(items: Iterable[Item], act: Callable[[Item], None], count: int) -> None:
    """Call ``act`` with every item, in several threads.

    Raises:
        BaseException: the first error; items that nobody has taken by then are left.
    """

    def all_mine(mine: Iterator[Item]) -> None:
        for item in mine:
            act(item)

    share(items, all_mine, count)


def results(items: Sequence[Item], act: Callable[[Item], Result], count: int) -> List[Result]:
    """Return what ``act`` makes of every item, in their order.

    Raises:
        BaseException: the first error.
    """
    made: Dict[int, Result] = {}

    def act_on(number: int) -> None:
        made[number] = act(items[number])

    each(range(len(items)), act_on, count)
    return [made[number] for number in range(len(items))]
