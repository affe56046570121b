"""prepare: a verified copy with all metadata beside the original, and no name touched."""

from __future__ import annotations

import json
import os
import select
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.agent.agent_runner import NOBODY, Agent, our_files
from tests.agent.conftest import need_root

INCIDENT = ("--incident", "inc-1")


def names_and_inodes(directory: Path) -> dict[str, int]:
    """The names in a directory with their inodes, without the agent's own files."""
    return {path.name: path.lstat().st_ino for path in directory.iterdir() if not path.name.startswith(".unlatch-")}


def untouched(volume: Path) -> dict[str, tuple[int, int, int, int]]:
    """Inodes, sizes and times of everything in a directory: what a refusal must leave alone."""
    return {
        path.name: (path.lstat().st_ino, path.lstat().st_size, path.lstat().st_mtime_ns, path.lstat().st_ctime_ns)
        for path in volume.iterdir()
    }


def test_a_copy(agent: Agent, volume: Path) -> None:
    """It should make a copy with equal content beside the original and leave every name alone."""
    before = untouched(volume)
    answer = agent.run("prepare", *INCIDENT, volume / "ibdata1", volume / "aria_log_control").done()
    first, second = answer.files
    assert [Path(entry["path"]).name for entry in answer.files] == ["ibdata1", "aria_log_control"]
    for entry in (first, second):
        assert entry["state"] == "prepared"
        assert entry["method"] == "stream"
        assert entry["metadata_lost"] == []
        temp = Path(entry["temp"])
        assert temp.parent == volume
        assert temp.stat().st_ino == entry["temp_inode"] != entry["inode"]
        assert temp.read_bytes() == Path(entry["path"]).read_bytes()
    after = untouched(volume)
    assert {name: after[name] for name in before} == before
    assert answer.progress[-1]["eta_s"] == 0


def test_metadata(agent: Agent, volume: Path) -> None:
    """It should keep owner, mode, times to the nanosecond, extended attributes and ACLs."""
    need_root()
    path = volume / "ibdata1"
    os.chown(path, 1234, 2345)
    path.chmod(0o4640)
    entries = [
        (0x01, 6, 0xFFFFFFFF),
        (0x02, 4, 33),
        (0x04, 4, 0xFFFFFFFF),
        (0x10, 6, 0xFFFFFFFF),
        (0x20, 0, 0xFFFFFFFF),
    ]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    os.setxattr(path, "system.posix_acl_access", acl)
    os.setxattr(path, "user.owner", b"voms\0\xff")
    os.utime(path, ns=(1_413_604_492_123_456_789, 1_413_604_493_987_654_321))
    before = path.stat()
    (entry,) = agent.run("prepare", *INCIDENT, path).done().files
    temp = Path(entry["temp"])
    after = temp.stat()
    for key in ("st_uid", "st_gid", "st_mode", "st_size", "st_mtime_ns", "st_atime_ns"):
        assert getattr(after, key) == getattr(before, key), key
    assert os.getxattr(temp, "system.posix_acl_access") == acl
    assert os.getxattr(temp, "user.owner") == b"voms\0\xff"
    assert entry["metadata_lost"] == []


def test_an_inherited_acl_is_not_kept(few_agent: Agent, volume: Path) -> None:
    """It should not leave on the copy what the directory's default ACL puts on new files."""
    entries = [
        (0x01, 6, 0xFFFFFFFF),
        (0x02, 6, 33),
        (0x04, 6, 0xFFFFFFFF),
        (0x10, 6, 0xFFFFFFFF),
        (0x20, 4, 0xFFFFFFFF),
    ]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    os.setxattr(volume, "system.posix_acl_default", acl)
    (entry,) = few_agent.run("prepare", *INCIDENT, volume / "ibdata1").done().files
    assert os.listxattr(entry["temp"]) == []
    assert Path(entry["temp"]).stat().st_mode == (volume / "ibdata1").stat().st_mode


def test_a_big_sparse_file(few_agent: Agent, volume: Path) -> None:
    """It should keep the holes of a sparse file, without reading or writing them."""
    path = volume / "sparse"
    with path.open("wb") as target:
        target.truncate(6 << 30)
        for position in (0, 1 << 30, (6 << 30) - 5):
            target.seek(position)
            target.write(b"data!")
    (entry,) = few_agent.run("prepare", *INCIDENT, path).done().files
    temp = Path(entry["temp"])
    assert temp.stat().st_size == 6 << 30
    assert temp.stat().st_blocks <= path.stat().st_blocks + 8
    with temp.open("rb") as copy:
        copy.seek(1 << 30)
        assert copy.read(6) == b"data!\0"
        copy.seek((6 << 30) - 5)
        assert copy.read() == b"data!"


@pytest.mark.parametrize("content", [b"", b"x", b"\0" * 200_000])
def test_small_and_empty_files(one_agent: Agent, volume: Path, content: bytes) -> None:
    """It should copy empty files and files of zeros too."""
    (volume / "odd name \n'\"").write_bytes(content)
    (entry,) = one_agent.run("prepare", *INCIDENT, volume / "odd name \n'\"").done().files
    assert Path(entry["temp"]).read_bytes() == content


