"""Comparing a large copy with its original while it is made: each stretch once it is on disk.

The copy's side comes from the storage, as in comparing.py. The original's side is what was read to make the copy, which
the page cache keeps until then: so an original is read once. On a local file system, where whoever writes to a file
writes to that page cache, one stretch is compared while the next is copied. On NFS it is compared before the next is
copied: a client that reads a file past its page cache does not write to it meanwhile. There another machine may write
to the original, unseen; the caller asks the server at the end whether one has.
"""

import contextlib
import os
import threading
from typing import Callable, Iterator, Optional, Tuple, Union

from unlatch_agent import comparing, directio, ranges
from unlatch_agent.errors import naming
from unlatch_agent.reading import Side
from unlatch_agent.requests import Advance

# Fewer than copy: they wait less.
THREADS = 2

Follow = Callable[[int, int], None]


class DiffersError(Exception):
    """A stretch of the copy, read back, is not what was read of the original."""


class Following:
    """The compare that follows one copy.

    Attributes:
        is_whole: every byte was compared, and is the same.
    """

    def __init__(self, *, is_nfs: bool = False) -> None:
        """Begin with nothing compared."""
        self.is_whole = False
        self._is_nfs = is_nfs

    @contextlib.contextmanager
    def beside(self, source: int, target: int, size_bytes: int, advance: Advance) -> Iterator[Follow]:
        """Compare what is copied in this context, up to the last stretch.

        Yields:
            what is to be called with the start and the end of each stretch, in order, once that is written. It waits
            until the stretch before the last is compared, on NFS this one: no more than three are kept in memory.

        Raises:
            DiffersError: the copy is wrong; raised by one of the next calls, or at the end.
            OSError: the storage does not take or give a part of it.
        """
        with directio.reopened(source, 0) as again, directio.reopened(target) as direct:
            original = source if again is None else again

            def compare(start: int, end: int) -> None:
                with naming(target):
                    os.fdatasync(target)
                # An NFS client reads ahead too little.
                through_cache = not self._is_nfs and directio.is_evicted(target, end - start, start)
                sides = [Side(original, None, start), Side(target, None if through_cache else direct, start)]
                wanted = ranges.pieces([(start, end)], size_bytes)
                if not comparing.compared(sides, wanted, end - start, advance, THREADS):
                    raise DiffersError
                for descriptor in (original, target):
                    directio.let_go(descriptor, start, end - start)

            row: Union[_AtOnce, _OneBehind] = _AtOnce(compare) if self._is_nfs else _OneBehind(compare)
            try:
                yield row.add
                row.finish()
            finally:
                row.wait()
        self.is_whole = row.done_bytes == size_bytes


class _AtOnce:
    """Compares each stretch before the next is written."""

    def __init__(self, compare: Follow) -> None:
        self.done_bytes = 0
        self._compare = compare

    def add(self, start: int, end: int) -> None:
        """Compare this stretch, which is written."""
        self._compare(start, end)
        self.done_bytes += end - start

    def finish(self) -> None:
        """Do nothing: all are compared."""

    def wait(self) -> None:
        """Do nothing: nothing is under way."""


class _OneBehind:
    """Compares stretches one after the other in another thread, each when the next one is written.

    The kernel reads ahead of what is compared, but not so far that it meets what is being written.
    """

    def __init__(self, compare: Follow) -> None:
        self.done_bytes = 0
        self._compare = compare
        self._last: Optional[Tuple[int, int]] = None
        self._thread: Optional[threading.Thread] = None
        self._error: Optional[BaseException] = None

    def add(self, start: int, end: int) -> None:
        """Compare the stretch before this one, which is written."""
        self._begin_last()
        self._last = (start, end)

    def finish(self) -> None:
        """Compare the last stretch too."""
        self._begin_last()
        self._last = None
        self._begin_last()

    def wait(self) -> None:
        """Wait for the thread, whatever comes of it."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _begin_last(self) -> None:
        self.wait()
        if self._error is not None:
            raise self._error
        if self._last is not None:
            self._thread = threading.Thread(target=self._run, args=self._last, daemon=True)
            self._thread.start()

    def _run(self, start: int, end: int) -> None:
        try:
            self._compare(start, end)
            self.done_bytes += end - start
        except BaseException as error:  # noqa: BLE001 (raised again in the thread that waits)
            self._error = error
