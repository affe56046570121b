"""verify, restore, purge: late writers, the way back, and the end."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.agent.agent_runner import Agent, Answer, our_files, permit
from tests.agent.test_commit import commit, prepared
from tests.agent.test_prepare import INCIDENT, names_and_inodes
from unlatch_agent import durable, mounts, restore, verify
from unlatch_agent.journal import Journal

DIGEST = "ab" * 32


def committed(agent: Agent, volume: Path) -> Answer:
    """Prepare and commit both files."""
    return commit(agent, permit(prepared(agent, volume))).done()


def test_verify(agent: Agent, volume: Path) -> None:
    """It should say of each file that all is as the swap left it, and nothing of files never swapped."""
    assert agent.run("verify", *INCIDENT, volume).done().files == []
    files = committed(agent, volume).files
    verified = agent.run("verify", *INCIDENT, volume).done().files
    for entry, swapped in zip(verified, files, strict=True):
        assert entry["ok"] is True
        assert entry["quarantine_changed"] is False
        assert entry["quarantine_inode"] == swapped["inode_before"]
        assert entry["inode_after"] == swapped["inode_after"]


def _appended(path: Path) -> None:
    with path.open("ab") as writer:
        writer.write(b"late")


def _overwritten(path: Path) -> None:
    status = path.stat()
    with path.open("r+b") as writer:
        writer.write(b"late")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _removed(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("change", [_appended, _overwritten, _removed])
def test_a_late_writer(few_agent: Agent, volume: Path, change: Callable[[Path], None]) -> None:
    """It should raise the alarm, and neither purge nor restore, when an original changed in quarantine."""
    quarantine = Path(committed(few_agent, volume).files[1]["quarantine"])
    change(quarantine)
    answer = few_agent.run("verify", *INCIDENT, volume).refused("late_writer", 4)
    assert [entry["quarantine_changed"] for entry in answer.files] == [False, True]
    assert str(quarantine) in answer.document["error"]["message"]
    left = our_files(volume)
    few_agent.run("purge", *INCIDENT, volume).refused("late_writer")
    few_agent.run("purge", *INCIDENT, "--holder-dead", DIGEST, volume).refused("late_writer")
    assert our_files(volume) == left


def test_a_late_writer_stops_a_restore(few_agent: Agent, volume: Path) -> None:
    """It should not put an original back that someone writes to."""
    files = committed(few_agent, volume).files
    _appended(Path(files[0]["quarantine"]))
    after = names_and_inodes(volume)
    few_agent.run("restore", *INCIDENT, volume).refused("late_writer")
    assert names_and_inodes(volume) == after


def test_someone_replaced_the_new_file(one_agent: Agent, volume: Path) -> None:
    """It should say so when a name stands for another file than the repair's."""
    committed(one_agent, volume)
    (volume / "another").write_bytes(b"x")
    (volume / "another").rename(volume / "ibdata1")
    one_agent.run("verify", *INCIDENT, volume).refused("unexpected_inode", 4)
    one_agent.run("restore", *INCIDENT, volume).refused("unexpected_inode")


def test_restore(agent: Agent, volume: Path) -> None:
    """It should bring every original back and keep the new files under their temp names."""
    before = names_and_inodes(volume)
    files = committed(agent, volume).files
    agent.run("restore", *INCIDENT, "--confirm", "inc-2", volume).refused("confirm_mismatch")
    restored = agent.run("restore", *INCIDENT, volume).done().files
    assert {entry["state"] for entry in restored} == {"restored"}
    assert names_and_inodes(volume) == before
    for entry in files:
        assert not Path(entry["quarantine"]).exists()
    for entry in restored:
        assert Path(entry["temp"]).stat().st_ino == entry["inode_after"]
    again = agent.run("restore", *INCIDENT, volume).done().files
    assert {entry["state"] for entry in again} == {"restored"}
    assert names_and_inodes(volume) == before


def _many(agent: Agent, directory: Path, **faults: Any) -> list[Path]:
    """Swap more files than go one by one."""
    directory.mkdir(exist_ok=True)
    paths = [directory / f"t{number:02}.ibd" for number in range(39)] + [directory / "z-ibdata1"]
    for path in paths:
        path.write_bytes(path.name.encode() * 50)
    commit(agent, permit(agent.run("prepare", *INCIDENT, *paths, **faults).done()), **faults).done()
    return paths


