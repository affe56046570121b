"""Mounts, files and processes that hang: the agent says so, and goes on."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.agent.agent_runner import Agent, permit
from unlatch_agent import ioguard
from unlatch_agent.errors import CheckFailedError, Json, TryAgainError

LIMIT = ("--io-timeout", "1.5")


def test_a_file_that_hangs(few_agent: Agent, volume: Path) -> None:
    """It should give up on a file that does not answer, look at the others, and never say free."""
    stuck = {"stop": ["ibdata1", "identity", "open_to_read"]}
    answer = few_agent.run("check-locks", *LIMIT, volume, faults=stuck).refused("io_timeout", 6)
    kinds = {Path(entry["path"]).name: entry["lock"]["kind"] for entry in answer.files}
    assert kinds == {"ibdata1": "unknown", "aria_log_control": "none"}


@pytest.mark.parametrize(
    ("argv", "stop"),
    [
        (["status", *LIMIT, "--incident", "i"], ["volume", "safety", "directories"]),
        (["restore", "--stall-timeout", "1.5", "--incident", "i"], ["volume", "safety", "directories"]),
        (["facts", *LIMIT], ["volume", "facts", "_resolved"]),
        (["check-locks", *LIMIT], ["volume", "checklocks", "_below"]),
        (["samples", *LIMIT], ["volume", "sampling", "_meant"]),
        (["verify", *LIMIT, "--incident", "i"], ["volume", "safety", "directories"]),
        (["prepare", "--job", *LIMIT, "--incident", "i"], ["volume", "safety", "targets"]),
        (["prepare", "--stall-timeout", "1.5", "--incident", "i"], ["volume", "safety", "opened"]),
        (["recreate", "--stall-timeout", "1.5", "--incident", "i", "--confirm", "i"], ["volume", "safety", "targets"]),
        (["purge", "--stall-timeout", "1.5", "--incident", "i"], ["volume", "safety", "directories"]),
    ],
    ids=lambda value: value[0] if value[0] != "volume" else value[2],
)
def test_a_mount_that_hangs(one_agent: Agent, volume: Path, argv: list[str], stop: list[str]) -> None:
    """It should end with io_timeout, and not hang itself, when the whole volume does not answer."""
    one_agent.run(*argv, volume, faults={"stop": stop}).refused("io_timeout", 6)


@pytest.mark.parametrize("verb", ["commit", "set-aside"])
def test_a_mount_that_hangs_before_a_swap(one_agent: Agent, volume: Path, verb: str) -> None:
    """It should end with io_timeout and change nothing when the volume hangs just when a permit is to be used."""
    target = volume / "aria_log_control"
    prepared = one_agent.run("prepare", "--incident", "inc-1", target).done()
    before = {path: (path.stat().st_ino, path.read_bytes()) for path in volume.iterdir()}
    named = [target] if verb == "set-aside" else []
    argv = [verb, "--stall-timeout", "1.5", "--incident", "inc-1", "--permit", "-", *named]
    stuck = {"stop": ["volume", "identity", "resolved_target"]}
    one_agent.run(*argv, faults=stuck, stdin=permit(prepared)).refused("io_timeout", 6)
    assert {path: (path.stat().st_ino, path.read_bytes()) for path in volume.iterdir()} == before


def test_a_preflight_that_hangs(one_agent: Agent, volume: Path) -> None:
    """It should say that the volume does not answer, and go on with what it can see without it."""
    checks = one_agent.run("preflight", *LIMIT, volume, faults={"stop": ["volume", "preflight", "_checked"]}).document
    found = {check["privilege"]: check for check in checks["privileges"]}
    assert found["reach the volume"]["ok"] is None
    assert "see every process" in found


def test_live_locks_of_a_mount_that_hangs(one_agent: Agent, volume: Path, holding: Callable[[Path], int]) -> None:
    """It should not take a path whose mount it could not tell for one without locks."""
    holding(volume / "ibdata1")
    stuck = {"stop": ["volume", "livelocks", "_resolved"]}
    answer = one_agent.run("live-locks", *LIMIT, volume, faults=stuck).refused("io_timeout", exit_code=6)
    assert "locks" not in answer.document


def test_a_process_that_hangs(few_agent: Agent, volume: Path) -> None:
    """It should call a process unchecked when looking at it hangs."""
    stuck = {"stop": [str(os.getpid()), "openers", "_look"]}
    answer = few_agent.run("openers", *LIMIT, volume, faults=stuck).done().document
    assert os.getpid() in [entry["pid"] for entry in answer["unchecked"]]


def test_items_that_hang_in_several_children() -> None:
    """It should give up on just the items that hang, whichever child looks at them, and tell of all the others."""
    hanging = (0, 5, 6)

    def look(number: int, _: ioguard.Beat) -> int:
        if number in hanging:
            os.kill(os.getpid(), signal.SIGSTOP)
        return number * number

    found = {one.item: None if one.timed_out else one.value for one in ioguard.each(range(10), look, 0.5, 3)}
    assert found == {number: None if number in hanging else number * number for number in range(10)}


@pytest.mark.parametrize(("items", "words"), [([7, 8], "at 8"), ([["a", "b"], ["c", "d"]], "at c or one after it")])
def test_a_child_that_dies(items: list[object], words: str) -> None:
    """It should say at what it was killed, and not take that for an answer."""

    def look(item: object, _: ioguard.Beat) -> None:
        if item == items[1]:
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(TryAgainError, match=words):
        list(ioguard.each(items, look, 30.0, 2))


def test_files_before_an_error() -> None:
    """It should keep what was told of the files before the last look at them failed."""

    def looked_at() -> Iterator[Json]:
        for number in range(700):
            yield {"number": number}
        raise CheckFailedError("new_inode_locked", "it is locked again", "look who did that")

    with pytest.raises(CheckFailedError) as raised:
        ioguard.supervise(lambda _: {"files": looked_at(), "unchecked": []}, 5.0, ioguard.untold)
    assert [entry["number"] for entry in raised.value.files] == list(range(700))


def test_many_open_files() -> None:
    """It should hear its children also when so many files are open that their pipes have large numbers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)]
    try:
        assert [one.value for one in ioguard.each([1, 2], lambda number, _: number * 2, 5.0)] == [2, 4]
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
