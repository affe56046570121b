"""prepare, run again: huge copies go on from where they were, and weaker ones are made up to what is asked for now."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.agent.agent_runner import NOBODY, Agent, Answer, permit
from tests.agent.test_commit import commit
from tests.agent.test_methods import mixed, same
from tests.agent.test_prepare import INCIDENT

MIB = 1 << 20
# So that a few megabytes are a huge file.
MARKS: dict[str, Any] = {"set": ["streaming", "MARK_BYTES", 4 * MIB]}
STREAM = ("--method", "stream")


def journal(volume: Path) -> list[dict[str, Any]]:
    """The journal's records."""
    return [json.loads(line) for line in (volume / ".unlatch-inc-1.journal").read_text().splitlines()]


def killed_while_copying(agent: Agent, volume: Path, method: str = "stream") -> tuple[Path, int]:
    """Kill a copy right after its second mark; returns the original and the copy's inode."""
    path = mixed(volume / "users01.ibd", 21 * MIB + 77, holes=False)
    # The journal, its directory, begin, copying, the copy, and two marks.
    killed = agent.run("prepare", *INCIDENT, "--method", method, path, faults={**MARKS, "kill": [7, "after"]})
    assert killed.code == -9
    marks = [record["done_bytes"] for record in journal(volume) if "done_bytes" in record]
    assert marks == [4 * MIB, 8 * MIB]
    return path, journal(volume)[-1]["temp_inode"]


@pytest.mark.parametrize("method", ["stream", "server"])
def test_a_huge_copy_goes_on(few_agent: Agent, volume: Path, method: str) -> None:
    """It should go on with a killed copy from its last mark, in the same file, and compare all of it."""
    path, inode = killed_while_copying(few_agent, volume, method)
    (status,) = few_agent.run("status", *INCIDENT, volume).done().files
    assert status["bytes_done"] >= 4 * MIB
    (entry,) = few_agent.run("prepare", *INCIDENT, "--method", method, path, faults=MARKS).done().files
    assert (entry["resumed_at_bytes"], entry["temp_inode"], entry["verified"]) == (8 * MIB, inode, "content")
    assert same(path, Path(entry["temp"]))
    (swapped,) = commit(few_agent, permit({"files": [entry]})).done().files
    assert swapped["content_equal"] is True


def test_killed_while_it_is_compared(one_agent: Agent, volume: Path) -> None:
    """It should not copy again what was copied whole before the kill."""
    path = mixed(volume / "users01.ibd", 9 * MIB, holes=False)
    # ... two marks on the way, one at the end, and then the look at the directory.
    killed = one_agent.run("prepare", *INCIDENT, *STREAM, path, faults={**MARKS, "kill": [9, "before"]})
    assert killed.code == -9
    assert journal(volume)[-1]["done_bytes"] == 9 * MIB
    (entry,) = one_agent.run("prepare", *INCIDENT, *STREAM, path, faults=MARKS).done().files
    assert (entry["temp_inode"], entry["method"], entry["verified"]) == (
        journal(volume)[-1]["temp"]["inode"],
        "stream",
        "content",
    )
    assert same(path, Path(entry["temp"]))


@pytest.mark.parametrize("end", ["\n", "\0"])
def test_paths_from_a_file(few_agent: Agent, volume: Path, tmp_path: Path, end: str) -> None:
    """It should take more paths than a command line has room for, from a file or from standard input."""
    paths = [volume / "ibdata1", volume / "aria_log_control"]
    listed = tmp_path / "paths"
    listed.write_text("".join(f"{path}{end}" for path in paths))
    files = few_agent.run("prepare", *INCIDENT, "--paths-from", listed).done().files
    assert [entry["path"] for entry in files] == [str(path) for path in paths]
    few_agent.run("prepare", *INCIDENT, "--paths-from", "-", stdin=listed.read_text()).done()
    few_agent.run("prepare", *INCIDENT, "--paths-from", "-", stdin="").refused("usage", 2)
    few_agent.run("prepare", *INCIDENT).refused("usage", 2)


def test_a_source_that_changed_meanwhile(one_agent: Agent, volume: Path) -> None:
    """It should begin again with an original that was written to after the kill."""
    path, inode = killed_while_copying(one_agent, volume)
    with path.open("r+b") as writer:
        writer.write(b"late")
    (entry,) = one_agent.run("prepare", *INCIDENT, *STREAM, path).done().files
    assert entry["resumed_at_bytes"] == 0
    assert same(path, Path(entry["temp"]))
    assert inode


