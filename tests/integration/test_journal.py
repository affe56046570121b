"""Reading a journal on from a cursor: the real journalctl, on real journal files, over rotation, vacuum and boots."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lab.private_sshd import PrivateSshd, directory_for_all, missing
from tests.integration import real_journal
from tests.integration.real_journal import START_US, Journal
from unlatch import wiring_watch
from unlatch.crash_events import CrashSpotter
from unlatch.crash_sources.kernel import PLUGIN as KERNEL
from unlatch.errors import ConfigError
from unlatch.models import Guest, Hypervisor, HypervisorLog, Json, SourceState
from unlatch.transport.async_shell import LocalAsyncShell
from unlatch.transport.bell import FollowedLog, wait_for_bell
from unlatch.transport.hypervisor_log import LogHypervisorWatch
from unlatch.transport.kept_shells import kept_shells
from unlatch.transport.local_shell import LocalAnswer
from unlatch.transport.log_access import access_to
from unlatch.transport.log_follow import HypervisorFollower
from unlatch.transport.log_reader import PositionReader

pytestmark = pytest.mark.skipif(real_journal.missing() is not None, reason=str(real_journal.missing()))

LIBVIRTD = HypervisorLog("libvirtd", journal=("--unit=libvirtd",))
OF_KERNEL = HypervisorLog("kernel", journal=("_TRANSPORT=kernel",))
SEGFAULT = "qemu-kvm[1385]: segfault at 8 ip 000055 sp 00007f error 4 in qemu-kvm[5580+a00]"


class Shell:
    """Runs here what would run on the hypervisor, with a PATH of choice, and as another user where one is named."""

    def __init__(self, path: str, user: str | None = None) -> None:
        self.path, self.user = path, user

    def run(self, argv: Sequence[str], *, timeout_s: float) -> LocalAnswer:
        prefix = ["setpriv", f"--reuid={self.user}", "--clear-groups", "--"] if self.user else []
        ran = subprocess.run(
            [*prefix, *argv],
            env={**os.environ, "PATH": self.path},
            capture_output=True,
            timeout=timeout_s,
            check=False,
            cwd="/",
        )
        return LocalAnswer(ran.returncode, ran.stdout, ran.stderr)


class Reader:
    """Reads through `PositionReader`; each reading is one of a new process that has only the cursor, as JSON."""

    def __init__(self, path: str, log: HypervisorLog = LIBVIRTD, *, limit_bytes: int = 1 << 20) -> None:
        self.hypervisor = Hypervisor("hv01", "unlatch_hv_hv01", (log,))
        self.path, self.limit_bytes = path, limit_bytes
        self.kept = "null"

    @property
    def cursor(self) -> Json:
        cursor: Json = json.loads(self.kept)
        return cursor

    def read(self) -> list[str]:
        reader = PositionReader(lambda *_: Shell(self.path), limit_bytes=self.limit_bytes)
        lines, cursor = reader.read_new(self.hypervisor, self.hypervisor.logs[0], json.loads(self.kept))
        self.kept = json.dumps(cursor)
        return [str(json.loads(line)["MESSAGE"]) for line in lines]


@pytest.fixture
def directory() -> Iterator[Path]:
    with directory_for_all() as made:
        yield made


@pytest.fixture
def journal(directory: Path) -> Journal:
    return Journal(directory)


@pytest.fixture
def path(journal: Journal, directory: Path) -> str:
    return f"{journal.program(directory)}:{os.environ['PATH']}"


def test_from_the_present_end_on_each_entry_once(journal: Journal, path: str) -> None:
    """It should not tell what was there before, then each entry of that unit once, in order, whatever others write."""
    journal.write("old 1", "old 2")
    reader = Reader(path)
    assert reader.read() == []
    assert reader.read() == []
    journal.write("new 1")
    journal.write("noise", unit="sshd.service")
    journal.write("new 2", "new 3")
    assert reader.read() == ["new 1", "new 2", "new 3"]
    assert reader.read() == []


def test_journal_without_an_entry_of_that_unit_yet(
    journal: Journal, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It should begin where the whole journal ends, and miss nothing."""
    journal.write("noise", unit="sshd.service")
    reader = Reader(path)
    assert reader.read() == []
    assert reader.cursor["anchor"] is True
    journal.write("noise", unit="sshd.service")
    assert reader.read() == []
    journal.write("first", "second")
    assert reader.read() == ["first", "second"]
    assert "anchor" not in reader.cursor
    assert not caplog.records


