"""Copy methods, what they hand on to each other, verification, and metadata, on real file systems."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agent.agent_runner import Agent, our_files, permit
from tests.agent.test_prepare import INCIDENT, names_and_inodes
from tests.faults.loop_volumes import NoVolumeError, mounted
from unlatch_agent import cloning, comparing, copying, ranges, servercopy, streaming, syscalls
from unlatch_agent.errors import HostError
from unlatch_agent.requests import Request, UnfitError

MIB = 1 << 20


@pytest.fixture(scope="module", params=["ext4", "xfs", "btrfs"])
def file_system(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A real file system of each kind, on a loop device."""
    try:
        with mounted(request.param) as directory:
            yield directory
    except NoVolumeError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def xfs() -> Iterator[Path]:
    """A file system that can clone."""
    try:
        with mounted("xfs") as directory:
            yield directory
    except NoVolumeError as error:
        pytest.skip(str(error))


@pytest.fixture
def place(file_system: Path) -> Iterator[Path]:
    """A directory of this test on each file system."""
    yield from _place(file_system)


@pytest.fixture
def cloning_place(xfs: Path) -> Iterator[Path]:
    """A directory of this test on a file system that can clone."""
    yield from _place(xfs)


def _place(base: Path) -> Iterator[Path]:
    """The file systems are small: each test leaves nothing."""
    directory = base / "volume"
    directory.mkdir()
    yield directory
    shutil.rmtree(directory)


def mixed(path: Path, size_bytes: int, holes: bool = True) -> Path:
    """Write a file with data at both ends, holes between, and an odd length."""
    with path.open("wb") as target:
        target.truncate(size_bytes)
        for at in range(0, size_bytes, 5 * MIB if holes else MIB):
            target.seek(at)
            target.write(os.urandom(min(MIB, size_bytes - at)))
        target.seek(max(0, size_bytes - 7))
        target.write(b"the end"[: min(7, size_bytes)])
        os.fsync(target.fileno())
    return path


def same(first: Path, second: Path) -> bool:
    """Compare two files with the tool that everybody trusts."""
    return subprocess.run(["cmp", str(first), str(second)], check=False).returncode == 0


@pytest.mark.parametrize("size_bytes", [1, 4096, 300_001, 4 * MIB + 1, 21 * MIB + 513])
def test_auto(one_agent: Agent, place: Path, size_bytes: int) -> None:
    """It should clone where the file system can and stream where not, say which, and keep content and holes."""
    path = mixed(place / "ibdata1", size_bytes)
    (entry,) = one_agent.run("prepare", *INCIDENT, path).done().files
    clones = _kind(place) != "ext4"
    assert entry["method"] == ("clone" if clones else "stream")
    assert entry["verified"] in (("extents", "content") if clones else ("content",))
    assert same(path, Path(entry["temp"]))
    assert Path(entry["temp"]).stat().st_blocks <= path.stat().st_blocks + 16
    if not clones:
        assert [tried["method"] for tried in entry["fell_back"]] == ["clone"]


def _kind(path: Path) -> str:
    return (
        subprocess.run(["stat", "-f", "-c", "%T", str(path)], check=True, capture_output=True, text=True)
        .stdout.strip()
        .replace("ext2/ext3", "ext4")
    )


@pytest.mark.parametrize("method", ["stream", "server"])
@pytest.mark.parametrize("holes", [True, False])
def test_by_name(few_agent: Agent, place: Path, method: str, holes: bool) -> None:
    """It should copy by the method that was asked for, and verify every byte of it."""
    path = mixed(place / "ibdata1", 13 * MIB + 5, holes)
    (entry,) = few_agent.run("prepare", *INCIDENT, "--method", method, path).done().files
    assert (entry["method"], entry["verified"], entry["fell_back"]) == (method, "content", [])
    assert same(path, Path(entry["temp"]))


def test_a_method_that_is_not_possible(one_agent: Agent, volume: Path) -> None:
    """It should not do something else when a method was asked for by name, and say what to do."""
    if _kind(volume) != "ext4":
        pytest.skip("the temporary directory is not on ext4, where nothing can be cloned")
    one_agent.run("prepare", *INCIDENT, "--method", "clone", volume / "ibdata1").refused("method_not_possible", 5)