@pytest.mark.parametrize("table", [None, "9 1 0:9 / {} rw - nfs nas:/x rw,vers=3,local_lock=none\n"])
def test_killed_while_many_are_restored(one_far_agent: Agent, tmp_path: Path, table: str | None) -> None:
    """It should have the old or the new file under each name wherever it is killed, and bring the rest back after."""
    agent, directory = one_far_agent, tmp_path / "many"
    faults: dict[str, Any] = {"faults": {"mounts": table.format(directory)}} if table else {}
    cut = 0
    for number in itertools.count(1, 11):
        paths = _many(agent, directory, **faults)
        inodes = {path: path.stat().st_ino for path in paths}
        how = {"faults": dict(faults.get("faults", {}), kill=[number, "before"])}
        answer = agent.run("restore", *INCIDENT, directory, **how)
        assert all(path.read_bytes() == path.name.encode() * 50 for path in paths)
        cut += answer.code != 0
        restored = agent.run("restore", *INCIDENT, directory, **faults).done().files
        assert {entry["path"]: entry["state"] for entry in restored} == {str(path): "restored" for path in paths}
        assert not set(inodes.values()) & {path.stat().st_ino for path in paths}
        assert {path.stat().st_nlink for path in paths} == {1}
        agent.run("purge", *INCIDENT, directory, **faults).done()
        assert our_files(directory) == set()
        if answer.code == 0:
            break
    assert cut > 5


