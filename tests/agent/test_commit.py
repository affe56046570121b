"""commit and recreate: one batch, under a permit, or nothing."""

from __future__ import annotations

import fcntl
import json
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.agent.agent_runner import Agent, Answer, our_files, permit
from tests.agent.test_prepare import INCIDENT, _reached, names_and_inodes, wait_until

OFD_SETLK = 37
# A permit whose expiry and files are to be filled in.
BASE = """{"schema": 1, "incident": "inc-1", "instance": "", "boot_id": "", "evidence_digest": "",
           "expires_boottime_s": %s, "files": %s}"""


def prepared(agent: Agent, volume: Path) -> Answer:
    """Prepare both files of the volume."""
    return agent.run("prepare", *INCIDENT, volume / "aria_log_control", volume / "ibdata1").done()


def commit(agent: Agent, leave: str, **others: Any) -> Answer:
    """Commit with a permit on standard input."""
    return agent.run("commit", *INCIDENT, "--permit", "-", stdin=leave, **others)


def test_the_swap(agent: Agent, volume: Path) -> None:
    """It should put a new inode with equal content and metadata under every name, and keep the originals."""
    contents = {path.name: path.read_bytes() for path in volume.iterdir()}
    before = names_and_inodes(volume)
    times = {name: (volume / name).stat().st_mtime_ns for name in before}
    copies = prepared(agent, volume)
    answer = commit(agent, permit(copies)).done()
    assert [Path(entry["path"]).name for entry in answer.files] == ["aria_log_control", "ibdata1"]
    for entry, copy in zip(answer.files, copies.files, strict=True):
        path = Path(entry["path"])
        assert entry["state"] == "committed"
        assert entry["content_equal"] is True
        assert entry["inode_before"] == before[path.name]
        assert path.stat().st_ino == entry["inode_after"] == copy["temp_inode"]
        assert path.read_bytes() == Path(entry["quarantine"]).read_bytes() == contents[path.name]
        assert path.stat().st_mtime_ns == times[path.name]
        assert Path(entry["quarantine"]).stat().st_ino == before[path.name]
        assert entry["old_inode_still_locked"] is False
        assert entry["lock"]["kind"] == "none"
    assert len(our_files(volume)) == 3
    status = agent.run("status", *INCIDENT, volume).done().document
    assert status["repair"]["state"] == "committed"
    assert {entry["position"] for entry in status["files"]} == {"swapped"}


def test_again(agent: Agent, volume: Path) -> None:
    """It should answer the same and do nothing when run again after success, also with a permit long expired."""
    copies = prepared(agent, volume)
    first = commit(agent, permit(copies)).done()
    after = names_and_inodes(volume)
    second = commit(agent, permit(copies, expires_boottime_s=1.0)).done()
    assert second.files == first.files
    assert names_and_inodes(volume) == after


def test_old_locks_stay_behind(far_agent: Agent, volume: Path, holding: Callable[[Path], int]) -> None:
    """It should free the names while the old inodes stay locked, and say so."""
    for name in ("ibdata1", "aria_log_control"):
        holding(volume / name)
    answer = commit(far_agent, permit(prepared(far_agent, volume))).done()
    assert [entry["old_inode_still_locked"] for entry in answer.files] == [True, True]
    for entry in far_agent.run("check-locks", volume).done().files:
        expected = {"quarantine": "remote", None: "none", "journal": "none"}[entry["leftover"]]
        assert entry["lock"]["kind"] == expected
    verified = far_agent.run("verify", *INCIDENT, volume).done().files
    assert [entry["quarantine_lock"]["kind"] for entry in verified] == ["remote", "remote"]


def half_swapped(agent: Agent, volume: Path, fifo: Path) -> str:
    """Let a commit stop, until a word comes on a FIFO, at the second rename: the first file is swapped, the other not.

    Returns:
        its permit.
    """
    os.mkfifo(fifo)
    leave = permit(prepared(agent, volume))
    agent.send("commit", *INCIDENT, "--permit", "-", stdin=leave, faults={"pause": ["rename", 2, str(fifo)]})
    wait_until(_reached(fifo))
    return leave


