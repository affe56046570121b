"""The parts without IO: permits, and the parsers of the kernel's tables."""

from __future__ import annotations

import errno
import json
import math
import os
import resource
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlatch_agent import arguments, copying, descriptors, identity, locks, mounts, permit, pidfile, status
from unlatch_agent.errors import HostError, RefusedError, UsageError, naming, of_system

calm = settings(deadline=None)  # a loaded machine is no defect


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def valid_permit() -> dict[str, Any]:
    """A permit as a controller writes it."""
    entry = {"path": "/v/ibdata1", "inode": 1, "dev": 2, "size_bytes": 3, "mtime_ns": 4}
    return {
        "schema": 1,
        "incident": "inc-1",
        "instance": "voms",
        "boot_id": "b",
        "expires_boottime_s": 100.5,
        "evidence_digest": "d",
        "files": [entry],
    }


@calm
@given(st.sampled_from(sorted(valid_permit())), JSON)
def test_permits_with_one_wrong_value(key: str, value: object) -> None:
    """It should take a permit or call it malformed; never anything else, and never one that cannot expire."""
    document = valid_permit()
    document[key] = value
    try:
        parsed = permit.parse(json.dumps(document))
    except UsageError:
        return
    assert math.isfinite(parsed.expires_boottime_s)
    assert parsed.files


@calm
@given(st.sampled_from(["path", "inode", "dev", "size_bytes", "mtime_ns", "content_sha256"]), JSON)
def test_permits_with_one_wrong_file(key: str, value: object) -> None:
    """It should take only absolute paths and whole numbers."""
    document = valid_permit()
    document["files"][0][key] = value
    try:
        parsed = permit.parse(json.dumps(document))
    except UsageError:
        return
    assert parsed.files[0].path.startswith("/")
    for number in parsed.files[0][1:5]:
        assert type(number) is int


@calm
@given(
    st.sampled_from(["inc-1", "inc-2"]),
    st.sampled_from(["b", "c"]),
    st.floats(0, 1e7),
    st.floats(-1e7, 1e7, allow_nan=False),
)
def test_validity(incident: str, boot_id: str, now_s: float, left_s: float) -> None:
    """It should accept a permit only for its incident and boot, before its end, and not far from it."""
    document = valid_permit()
    document["expires_boottime_s"] = now_s + left_s
    parsed = permit.parse(json.dumps(document))
    good = (incident, boot_id) == ("inc-1", "b") and now_s < now_s + left_s <= now_s + permit.LONGEST_S
    if good:
        parsed.refuse_unless_valid(incident, boot_id, now_s)
    else:
        with pytest.raises(RefusedError):
            parsed.refuse_unless_valid(incident, boot_id, now_s)


@calm
@given(st.text(max_size=90))
def test_incident_ids(text: str) -> None:
    """It should take only ids that are safe as part of a file name."""
    try:
        identity.checked_incident(text)
    except UsageError:
        return
    name = identity.journal_name(text)
    assert "/" not in name
    assert len(os.fsencode(name)) <= 255
    assert identity.leftover_kind(name) == "journal"


def test_mount_table() -> None:
    """It should find the longest and latest mount of a path, with spaces, and read NFS options."""
    table = mounts.parse_mountinfo(
        "1 0 8:1 / / rw - ext4 /dev/sda rw\n"
        "2 1 0:50 / /ORA/dbs03 rw,noatime shared:1 - nfs nas:/vol rw,vers=3,local_lock=none,addr=10.0.0.1\n"
        "3 1 0:51 / /ORA/with\\040space rw - nfs4 nas:/vol rw,vers=4.2,local_lock=none\n"
        "4 1 0:52 / /ORA/dbs03 rw - nfs nas:/vol2 rw,vers=3,nolock,local_lock=all\n"
        "nonsense\n"
    )
    found = mounts.mount_of("/ORA/dbs03/voms", table)
    assert found is not None
    assert (found.source, found.nfs_version, found.locks_are_local) == ("nas:/vol2", "3", True)
    assert not table[1].locks_are_local
    spaced = mounts.mount_of("/ORA/with space/x", table)
    assert spaced is not None
    assert spaced.nfs_version == "4.2"
    root = mounts.mount_of("/ORA/dbs0", table)
    assert root is not None
    assert (root.mountpoint, root.nfs_version, root.local_lock) == ("/", None, None)


