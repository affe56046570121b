"""The followers share the triggerer's event loop with every other trigger: nothing in them may block it."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import pytest

from lab.private_sshd import PrivateSshd, directory_for_all, missing
from unlatch import wiring_watch
from unlatch.models import HypervisorLog, Json
from unlatch.transport.bell import end_all
from unlatch.transport.kept_shells import kept_shells
from unlatch.transport.log_position import poll_command, read_answer

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

CRASH = "[2014-10-18 05:54:53 4572] WARNING (XendDomainInfo:1907) Domain has crashed: name=1_db id=2.\n"
COUNT = 12

BLOCKING = {
    "open",
    "time.sleep",
    "subprocess.Popen",
    "os.system",
    "socket.getaddrinfo",
    "sqlite3.connect",
    "os.listdir",
}
"""Audit events of CPython that are raised before a call that waits for a disk, a clock, a process or a name service."""


class BlockingCalls:
    """What one thread calls that may block, while it is being watched. An audit hook can't be removed, only idle."""

    def __init__(self) -> None:
        """Watch nothing yet."""
        self.thread: int | None = None
        self.found: list[str] = []
        sys.addaudithook(self._heard)

    def _heard(self, event: str, arguments: tuple[object, ...]) -> None:
        if event not in BLOCKING or threading.get_ident() != self.thread:
            return
        frame, places = inspect.currentframe(), list[str]()  # its lines are not read: that would open files
        while frame is not None:
            places.append(f"{frame.f_code.co_filename}:{frame.f_lineno}")
            frame = frame.f_back
        if not any("importlib" in place or "/logging/" in place for place in places):
            self.found.append(f"{event}{arguments!r:.80} at {' < '.join(places[1:6])}")


CALLS = BlockingCalls()


@pytest.fixture
def calls() -> Iterator[BlockingCalls]:
    """Nothing counted yet; idle again at the end."""
    CALLS.found.clear()
    yield CALLS
    CALLS.thread = None


def end_of(log: Path) -> Json:
    output = subprocess.run(poll_command(str(log), None), capture_output=True, check=True).stdout
    return read_answer(output, None, host="here", path=str(log), asked_at=datetime.now(UTC)).cursor


@pytest.fixture
def hypervisors(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Json]]:
    """Many names for one sshd, each with a log of its own."""
    with directory_for_all() as directory:
        sshd = PrivateSshd(directory).start()
        logs = []
        for number in range(COUNT):
            path = directory / f"{number}.log"
            path.write_text("begin\n")
            monkeypatch.setenv(f"AIRFLOW_CONN_UNLATCH_HV_{number}", sshd.connection())
            declared = HypervisorLog("xend", PurePosixPath(path), "Europe/Zurich").as_dict()
            conn_id = f"unlatch_hv_{number}"
            logs.append(
                {"hypervisor": str(number), "conn_id": conn_id, "log": declared, "cursor": end_of(path), "state": "ok"}
            )
        yield logs
        sshd.stop()


def write(log: Json, text: str) -> None:
    with Path(log["log"]["path"]).open("a") as stream:
        stream.write(text)


async def bell_of(logs: list[Json], wait_s: float = 60) -> Json:
    return await wiring_watch.wait_for_bell(logs, poll_s=0.05, longest_wait_s=wait_s, most_noise_bytes=1 << 20)


async def test_no_blocking_call_in_the_loop(hypervisors: list[Json], calls: BlockingCalls) -> None:
    """It should open no file, start no process, resolve no name and sleep nowhere in the loop's thread."""
    try:
        await bell_of(hypervisors, 1)  # everything that is imported late is imported
        await kept_shells().close()
        calls.thread = threading.get_ident()
        waiting = asyncio.create_task(bell_of(hypervisors))
        await asyncio.sleep(0)
        await asyncio.to_thread(write, hypervisors[3], "noise\n" * 5000 + CRASH)
        bell = await waiting
        again = asyncio.create_task(bell_of(hypervisors))  # over the connections that were kept
        bells = [bell, await again]
        calls.thread = None
    finally:
        await kept_shells().close()
    assert [bell["hypervisors"] for bell in bells] == [["3"], ["3"]]
    assert calls.found == []


def test_detector_detects(calls: BlockingCalls) -> None:
    """It should see what it is there for."""
    calls.thread = threading.get_ident()
    with Path(os.devnull).open():
        pass
    calls.thread = None
    assert len(calls.found) == 1


async def test_connections_outlive_a_bell_and_no_longer_than_a_while(hypervisors: list[Json]) -> None:
    """It should use the same connections for the next trigger, and close them when the trigger is taken away."""
    shells = kept_shells()
    try:
        write(hypervisors[0], CRASH)
        await bell_of(hypervisors)
        kept = shells.idle()
        write(hypervisors[1], CRASH)
        await bell_of(hypervisors)
        assert kept
        assert kept <= shells.idle()
        waiting = asyncio.create_task(bell_of(hypervisors[2:]))
        await asyncio.sleep(0.2)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not shells.idle()
    finally:
        await shells.close()


async def test_many_crashes_at_once_are_one_bell_or_few(hypervisors: list[Json]) -> None:
    """It should tell of all that have crashed with few bells: each costs a run of the watch."""
    try:
        for log in hypervisors:
            write(log, CRASH)
        heard: set[str] = set()
        bells = 0
        while len(heard) < COUNT:
            bell = await bell_of([log for log in hypervisors if log["hypervisor"] not in heard])
            heard |= set(bell["hypervisors"])
            bells += 1
        assert bells < COUNT
    finally:
        await kept_shells().close()


def test_bell_is_json(hypervisors: list[Json]) -> None:
    """It should go through the database of Airflow as it is."""

    async def once() -> Json:
        try:
            return await bell_of(hypervisors, 1)
        finally:
            await kept_shells().close()

    bell = asyncio.run(once())
    assert json.loads(json.dumps(bell)) == bell
    assert bell["reason"] == "housekeeping"


async def test_task_that_is_being_ended_is_not_left_behind() -> None:
    """It should wait for what it ends although it is cancelled itself meanwhile: nothing may go on behind its back."""
    ended, is_slow = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            is_slow.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.05)
            ended.set()
            raise

    task = asyncio.create_task(slow())
    await asyncio.sleep(0)
    ending = asyncio.create_task(end_all([task]))
    await is_slow.wait()
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert ended.is_set()
    assert task.done()
