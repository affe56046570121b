"""The bell of the watch: real sshds, killed and started again, with right and wrong host keys."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import asyncssh
import pytest

from lab.private_sshd import PrivateSshd, directory_for_all, free_port, make_key, missing
from unlatch import wiring_watch
from unlatch.crash_events import CrashSpotter
from unlatch.crash_sources.xend import PLUGIN as XEND
from unlatch.errors import ConfigError, TransientError
from unlatch.models import Hypervisor, HypervisorLog, Json, SourceState
from unlatch.orchestration.hypervisor_trigger import HypervisorTrigger
from unlatch.transport.async_connect import open_through_airflow
from unlatch.transport.async_shell import SshShell
from unlatch.transport.bell import Bell, FollowedLog, wait_for_bell
from unlatch.transport.log_access import FileLog
from unlatch.transport.log_follow import HypervisorFollower
from unlatch.transport.log_position import poll_command, read_answer
from unlatch.transport.log_reader import PositionReader
from unlatch.transport.ssh import SshSession

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

ZONE = "Europe/Zurich"
NOISE = "[2014-10-18 05:54:51 4572] DEBUG (DevController:151) Waiting for devices vif.\n"
CRASH = "[2014-10-18 05:54:53 4572] WARNING (XendDomainInfo:1907) Domain has crashed: name=2130_dbvrtg4037 id=2.\n"
Connect = Callable[[], Awaitable[asyncssh.SSHClientConnection]]


class Host:
    """A hypervisor: an sshd, and a log that its login user can read."""

    def __init__(self, directory: Path) -> None:
        self.sshd = PrivateSshd(directory)
        self.log = directory / "xend.log"
        self.log.write_text(NOISE)

    def write(self, *lines: str) -> None:
        with self.log.open("a") as stream:
            stream.write("".join(lines))

    def end_of_log(self) -> Json:
        output = subprocess.run(poll_command(str(self.log), None), capture_output=True, check=True).stdout
        return read_answer(output, None, host="here", path=str(self.log), asked_at=datetime.now(UTC)).cursor

    def kill(self) -> None:
        """End the sshd and, as they live in sessions of their own, all its connections."""
        assert self.sshd.server is not None
        family = _descendants(self.sshd.server.pid)
        self.sshd.stop()
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _descendants(pid: int) -> list[int]:
    try:
        children = [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        return []
    return [*children, *(d for c in children for d in _descendants(c))]


@pytest.fixture(autouse=True)
def hv01(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    with directory_for_all() as directory:
        host = Host(directory)
        host.sshd.start()
        monkeypatch.setenv("AIRFLOW_CONN_UNLATCH_HV_HV01", host.sshd.connection())
        yield host
        host.kill()


def follower(
    host: Host,
    *,
    name: str = "hv01",
    connect: Connect | None = None,
    cursor: Json | None = None,
    known: SourceState = SourceState.OK,
) -> HypervisorFollower:
    return HypervisorFollower(
        name,
        through(connect or functools.partial(open_through_airflow, "unlatch_hv_hv01", name)),
        [followed(host.log, cursor or host.end_of_log(), name=name, known=known)],
        poll_s=0.05,
    )


def followed(path: Path, cursor: Json, *, name: str = "hv01", known: SourceState = SourceState.OK) -> FollowedLog:
    hears = CrashSpotter(XEND, ZONE, name).hears
    return FollowedLog(f"{name}:xend:{path}", FileLog(str(path)), cursor, hears, known=known)


def through(connect: Connect) -> Callable[[], Awaitable[SshShell]]:
    """A shell over a connection."""

    async def opened() -> SshShell:
        return SshShell(await connect())

    return opened


def counted(connect: Connect) -> tuple[Connect, list[asyncssh.SSHClientConnection], asyncio.Event]:
    """The same, counting connections, with an event for the first."""
    opened: list[asyncssh.SSHClientConnection] = []
    first = asyncio.Event()

    async def counting() -> asyncssh.SSHClientConnection:
        connection = await connect()
        opened.append(connection)
        first.set()
        return connection

    return counting, opened, first


async def ring(*followers: HypervisorFollower, wait_s: float = 60, noise_bytes: int = 8 << 20) -> Bell:
    return await wait_for_bell(followers, longest_wait_s=wait_s, most_noise_bytes=noise_bytes)


def open_hv01() -> Awaitable[asyncssh.SSHClientConnection]:
    return open_through_airflow("unlatch_hv_hv01", "hv01")


async def test_rings_for_a_crash_and_not_for_noise(hv01: Host) -> None:
    """It should ring when the crash line comes, over one connection that it keeps."""
    connect, opened, first = counted(open_hv01)
    waiting = asyncio.create_task(ring(follower(hv01, connect=connect)))
    await first.wait()
    hv01.write(NOISE, NOISE)
    hv01.write(CRASH[:40])
    hv01.write(CRASH[40:])
    assert await waiting == Bell(("hv01",), "crash")
    assert len(opened) == 1
    assert opened[0].is_closed()


async def test_rings_for_what_was_written_before_it_looked(hv01: Host) -> None:
    """It should begin at the durable position, so that nothing falls between reading and following."""
    cursor = hv01.end_of_log()
    hv01.write(NOISE, CRASH)
    hv01.log.rename(hv01.log.with_name("xend.log.1"))
    hv01.write(NOISE)
    assert (await ring(follower(hv01, cursor=cursor))).reason == "crash"


async def test_dead_hypervisor_is_logged_once_and_stops_nobody(hv01: Host, caplog: pytest.LogCaptureFixture) -> None:
    """It should hear the living one while two others refuse connections."""
    refused = 0
    enough = asyncio.Event()

    async def refuse(name: str) -> asyncssh.SSHClientConnection:
        nonlocal refused
        refused += 1
        if refused == 4:
            enough.set()
        raise TransientError(f"{name} refuses SSH connections.")

    dead = [follower(hv01, name=name, connect=functools.partial(refuse, name)) for name in ("hv02", "hv03")]
    waiting = asyncio.create_task(ring(*dead, follower(hv01)))
    await enough.wait()
    hv01.write(CRASH)
    assert await waiting == Bell(("hv01",), "crash")
    told = [r.getMessage() for r in caplog.records if "out of reach" in r.getMessage()]
    assert sorted(text.split()[0] for text in told) == ["hv02", "hv03"]


async def test_killed_and_restarted_sshd_is_followed_again(hv01: Host, caplog: pytest.LogCaptureFixture) -> None:
    """It should go on where it was after the connection and the sshd died, and find what was written meanwhile."""
    caplog.set_level(logging.INFO)
    connect, opened, first = counted(open_hv01)
    waiting = asyncio.create_task(ring(follower(hv01, connect=connect)))
    await first.wait()
    await opened[0].run("true")  # the login is over, so all processes of the connection are there
    hv01.kill()
    hv01.write(CRASH)
    await opened[0].wait_closed()
    hv01.sshd.start()
    assert (await waiting).reason == "crash"
    assert "hv01 is followed again" in caplog.text


async def test_wrong_host_key_is_an_error_that_is_not_tried_again(
    hv01: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It should neither talk to another machine nor knock again, say so, and go on with the others."""
    other = hv01.sshd.connection(extra={"host_key": make_key(tmp_path / "key")})
    monkeypatch.setenv("AIRFLOW_CONN_UNLATCH_HV_HV02", other)
    tries = 0

    async def connect() -> asyncssh.SSHClientConnection:
        nonlocal tries
        tries += 1
        return await open_through_airflow("unlatch_hv_hv02", "hv02")

    bell = await ring(follower(hv01, name="hv02", connect=connect))
    assert (bell.reason, bell.hypervisors) == ("lost", ())
    assert [sight.state for sight in bell.sights.values()] == [SourceState.WRONG]
    assert "host key of hv02 is not the pinned one" in bell.problems["hv02"]
    assert tries == 1
    assert [r.levelname for r in caplog.records if "host key" in r.getMessage()] == ["ERROR"]
    cursor = hv01.end_of_log()
    hv01.write(CRASH)
    known = follower(hv01, name="hv02", connect=connect, known=SourceState.WRONG)
    bell = await ring(known, follower(hv01, cursor=cursor))
    assert bell.hypervisors == ("hv01",)


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"extra": {"host_key": None}}, ConfigError, "pins no host key"),
        ({"extra": {"host_key": None, "no_host_key_check": "true"}}, ConfigError, "sets no_host_key_check"),
        ({"extra": {"allow_host_key_change": "true"}}, ConfigError, "sets allow_host_key_change"),
        ({"extra": {"host_key": "ssh-ed25519 nonsense"}}, ConfigError, "is no public key"),
        ({"extra": {"key_file": "/nowhere/key"}}, ConfigError, "private key"),
        ({"extra": {"key_file": "another"}}, ConfigError, "refused the login of postgres"),
        ({"port": 0}, TransientError, "refuses SSH connections"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_connections_that_cannot_be_used(  # noqa: PLR0917  # pytest names and gives them
    hv01: Host,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    changes: dict[str, object],
    error: type[Exception],
    text: str,
) -> None:
    """It should say in plain words what is wrong with the connection, and whether trying again helps."""
    if "port" in changes:
        changes = {"port": free_port()}
    if changes.get("extra") == {"key_file": "another"}:
        make_key(tmp_path / "another")
        changes = {"extra": {"key_file": str(tmp_path / "another")}}
    monkeypatch.setenv("AIRFLOW_CONN_UNLATCH_HV_HV01", hv01.sshd.connection(**changes))
    with pytest.raises(error, match=text):
        await open_through_airflow("unlatch_hv_hv01", "hv01")


async def test_rings_for_housekeeping_and_noise(hv01: Host) -> None:
    """It should let positions move after a time, and after many bytes without a crash."""
    cursor = hv01.end_of_log()
    assert await ring(follower(hv01), wait_s=0.5) == Bell((), "housekeeping")
    hv01.write(*[NOISE] * 10_000)
    assert await ring(follower(hv01, cursor=cursor), noise_bytes=600_000) == Bell(("hv01",), "noise")


async def test_unreadable_log_does_not_hide_the_other(hv01: Host) -> None:
    """It should name the log that may not be read, and go on with the hypervisor's other one."""
    secret = hv01.log.with_name("secret.log")
    secret.write_text(NOISE)
    secret.chmod(0o600)
    cursor = hv01.end_of_log()
    hv01.write(CRASH)
    both = HypervisorFollower(
        "hv01",
        through(open_hv01),
        [followed(secret, cursor, known=SourceState.WRONG), followed(hv01.log, cursor)],
    )
    bell = await ring(both)
    assert bell.reason == "crash"
    assert "secret.log on hv01 may not be read" in bell.problems["hv01"]


async def test_bug_in_one_follower_is_told_and_stops_nobody(hv01: Host) -> None:
    """It should report an unexpected failure as a problem instead of losing it with its task."""

    async def broken() -> asyncssh.SSHClientConnection:
        raise KeyError("surprise")

    cursor = hv01.end_of_log()
    hv01.write(CRASH)
    known = follower(hv01, name="hv02", connect=broken, known=SourceState.WRONG)
    bell = await ring(known, follower(hv01, cursor=cursor))
    assert bell.hypervisors == ("hv01",)
    assert bell.problems == {"hv02": "KeyError: 'surprise'"}


def argument(host: Host, **changes: object) -> Json:
    """What the trigger is told of the log."""
    log = HypervisorLog("xend", PurePosixPath(host.log), ZONE).as_dict()
    known = {"hypervisor": "hv01", "conn_id": "unlatch_hv_hv01", "state": "ok", "cursor": host.end_of_log()}
    return {**known, "log": log, **changes}


async def test_trigger_survives_the_database_and_rings(hv01: Host) -> None:
    """It should be made again from its JSON, hold no secret in it, and give one event for a crash."""
    made = HypervisorTrigger([argument(hv01)], poll_s=0.05)
    path, arguments = made.serialize()
    assert path == "unlatch.orchestration.hypervisor_trigger.HypervisorTrigger"
    text = json.dumps(arguments)
    assert "host_key" not in text
    assert "ssh-" not in text
    again = HypervisorTrigger(**json.loads(text))
    assert again.serialize() == made.serialize()
    hv01.write(CRASH)
    events = [event async for event in again.run()]
    (payload,) = [e.payload for e in events]
    sights = payload.pop("sights")
    assert payload == {"hypervisors": ["hv01"], "reason": "crash", "problems": {}}
    assert {name: sight["state"] for name, sight in sights.items()} == {f"hv01:xend:{hv01.log}": "ok"}
    assert json.loads(json.dumps(sights)) == sights


async def test_follower_that_swallows_its_cancellation_is_cancelled_again(hv01: Host) -> None:
    """It should end all the same: a library may lose a cancellation that comes together with its result."""
    swallowed = asyncio.Event()

    async def stubborn() -> asyncssh.SSHClientConnection:
        if not swallowed.is_set():
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed.set()
        raise TransientError("away")

    cursor = hv01.end_of_log()
    hv01.write(CRASH)
    bell = await ring(follower(hv01, name="hv02", connect=stubborn), follower(hv01, cursor=cursor))
    assert bell.hypervisors == ("hv01",)
    assert swallowed.is_set()


async def test_trigger_that_is_cancelled_leaves_nothing_behind(hv01: Host) -> None:
    """It should close its connections when the triggerer takes it away."""
    before = asyncio.all_tasks()
    waiting = asyncio.create_task(
        wiring_watch.wait_for_bell(
            [argument(hv01)],
            poll_s=0.05,
            longest_wait_s=60,
            most_noise_bytes=1 << 20,
        )
    )
    assert hv01.sshd.server is not None
    while not _descendants(hv01.sshd.server.pid):  # noqa: ASYNC110  # another process's doing, nothing to await
        await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert asyncio.all_tasks() == before


def test_reader_over_ssh(hv01: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It should read through the SSH provider, try again after an outage, and never accept another host key."""
    hypervisor = Hypervisor("hv01", "unlatch_hv_hv01", (HypervisorLog("xend", PurePosixPath(hv01.log), ZONE),))
    (log,) = hypervisor.logs
    with SshSession.through_airflow("unlatch_hv_hv01", host="hv01") as session:
        reader = PositionReader(lambda *_: session)
        lines, cursor = reader.read_new(hypervisor, log, None)
        assert lines == []
        hv01.kill()
        hv01.write(CRASH)
        with pytest.raises(TransientError):
            reader.read_new(hypervisor, log, cursor)
        hv01.sshd.start()
        lines, _ = reader.read_new(hypervisor, log, cursor)
        assert lines == [CRASH.rstrip()]
    monkeypatch.setenv(
        "AIRFLOW_CONN_UNLATCH_HV_HV01", hv01.sshd.connection(extra={"host_key": make_key(tmp_path / "key")})
    )
    with (
        SshSession.through_airflow("unlatch_hv_hv01", host="hv01") as session,
        pytest.raises(ConfigError, match="host key"),
    ):
        PositionReader(lambda *_: session).read_new(hypervisor, log, cursor)