def test_many_are_restored(one_agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It should bring back first what was swapped last, whose lock keeps a server from a half of them."""
    _many(one_agent, tmp_path / "many")
    real, renamed, another_began = durable.rename, [], threading.Event()

    def rename(source: str, target: str) -> None:
        name = Path(target).name
        if name == "z-ibdata1":
            another_began.wait(0.2)  # what must not come
        else:
            another_began.set()
        renamed.append(name)
        real(source, target)

    monkeypatch.setattr(mounts, "any_on_nfs", lambda _: True)
    monkeypatch.setattr(durable, "rename", rename)
    restore.run("inc-1", [str(tmp_path / "many")], False, 10.0, lambda _: None)
    assert renamed[0] == "z-ibdata1"
    assert sorted(renamed) == sorted(path.name for path in (tmp_path / "many").glob("[tz]*"))


def test_the_whole_way_twice(few_agent: Agent, volume: Path) -> None:
    """It should prepare, commit, restore, and do it all again in the same incident."""
    committed(few_agent, volume)
    few_agent.run("restore", *INCIDENT, volume).done()
    files = committed(few_agent, volume).files
    assert few_agent.run("verify", *INCIDENT, volume).done().document["ok"] is True
    assert names_and_inodes(volume)["ibdata1"] == files[1]["inode_after"]


def test_restore_after_a_start(agent: Agent, volume: Path, holding: Callable[[Path], int]) -> None:
    """It should refuse once something has used a new file: written to it, locked it, or opened it."""
    committed(agent, volume)
    after = names_and_inodes(volume)
    with (volume / "ibdata1").open("rb"):
        agent.run("restore", *INCIDENT, volume).refused("local_holder")
    held = holding(volume / "ibdata1")
    agent.run("restore", *INCIDENT, volume).refused("new_file_used")
    os.pwrite(held, b"x", 0)
    os.lseek(held, 0, 0)
    agent.run("restore", *INCIDENT, volume).refused("new_file_used")
    assert names_and_inodes(volume) == after


def test_restore_before_commit(few_agent: Agent, volume: Path) -> None:
    """It should keep copies that were never swapped unless told to throw them away."""
    prepared(few_agent, volume)
    files = few_agent.run("restore", *INCIDENT, volume).done().files
    assert {entry["state"] for entry in files} == {"prepared"}
    assert len(our_files(volume)) == 3
    files = few_agent.run("restore", *INCIDENT, "--discard-temps", volume).done().files
    assert {entry["state"] for entry in files} == {"discarded"}
    assert our_files(volume) == {".unlatch-inc-1.journal"}
    few_agent.run("purge", *INCIDENT, volume).done()
    assert our_files(volume) == set()


def test_purge(agent: Agent, volume: Path) -> None:
    """It should remove the originals and then the journal, say what came back, and be content with nothing."""
    files = committed(agent, volume).files
    held = sum(Path(entry["quarantine"]).stat().st_blocks * 512 for entry in files)
    dry = agent.run("purge", *INCIDENT, "--dry-run", volume).done().document
    assert dry["dry_run"] is True
    assert len(our_files(volume)) == 3
    answer = agent.run("purge", *INCIDENT, volume).done().document
    assert answer["freed_bytes"] == dry["freed_bytes"] == held
    assert answer["not_freed_bytes"] == 0
    assert {entry["state"] for entry in answer["files"]} == {"purged"}
    assert our_files(volume) == set()
    assert agent.run("purge", *INCIDENT, volume).done().files == []
    assert agent.run("status", *INCIDENT, volume).done().document["repair"]["state"] == "none"


def test_purge_beside_a_look(few_agent: Agent, volume: Path) -> None:
    """It should not take an original for tampered with that a purge deletes while it is looked at."""
    committed(few_agent, volume)
    looking = Journal(str(volume), INCIDENT[1])
    entries = looking.entries
    few_agent.run("purge", *INCIDENT, volume).done()
    assert [verify.quarantined(looking, entry).changes for entry in entries] == [[], []]


def test_more_directories_than_open_files(few_agent: Agent, volume: Path) -> None:
    """It should allow itself an open journal in each directory besides the files, in a repair, its undoing, a purge."""
    directories = [volume / f"schema_{number:03d}" for number in range(120)]
    for directory in directories:
        directory.mkdir()
        (directory / "t.ibd").write_bytes(b"content")
    limits = ["prlimit", "--nofile=100:1000"]
    for verb, arguments in (
        ("recreate", ["--confirm", INCIDENT[1], *[directory / "t.ibd" for directory in directories]]),
        ("verify", directories),
        ("restore", directories),
        ("purge", directories),
    ):
        answer = few_agent.fresh(verb, "--json", *INCIDENT, *arguments, prefix=limits).done()
        assert len(answer.files) == len(directories)


def test_purge_with_a_lock(far_agent: Agent, volume: Path, holding: Callable[[Path], int]) -> None:
    """It should keep locked originals unless their holder is proven dead, and then own up to the space."""
    holding(volume / "ibdata1")
    files = committed(far_agent, volume).files
    held = Path(files[1]["quarantine"]).stat().st_blocks * 512
    far_agent.run("purge", *INCIDENT, volume).refused("still_locked")
    assert len(our_files(volume)) == 3
    answer = far_agent.run("purge", *INCIDENT, "--holder-dead", DIGEST, volume).done().document
    assert answer["not_freed_bytes"] == held
    assert answer["freed_bytes"] > 0
    assert our_files(volume) == set()


def test_purge_with_a_local_user(few_agent: Agent, volume: Path) -> None:
    """It should never remove an original that a process of this host has open."""
    quarantine = Path(committed(few_agent, volume).files[0]["quarantine"])
    with quarantine.open("rb"):
        few_agent.run("purge", *INCIDENT, "--holder-dead", DIGEST, volume).refused("local_holder")
    assert quarantine.exists()


def test_a_second_crash_before_the_purge(few_agent: Agent, volume: Path) -> None:
    """It should repair again while an earlier repair waits for its purge, and still verify and purge that one."""
    committed(few_agent, volume)
    second = ("--incident", "inc-2")
    copies = few_agent.run("prepare", *second, volume / "ibdata1").done()
    few_agent.run("commit", *second, "--permit", "-", stdin=permit(copies, "inc-2")).done()
    states = {entry["path"]: entry["state"] for entry in few_agent.run("verify", *INCIDENT, volume).done().files}
    assert states == {str(volume / "ibdata1"): "superseded", str(volume / "aria_log_control"): "committed"}
    few_agent.run("restore", *INCIDENT, volume).refused("unexpected_inode")
    few_agent.run("purge", *INCIDENT, volume).done()
    assert few_agent.run("verify", *second, volume).done().document["ok"] is True
    few_agent.run("restore", *INCIDENT, volume).done()


def test_status_of_nothing(one_agent: Agent, volume: Path) -> None:
    """It should say none for a directory without a repair, and that a directory is missing."""
    repair = one_agent.run("status", *INCIDENT, volume).done().document["repair"]
    assert (repair["state"], repair["job"]["running"], repair["error"]) == ("none", False, None)
    one_agent.run("status", *INCIDENT, volume / "gone").refused("no_such_path", 5)