def test_new_inodes_are_locked_until_the_batch_ends(few_agent: Agent, volume: Path, tmp_path: Path) -> None:
    """It should let nobody start on half a batch."""
    fifo = tmp_path / "fifo"
    half_swapped(few_agent, volume, fifo)
    with (volume / "aria_log_control").open("r+b") as starter, pytest.raises(BlockingIOError):
        fcntl.lockf(starter.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    fifo.write_text("go")
    few_agent.receive().done()
    with (volume / "aria_log_control").open("r+b") as starter:
        fcntl.lockf(starter.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_new_inode_that_is_locked_right_away(few_agent: Agent, volume: Path, tmp_path: Path) -> None:
    """It should say who has a lock on a new inode when the batch ends, of a kind that its own did not exclude."""
    fifo = tmp_path / "fifo"
    leave = half_swapped(few_agent, volume, fifo)
    with (volume / "aria_log_control").open("r+b") as starter:
        fcntl.flock(starter.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        fifo.write_text("go")
        answer = few_agent.receive().refused("new_inode_locked", 4)
    assert "aria_log_control" in answer.text
    assert [entry["lock"]["kind"] for entry in commit(few_agent, leave).done().files] == ["none", "none"]


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("permit_expired", lambda p: p.update(expires_boottime_s=time.clock_gettime(time.CLOCK_BOOTTIME) - 1)),
        ("permit_too_long", lambda p: p.update(expires_boottime_s=time.clock_gettime(time.CLOCK_BOOTTIME) + 9999)),
        ("permit_mismatch", lambda p: p.update(boot_id="00000000-0000-0000-0000-000000000000")),
        ("permit_mismatch", lambda p: p.update(incident="inc-2")),
        ("permit_mismatch", lambda p: p["files"][0].update(inode=1)),
        ("permit_mismatch", lambda p: p["files"][0].update(dev=1)),
        ("permit_mismatch", lambda p: p["files"][0].update(size_bytes=1)),
        ("permit_mismatch", lambda p: p["files"][1].update(mtime_ns=1)),
        ("permit_mismatch", lambda p: p["files"].pop()),
        ("not_prepared", lambda p: p["files"].append(dict(p["files"][0], path=p["files"][0]["path"] + "-other"))),
        ("no_such_path", lambda p: p["files"].append(dict(p["files"][0], path="/gone/x"))),
    ],
)
def test_permits_that_do_not_fit(
    few_agent: Agent, volume: Path, code: str, change: Callable[[dict[str, Any]], object]
) -> None:
    """It should touch no name when the permit is not exactly for this."""
    leave = json.loads(permit(prepared(few_agent, volume)))
    change(leave)
    before = names_and_inodes(volume)
    answer = commit(few_agent, json.dumps(leave))
    answer.refused(code, 5 if code == "no_such_path" else 3)
    assert names_and_inodes(volume) == before
    assert len(our_files(volume)) == 3


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"schema": 2}',
        '{"schema": 1, "incident": "inc-1"}',
        BASE % ("NaN", "[]"),
        BASE % ("true", "[]"),
        BASE % ("1", '[{"path": "relative", "inode": 1, "dev": 1, "size_bytes": 1, "mtime_ns": 1}]'),
    ],
)
def test_malformed_permits(one_agent: Agent, volume: Path, text: str) -> None:
    """It should call a malformed permit a usage error."""
    prepared(one_agent, volume)
    commit(one_agent, text).refused("permit_malformed", 2)
    one_agent.run("commit", *INCIDENT, "--permit", volume / "gone").refused("permit_unreadable", 5)


def _written(volume: Path) -> None:
    with (volume / "ibdata1").open("r+b") as writer:
        writer.write(b"late")


def _written_with_times_put_back(volume: Path) -> None:
    status = (volume / "ibdata1").stat()
    _written(volume)
    os.utime(volume / "ibdata1", ns=(status.st_atime_ns, status.st_mtime_ns))


def _replaced(volume: Path) -> None:
    content = (volume / "ibdata1").read_bytes()
    (volume / "ibdata1").unlink()
    (volume / "ibdata1").write_bytes(content)


def _linked(volume: Path) -> None:
    os.link(volume / "ibdata1", volume / "second-name")


@pytest.mark.parametrize(
    ("change", "codes"),
    [
        (_written, {"source_changed"}),
        (_written_with_times_put_back, {"source_changed"}),
        (_replaced, {"unexpected_inode", "source_changed"}),  # a freed inode number may come back at once
        (_linked, {"hard_linked"}),
    ],
)
def test_a_file_that_changed_after_its_copy(
    few_agent: Agent, volume: Path, change: Callable[[Path], None], codes: set[str]
) -> None:
    """It should touch no name of the batch when one file is not what was copied."""
    leave = permit(prepared(few_agent, volume))
    change(volume)
    before = names_and_inodes(volume)
    answer = commit(few_agent, leave)
    assert answer.code == 3
    assert answer.error_code in codes
    assert names_and_inodes(volume) == before


