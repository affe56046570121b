"""System calls that ``os`` does not have, or not in Python 3.6; all release the interpreter's lock.

Buffers are anonymous memory maps: page-aligned, as direct I/O wants it, and used again for every block,
so that memory stays the same whatever the size of a file.
"""

import array
import ctypes
import errno
import fcntl
import mmap
import os
import struct
from typing import Iterator, NamedTuple, Optional

FICLONE = 0x40049409
FS_IOC_FIEMAP = 0xC020660B
FIEMAP_FLAG_SYNC = 0x1
FIEMAP_EXTENT_LAST = 0x1
# The place is not known, or not the whole block's: such an extent cannot be compared by its place.
FIEMAP_EXTENT_NO_PLACE = 0x2 | 0x4 | 0x100 | 0x200 | 0x400
FIEMAP_EXTENT_UNWRITTEN = 0x800
# File systems (statfs(2)).
BTRFS = 0x9123683E
TMPFS = 0x01021994
SYNC_FILE_RANGE_WAIT_BEFORE = 1
SYNC_FILE_RANGE_WRITE = 2
# How much of a file is asked about at once: a byte of answer for each page.
_WINDOW_BYTES = 1 << 30
# More than struct statfs has; its first word is the type.
_STATFS_BYTES = 256

_FIEMAP = struct.Struct("=QQIIII")
_EXTENT = struct.Struct("=QQQQQIIII")
_EXTENTS_AT_ONCE = 256

_libc = ctypes.CDLL(None, use_errno=True)
_libc.pread.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64]
_libc.pread.restype = ctypes.c_ssize_t
_libc.memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64]
_libc.mmap.restype = ctypes.c_void_p
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]


def _refused() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


class Buffer:
    """A reusable, page-aligned piece of memory."""

    def __init__(self, size_bytes: int) -> None:
        """Reserve ``size_bytes``."""
        self._memory = mmap.mmap(-1, size_bytes)
        self.view = memoryview(self._memory)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))

    def read(self, descriptor: int, size_bytes: int, offset: int, place: int = 0) -> int:
        """Read into the buffer from its ``place`` on; return how many bytes came, 0 at the end of the file.

        Raises:
            OSError: as read(2) does.
        """
        while True:
            count: int = _libc.pread(descriptor, self._address + place, size_bytes, offset)
            if count >= 0:
                return count
            if ctypes.get_errno() != errno.EINTR:
                raise _refused()

    def same_as(self, other: "Buffer", start: int, size_bytes: int, other_start: Optional[int] = None) -> bool:
        """Say whether a part of two buffers has the same bytes."""
        there = start if other_start is None else other_start
        differs: int = _libc.memcmp(self._address + start, other._address + there, size_bytes)  # noqa: SLF001
        return differs == 0


def reserve(descriptor: int, size_bytes: int) -> Optional[OSError]:
    """Reserve a file's full size where the file system can do that at once; return why it could not.

    The C library's posix_fallocate would fall back to writing into every block.
    """
    while _libc.fallocate(descriptor, 0, 0, size_bytes):
        if ctypes.get_errno() != errno.EINTR:
            return _refused()
    return None


def clone(source: int, target: int) -> None:
    """Let the target share all blocks of the source (FICLONE).

    Raises:
        OSError: the file system cannot, or not for these two.
    """
    fcntl.ioctl(target, FICLONE, source)


def copy_file_range(source: int, target: int, size_bytes: int, offset: int) -> int:
    """Let the kernel, or the NFS server, copy a range to the same place in the target; return how much it did.

    Raises:
        OSError: it cannot.
    """
    call = getattr(_libc, "copy_file_range", None)
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    pointer = ctypes.POINTER(ctypes.c_int64)
    call.argtypes = [ctypes.c_int, pointer, ctypes.c_int, pointer, ctypes.c_size_t, ctypes.c_uint]
    call.restype = ctypes.c_ssize_t
    while True:
        here, there = ctypes.c_int64(offset), ctypes.c_int64(offset)
        count: int = call(source, ctypes.byref(here), target, ctypes.byref(there), size_bytes, 0)
        if count >= 0:
            return count
        if ctypes.get_errno() != errno.EINTR:
            raise _refused()