def test_no_journal_yet(directory: Path, journal: Journal, path: str) -> None:
    """It should take one that appears later from its beginning, and say that there is none."""
    reader = Reader(path)
    assert reader.read() == []
    assert reader.cursor["missing"] is True
    journal.write("first line ever")
    assert reader.read() == ["first line ever"]
    assert "missing" not in reader.cursor


def test_rotation_boots_and_clock_steps_lose_and_double_nothing(
    journal: Journal, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It should go on over a new file, a new boot, and a clock that was set back an hour."""
    reader = Reader(path)
    journal.write("a1")
    reader.read()
    journal.write("a2")
    journal.rotate()
    journal.write("b1")
    assert reader.read() == ["a2", "b1"]
    journal.write("b2")
    journal.rotate()
    journal.write("c1", boot="b" * 32)
    assert reader.read() == ["b2", "c1"]
    journal.write("c2", boot="b" * 32, step_us=-3_600_000_000)
    journal.write("c3", boot="b" * 32)
    assert reader.read() == ["c2", "c3"]
    assert reader.read() == []
    assert not caplog.records


def test_vacuumed_cursor_is_told_and_nothing_that_is_left_is_lost(
    journal: Journal, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It should say that entries may be missing, and read on from the first one that is still there, also that one."""
    reader = Reader(path)
    journal.write("a1")
    reader.read()
    journal.write("a2 is vacuumed")
    journal.rotate()
    journal.write("b1", "b2")
    journal.vacuum()
    assert reader.read() == ["b1", "b2"]
    assert "lines between may be missing" in caplog.text
    caplog.clear()
    assert reader.read() == []
    assert not caplog.records


def test_little_at_a_time(journal: Journal, path: str) -> None:
    """It should carry whole entries only, and come to the end, and only then say that it is up to date."""
    reader = Reader(path, limit_bytes=2000)
    journal.write("begin")
    reader.read()
    at_first = reader.cursor["read_at"]
    journal.write(*(f"entry {n} {'x' * 100}" for n in range(20)))
    found = reader.read()
    assert 0 < len(found) < 20
    assert reader.cursor["read_at"] == at_first
    while more := reader.read():
        found += more
    assert [text.split()[1] for text in found] == [str(n) for n in range(20)]
    assert reader.cursor["read_at"] > at_first


def test_time_is_the_journals_own(journal: Journal, path: str) -> None:
    """It should take the moment of an entry from the journal, to the microsecond, whatever zone the host has."""
    reader = Reader(path, OF_KERNEL)
    journal.write("old", _TRANSPORT="kernel")
    reader.read()
    journal.write(SEGFAULT, _TRANSPORT="kernel", SYSLOG_IDENTIFIER="kernel")
    lines, _ = PositionReader(lambda *_: Shell(path)).read_new(reader.hypervisor, OF_KERNEL, reader.cursor)
    (fact,) = KERNEL.facts(lines, "Europe/Zurich")
    assert fact.at == datetime.fromtimestamp(START_US / 1e6 + 2, UTC)
    watch = LogHypervisorWatch({"hv01": reader.hypervisor}, lambda *_: Shell(path), {"kernel": KERNEL})
    guest = Guest("dbvrtg4037", "hv01", "unlatch_guest_dbvrtg4037")
    assert len(watch.lines_around(guest, fact.at, 0)) == 1
    assert len(watch.lines_around(guest, fact.at, 60)) == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_journal_that_may_not_be_read(journal: Journal, path: str) -> None:
    """It should say what grants it, instead of finding nothing new for ever."""
    journal.write("a1")
    for file in journal.directory.glob("*.journal"):
        file.chmod(0o600)
    reader = PositionReader(lambda *_: Shell(path, "nobody"))
    with pytest.raises(ConfigError, match=r"may not be read by the login user.*systemd-journal"):
        reader.read_new(Hypervisor("hv01", "c", (LIBVIRTD,)), LIBVIRTD, None)


def test_host_without_journalctl(tmp_path: Path) -> None:
    """It should say so."""
    for program in ("sh", "head"):
        (tmp_path / program).symlink_to(f"/bin/{program}")
    reader = PositionReader(lambda *_: Shell(str(tmp_path)))
    with pytest.raises(ConfigError, match="hv01 has no journalctl"):
        reader.read_new(Hypervisor("hv01", "c", (LIBVIRTD,)), LIBVIRTD, None)


# --- followed --------------------------------------------------------------------------------------------------------


def followed(cursor: Json | None) -> FollowedLog:
    hears = CrashSpotter(KERNEL, "UTC", "hv01").hears
    return FollowedLog("hv01:kernel:journal", access_to(OF_KERNEL), cursor, hears)


async def here() -> LocalAsyncShell:
    return LocalAsyncShell()


async def test_bell_rings_for_what_came_while_nobody_listened(
    journal: Journal, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It should begin behind the durable cursor, hear the entry there, and not the one before it again."""
    monkeypatch.setenv("PATH", path)
    journal.write(SEGFAULT, _TRANSPORT="kernel", SYSLOG_IDENTIFIER="kernel")
    reader = Reader(path, OF_KERNEL)
    reader.read()
    follower = HypervisorFollower("hv01", here, [followed(reader.cursor)])
    bell = await wait_for_bell([follower], longest_wait_s=1, most_noise_bytes=1 << 20)
    assert bell.reason == "housekeeping"
    assert bell.sights["hv01:kernel:journal"].state is SourceState.OK
    assert bell.sights["hv01:kernel:journal"].line_at is None
    journal.write(SEGFAULT.replace("1385", "1386"), _TRANSPORT="kernel", SYSLOG_IDENTIFIER="kernel")
    follower = HypervisorFollower("hv01", here, [followed(reader.cursor)])
    bell = await wait_for_bell([follower], longest_wait_s=60, most_noise_bytes=1 << 20)
    assert (bell.reason, bell.hypervisors) == ("crash", ("hv01",))


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
async def test_over_ssh_from_entry_to_bell(
    journal: Journal, path: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It should hear an entry that is written while it listens, and leave no journalctl behind."""
    journal.write("old", _TRANSPORT="kernel")
    sshd = PrivateSshd(directory / "sshd", setup=journal.instead_of_the_hosts(directory))
    sshd.start()
    try:
        monkeypatch.setenv("AIRFLOW_CONN_UNLATCH_HV_HV01", sshd.connection())
        reader = Reader(path, OF_KERNEL)
        reader.read()
        argument = {
            "hypervisor": "hv01",
            "conn_id": "unlatch_hv_hv01",
            "log": OF_KERNEL.as_dict(),
            "cursor": reader.cursor,
            "state": "unreachable",
        }
        wait = {"poll_s": 0.05, "longest_wait_s": 60, "most_noise_bytes": 1 << 20}
        waiting = asyncio.create_task(wiring_watch.wait_for_bell([argument], **wait))
        while not _journalctls(directory):  # noqa: ASYNC110  # another process's doing, nothing to await
            await asyncio.sleep(0.02)
        journal.write(SEGFAULT, _TRANSPORT="kernel", SYSLOG_IDENTIFIER="kernel")
        bell = await waiting
        assert (bell["reason"], bell["hypervisors"]) == ("crash", ["hv01"])
        assert datetime.now(UTC) - datetime.fromisoformat(
            bell["sights"]["hv01:kernel:journal _TRANSPORT=kernel"]["line_at"]
        ) < timedelta(minutes=1)
        while _journalctls(directory):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    finally:
        await kept_shells().close()
        sshd.stop()


def _journalctls(directory: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = process.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0] == str(directory / "real").encode() and b"-f" in words:
            found.append(process.parent.name)
    return found


# --- on this machine -------------------------------------------------------------------------------------------------


async def test_logs_of_this_machine_need_no_connection(
    journal: Journal, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It should read and follow a collected log here, with a connection that does not even exist."""
    monkeypatch.setenv("PATH", path)
    log = HypervisorLog("kernel", journal=("_TRANSPORT=kernel",), local=True)
    hypervisor = Hypervisor("hv01", "unlatch_hv_nowhere", (log,))

    def nobody(conn_id: str, host: str) -> Shell:
        raise AssertionError(f"{conn_id} of {host} is not needed")

    journal.write("old", _TRANSPORT="kernel")
    _, cursor = PositionReader(nobody).read_new(hypervisor, log, None)
    argument = {"hypervisor": "hv01", "conn_id": hypervisor.conn_id, "log": log.as_dict(), "cursor": cursor}
    journal.write(SEGFAULT, _TRANSPORT="kernel", SYSLOG_IDENTIFIER="kernel")
    bell = await wiring_watch.wait_for_bell(
        [{**argument, "state": "ok"}], poll_s=0.05, longest_wait_s=60, most_noise_bytes=1 << 20
    )
    assert (bell["reason"], bell["hypervisors"]) == ("crash", ["hv01"])
    lines, _ = PositionReader(nobody).read_new(hypervisor, log, cursor)
    assert len(lines) == 1
