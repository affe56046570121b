"""Reading a log from a cursor on: the real shell commands, on real files, over every kind of rotation."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from zoneinfo import ZoneInfo

import pytest

from unlatch.crash_events import DeathFolder
from unlatch.crash_sources.xend import PLUGIN as XEND
from unlatch.errors import ConfigError, TransientError
from unlatch.models import DomainChange, Guest, Hypervisor, HypervisorLog, Json
from unlatch.transport.hypervisor_log import LogHypervisorWatch
from unlatch.transport.log_position import poll_command, read_answer
from unlatch.transport.log_reader import PositionReader
from unlatch.transport.ssh import RemoteAnswer

ZONE = "Europe/Zurich"
HEAD = "[2014-10-18 05:54:52 4572] "


class LocalShell:
    """Runs here what would run on the hypervisor, under a shell of choice."""

    def __init__(self, shell: str = "sh") -> None:
        self.shell = shell

    def run(self, argv: Sequence[str], *, timeout_s: float) -> RemoteAnswer:
        ran = subprocess.run([self.shell, *argv[1:]], capture_output=True, timeout=timeout_s, check=False)
        return RemoteAnswer(ran.returncode, ran.stdout, ran.stderr)


class WrittenLog:
    """A log with its rotations, as xend (rename) and logrotate (copytruncate) make them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.written: list[str] = []
        path.touch()

    def write(self, *lines: str) -> None:
        with self.path.open("a") as stream:
            stream.write("".join(line + "\n" for line in lines))
        self.written += lines

    def _shift(self) -> Path:
        for number in range(60, 0, -1):
            old = self.path.with_name(f"{self.path.name}.{number}")
            if old.exists():
                old.rename(self.path.with_name(f"{self.path.name}.{number + 1}"))
        return self.path.with_name(self.path.name + ".1")

    def rotate_by_rename(self) -> None:
        self.path.rename(self._shift())
        self.path.touch()

    def rotate_by_copy_and_truncate(self) -> None:
        shutil.copy(self.path, self._shift())
        os.truncate(self.path, 0)


class Reader:
    """Reads through `PositionReader`; each reading is one of a new process that has only the cursor, as JSON."""

    def __init__(self, path: Path, *, limit_bytes: int = 1 << 20, shell: str = "sh") -> None:
        self.hypervisor = Hypervisor("hv01", "unlatch_hv_hv01", (HypervisorLog("xend", PurePosixPath(path), ZONE),))
        self.limit_bytes = limit_bytes
        self.shell = shell
        self.kept = "null"
        self.lines: list[str] = []

    @property
    def cursor(self) -> Json:
        cursor: Json = json.loads(self.kept)
        return cursor

    def read(self) -> list[str]:
        reader = PositionReader(lambda *_: LocalShell(self.shell), limit_bytes=self.limit_bytes)
        lines, cursor = reader.read_new(self.hypervisor, self.hypervisor.logs[0], json.loads(self.kept))
        self.kept = json.dumps(cursor)
        self.lines += lines
        return lines

    def read_all(self) -> None:
        while True:
            before = self.kept
            self.read()
            known, now = json.loads(before) or {}, self.cursor
            if [known.get(k) for k in ("inode", "offset")] == [now[k] for k in ("inode", "offset")]:
                return


@pytest.fixture
def log(tmp_path: Path) -> WrittenLog:
    return WrittenLog(tmp_path / "xen d's.log")  # quoting is part of the contract


@pytest.fixture(params=[shell for shell in ("sh", "bash") if shutil.which(shell)])
def reader(log: WrittenLog, request: pytest.FixtureRequest) -> Reader:
    reader = Reader(log.path, shell=request.param)
    reader.read()
    return reader


def test_first_look_starts_at_the_end(log: WrittenLog, reader: Reader) -> None:
    """It should not report what was there before anyone watched."""
    log.write("old 1", "old 2")
    fresh = Reader(log.path)
    assert fresh.read() == []
    log.write("new")
    assert fresh.read() == ["new"]
    assert fresh.read() == []


def test_partial_line_waits_for_its_end(log: WrittenLog, reader: Reader) -> None:
    """It should give a line only when it is whole."""
    with log.path.open("a") as stream:
        stream.write("one\ntw")
        stream.flush()
        assert reader.read() == ["one"]
        assert reader.read() == []
        stream.write("o\n")
    assert reader.read() == ["two"]


