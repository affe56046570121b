"""Reading a file piece by piece: past the page cache, or through it and leaving nothing there."""

import threading
from typing import Optional

from unlatch_agent import directio, syscalls
from unlatch_agent.errors import naming
from unlatch_agent.ranges import ALIGNMENT_BYTES

# What was read is dropped from the page cache so much at a time, and so far behind what is being read: a page that
# was read just now is still on some processor's list, and dropping it waits for every processor of the host.
_DROP_BYTES = 32 << 20
_BEHIND_BYTES = 16 << 20


class Side:
    """One file that is read in order, by any number of threads: its descriptor, and one for direct I/O or None."""

    def __init__(self, plain: int, direct: Optional[int], start: int = 0, *, is_kept: bool = False) -> None:
        """Read past the page cache when there is a descriptor for that.

        Args:
            plain: a descriptor.
            direct: one for direct I/O.
            start: where the reading begins; what is before it stays as it is.
            is_kept: leave what was read in the page cache: someone else reads it again, and drops it.
        """
        self._plain = plain
        self._direct = direct
        self._lock = threading.Lock()
        self._dropped_bytes = start
        self._is_kept = is_kept

    def fill(self, buffer: syscalls.Buffer, start: int, size_bytes: int) -> bool:
        """Read a piece; False when the file ends before it does."""
        if self._direct is not None:
            try:
                count = buffer.read(self._direct, size_bytes + -size_bytes % ALIGNMENT_BYTES, start)
            except OSError:
                count = 0  # the plain descriptor says whether it is the disk or only the alignment
            if count >= size_bytes:
                return True
        done = 0
        while done < size_bytes:
            with naming(self._plain):
                count = buffer.read(self._plain, size_bytes - done, start + done, done)
            if not count:
                return False
            done += count
        if not self._is_kept:
            self._drop_behind(start)
        return True

    def let_go(self) -> None:
        """Drop what is left of the file in the page cache."""
        directio.let_go(self._plain, 0, 0)

    def _drop_behind(self, position: int) -> None:
        with self._lock:
            begin, end = self._dropped_bytes, position - _BEHIND_BYTES
            if end - begin < _DROP_BYTES:
                return
            self._dropped_bytes = end
        directio.let_go(self._plain, begin, end - begin)