def test_the_kernel_lock_table() -> None:
    """It should count holders, not those that only wait."""
    text = (
        "1: POSIX  ADVISORY  WRITE 4711 08:01:131 0 EOF\n"
        "1: -> POSIX  ADVISORY  WRITE 4712 08:01:131 0 EOF\n"
        "2: OFDLCK ADVISORY  READ -1 00:2d:99 0 EOF\n"
        "3: LEASE  ACTIVE    READ 5 08:01:132 0 EOF\n"
    )
    assert locks.parse_proc_locks(text) == {(os.makedev(8, 1), 131): {4711}, (os.makedev(0, 0x2D), 99): {-1}}


@calm
@given(st.binary(max_size=200))
def test_any_pid_file(content: bytes) -> None:
    """It should take any content for a pid file, with None for what is not there."""
    parsed = pidfile.parse("postmaster.pid", content)
    assert parsed.pid is None or parsed.pid > 0


def test_pid_files() -> None:
    """It should read a negative pid as a standalone backend's, and no start time from other pid files."""
    assert pidfile.parse("postmaster.pid", b"-42\n/d\n1413604492\n")[:2] == (42, 1413604492)
    assert pidfile.parse("mysqld.pid", b"42\n/d\n1413604492\n")[:2] == (42, None)


@pytest.mark.parametrize(
    ("states", "overall"),
    [
        ([], "none"),
        (["copying", "prepared"], "preparing"),
        (["prepared"], "prepared"),
        (["prepared", "swapping"], "committing"),
        (["prepared", "committed"], "committing"),
        (["committed", "set_aside"], "committed"),
        (["committed", "restoring"], "restoring"),
        (["restored", "prepared"], "restored"),
        (["purging", "purged"], "committed"),
        (["purged", "discarded"], "purged"),
    ],
)
def test_overall_state(states: list[str], overall: str) -> None:
    """It should name a repair's state by what is still to be done."""
    assert status.overall(states) == overall


def test_arguments_name_what_copying_can_do():
    """It should offer exactly the methods that there are, without importing them."""
    assert set(arguments.METHODS) == set(copying.METHODS)


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (errno.EROFS, "read_only", "read-only"),
        (errno.EACCES, "permission", "owner of the files"),
        (errno.EPERM, "permission", "owner of the files"),
        (errno.ENOSPC, "no_space", "make room"),
        (errno.EDQUOT, "no_space", "make room"),
        (errno.EMFILE, "too_many_files", "ulimit -n"),
        (errno.EIO, "io_error", "kernel log"),
    ],
)
def test_what_a_refused_system_call_says(tmp_path: Path, number: int, code: str, words: str) -> None:
    """It should name the file, also when the call had only a descriptor of it, and give advice that fits."""
    path = tmp_path / "ibdata1"
    with path.open("w") as opened, pytest.raises(OSError, match="ibdata1") as raised, naming(opened.fileno()):
        raise OSError(number, os.strerror(number))
    told = of_system(raised.value)
    assert told.code == code
    assert str(path) in told.message
    assert words in told.next_step


def test_as_many_open_files_as_a_swap_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """It should take what it may, and refuse before the copies are made when that is not enough for the swap."""
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 1024))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    assert descriptors.allow(100) == 256 - 64
    assert descriptors.allow(100, 1536) == 1024 - 64
    with pytest.raises(HostError) as raised:
        descriptors.allow(1000)
    assert raised.value.code == "too_many_files"
    assert asked == [(1024, 1024), (1024, 1024)]


def test_names_in_one_directory(tmp_path: Path) -> None:
    """It should resolve a directory once, and every way to write a name in it to the same path."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    known: dict[str, str] = {}
    real = tmp_path / "real"
    for text in ("real/a", "real/a", "link/a", "real/./a", "real/../link/a", "real//a", "real/"):
        wanted = str(real if text.endswith("/") else real / "a")
        assert identity.resolved_target(f"{tmp_path}/{text}", known) == wanted
    assert set(known.values()) <= {str(real), str(tmp_path)}