def test_rename_and_copytruncate_give_the_rest_of_the_old_file_first(log: WrittenLog, reader: Reader) -> None:
    """It should lose nothing of the file that was rotated away, however it was."""
    log.write(f"{HEAD}DEBUG (x:1) a1", "a2")
    reader.read()
    log.write("a3")
    log.rotate_by_rename()
    log.write(f"{HEAD}DEBUG (x:1) b1")
    assert reader.read() == ["a3", f"{HEAD}DEBUG (x:1) b1"]
    log.write("b2")
    log.rotate_by_copy_and_truncate()
    log.write("c1")
    assert reader.read() == ["b2", "c1"]
    assert reader.read() == []


def test_several_rotations_between_two_readings(log: WrittenLog, reader: Reader) -> None:
    """It should go through every file in between, each once, also when little is carried at a time."""
    reader.limit_bytes = 4096
    log.write(f"{HEAD}INFO (SrvDaemon:332) Xend Daemon started")
    reader.read()
    for number in range(6):
        log.write(*(f"{HEAD}file {number} line {i}" for i in range(100)))
        if number == 1:
            reader.read()
        if number % 2:
            log.rotate_by_rename()
        else:
            log.rotate_by_copy_and_truncate()
    reader.read_all()
    assert reader.lines == log.written


def test_old_file_is_kept_while_the_new_one_is_empty(log: WrittenLog, reader: Reader) -> None:
    """It should still hear a writer that goes on in the renamed file until it is told to open the new one."""
    with log.path.open("a") as writer:
        writer.write("a1\n")
        writer.flush()
        assert reader.read() == ["a1"]
        log.rotate_by_rename()
        writer.write("a2\n")
        writer.flush()
        assert reader.read() == ["a2"]
        writer.write("a3\n")
    log.write("b1")
    assert reader.read() == ["a3", "b1"]


def test_log_that_is_away_has_nothing_new(log: WrittenLog, reader: Reader, caplog: pytest.LogCaptureFixture) -> None:
    """It should keep its place while the log is away, take one that appears from its beginning, and not be silent."""
    log.write("a1")
    reader.read()
    log.path.rename(log.path.with_name("elsewhere"))
    assert reader.read() == []
    assert "correct its place in the inventory" in caplog.text
    log.path.with_name("elsewhere").rename(log.path)
    log.write("a2")
    assert reader.read() == ["a2"]
    late = Reader(log.path.with_name("late.log"))
    assert late.read() == []
    late_log = WrittenLog(log.path.with_name("late.log"))
    late_log.write("first line ever")
    assert late.read() == ["first line ever"]


def test_truncated_log_is_read_from_its_beginning(
    log: WrittenLog, reader: Reader, caplog: pytest.LogCaptureFixture
) -> None:
    """It should see a truncation by the size, and by the beginning when the file has grown past the old place."""
    log.write("a1", "a2")
    reader.read()
    os.truncate(log.path, 0)
    log.write("b")
    assert reader.read() == ["b"]
    assert "lines between may be missing" in caplog.text
    os.truncate(log.path, 0)
    log.write("c1", "c2", "c3")
    assert reader.read() == ["c1", "c2", "c3"]


def test_reused_inode_is_not_taken_for_the_old_file(log: WrittenLog, reader: Reader) -> None:
    """It should recognise a file by its beginning: a new one may get the inode of one that was deleted."""
    log.write("a" * 60, "b" * 60)
    reader.read()
    inode = log.path.stat().st_ino
    log.path.write_text("c" * 60 + "\n" + "d" * 60 + "\n" + "e" * 60 + "\n")
    assert log.path.stat().st_ino == inode
    assert reader.read() == ["c" * 60, "d" * 60, "e" * 60]


def test_overlong_line_is_dropped_and_reading_goes_on(log: WrittenLog, reader: Reader) -> None:
    """It should not stand still before a line that is longer than one reading carries."""
    reader.limit_bytes = 1000
    log.write("before", "x" * 3500, "after")
    reader.read_all()
    assert reader.lines == ["before", "after"]