def test_a_clone_shares_all_blocks(few_agent: Agent, cloning_place: Path) -> None:
    """It should clone, prove it by the extents, and swap; a write to the original afterwards parts them."""
    path = mixed(cloning_place / "ibdata1", 40 * MIB)
    answer = few_agent.run("prepare", *INCIDENT, path).done()
    (entry,) = answer.files
    assert (entry["method"], entry["verified"]) == ("clone", "extents")
    with path.open("rb") as one, Path(entry["temp"]).open("rb") as other:
        assert cloning.same_extents(one.fileno(), other.fileno(), 40 * MIB) is True
    leave = permit(answer)
    (swapped,) = few_agent.run("commit", *INCIDENT, "--permit", "-", stdin=leave).done().files
    assert swapped["content_equal"] is True
    original = Path(swapped["quarantine"])
    with original.open("r+b") as writer:
        writer.write(b"late")
        os.fsync(writer.fileno())
    with path.open("rb") as one, original.open("rb") as other:
        assert cloning.same_extents(one.fileno(), other.fileno(), 40 * MIB) is False
    few_agent.run("verify", *INCIDENT, cloning_place).refused("late_writer", 4)


def test_a_clone_is_compared_again_after_a_kill(one_agent: Agent, cloning_place: Path) -> None:
    """It should look at a clone's extents again when a commit was killed before it swapped anything."""
    paths = [mixed(cloning_place / name, 5 * MIB) for name in ("a", "b")]
    answer = one_agent.run("prepare", *INCIDENT, *paths).done()
    leave = permit(answer)
    killed = one_agent.run("commit", *INCIDENT, "--permit", "-", stdin=leave, faults={"kill": [2, "before"]})
    assert killed.code == -9
    files = one_agent.run("commit", *INCIDENT, "--permit", "-", stdin=leave).done().files
    assert [entry["content_equal"] for entry in files] == [True, True]


def test_no_clone_without_the_full_size(one_agent: Agent, cloning_place: Path) -> None:
    """It should ask for the full size of a clone too: it fills up when the copies part."""
    path = cloning_place / "ibdata1"
    with path.open("wb") as target:
        target.truncate(2 << 30)
    one_agent.run("prepare", *INCIDENT, path).refused("no_space", 5)


def requested(source: Path, target: Path, **others: Any) -> Request:
    """Open two files for a copy; the descriptors live as long as the test's process."""
    size_bytes = source.stat().st_size
    first = os.open(source, os.O_RDONLY)
    second = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    sparse = source.stat().st_blocks * 512 < size_bytes
    return Request(first, second, size_bytes, sparse, str(source), source.stat().st_dev, **others)


def closed(request: Request) -> None:
    """Close both."""
    os.close(request.source)
    os.close(request.target)


def test_the_next_method_goes_on_from_where_one_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It should not copy again what the server has copied before it failed with an I/O error."""
    source = mixed(tmp_path / "source", 9 * MIB + 3, holes=False)
    request = requested(source, tmp_path / "target", may_copy_on_server=True)
    real, calls = syscalls.copy_file_range, [0]

    def failing(one: int, other: int, size_bytes: int, offset: int) -> int:
        calls[0] += 1
        if calls[0] > 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(one, other, min(size_bytes, 2 * MIB), offset)

    monkeypatch.setattr(syscalls, "copy_file_range", failing)
    monkeypatch.setattr(syscalls, "clone", _refusing(errno.EOPNOTSUPP))
    started: list[int] = []

    def noted(request: Request, advance: Any) -> None:
        started.append(request.start_bytes)
        streaming.stream(request, advance)

    monkeypatch.setitem(copying.METHODS, "stream", noted)
    counted: list[int] = []
    copied = copying.Chooser("auto").copy(request, counted.append)
    assert copied.method == "stream"
    assert [(entry["method"], entry["at_bytes"]) for entry in copied.fell_back] == [("clone", 0), ("server", 4 * MIB)]
    assert started == [4 * MIB]
    assert sum(counted) == request.size_bytes
    assert same(source, tmp_path / "target")
    closed(request)


def _refusing(number: int) -> Any:
    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.EIO])
def test_what_another_method_may_still_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """It should go on to the next method, and remember only what holds for the whole volume."""
    source = mixed(tmp_path / "source", MIB)
    monkeypatch.setattr(syscalls, "clone", _refusing(number))
    request = requested(source, tmp_path / "target")
    chooser = copying.Chooser("auto")
    assert chooser.copy(request, lambda _: None).method == "stream"
    first = chooser.methods(request.size_bytes, request.dev)[0]
    assert (first == "stream") is (number == errno.EOPNOTSUPP)
    assert same(source, tmp_path / "target")
    closed(request)


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, "no_space"), (errno.EDQUOT, "no_space")])
def test_what_no_method_can_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str) -> None:
    """It should not try the next method on a full volume."""
    monkeypatch.setattr(syscalls, "clone", _refusing(number))
    request = requested(mixed(tmp_path / "source", MIB), tmp_path / "target")
    with pytest.raises(HostError) as raised:
        copying.Chooser("auto").copy(request, lambda _: None)
    assert raised.value.code == code
    closed(request)


def test_a_stale_handle_is_no_reason_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It should end with ESTALE, whatever method met it."""
    monkeypatch.setattr(syscalls, "clone", _refusing(errno.ESTALE))
    request = requested(mixed(tmp_path / "source", MIB), tmp_path / "target")
    with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
        copying.Chooser("auto").copy(request, lambda _: None)
    closed(request)