def begin_writing_back(descriptor: int) -> None:
    """Let the kernel begin to write a file's dirty pages, without waiting. It is a hint: errors come with fsync."""
    call = getattr(_libc, "sync_file_range", None)
    if call is not None:
        call(descriptor, ctypes.c_int64(0), ctypes.c_int64(0), SYNC_FILE_RANGE_WRITE)


def sync_file_system(descriptor: int) -> bool:
    """Write all that is dirty of the file system that a file is on, and wait; False when there is no such call.

    Raises:
        OSError: as syncfs(2) does.
    """
    call = getattr(_libc, "syncfs", None)
    if call is None:
        return False
    while call(descriptor):
        if ctypes.get_errno() == errno.ENOSYS:
            return False
        if ctypes.get_errno() != errno.EINTR:
            raise _refused()
    return True


def file_system_type(descriptor: int) -> int:
    """Return an open file's kind of file system by its magic number, such as ``BTRFS``; 0 when it is not told."""
    told = ctypes.create_string_buffer(_STATFS_BYTES)
    call = getattr(_libc, "fstatfs", None)
    if call is None or call(descriptor, told):
        return 0
    return ctypes.c_long.from_buffer(told).value


def is_written_back(descriptor: int) -> bool:
    """Wait for a file's pages that are on their way to the disk; False when that cannot be asked here.

    Raises:
        OSError: the disk did not take some of them, since this descriptor was last told of it.
    """
    call = getattr(_libc, "sync_file_range", None)
    if call is None:
        return False
    while call(descriptor, ctypes.c_int64(0), ctypes.c_int64(0), SYNC_FILE_RANGE_WAIT_BEFORE):
        if ctypes.get_errno() in (errno.ENOSYS, errno.EINVAL, errno.ESPIPE):
            return False
        if ctypes.get_errno() != errno.EINTR:
            raise _refused()
    return True


def is_cached(descriptor: int, size_bytes: int, begin: int = 0) -> bool:
    """Say whether the page cache has any page of so many bytes of a file, from a page's begin on (mincore).

    True as well when that cannot be asked, and always for a file that the caller neither owns nor may write to: of
    those the kernel says so since Linux 5.2.
    """
    for start in range(begin, begin + size_bytes, _WINDOW_BYTES):
        length = min(_WINDOW_BYTES, begin + size_bytes - start)
        pages = ctypes.create_string_buffer((length + mmap.PAGESIZE - 1) // mmap.PAGESIZE)
        address = _libc.mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, start)
        if address == ctypes.c_void_p(-1).value:
            return True
        try:
            if _libc.mincore(address, length, pages) or pages.raw.count(0) != len(pages):
                return True
        finally:
            _libc.munmap(address, length)
    return False


class Extent(NamedTuple):
    """A run of a file's bytes and where the file system keeps it."""

    start: int
    place: int
    size_bytes: int
    flags: int


def extents(descriptor: int) -> Iterator[Extent]:
    """Yield a file's extents in order, a few hundred at a time in memory (FIEMAP).

    Raises:
        OSError: the file system does not tell (NFS).
    """
    at = 0
    while True:
        room = bytearray(_FIEMAP.size + _EXTENTS_AT_ONCE * _EXTENT.size)
        _FIEMAP.pack_into(room, 0, at, (1 << 64) - 1 - at, FIEMAP_FLAG_SYNC, 0, _EXTENTS_AT_ONCE, 0)
        answer = array.array("B", room)
        fcntl.ioctl(descriptor, FS_IOC_FIEMAP, answer, True)
        count = _FIEMAP.unpack_from(answer, 0)[3]
        if not count:
            return
        for number in range(count):
            start, place, size_bytes, _, _, flags, _, _, _ = _EXTENT.unpack_from(
                answer, _FIEMAP.size + number * _EXTENT.size
            )
            yield Extent(start, place, size_bytes, flags)
            if flags & FIEMAP_EXTENT_LAST:
                return
            at = start + size_bytes
