"""Reading pieces of a file: past the page cache where it allows that, and else leaving nothing there."""

from typing import NamedTuple, Optional

from unlatch_agent import directio, syscalls
from unlatch_agent.errors import naming
from unlatch_agent.ranges import ALIGNMENT_BYTES


class Side(NamedTuple):
    """One file that is read: its descriptor, and one for direct I/O where that works.

    Dropping from the page cache what was read just now waits for every processor of the host: the second choice.
    """

    plain: int
    direct: Optional[int]

    def fill(self, buffer: syscalls.Buffer, start: int, size_bytes: int) -> bool:
        """Read a piece; False when the file ends before it does."""
        if self.direct is not None:
            try:
                count = buffer.read(self.direct, size_bytes + -size_bytes % ALIGNMENT_BYTES, start)
            except OSError:
                count = 0  # the plain descriptor says whether it is the disk or only the alignment
            if count >= size_bytes:
                return True
        done = 0
        while done < size_bytes:
            with naming(self.plain):
                count = buffer.read(self.plain, size_bytes - done, start + done, done)
            if not count:
                return False
            done += count
        directio.let_go(self.plain, start, size_bytes)
        return True
