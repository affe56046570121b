"""stream: read and write, in a few threads, leaving nothing in the page cache.

The threads take pieces of the file in order, so the disk or the network always has several requests to work
on. A file without holes is read through the page cache, whose reading ahead keeps a disk busier than direct I/O does;
one with holes is not, since reading ahead would fill them with pages of zeros. Holes are not read where the file
system shows them; where it shows none although the file is sparse (NFSv3), blocks of zeros are not written. A small
file is read and written at once, through the page cache: direct I/O would wait for each write.
"""

import contextlib
import errno
import os
import threading
from typing import Iterator, Optional

from unlatch_agent import directio, durable, ranges, syscalls, workers
from unlatch_agent.errors import naming
from unlatch_agent.following import Follow
from unlatch_agent.ranges import ALIGNMENT_BYTES, PIECE_BYTES, SMALL_BYTES, Range
from unlatch_agent.reading import Side
from unlatch_agent.requests import Advance, Counted, Request

THREADS = 4
# Never let so much pile up in the page cache that one fsync could take minutes.
FLUSH_BYTES = 64 << 20
# How much of a huge file a kill can cost: so often what was copied is made durable and recorded.
MARK_BYTES = 1 << 30
# So much is copied, and compared while the next so much is copied; far more than any disk reads ahead.
STRETCH_BYTES = 64 << 20
_BLOCK_BYTES = 64 * 1024
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
# What a file system answers that cannot write past the page cache, or not these bytes: alignment.
_NOT_DIRECTLY = (errno.EINVAL, errno.EOPNOTSUPP)


class _Sink:
    """The copy: writes directly where that works, and else flushes often enough."""

    def __init__(self, target: int, direct: Optional[int]) -> None:
        self.target = target
        self.direct = direct
        self._lock = threading.Lock()
        self._unflushed = 0

    def write(self, data: memoryview, position: int) -> None:
        """Write all of a piece; the odd bytes at the end of a file go through the page cache."""
        aligned = len(data) - len(data) % ALIGNMENT_BYTES if self.direct is not None else 0
        if aligned and not self._wrote_directly(data[:aligned], position):
            aligned = 0
        rest, at = data[aligned:], position + aligned
        size_bytes = len(rest)
        with naming(self.target):
            while rest:
                written = os.pwrite(self.target, rest, at)
                rest, at = rest[written:], at + written
            self._flush(size_bytes)

    def _wrote_directly(self, data: memoryview, position: int) -> bool:
        direct = self.direct
        if direct is None:
            return False
        try:
            with naming(direct):
                return os.pwrite(direct, data, position) == len(data)
        except OSError as error:
            if error.errno not in _NOT_DIRECTLY:
                raise
            self.direct = None  # the same bytes again through the page cache
            return False

    def _flush(self, size_bytes: int) -> None:
        with self._lock:
            self._unflushed += size_bytes
            if self._unflushed < FLUSH_BYTES:
                return
            self._unflushed = 0
            os.fdatasync(self.target)
        directio.let_go(self.target, 0, 0)


def stream(request: Request, advance: Advance) -> Optional[bytes]:
    """Copy all bytes, from ``start_bytes`` on, by reading and writing them.

    Returns:
        the bytes of a small file, as they were read.

    Raises:
        OSError: a read or write failed, or the volume is full.
    """
    source, target, size_bytes = request.source, request.target, request.size_bytes
    is_small = size_bytes - request.start_bytes <= SMALL_BYTES
    following = None if is_small or request.start_bytes or request.is_sparse else request.following
    if following is not None and not ranges.is_dense(source, size_bytes):
        following = None
    if is_small and not request.start_bytes and not request.is_sparse:
        return _at_once(request, advance)
    with naming(target):
        if size_bytes and not request.is_sparse:
            why = syscalls.reserve(target, size_bytes)
            if why is not None and why.errno in _NO_SPACE:
                raise why
        os.ftruncate(target, size_bytes)
    with contextlib.ExitStack() as opened:
        reading = writing = follow = None
        # An NFS client writes better on its own: direct writes wait for the server's disk.
        if not is_small and not request.is_nfs:
            reading = opened.enter_context(directio.reopened(source)) if request.is_sparse else None
            writing = opened.enter_context(directio.reopened(target))
        if following is not None:
            follow = opened.enter_context(following.beside(source, target, size_bytes, advance))
        original = Side(source, reading, is_kept=follow is not None)
        _copy(request, original, _Sink(target, writing), advance, threads=1 if is_small else THREADS, follow=follow)
    if not is_small:
        directio.let_go(source, 0, 0)
    return None


def _at_once(request: Request, advance: Advance) -> bytes:
    content = ranges.whole(request.source, request.size_bytes)
    with naming(request.target):
        done = os.pwrite(request.target, content, 0)
        while done < len(content):
            done += os.pwrite(request.target, memoryview(content)[done:], done)
    advance(request.size_bytes)
    return content


def _copy(
    request: Request, original: Side, sink: _Sink, advance: Advance, *, threads: int, follow: Optional[Follow]
) -> None:
    """Copy in stretches, which are compared one behind the other, and marked as being on disk, where that is asked."""
    source, size_bytes = request.source, request.size_bytes
    if threads > 1:
        os.posix_fadvise(source, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    data = ranges.of_data(source, size_bytes, request.start_bytes)
    skips_zeros = request.is_sparse and ranges.is_dense(source, size_bytes)
    counted = Counted(size_bytes - request.start_bytes, advance)
    room_bytes = min(PIECE_BYTES, size_bytes + -size_bytes % ALIGNMENT_BYTES) or ALIGNMENT_BYTES

    def copy_mine(mine: Iterator[Range]) -> None:
        buffer = syscalls.Buffer(room_bytes)
        zeros = syscalls.Buffer(min(_BLOCK_BYTES, room_bytes)) if skips_zeros else None
        for start, end in mine:
            if original.fill(buffer, start, end - start):  # else it is shorter than it was: the caller's look says so
                _write(sink, buffer, zeros, start, end - start)
            counted.add(end - start)

    done = marked = request.start_bytes
    for stretch, end in ranges.stretches(ranges.pieces(data, size_bytes), done, min(STRETCH_BYTES, MARK_BYTES)):
        workers.share(stretch, copy_mine, threads)
        if follow is not None:
            follow(done, min(end, size_bytes))
        done = end
        if request.mark is not None and done < size_bytes and done - marked >= MARK_BYTES:
            durable.sync(request.target)
            request.mark(done)
            marked = done
    counted.finish()


def _write(
    sink: _Sink, buffer: syscalls.Buffer, zeros: Optional[syscalls.Buffer], position: int, size_bytes: int
) -> None:
    """Write a piece; when zeros are to compare it with, only the blocks that are not, neighbours in one go."""
    if zeros is None:
        sink.write(buffer.view[:size_bytes], position)
        return
    begin = end = 0
    for start in range(0, size_bytes, _BLOCK_BYTES):
        length = min(_BLOCK_BYTES, size_bytes - start)
        if buffer.same_as(zeros, start, length, 0):
            continue
        if start != end:
            if end > begin:
                sink.write(buffer.view[begin:end], position + begin)
            begin = start
        end = start + length
    if end > begin:
        sink.write(buffer.view[begin:end], position + begin)
