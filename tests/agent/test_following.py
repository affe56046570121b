"""A large copy is compared while it is made: with what the disk has of it, and with the one reading of the original."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agent.test_methods import mixed, same
from tests.agent.test_reading_back import all_in_memory, ext4, wrong_on_disk
from unlatch_agent import comparing, copying, directio, mounts, prepare, reading, safety, streaming, syscalls
from unlatch_agent.errors import AgentError
from unlatch_agent.following import DiffersError, Following
from unlatch_agent.requests import Request

__all__ = ["ext4"]

MIB = 1 << 20
SIZE_BYTES = 9 * MIB
ODD = SIZE_BYTES + 77
STREAM = copying.Asked("stream")


@pytest.fixture
def place(ext4: Path) -> Iterator[Path]:
    """A directory of this test."""
    directory = ext4 / "volume"
    directory.mkdir()
    yield directory
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()


@pytest.fixture(autouse=True)
def stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a few megabytes a file of several stretches."""
    monkeypatch.setattr(streaming, "STRETCH_BYTES", 2 * MIB)


@pytest.fixture
def request_for(place: Path) -> Iterator[Request]:
    """A copy that is to be made, of an original that is not in memory."""
    source = os.open(mixed(place / "users01.ibd", ODD, holes=False), os.O_RDONLY)
    target = os.open(place / "copy", os.O_RDWR | os.O_CREAT)
    directio.let_go(source, 0, 0)
    yield Request(source, target, ODD, is_sparse=False, path="users01.ibd", following=Following())
    os.close(source)
    os.close(target)


def is_whole(request: Request) -> bool:
    """Say whether the compare that went along came to its end."""
    return request.following is not None and request.following.is_whole


def read_bytes(place: Path) -> int:
    """How much was read so far from the disk that a directory is on; this test's own."""
    device = place.stat().st_dev
    fields = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").read_text().split()
    return int(fields[2]) * 512


