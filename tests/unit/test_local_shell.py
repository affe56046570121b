"""Commands of a follower on its own machine end at once, in whichever moment nobody listens any more."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from unlatch.transport.async_shell import LocalAsyncShell, output_of
from unlatch.transport.log_wait import wait_command

_PATIENCE_S = 5.0


def waiting_for(log: Path) -> list[str]:
    """The command that waits until a log changes, and has children while it does."""
    was = log.stat()
    return wait_command({str(log): f"{was.st_ino} {was.st_size}"}, wait_s=60, poll_s=30)


async def interrupted_after(turns: int, pause_s: float, argv: list[str]) -> float:
    """How long a command takes to end when it's cancelled after so many turns of the event loop, and a pause."""
    listening = asyncio.create_task(output_of(LocalAsyncShell(), argv, limit_s=60))
    for _ in range(turns):
        await asyncio.sleep(0)
    await asyncio.sleep(pause_s)
    began = time.monotonic()
    listening.cancel()
    done, _ = await asyncio.wait([listening], timeout=_PATIENCE_S)
    listening.cancel()
    assert done, f"it did not end within {_PATIENCE_S} s"
    assert listening.cancelled()
    return time.monotonic() - began


def processes_with(word: str) -> list[int]:
    """The processes that have a word in their environment: they inherit it."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and word.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue  # it has just ended
    return [pid for pid in found if pid != os.getpid()]


@pytest.mark.parametrize("turns", range(6))
def test_a_command_ends_at_once_also_while_it_is_being_started(tmp_path: Path, turns: int) -> None:
    """It should not wait for pipes: a bell that has rung waits for this, and a crash for the bell."""
    log = tmp_path / "log"
    log.touch()
    assert asyncio.run(interrupted_after(turns, 0, waiting_for(log))) < 1.0


def test_a_command_that_waits_ends_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It should leave no process behind: there is one such command for each bell, for years."""
    log, word = tmp_path / "log", f"UNLATCH_TEST={tmp_path}"
    log.touch()
    monkeypatch.setenv("UNLATCH_TEST", str(tmp_path))

    async def all_moments() -> list[float]:
        return [
            await interrupted_after(turns, pause_s, waiting_for(log))
            for turns, pause_s in ((0, 0.2), (1, 0.0), (2, 0.0), (1, 0.1))
        ]

    assert max(asyncio.run(all_moments())) < 1.0
    gone_by = time.monotonic() + _PATIENCE_S
    while (left := processes_with(word)) and time.monotonic() < gone_by:
        time.sleep(0.05)
    assert left == []


def test_output_comes_whole_from_a_command_that_leaves_children(tmp_path: Path) -> None:
    """It should read to the end, and wait no longer than the output lasts."""
    began = time.monotonic()
    argv = ["sh", "-c", "echo begun; (sleep 30 >/dev/null 2>&1 &) ; echo done"]
    assert asyncio.run(output_of(LocalAsyncShell(), argv, limit_s=_PATIENCE_S)) == b"begun\ndone\n"
    assert time.monotonic() - began < 2.0  # far below the child's 30 s
