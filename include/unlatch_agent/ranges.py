"""Parts of files: where data is, and the pieces that it is read and written in."""

import errno
import heapq
import itertools
import os
from typing import Iterable, Iterator, List, Tuple

from unlatch_agent.errors import naming

# One read or write; large enough for any disk, small enough to say often how far it is.
PIECE_BYTES = 1 << 20
# What direct I/O needs its offsets and lengths to be a multiple of, on any disk that is sold.
ALIGNMENT_BYTES = 4096

# A file up to this size goes together with others, and is kept in memory from its reading to its compare.
SMALL_BYTES = 4 << 20

Range = Tuple[int, int]


def of_data(descriptor: int, size_bytes: int, start_bytes: int = 0) -> Iterator[Range]:
    """Yield (start, end) of the parts of a file that are not holes, from an offset on."""
    end = start_bytes
    while end < size_bytes:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
            end = os.lseek(descriptor, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole is left
                return
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
            yield end, size_bytes  # no such question on this file system
            return
        if start >= size_bytes:
            return
        yield start, min(end, size_bytes)


def is_dense(descriptor: int, size_bytes: int) -> bool:
    """Say whether a file has no holes, or the file system does not tell where they are."""
    return next(of_data(descriptor, size_bytes), (0, 0)) == (0, size_bytes)


def whole(descriptor: int, size_bytes: int) -> bytes:
    """Read a small file; shorter than ``size_bytes`` when the file is."""
    with naming(descriptor):
        content = os.pread(descriptor, size_bytes, 0)
        if len(content) == size_bytes:
            return content
        parts: List[bytes] = []
        done = 0
        while content:
            parts.append(content)
            done += len(content)
            content = os.pread(descriptor, size_bytes - done, done)
    return b"".join(parts)


def union(first: Iterable[Range], second: Iterable[Range]) -> Iterator[Range]:
    """Yield what either of two ordered rows of ranges covers, without keeping either in memory."""
    start = end = 0
    for low, high in heapq.merge(first, second):
        if low > end:
            if end > start:
                yield start, end
            start = low
        end = max(end, high)
    if end > start:
        yield start, end


def stretches(cut: Iterator[Range], start: int, most_bytes: int) -> Iterator[Tuple[Iterator[Range], int]]:
    """Part ordered pieces into rows of them, each with the end of what the row covers of the file.

    Args:
        cut: the pieces; a row must be read to its end before the next is asked for.
        start: where the first row begins.
        most_bytes: how much of the file a row covers, holes included.
    """
    waiting: List[Range] = list(itertools.islice(cut, 1))

    def row(end: int) -> Iterator[Range]:
        while waiting and waiting[0][0] < end:
            piece = waiting.pop()
            waiting.extend(itertools.islice(cut, 1))
            yield piece

    while waiting:
        end = max(start, waiting[0][0]) + most_bytes
        yield row(end), end


def pieces(wanted: Iterable[Range], size_bytes: int) -> Iterator[Range]:
    """Cut ranges into pieces whose starts, and ends but for the file's own, are aligned for direct I/O."""
    done = 0
    for low, high in wanted:
        start = max(done, low - low % ALIGNMENT_BYTES)
        last = min(size_bytes, high + -high % ALIGNMENT_BYTES)
        while start < last:
            end = min(last, start - start % PIECE_BYTES + PIECE_BYTES)
            yield start, end
            start = end
        done = max(done, last)
