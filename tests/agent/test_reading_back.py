"""What is compared comes from the disk, not from this host's memory, and leaves nothing there."""

from __future__ import annotations

import contextlib
import mmap
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.faults.loop_volumes import NoVolumeError, mounted
from unlatch_agent import comparing, directio, reading, streaming, syscalls
from unlatch_agent.requests import Request

MIB = 1 << 20
SIZE_BYTES = 9 * MIB


@pytest.fixture(scope="module")
def ext4() -> Iterator[Path]:
    """A real file system on a loop device."""
    try:
        with mounted("ext4") as directory:
            yield directory
    except NoVolumeError as error:
        pytest.skip(str(error))


class Pair(NamedTuple):
    """Two open files with the same bytes."""

    one: int
    other: int


@pytest.fixture(params=["dense", "with a hole"])
def pair(ext4: Path, request: pytest.FixtureRequest) -> Iterator[Pair]:
    """An original and its copy, on disk; the first is read through the page cache, the one with a hole past it."""
    head = os.urandom(SIZE_BYTES // 3)
    opened = []
    for name in ("one", "other"):
        path = ext4 / name
        with path.open("wb") as target:
            target.write(head)
            if request.param == "dense":
                target.write(head)
            target.seek(SIZE_BYTES - len(head))
            target.write(head)
            os.fsync(target.fileno())
        opened.append(os.open(path, os.O_RDWR))
    yield Pair(*opened)
    for descriptor in opened:
        os.close(descriptor)


@contextlib.contextmanager
def all_in_memory(descriptor: int) -> Iterator[None]:
    """A process has a file mapped and has looked at every page: they cannot be dropped."""
    with mmap.mmap(descriptor, 0, mmap.MAP_SHARED, mmap.PROT_READ) as memory:
        assert len(memory[:: mmap.PAGESIZE]) == SIZE_BYTES // mmap.PAGESIZE
        yield


def wrong_on_disk(volume: Path, descriptor: int, offset: int) -> None:
    """Change one byte of a file on the disk, behind the back of its file system and the page cache."""
    extent = next(e for e in syscalls.extents(descriptor) if e.start <= offset < e.start + e.size_bytes)
    device = subprocess.run(["findmnt", "-no", "SOURCE", volume], check=True, capture_output=True, text=True).stdout
    image = subprocess.run(
        ["losetup", "-nO", "BACK-FILE", device.strip()], check=True, capture_output=True, text=True
    ).stdout.strip()
    place = extent.place + offset - extent.start
    with Path(image).open("r+b") as disk:
        disk.seek(place)
        byte = disk.read(1)
        disk.seek(place)
        disk.write(bytes([byte[0] ^ 1]))
        os.fsync(disk.fileno())


def equal(pair: Pair) -> bool:
    """Compare both."""
    return comparing.equal(pair.one, pair.other, SIZE_BYTES, lambda _: None)


def test_what_the_disk_has_counts(ext4: Path, pair: Pair) -> None:
    """It should find a byte that is wrong on the disk alone, although memory had the right one."""
    os.pread(pair.other, SIZE_BYTES, 0)
    assert syscalls.is_cached(pair.other, SIZE_BYTES)
    assert equal(pair)
    os.pread(pair.other, SIZE_BYTES, 0)
    wrong_on_disk(ext4, pair.other, SIZE_BYTES - 5)
    assert os.pread(pair.other, SIZE_BYTES, 0) == os.pread(pair.one, SIZE_BYTES, 0)
    assert not equal(pair)


def test_what_memory_keeps_is_read_from_the_disk(ext4: Path, pair: Pair) -> None:
    """It should find such a byte also in a file whose pages the kernel cannot drop, since a process has them mapped."""
    with all_in_memory(pair.other):
        assert not directio.is_evicted(pair.other, SIZE_BYTES)
        wrong_on_disk(ext4, pair.other, 5)
        assert not equal(pair)


def test_nothing_stays_in_memory(pair: Pair) -> None:
    """It should leave no page of either file behind."""
    assert equal(pair)
    assert not syscalls.is_cached(pair.one, SIZE_BYTES)
    assert not syscalls.is_cached(pair.other, SIZE_BYTES)


def test_a_copy_leaves_nothing_in_memory(ext4: Path, pair: Pair) -> None:
    """It should leave no page of the original or the copy behind, and drop those of a large file on the way."""
    target = os.open(ext4 / "target", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    request = Request(
        source=pair.one, target=target, size_bytes=SIZE_BYTES, is_sparse=False, path="one", dev=os.fstat(target).st_dev
    )
    streaming.stream(request, lambda _: None)
    os.fsync(target)
    assert not syscalls.is_cached(pair.one, SIZE_BYTES)
    assert not syscalls.is_cached(target, SIZE_BYTES)
    assert os.pread(target, SIZE_BYTES, 0) == os.pread(pair.one, SIZE_BYTES, 0)
    os.close(target)


def test_long_files_are_dropped_on_the_way(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """It should drop a long file piece by piece behind what is read, not only at its end."""
    monkeypatch.setattr(reading, "_DROP_BYTES", 2 * MIB)
    monkeypatch.setattr(reading, "_BEHIND_BYTES", MIB)
    assert directio.is_evicted(pair.one, SIZE_BYTES)
    side, buffer = reading.Side(pair.one, None), syscalls.Buffer(MIB)
    for start in range(0, SIZE_BYTES, MIB):
        assert side.fill(buffer, start, MIB)
    assert not syscalls.is_cached(pair.one, 6 * MIB)
    assert syscalls.is_cached(pair.one, SIZE_BYTES)
    side.let_go()
    assert not syscalls.is_cached(pair.one, SIZE_BYTES)


def test_unknown_counts_as_in_memory(pair: Pair) -> None:
    """It should say that a file is in memory when the kernel cannot be asked."""
    end = os.open("/proc/self/status", os.O_RDONLY)
    try:
        assert syscalls.is_cached(end, SIZE_BYTES)
    finally:
        os.close(end)
    assert directio.is_evicted(pair.one, SIZE_BYTES)