def test_resume(agent: Agent, volume: Path) -> None:
    """It should check finished copies, not copy them again; a copy that was spoilt is made anew."""
    paths = (volume / "ibdata1", volume / "aria_log_control")
    first = agent.run("prepare", *INCIDENT, *paths).done()
    again = agent.run("prepare", *INCIDENT, *paths).done()
    assert again.files == first.files
    Path(first.files[0]["temp"]).write_bytes(b"spoilt")
    repaired = agent.run("prepare", *INCIDENT, *paths).done()
    assert Path(repaired.files[0]["temp"]).read_bytes() == paths[0].read_bytes()
    assert repaired.files[1] == first.files[1]


def test_a_source_that_changes(agent: Agent, volume: Path) -> None:
    """It should refuse to go on with a file that someone wrote to after it was copied."""
    agent.run("prepare", *INCIDENT, volume / "ibdata1").done()
    with (volume / "ibdata1").open("r+b") as writer:
        writer.write(b"late")
    agent.run("prepare", *INCIDENT, volume / "ibdata1").refused("source_changed")
    agent.run("purge", *INCIDENT, volume).done()
    assert our_files(volume) == set()
    agent.run("prepare", *INCIDENT, volume / "ibdata1").done()


def _hard_link(volume: Path) -> Path:
    os.link(volume / "ibdata1", volume / "second-name")
    return volume / "ibdata1"


def _symlink(volume: Path) -> Path:
    (volume / "link").symlink_to("ibdata1")
    return volume / "link"


def _fifo(volume: Path) -> Path:
    os.mkfifo(volume / "fifo")
    return volume / "fifo"


def _directory(volume: Path) -> Path:
    (volume / "app").mkdir()
    return volume / "app"


def _own(volume: Path) -> Path:
    (volume / ".unlatch-0123456789abcdef.orig").write_bytes(b"x")
    return volume / ".unlatch-0123456789abcdef.orig"


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (_hard_link, "hard_linked"),
        (_symlink, "symlink"),
        (_fifo, "not_regular"),
        (_directory, "not_regular"),
        (_own, "own_file"),
    ],
)
def test_files_that_are_refused(few_agent: Agent, volume: Path, make: Callable[[Path], Path], code: str) -> None:
    """It should refuse what a new inode would break, also beside good files, and write nothing."""
    bad = make(volume)
    before = untouched(volume)
    few_agent.run("prepare", *INCIDENT, volume / "aria_log_control", bad).refused(code)
    assert untouched(volume) == before


def test_a_missing_file(one_agent: Agent, volume: Path) -> None:
    """It should say that a file is missing and write nothing."""
    one_agent.run("prepare", *INCIDENT, volume / "ibdata1", volume / "gone").refused("no_such_path", 5)
    one_agent.run("prepare", *INCIDENT, volume / "no" / "gone").refused("no_such_path", 5)
    assert our_files(volume) == set()


def test_a_symlinked_directory(few_agent: Agent, volume: Path, tmp_path: Path) -> None:
    """It should work in the directory that a symlink leads to, and say so."""
    (tmp_path / "datadir").symlink_to(volume)
    (entry,) = few_agent.run("prepare", *INCIDENT, tmp_path / "datadir" / "ibdata1").done().files
    assert entry["path"] == str(volume / "ibdata1")
    state = few_agent.run("status", *INCIDENT, tmp_path / "datadir").done().document["repair"]["state"]
    assert state == "prepared"


def test_a_local_holder(agent: Agent, volume: Path, holding: Callable[[Path], int]) -> None:
    """It should refuse a file that a process of this host has locked; inodes and times stay."""
    before = untouched(volume)
    holding(volume / "ibdata1")
    agent.run("prepare", *INCIDENT, volume / "aria_log_control", volume / "ibdata1").refused("local_holder")
    assert untouched(volume) == before


def test_a_local_opener(agent: Agent, volume: Path) -> None:
    """It should refuse a file that a process of this host has open, without any lock, and name it."""
    before = untouched(volume)
    with (volume / "ibdata1").open("rb"):
        refused = agent.run("prepare", *INCIDENT, volume / "ibdata1").refused("local_holder")
    assert str(volume / "ibdata1") in refused.document["error"]["message"]
    assert untouched(volume) == before


def test_a_remote_lock_is_what_it_is_for(far_agent: Agent, volume: Path, holding: Callable[[Path], int]) -> None:
    """It should copy a file whose lock nobody of this host holds."""
    holding(volume / "ibdata1")
    (entry,) = far_agent.run("prepare", *INCIDENT, volume / "ibdata1").done().files
    assert Path(entry["temp"]).stat().st_size == entry["size_bytes"]