def test_a_copy_that_changed(one_agent: Agent, volume: Path) -> None:
    """It should not swap in a copy that someone has touched, or that is gone."""
    copies = prepared(one_agent, volume)
    temp = Path(copies.files[0]["temp"])
    with temp.open("r+b") as writer:
        writer.write(b"x")
    commit(one_agent, permit(copies)).refused("not_prepared")
    temp.unlink()
    commit(one_agent, permit(copies)).refused("not_prepared")
    assert names_and_inodes(volume)["aria_log_control"] == copies.files[0]["inode"]


def test_a_holder_that_came_between(agent: Agent, volume: Path, holding: Callable[[Path], int]) -> None:
    """It should refuse when a process of this host took a lock between prepare and commit."""
    leave = permit(prepared(agent, volume))
    before = names_and_inodes(volume)
    holding(volume / "ibdata1")
    commit(agent, leave).refused("local_holder")
    assert names_and_inodes(volume) == before


@pytest.mark.parametrize("which", ["path", "temp"])
def test_an_opener_that_came_between(few_agent: Agent, volume: Path, which: str) -> None:
    """It should refuse when a process of this host has an original or a copy open, and name that."""
    copies = prepared(few_agent, volume)
    before = names_and_inodes(volume)
    with Path(copies.files[0][which]).open("rb"):
        refused = commit(few_agent, permit(copies)).refused("local_holder")
    assert copies.files[0][which] in refused.document["error"]["message"]
    assert names_and_inodes(volume) == before