def test_binary_junk_is_text_in_the_end(log: WrittenLog, reader: Reader) -> None:
    """It should carry any bytes, split at line feeds only."""
    with log.path.open("ab") as stream:
        stream.write(b"\x00\xff\xfe\x0b\x1c\xc3\r\nS 1 2 3\nE x\nUNLATCH-LOG-1\n")
    assert reader.read() == ["\x00\ufffd\ufffd\x0b\x1c\ufffd", "S 1 2 3", "E x", "UNLATCH-LOG-1"]


@pytest.mark.parametrize("seed", range(6))
def test_nothing_lost_nothing_doubled_at_random_points(tmp_path: Path, seed: int) -> None:
    """It should give every line once, wherever rotations and restarts of the reader fall."""
    chance = random.Random(seed)
    log = WrittenLog(tmp_path / "xend.log")
    log.path.write_text(f"{HEAD}INFO (SrvDaemon:332) Xend Daemon started\n")
    reader = Reader(log.path, limit_bytes=chance.choice([2000, 1 << 20]))
    reader.read()
    for step in range(120):
        deed = chance.random()
        if deed < 0.5:
            log.write(*(f"{HEAD}DEBUG (x:1) step {step} line {n}" for n in range(chance.randrange(1, 30))))
        elif deed < 0.62:
            log.rotate_by_rename()
        elif deed < 0.74:
            log.rotate_by_copy_and_truncate()
        else:
            reader.read()
    reader.read_all()
    assert reader.lines == log.written