def test_no_space(few_agent: Agent, small_volume: Path) -> None:
    """It should ask for the full size before it writes anything."""
    (small_volume / "ibdata1").write_bytes(b"x" * 700_000)
    (small_volume / "other").write_bytes(b"x" * 10_000)
    answer = few_agent.run("prepare", *INCIDENT, small_volume / "other", small_volume / "ibdata1")
    answer.refused("no_space", 5)
    assert our_files(small_volume) == set()
    # A sparse file fills up later, so its full size counts.
    os.truncate(small_volume / "other", 2_000_000)
    few_agent.run("prepare", *INCIDENT, small_volume / "other").refused("no_space", 5)


def test_space_that_vanishes(few_agent: Agent, small_volume: Path, tmp_path: Path) -> None:
    """It should keep the finished copies when the volume fills up in the middle, and go on later."""
    (small_volume / "aria_log_control").write_bytes(b"x" * 10_000)
    (small_volume / "ibdata1").write_bytes(b"x" * 300_000)
    # Copies run side by side: whichever comes second finds the rest of the volume taken.
    fill = ["sh", "-c", f"dd if=/dev/zero of={small_volume / 'filler'} bs=4096 count=150 status=none 2>&1; true"]
    answer = few_agent.run(
        "prepare",
        *INCIDENT,
        small_volume / "aria_log_control",
        small_volume / "ibdata1",
        faults={"run": ["create", 3, fill]},  # the journal, the first copy, the second copy
    )
    answer.refused("no_space", 5)
    (small_volume / "filler").unlink()
    files = few_agent.run("prepare", *INCIDENT, *sorted(small_volume.glob("[ai]*"))).done().files
    assert [entry["state"] for entry in files] == ["prepared", "prepared"]


def test_a_foreign_journal(agent: Agent, volume: Path) -> None:
    """It should refuse to begin beside an unfinished repair of another incident."""
    agent.run("prepare", "--incident", "other", volume / "aria_log_control").done()
    before = untouched(volume)
    agent.run("prepare", *INCIDENT, volume / "ibdata1").refused("foreign_journal")
    assert untouched(volume) == before
    agent.run("purge", "--incident", "other", volume).done()
    agent.run("prepare", *INCIDENT, volume / "ibdata1").done()


def _reached(fifo: Path) -> Callable[[], bool]:
    return lambda: Path(f"{fifo}.reached").exists()


def wait_until(true: Callable[[], bool]) -> None:
    """Wait for an event that has no file descriptor; the test's own time limit ends it."""
    while not true():
        select.select([], [], [], 0.02)


def test_an_unsafe_state_directory(one_agent: Agent, volume: Path) -> None:
    """It should not trust a state directory that others can write."""
    one_agent.state.mkdir()
    one_agent.state.chmod(0o777)
    one_agent.run("prepare", *INCIDENT, volume / "ibdata1").refused("state_directory", 5)


def test_as_the_owner(few_agent: Agent, open_volume: Path) -> None:
    """It should need no more than to be the files' owner."""
    few_agent.scratch = open_volume.parent
    few_agent.state.mkdir()
    os.chown(few_agent.state, NOBODY, NOBODY)
    os.chown(open_volume.parent, NOBODY, NOBODY)
    paths = (open_volume / "ibdata1", open_volume / "aria_log_control")
    before = {path.name: (path.stat().st_mode, path.stat().st_uid, path.stat().st_ino) for path in paths}
    answer = few_agent.run("recreate", *INCIDENT, "--confirm", "inc-1", *paths, uid=NOBODY).done()
    assert answer.document["unchecked"]
    for path in paths:
        mode, uid, inode = before[path.name]
        assert (path.stat().st_mode, path.stat().st_uid) == (mode, uid)
        assert path.stat().st_ino != inode


def test_not_the_owner(few_agent: Agent, open_volume: Path) -> None:
    """It should say what is missing when owner and mode cannot be kept, with no name touched."""
    few_agent.scratch = open_volume.parent
    few_agent.state.mkdir()
    os.chown(few_agent.state, NOBODY, NOBODY)
    os.chown(open_volume.parent, NOBODY, NOBODY)
    os.chown(open_volume / "ibdata1", 1234, 1234)
    (open_volume / "ibdata1").chmod(0o644)
    before = names_and_inodes(open_volume)
    few_agent.run("prepare", *INCIDENT, open_volume / "ibdata1", uid=NOBODY).refused("owner_not_kept", 5)
    assert names_and_inodes(open_volume) == before
    open_volume.chmod(0o555)
    few_agent.run("purge", *INCIDENT, open_volume, uid=NOBODY).refused("permission", 5)


def test_answers_are_one_document(one_agent: Agent, volume: Path) -> None:
    """It should print one JSON document and nothing else on standard output."""
    answer = one_agent.run("prepare", *INCIDENT, volume / "ibdata1").done()
    assert len(answer.text.splitlines()) == 1
    assert set(json.loads(answer.text)) >= {"schema", "verb", "ok", "files", "error"}