def test_an_original_is_read_once(place: Path, request_for: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    """It should read the original once and the copy once, count both, and leave neither in memory."""
    monkeypatch.setattr(streaming, "STRETCH_BYTES", 4 * MIB)  # more than the kernel reads ahead, as in earnest
    for name in ("_DROP_BYTES", "_BEHIND_BYTES"):
        monkeypatch.setattr(reading, name, MIB // 2)
    counted: list[int] = []
    before = read_bytes(place)
    streaming.stream(request_for, counted.append)
    assert ODD < read_bytes(place) - before < 3 * ODD  # some is read ahead in vain; twice would be three times at least
    assert is_whole(request_for)
    assert sum(counted) == 2 * ODD
    os.fsync(request_for.target)
    for descriptor in (request_for.source, request_for.target):
        assert not syscalls.is_cached(descriptor, ODD)
    assert same(place / "users01.ibd", place / "copy")


def test_what_cannot_be_followed(request_for: Request) -> None:
    """It should leave to the compare at the end what goes on from before, and files with holes."""
    counted: list[int] = []
    streaming.stream(request_for._replace(start_bytes=MIB), counted.append)
    streaming.stream(request_for._replace(is_sparse=True), counted.append)
    assert not is_whole(request_for)
    assert sum(counted) == 2 * ODD - MIB


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("offset", [3, 5 * MIB, SIZE_BYTES - 1])
def test_what_the_disk_has_counts(ext4: Path, place: Path, in_memory: bool, offset: int) -> None:
    """It should find a byte that is wrong on the disk alone, also when no page of the copy can be dropped."""
    source = os.open(mixed(place / "users01.ibd", SIZE_BYTES, holes=False), os.O_RDONLY)
    target = os.open(place / "copy", os.O_RDWR | os.O_CREAT)
    os.pwrite(target, os.pread(source, SIZE_BYTES, 0), 0)
    os.fsync(target)

    def follow(following: Following) -> None:
        with following.beside(source, target, SIZE_BYTES, lambda _: None) as written:
            for start in range(0, SIZE_BYTES, 2 * MIB):
                written(start, min(SIZE_BYTES, start + 2 * MIB))

    right, part, wrong = Following(), Following(), Following()
    with part.beside(source, target, SIZE_BYTES, lambda _: None) as written:
        written(0, SIZE_BYTES - 1)
    assert not part.is_whole
    follow(right)
    assert right.is_whole
    os.pread(target, SIZE_BYTES, 0)
    wrong_on_disk(ext4, target, offset)
    if in_memory:
        os.pread(target, SIZE_BYTES, 0)
    with pytest.raises(DiffersError):
        follow(wrong)
    assert not wrong.is_whole
    os.close(source)
    os.close(target)


def test_pages_that_are_in_use(ext4: Path, place: Path) -> None:
    """It should read a copy past the page cache when another process has it mapped."""
    source = os.open(mixed(place / "users01.ibd", SIZE_BYTES, holes=False), os.O_RDONLY)
    target = os.open(place / "copy", os.O_RDWR | os.O_CREAT)
    os.pwrite(target, os.pread(source, SIZE_BYTES, 0), 0)
    os.fsync(target)
    with all_in_memory(target):
        wrong_on_disk(ext4, target, 5 * MIB)
        following = Following()
        with (
            pytest.raises(DiffersError),
            following.beside(source, target, SIZE_BYTES, lambda _: None) as written,
        ):
            written(0, SIZE_BYTES)
    assert not following.is_whole
    os.close(source)
    os.close(target)


def prepared(path: Path) -> dict[str, Any]:
    """Make a copy, by reading and writing; the answer's entry."""
    files: list[dict[str, Any]] = prepare.run("inc-1", safety.targets([str(path)]), STREAM, 10.0, lambda _: None)[
        "files"
    ]
    return files[0]


def mounted_as(monkeypatch: pytest.MonkeyPatch, directory: Path, kind: str, options: str = "rw,vers=4.1") -> None:
    """Let a directory be on such a mount."""
    mount = mounts.Mount(str(directory), kind, "nas:/srv", options)
    monkeypatch.setattr(mounts, "read_mounts", lambda: [mount])


@pytest.fixture
def compared_at_the_end(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the files that are compared whole, when they are copied."""
    compared: list[int] = []
    real = comparing.equal

    def noted(first: int, second: int, size_bytes: int, *rest: Any, **how: Any) -> bool:
        compared.append(size_bytes)
        return real(first, second, size_bytes, *rest, **how)

    monkeypatch.setattr(comparing, "equal", noted)
    return compared


@pytest.mark.parametrize(("kind", "options"), [("nfs4", "rw,vers=4.1,nocto"), ("ceph", "rw")])
def test_where_others_can_write_unseen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compared_at_the_end: list[int], kind: str, options: str
) -> None:
    """It should read the original again for the compare where nothing tells what another host writes to it."""
    path = mixed(tmp_path / "users01.ibd", SIZE_BYTES, holes=False)
    Path(prepared(path)["temp"]).unlink()
    assert not compared_at_the_end
    mounted_as(monkeypatch, tmp_path, kind, options)
    assert prepared(path)["verified"] == "content"
    assert compared_at_the_end == [SIZE_BYTES]


def test_on_nfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compared_at_the_end: list[int]) -> None:
    """It should read an original on NFS once, and compare each stretch, read directly, before it writes the next."""
    path = mixed(tmp_path / "users01.ibd", ODD, holes=False)
    mounted_as(monkeypatch, tmp_path, "nfs", "rw,vers=3")
    events: list[tuple[str, int]] = []
    real, real_compared = os.pwrite, comparing.compared

    def noted(descriptor: int, data: Any, offset: int) -> int:
        events.append(("write", offset // streaming.STRETCH_BYTES))
        return real(descriptor, data, offset)

    def noted_compare(sides: list[Any], *rest: Any) -> bool:
        events.append(("compare", events[-1][1]))
        assert sides[1]._direct is not None
        return real_compared(sides, *rest)

    monkeypatch.setattr(os, "pwrite", noted)
    monkeypatch.setattr(comparing, "compared", noted_compare)
    entry = prepared(path)
    assert (entry["verified"], entry["method"]) == ("content", "stream")
    assert not compared_at_the_end
    stretches = [number for _, number in events]
    assert stretches == sorted(stretches)
    assert [number for what, number in events if what == "compare"] == list(range(5))
    assert same(path, Path(entry["temp"]))


def write_late(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Let someone write to the begin of an original when its first stretch is on disk."""
    real, done = os.fdatasync, []

    def and_write(descriptor: int) -> None:
        real(descriptor)
        if not done:
            done.append(descriptor)
            with path.open("r+b") as late:
                late.write(b"late")

    monkeypatch.setattr(os, "fdatasync", and_write)


def test_a_writer_on_another_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It should see a write to what was copied already, although this host still takes the old times for true."""
    path = mixed(tmp_path / "users01.ibd", SIZE_BYTES, holes=False)
    mounted_as(monkeypatch, tmp_path, "nfs", "rw,vers=3")
    remembered, real = path.stat(), os.fstat

    def outdated(descriptor: int) -> os.stat_result:
        now = real(descriptor)
        return remembered if now.st_ino == remembered.st_ino else now

    monkeypatch.setattr(os, "fstat", outdated)
    write_late(monkeypatch, path)
    monkeypatch.setattr(comparing, "compared", lambda *_: True)  # the page cache has what was copied
    with pytest.raises(AgentError) as raised:
        prepared(path)
    assert raised.value.code == "source_changed"


def test_a_wrong_copy_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It should end in the first stretches when those are wrong, and copy all of it again in the next run."""
    path = mixed(tmp_path / "users01.ibd", 2 * SIZE_BYTES, holes=False)
    real, written = os.pwrite, [0]

    def broken(descriptor: int, data: Any, offset: int) -> int:
        written[0] += len(data)
        wrong = bytes([data[0] ^ 1]) + bytes(data[1:4096]) if offset == 0 else b""
        count = real(descriptor, data, offset)
        if wrong:
            plain = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY)
            real(plain, wrong, 0)
            os.close(plain)
        return count

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", broken)
        with pytest.raises(AgentError) as raised:
            prepared(path)
    assert (raised.value.code, str(path) in raised.value.message) == ("copy_differs", True)
    assert written[0] < SIZE_BYTES
    entry = prepared(path)
    assert (entry["verified"], entry["resumed_at_bytes"]) == ("content", 0)
    assert same(path, Path(entry["temp"]))


def test_an_original_that_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It should blame the original when that changed while it was copied, not the copy."""
    path = mixed(tmp_path / "users01.ibd", SIZE_BYTES, holes=False)
    write_late(monkeypatch, path)
    with pytest.raises(AgentError) as raised:
        prepared(path)
    assert raised.value.code == "source_changed"


@pytest.mark.parametrize("call", ["fdatasync", "read"])
def test_a_disk_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """It should name the copy when its disk refuses to keep a stretch, or to give it back, and say nothing is right."""
    path = mixed(tmp_path / "users01.ibd", SIZE_BYTES, holes=False)
    real = syscalls.Buffer.read

    def broken(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def broken_for_the_copy(self: syscalls.Buffer, descriptor: int, *rest: int) -> int:
        if Path(f"/proc/self/fd/{descriptor}").readlink().suffix == ".new":
            broken()
        return real(self, descriptor, *rest)

    with monkeypatch.context() as patched:
        if call == "read":
            patched.setattr(syscalls.Buffer, "read", broken_for_the_copy)
        else:
            patched.setattr(os, "fdatasync", broken)
        with pytest.raises(OSError, match="Input/output error") as raised:
            prepared(path)
    assert str(raised.value.filename).endswith(".new")
    assert prepared(path)["verified"] == "content"


def test_progress_does_not_jump(tmp_path: Path) -> None:
    """It should count a file's bytes once, in one row, although it is copied and compared at the same time."""
    path = mixed(tmp_path / "users01.ibd", SIZE_BYTES, holes=False)
    told: list[dict[str, Any]] = []
    prepare.run("inc-1", safety.targets([str(path)]), STREAM, 10.0, lambda seen: told.append(seen) if seen else None)
    assert [line["bytes_done"] for line in told] == sorted(line["bytes_done"] for line in told)
    assert told[-1]["bytes_done"] == told[-1]["bytes_total"] == told[-1]["file_bytes_done"] == SIZE_BYTES
