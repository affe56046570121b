"""Reading a copy back, and comparing it with its original.

Both are read from the storage: else it would only compare memory with itself. What is read past the page cache comes
from there for certain; so does what is read through it, once the kernel has shown that nothing of the file was left
in it, which on a local disk is faster. Bytes are compared, not hashes: a cryptographic hash is slower than the disk,
and says no more.
"""

import os
import threading
from typing import Iterator, List, Sequence

from unlatch_agent import directio, ranges, syscalls, workers
from unlatch_agent.errors import naming
from unlatch_agent.ranges import ALIGNMENT_BYTES, PIECE_BYTES, SMALL_BYTES, Range
from unlatch_agent.reading import Side
from unlatch_agent.requests import Advance, Counted

THREADS = 4
SAMPLE_BYTES = 64 * 1024
# So many blocks find a fault that touches a hundredth of a file with a probability of 0.99.
SAMPLES = 512


def equal(first: int, second: int, size_bytes: int, advance: Advance, *, is_nfs: bool = False) -> bool:
    """Say whether two files have the same bytes, read from the volume.

    Both must be ``size_bytes`` long, and the second must be on disk (fsync). What is a hole in both is equal
    without reading.

    Args:
        first: a descriptor of one.
        second: a descriptor of the other.
        size_bytes: how long both are.
        advance: called with the number of bytes compared since the last call.
        is_nfs: they are on NFS, whose client reads ahead too little.
    """
    if not _ready(first, second, size_bytes):
        return False
    has_holes = not all(ranges.is_dense(descriptor, size_bytes) for descriptor in (first, second))
    both = ranges.union(ranges.of_data(first, size_bytes), ranges.of_data(second, size_bytes))
    cut = ranges.pieces(both, size_bytes)
    return _same(first, second, cut, size_bytes, advance, reads_ahead=not is_nfs and not has_holes)


def equal_to(content: bytes, descriptor: int, advance: Advance) -> bool:
    """Say whether a small file holds just these bytes.

    It must be on disk (fsync), and ``directio.ahead`` have been called since: then they come from the volume.
    """
    with naming(descriptor):
        size_bytes = os.fstat(descriptor).st_size
    if size_bytes != len(content) or ranges.whole(descriptor, size_bytes) != content:
        return False
    advance(size_bytes)
    return True


def equal_in_samples(first: int, second: int, size_bytes: int, seed: str, advance: Advance) -> bool:
    """Compare the first and the last block, and some that the seed chooses, wherever they are.

    The same seed gives the same blocks, so that a result can be looked at again.
    """
    if not _ready(first, second, size_bytes):
        return False
    blocks = sampled(size_bytes, seed)
    return _same(first, second, ranges.pieces(blocks, size_bytes), size_bytes, advance, reads_ahead=False)


def sampled(size_bytes: int, seed: str) -> List[Range]:
    """Return the blocks that a seed chooses from a file, in order, with the first and the last."""
    from random import Random  # noqa: PLC0415 (takes longer to load than a small file to copy)

    last = max(0, size_bytes - 1) // SAMPLE_BYTES
    chosen = {0, last}
    if last < SAMPLES:
        chosen.update(range(last))
    else:
        chosen.update(Random(seed).sample(range(last), SAMPLES))  # noqa: S311 (a sample, not a secret)
    return [(block * SAMPLE_BYTES, min(size_bytes, (block + 1) * SAMPLE_BYTES)) for block in sorted(chosen)]


def _ready(first: int, second: int, size_bytes: int) -> bool:
    """Drop the page cache of both; False when a size is not right."""
    for descriptor in (first, second):
        if os.fstat(descriptor).st_size != size_bytes:
            return False
        directio.let_go(descriptor, 0, 0)
    return True


def _same(
    first: int, second: int, wanted: Iterator[Range], size_bytes: int, advance: Advance, *, reads_ahead: bool
) -> bool:
    if size_bytes <= SMALL_BYTES:
        sides = [Side(first, None), Side(second, None)]
        return _compared_and_dropped(sides, wanted, size_bytes, advance, 1)
    with directio.reopened(first) as one, directio.reopened(second) as other:
        sides = [
            Side(plain, None if reads_ahead and directio.is_evicted(plain, size_bytes) else direct)
            for plain, direct in ((first, one), (second, other))
        ]
        return _compared_and_dropped(sides, wanted, size_bytes, advance, THREADS)


def _compared_and_dropped(
    sides: Sequence[Side], wanted: Iterator[Range], size_bytes: int, advance: Advance, threads: int
) -> bool:
    same = compared(sides, wanted, size_bytes, advance, threads)
    for side in sides:
        side.let_go()
    return same


def compared(sides: Sequence[Side], wanted: Iterator[Range], size_bytes: int, advance: Advance, threads: int) -> bool:
    """Say whether two sides have the same bytes in all of some pieces; counts ``size_bytes`` when they have."""
    differs = threading.Event()
    counted = Counted(size_bytes, advance)
    room_bytes = min(PIECE_BYTES, size_bytes + -size_bytes % ALIGNMENT_BYTES) or ALIGNMENT_BYTES

    def compare_mine(mine: Iterator[Range]) -> None:
        one, other = syscalls.Buffer(room_bytes), syscalls.Buffer(room_bytes)
        for start, end in mine:
            wanted_bytes = end - start
            whole = all(side.fill(buffer, start, wanted_bytes) for side, buffer in zip(sides, (one, other)))
            if not whole or not one.same_as(other, 0, wanted_bytes):
                differs.set()
            if differs.is_set():
                return
            counted.add(wanted_bytes)

    workers.share(wanted, compare_mine, threads)
    if not differs.is_set():
        counted.finish()
    return not differs.is_set()