@pytest.mark.parametrize("rotation", ["rename", "copytruncate"])
def test_fifty_crashes_in_ten_thousand_lines_written_meanwhile(tmp_path: Path, rotation: str) -> None:
    """It should find each of 50 crashes once while the log is written and rotated under the reader's hands."""
    log = WrittenLog(tmp_path / "xend.log")
    log.path.write_text(f"{HEAD}INFO (SrvDaemon:332) Xend Daemon started\n")
    reader = Reader(log.path, limit_bytes=64 << 10)
    reader.read()
    start = datetime(2014, 10, 18, 5, 0, tzinfo=ZoneInfo(ZONE))

    def write() -> None:
        for number in range(10_000 // 50):
            lines = [f"{HEAD}DEBUG (DevController:151) Waiting for devices {number}.{i}" for i in range(50)]
            if number % 4 == 0:
                at = start + timedelta(seconds=number)
                lines[7] = (
                    f"[{at:%Y-%m-%d %H:%M:%S} 1] WARNING (XendDomainInfo:1907) Domain has crashed: name=d{number} id=2."
                )
            log.write(*lines)
            if number % 13 == 12:
                log.rotate_by_rename() if rotation == "rename" else log.rotate_by_copy_and_truncate()

    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive():
        reader.read()
    writer.join()
    reader.read_all()
    assert reader.lines == log.written
    folder = DeathFolder("hv01")
    events = [e for fact in XEND.facts(reader.lines, ZONE) for e in folder.feed(fact)]
    assert len(events) == 50
    assert len({e.dedup_key for e in events}) == 50


def test_rotation_during_the_reading_is_read_again(tmp_path: Path) -> None:
    """It should consume nothing of an answer in which a file was cut short, or files had moved meanwhile."""
    body = b"UNLATCH-LOG-1\nS 7 10 0 10 10 " + hashlib.sha256(b"").hexdigest().encode()
    asked = datetime.now(UTC)
    for answer in (
        body + b"\nonly 6",
        body + b"\n0123456789\nE other\n",
        b"UNLATCH-LOG-1\nR\n",
        b"UNLATCH-LOG-1\nS x\n",
    ):
        with pytest.raises(TransientError, match="rotated"):
            read_answer(answer, None, host="hv01", path="/l", asked_at=asked)


def test_what_a_login_script_prints_is_ignored(log: WrittenLog) -> None:
    """It should find its own answer behind a banner, and say so when there is none."""
    asked = datetime.now(UTC)
    output = subprocess.run(poll_command(str(log.path), None), capture_output=True, check=True).stdout
    news = read_answer(b"Welcome to hv01!\n" + output, None, host="hv01", path=str(log.path), asked_at=asked)
    assert news.cursor["inode"] == log.path.stat().st_ino
    with pytest.raises(ConfigError, match="did not run the command"):
        read_answer(b"This account is not available.\n", None, host="hv01", path="/l", asked_at=asked)


def test_unreadable_log_names_file_and_remedy() -> None:
    """It should say which file may not be read and what to grant."""
    with pytest.raises(ConfigError, match=r"/var/log/xen/xend\.log on hv01 may not be read.*permission"):
        read_answer(b"UNLATCH-LOG-1\nP\n", None, host="hv01", path="/var/log/xen/xend.log", asked_at=datetime.now(UTC))


def test_read_at_moves_only_when_everything_was_read(log: WrittenLog, reader: Reader) -> None:
    """It should say from when on unread lines must be, and not claim that while some are still to come."""
    first = reader.cursor["read_at"]
    log.write(*("x" * 100 for _ in range(50)))
    reader.limit_bytes = 1000
    reader.read()
    assert reader.cursor["read_at"] == first
    reader.read_all()
    assert datetime.fromisoformat(reader.cursor["read_at"]) > datetime.fromisoformat(first)


class TestLogHypervisorWatch:
    """What the evidence asks of a hypervisor."""

    GUEST = Guest("dbvrtg4037", "hv01", "unlatch_guest_dbvrtg4037", (r"^\d+_dbvrtg4037$",))
    DIED = datetime(2014, 10, 18, 3, 54, 52, 700_000, UTC)

    def _watch(self, path: Path) -> LogHypervisorWatch:
        hypervisor = Hypervisor("hv01", "c", (HypervisorLog("xend", PurePosixPath(path), ZONE),))
        return LogHypervisorWatch({"hv01": hypervisor}, lambda *_: LocalShell(), {"xend": XEND})

    def test_reads_over_one_rotation(self, log: WrittenLog) -> None:
        """It should give the guest's facts from the second of `since` on, also those just rotated away."""
        log.write(
            "[2014-10-17 05:54:53 1] WARNING (XendDomainInfo:1907) Domain has crashed: name=2130_dbvrtg4037 id=1."
        )
        log.write(
            "[2014-10-18 05:54:52 1] WARNING (XendDomainInfo:1907) Domain has crashed: name=2130_dbvrtg4037 id=2."
        )
        log.write("[2014-10-18 05:54:52 1] WARNING (XendDomainInfo:1907) Domain has crashed: name=9_dbvrtg4037x id=3.")
        log.rotate_by_rename()
        log.write(
            "[2014-10-18 05:54:58 1] DEBUG (X:117) XendDomainInfo.create_from_dict({'name_label': '2130_dbvrtg4037'})"
        )
        facts = self._watch(log.path).domain_facts(self.GUEST, self.DIED)
        assert [f.change for f in facts] == [DomainChange.CRASHED, DomainChange.CREATED]
        assert facts[0].domain_id == 2

    def test_missing_log_says_nothing(self, tmp_path: Path) -> None:
        """It should have no facts, which is no proof of anything."""
        assert self._watch(tmp_path / "xend.log").domain_facts(self.GUEST, self.DIED) == ()

    def test_unknown_hypervisor_is_a_mistake_in_the_inventory(self, tmp_path: Path) -> None:
        """It should name guest and hypervisor."""
        with pytest.raises(ConfigError, match="hv99"):
            self._watch(tmp_path / "l").domain_facts(Guest("g", "hv99", "c"), self.DIED)

    def test_lines_around_the_death(self, tmp_path: Path) -> None:
        """It should give every line of those two minutes as it stands there, tracebacks and other domains too."""
        log = WrittenLog(tmp_path / "xend.log")
        log.write("[2014-10-18 05:53:51 4572] INFO (X:1) too early", "  a traceback of that")
        log.rotate_by_rename()
        inside = [
            "[2014-10-18 05:53:52 4572] INFO (X:1) the first",
            HEAD + "WARNING (XendDomainInfo:1907) Domain has crashed: name=2130_dbvrtg4037 id=2.",
            "Traceback (most recent call last):",
            "  File xend.py, line 1",
            "[2014-10-18 05:55:52,001 xend 4572] INFO (X:1) the last, in xend's newer format",
        ]
        log.write(*inside, "[2014-10-18 05:55:53 4572] INFO (X:1) too late", "and what belongs to it")
        assert self._watch(log.path).lines_around(self.GUEST, self.DIED, 60) == tuple(inside)
        assert self._watch(tmp_path / "none.log").lines_around(self.GUEST, self.DIED, 60) == ()
        with pytest.raises(ConfigError, match="hv99"):
            self._watch(log.path).lines_around(Guest("g", "hv99", "c"), self.DIED, 60)