@pytest.mark.parametrize("verify", ["full", "none"])
def test_what_was_kept_is_spoilt(one_agent: Agent, volume: Path, verify: str) -> None:
    """It should compare what an earlier run left whatever was asked for, and begin again after it was wrong."""
    path, _ = killed_while_copying(one_agent, volume)
    temp = next(volume.glob(".unlatch-*.new"))
    with temp.open("r+b") as spoiler:
        spoiler.seek(MIB)
        spoiler.write(b"spoilt")
    again = ("prepare", *INCIDENT, *STREAM, "--verify", verify, path)
    one_agent.run(*again, faults=MARKS).refused("copy_differs", 4)
    (entry,) = one_agent.run(*again, faults=MARKS).done().files
    assert entry["resumed_at_bytes"] == 0
    assert same(path, Path(entry["temp"]))


def test_another_copy_has_the_name(one_agent: Agent, volume: Path) -> None:
    """It should not go on with a file that is not the one that the mark speaks of."""
    path, _ = killed_while_copying(one_agent, volume)
    temp = next(volume.glob(".unlatch-*.new"))
    temp.rename(volume / "kept")
    temp.write_bytes(bytes(21 * MIB + 77))
    (entry,) = one_agent.run("prepare", *INCIDENT, *STREAM, path).done().files
    assert entry["resumed_at_bytes"] == 0
    assert same(path, Path(entry["temp"]))


@pytest.mark.parametrize(("first", "then"), [("none", "full"), ("sample", "full"), ("none", "sample")])
def test_more_verification_than_before(few_agent: Agent, volume: Path, first: str, then: str) -> None:
    """It should compare a copy that an earlier run looked at less closely; it is not copied again."""
    path = mixed(volume / "ibdata1", 5 * MIB)
    (before,) = few_agent.run("prepare", *INCIDENT, *STREAM, "--verify", first, path).done().files
    (after,) = few_agent.run("prepare", *INCIDENT, *STREAM, "--verify", then, path).done().files
    assert before["verified"] != "content"
    assert (after["verified"], after["temp_inode"]) == ("content", before["temp_inode"])
    assert few_agent.run("prepare", *INCIDENT, "--verify", first, path).done().files == [after]
    (swapped,) = commit(few_agent, permit({"files": [after]})).done().files
    assert swapped["content_equal"] is True


def test_less_verification_found_wrong(one_agent: Agent, volume: Path) -> None:
    """It should not bless an unverified copy: what is asked for now finds the wrong byte, and the next run mends it."""
    path = mixed(volume / "ibdata1", 5 * MIB, holes=False)

    def prepare(*how: str) -> Answer:
        return one_agent.run("prepare", *INCIDENT, *STREAM, *how, path)

    (entry,) = prepare("--verify", "none").done().files
    temp = Path(entry["temp"])
    status = temp.stat()
    with temp.open("r+b") as spoiler:
        spoiler.seek(2 * MIB)
        spoiler.write(b"spoilt")
    os.utime(temp, ns=(status.st_atime_ns, status.st_mtime_ns))
    records = (volume / ".unlatch-inc-1.journal").read_text().splitlines()
    last = json.loads(records[-1])
    last["temp"]["ctime_ns"] = temp.stat().st_ctime_ns  # as if the disk, not a program, had changed it
    (volume / ".unlatch-inc-1.journal").write_text("\n".join([*records[:-1], json.dumps(last)]) + "\n")
    prepare("--verify", "full").refused("copy_differs", 4)
    (mended,) = prepare("--verify", "full").done().files
    assert same(path, Path(mended["temp"]))


def test_metadata_that_must_be_kept_now(one_agent: Agent, open_volume: Path) -> None:
    """It should make a copy anew that lost metadata, when none may be lost now."""
    one_agent.scratch = open_volume.parent
    one_agent.state.mkdir()
    for path in (one_agent.state, open_volume.parent):
        os.chown(path, NOBODY, NOBODY)
    path = open_volume / "ibdata1"
    os.setxattr(path, "security.unlatch", b"only root sets this")
    (entry,) = one_agent.run("prepare", *INCIDENT, path, uid=NOBODY).done().files
    assert entry["metadata_lost"] == ["security.unlatch"]
    one_agent.run("prepare", *INCIDENT, "--strict-metadata", path, uid=NOBODY).refused("metadata_lost")
    os.removexattr(path, "security.unlatch")
    (kept,) = one_agent.run("prepare", *INCIDENT, "--strict-metadata", path, uid=NOBODY).done().files
    assert kept["metadata_lost"] == []