def test_a_lock_on_a_copy(far_agent: Agent, volume: Path) -> None:
    """It should refuse when someone whom it cannot see has locked a copy."""
    copies = prepared(far_agent, volume)
    before = names_and_inodes(volume)
    with Path(copies.files[1]["temp"]).open("r+b") as held:
        fcntl.fcntl(held.fileno(), OFD_SETLK, struct.pack("@hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
        commit(far_agent, permit(copies)).refused("local_holder")
    assert names_and_inodes(volume) == before


def test_a_permit_that_expires_in_the_middle(one_agent: Agent, volume: Path, tmp_path: Path) -> None:
    """It should stop between two files when the permit expires, and go on under a new one."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    copies = prepared(one_agent, volume)
    expires = time.clock_gettime(time.CLOCK_BOOTTIME) + 6
    one_agent.send(
        "commit",
        *INCIDENT,
        "--permit",
        "-",
        stdin=permit(copies, expires_boottime_s=expires),
        faults={"pause": ["rename", 1, str(fifo)]},
    )
    wait_until(_reached(fifo))
    wait_until(lambda: time.clock_gettime(time.CLOCK_BOOTTIME) > expires)
    fifo.write_text("go")
    one_agent.receive().refused("permit_expired")
    states = [entry["state"] for entry in one_agent.run("status", *INCIDENT, volume).done().files]
    assert states == ["committed", "prepared"]
    commit(one_agent, permit(copies)).done()
    assert one_agent.run("verify", *INCIDENT, volume).done().document["ok"] is True


def test_many_files(one_agent: Agent, tmp_path: Path) -> None:
    """It should swap more files in one batch than a process may usually have open."""
    directory = tmp_path / "many"
    directory.mkdir()
    paths = [directory / f"t{number}.ibd" for number in range(40)]
    for path in paths:
        path.write_bytes(b"x")
    copies = one_agent.run("prepare", *INCIDENT, *paths).done()
    answer = commit(one_agent, permit(copies), faults={"open_files": 32}).done()
    assert len(answer.files) == len(paths)


def test_two_directories(few_agent: Agent, volume: Path, tmp_path: Path) -> None:
    """It should swap files of several directories in one batch, in the permit's order."""
    second = tmp_path / "tablespaces"
    second.mkdir()
    (second / "big.ibd").write_bytes(b"big" * 1000)
    files = (second / "big.ibd", volume / "ibdata1")
    copies = few_agent.run("prepare", *INCIDENT, *files).done()
    answer = commit(few_agent, permit(copies)).done()
    assert [entry["path"] for entry in answer.files] == [str(path) for path in files]
    few_agent.run("restore", *INCIDENT, volume).refused("half_batch")
    few_agent.run("restore", *INCIDENT, volume, second).done()
    assert few_agent.run("status", *INCIDENT, volume, second).done().document["repair"]["state"] == "restored"


def test_recreate(agent: Agent, volume: Path) -> None:
    """It should prepare and commit on a person's typed word, also a file without a lock, and once only."""
    path = volume / "ibdata1"
    before = path.stat().st_ino
    agent.run("recreate", *INCIDENT, "--confirm", "inc-2", path).refused("confirm_mismatch")
    (entry,) = agent.run("recreate", *INCIDENT, "--confirm", "inc-1", path).done().files
    assert entry["inode_before"] == before
    assert path.stat().st_ino == entry["inode_after"] != before
    (again,) = agent.run("recreate", *INCIDENT, "--confirm", "inc-1", path).done().files
    assert again == entry


def test_recreate_refuses_the_living(few_agent: Agent, volume: Path, holding: Callable[[Path], int]) -> None:
    """It should refuse a local holder whatever a person types."""
    holding(volume / "ibdata1")
    before = names_and_inodes(volume)
    few_agent.run("recreate", *INCIDENT, "--confirm", "inc-1", volume / "ibdata1").refused("local_holder")
    assert names_and_inodes(volume) == before
    assert our_files(volume) == set()


def test_a_read_only_file(one_agent: Agent, volume: Path) -> None:
    """It should recreate a file that even its owner may only read."""
    (volume / "ibdata1").chmod(0o400)
    (entry,) = one_agent.run("recreate", *INCIDENT, "--confirm", "inc-1", volume / "ibdata1").done().files
    assert Path(entry["path"]).stat().st_mode & 0o777 == 0o400


def test_a_damaged_journal(few_agent: Agent, volume: Path) -> None:
    """It should refuse to act on a journal that no crash explains, and drop a last line that was cut off."""
    copies = prepared(few_agent, volume)
    journal = volume / ".unlatch-inc-1.journal"
    whole = journal.read_bytes()
    for torn in (b'{"event": "commi', b"\0\0\0\0\0\0\0\n", b"\xff\xfe", b"{}\n"):
        journal.write_bytes(whole + torn)
        assert few_agent.run("status", *INCIDENT, volume).done().document["repair"]["state"] == "prepared"
    lines = whole.splitlines(keepends=True)
    for damaged in ([lines[0], *lines[2:]], [b"x\n", *lines], lines[1:], [*lines[:2], b"\0\n", *lines[2:]]):
        journal.write_bytes(b"".join(damaged))
        commit(few_agent, permit(copies)).refused("journal_damaged")
        few_agent.run("purge", *INCIDENT, volume).refused("journal_damaged")
    journal.write_bytes(whole + b'{"event": "commi')
    commit(few_agent, permit(copies)).done()
    assert few_agent.run("verify", *INCIDENT, volume).done().document["ok"] is True


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ("rw,vers=3,local_lock=all", True),
        ("rw,vers=3,local_lock=posix", True),
        ("rw,vers=3,nolock", True),
        ("rw,vers=3,local_lock=flock", False),
        ("rw,vers=4.2,local_lock=none", False),
    ],
)
def test_local_lock_mounts(one_agent: Agent, volume: Path, options: str, refused: bool) -> None:
    """It should refuse an NFS mount whose record locks stay on this host."""
    table = f"999 1 0:99 / {volume} rw - nfs nas:/x {options}\n"
    answer = one_agent.run("prepare", *INCIDENT, volume / "ibdata1", faults={"mounts": table})
    if refused:
        answer.refused("local_locks")
        assert our_files(volume) == set()
        return
    leave = permit(answer.done())
    commit(one_agent, leave, faults={"mounts": table.replace(options, "nolock")}).refused("local_locks")
    commit(one_agent, leave, faults={"mounts": table}).done()


@pytest.mark.parametrize(
    "at", [(1, "torn"), (2, "before"), (30, "before"), (42, "before"), (60, "before"), (84, "torn")]
)
def test_killed_in_a_group(one_far_agent: Agent, tmp_path: Path, at: tuple[int, str]) -> None:
    """It should finish or undo a batch of many files, whose disk waits are shared, wherever it was killed."""
    volume = tmp_path / "many"
    volume.mkdir()
    paths = [volume / f"t{number:02}.ibd" for number in range(40)]
    for path in paths:
        path.write_bytes(path.name.encode() * 50)
    before = names_and_inodes(volume)
    copies = one_far_agent.run("prepare", *INCIDENT, *paths).done()
    assert commit(one_far_agent, permit(copies), faults={"kill": list(at)}).code == -9
    for path in paths:
        assert path.read_bytes() == path.name.encode() * 50
    if at[0] % 4:
        files = commit(one_far_agent, permit(copies)).done().files
        assert [entry["content_equal"] for entry in files] == [True] * 40
        assert not set(names_and_inodes(volume).values()) & set(before.values())
        assert len(one_far_agent.run("verify", *INCIDENT, volume).done().files) == 40
    one_far_agent.run("restore", *INCIDENT, volume).done()
    assert names_and_inodes(volume) == before
    for path in paths:
        assert path.stat().st_nlink == 1