def test_the_server_is_asked_only_where_it_copies() -> None:
    """It should choose the server's copy only on NFSv4.2, and clone nothing that was begun in another way."""
    chooser = copying.Chooser("auto")
    assert chooser.methods(MIB, 1) == ["clone", "stream"]
    assert chooser.methods(MIB, 1, may_copy_on_server=True) == ["clone", "server", "stream"]
    assert chooser.methods(MIB, 1, is_begun=True, may_copy_on_server=True) == ["server", "stream"]
    assert chooser.methods(0, 1, may_copy_on_server=True) == ["stream"]


def test_a_server_that_stops_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It should not take "nothing copied" for the end of the file."""
    monkeypatch.setattr(syscalls, "copy_file_range", lambda *_: 0)
    request = requested(mixed(tmp_path / "source", MIB), tmp_path / "target")
    with pytest.raises(UnfitError):
        servercopy.server(request, lambda _: None)
    closed(request)


@pytest.mark.parametrize("is_nfs", [False, True])
def test_zeros_become_holes_where_holes_are_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_nfs: bool
) -> None:
    """It should not write blocks of zeros of a sparse file on a file system that shows no holes (NFSv3)."""
    source = mixed(tmp_path / "source", 30 * MIB + 100)
    monkeypatch.setattr(ranges, "of_data", lambda _, size_bytes, start=0: iter([(start, size_bytes)]))
    request = requested(source, tmp_path / "target", is_nfs=is_nfs)
    assert request.is_sparse
    streaming.stream(request, lambda _: None)
    os.fsync(request.target)
    assert (tmp_path / "target").stat().st_blocks <= source.stat().st_blocks + 300
    assert same(source, tmp_path / "target")
    closed(request)


def test_without_direct_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It should write through the page cache what cannot be written past it, from the first refusal on."""
    source = mixed(tmp_path / "source", 9 * MIB + 11, holes=False)
    request = requested(source, tmp_path / "target")
    real, refused = os.pwrite, [0]

    def picky(descriptor: int, data: Any, offset: int) -> int:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            refused[0] += 1
            raise OSError(errno.EINVAL, "not aligned")
        return real(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", picky)
    streaming.stream(request, lambda _: None)
    assert 1 <= refused[0] <= streaming.THREADS
    assert same(source, tmp_path / "target")
    closed(request)


@pytest.mark.parametrize("size_bytes", [1, 70_000, 4 * MIB, 9 * MIB + 17])
@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_one_wrong_byte(place: Path, size_bytes: int, where: str) -> None:
    """It should see a single byte that differs, wherever it is, also where the original has a hole."""
    first = mixed(place / "first", size_bytes)
    second = place / "second"
    second.write_bytes(first.read_bytes())
    at = {"first": 0, "middle": size_bytes // 2, "last": size_bytes - 1}[where]
    with second.open("r+b") as target:
        target.seek(at)
        byte = target.read(1)
        target.seek(at)
        target.write(bytes([byte[0] ^ 1]))
        os.fsync(target.fileno())
    with first.open("rb") as one, second.open("rb") as other:
        assert not comparing.equal(one.fileno(), other.fileno(), size_bytes, lambda _: None)
    os.truncate(second, size_bytes - 1)
    with first.open("rb") as one, second.open("rb") as other:
        assert not comparing.equal(one.fileno(), other.fileno(), size_bytes, lambda _: None)


@pytest.mark.parametrize(("how", "said", "warns"), [("sample", "sample", True), ("none", "sizes", True)])
def test_less_verification_is_said_loudly(one_agent: Agent, volume: Path, how: str, said: str, warns: bool) -> None:
    """It should say in the answer, and to people, that a copy was not compared whole."""
    mixed(volume / "ibdata1", 5 * MIB)  # a small file is compared whole whenever it is compared
    asked = ("--method", "stream", "--verify", how)
    answer = one_agent.run("prepare", *INCIDENT, *asked, volume / "ibdata1").done()
    assert answer.files[0]["verified"] == said
    assert bool(answer.document["warnings"]) is warns
    table = one_agent.fresh("prepare", *INCIDENT, *asked, volume / "ibdata1").done().text
    assert answer.document["warnings"][0] in table
    (swapped,) = one_agent.run("commit", *INCIDENT, "--permit", "-", stdin=permit(answer)).done().files
    assert (swapped["verified"], swapped["content_equal"]) == (said, False)


FSGETXATTR, FSSETXATTR = 0x801C581F, 0x401C5820


def project(path: Path, number: int | None = None) -> int:
    """Read or set a file's project."""
    with path.open("rb") as opened:
        buffer = bytearray(28)
        fcntl.ioctl(opened.fileno(), FSGETXATTR, buffer)
        fields = list(struct.unpack("=IIIII8x", buffer))
        if number is not None:
            fields[3] = number
            fcntl.ioctl(opened.fileno(), FSSETXATTR, struct.pack("=IIIII8x", *fields))
        return fields[3]


@pytest.mark.parametrize("method", ["clone", "stream"])
def test_flags_project_and_attributes(few_agent: Agent, cloning_place: Path, method: str) -> None:
    """It should keep the project, the flags and attributes that only root can set, by every method."""
    path = mixed(cloning_place / "ibdata1", MIB)
    subprocess.run(["chattr", "+dA", str(path)], check=True)
    project(path, 4711)
    os.setxattr(path, "trusted.unlatch", b"t")
    os.setxattr(path, "security.unlatch", b"s")
    (entry,) = few_agent.run("prepare", *INCIDENT, "--strict-metadata", "--method", method, path).done().files
    temp = Path(entry["temp"])
    assert entry["metadata_lost"] == []
    assert project(temp) == 4711
    listed = subprocess.run(["lsattr", str(path), str(temp)], check=True, capture_output=True, text=True)
    flags = {line.split()[0] for line in listed.stdout.splitlines()}
    assert len(flags) == 1
    assert {"d", "A"} <= set(flags.pop())
    assert os.getxattr(temp, "trusted.unlatch") == b"t"
    assert os.getxattr(temp, "security.unlatch") == b"s"


def test_lost_metadata(one_agent: Agent, open_volume: Path) -> None:
    """It should list what cannot be kept, and refuse it before it copies a byte when asked to be strict."""
    nobody = 65534
    one_agent.scratch = open_volume.parent
    one_agent.state.mkdir()
    for path in (one_agent.state, open_volume.parent):
        os.chown(path, nobody, nobody)
    path = open_volume / "ibdata1"
    os.setxattr(path, "security.unlatch", b"only root sets this")
    names = names_and_inodes(open_volume)
    strict = one_agent.run("prepare", *INCIDENT, "--strict-metadata", path, uid=nobody)
    strict.refused("metadata_lost")
    assert "security.unlatch" in strict.document["error"]["message"]
    assert names_and_inodes(open_volume) == names
    (entry,) = one_agent.run("prepare", *INCIDENT, path, uid=nobody).done().files
    assert entry["metadata_lost"] == ["security.unlatch"]


@pytest.mark.parametrize("flag", ["i", "a"])
def test_a_file_whose_names_are_fixed(one_agent: Agent, cloning_place: Path, flag: str) -> None:
    """It should refuse an immutable or append-only file before anything is copied: its swap would fail."""
    path = mixed(cloning_place / "ibdata1", MIB)
    subprocess.run(["chattr", f"+{flag}", str(path)], check=True)
    try:
        one_agent.run("prepare", *INCIDENT, path).refused("immutable")
        assert our_files(cloning_place) == set()
    finally:
        subprocess.run(["chattr", f"-{flag}", str(path)], check=True)
