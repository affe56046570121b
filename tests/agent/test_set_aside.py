"""set-aside: a stale pid file moves out of the way; a living server's never does."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.agent.agent_runner import NOBODY, Agent, Answer, our_files, permit
from tests.agent.conftest import need_root
from tests.agent.test_prepare import INCIDENT, names_and_inodes

BOOTED_S = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def content(datadir: Path, pid: int, started_s: float) -> str:
    """A postmaster.pid as PostgreSQL writes it."""
    return f"{pid}\n{datadir}\n{int(started_s)}\n5432\n/run/postgresql\n127.0.0.1\n  5432001  32768\nready   \n"


@pytest.fixture
def datadir(tmp_path: Path) -> Path:
    """A data directory that a crash in an earlier boot has left behind; its pid is ours now.

    It belongs to the user nobody: every process of that user must be visible, other users' need not.
    """
    need_root()
    directory = tmp_path / "lxr"
    directory.mkdir()
    (directory / "PG_VERSION").write_text("15\n")
    pidfile = directory / "postmaster.pid"
    pidfile.write_text(content(directory, os.getpid(), BOOTED_S - 1000))
    os.utime(pidfile, (BOOTED_S - 900, BOOTED_S - 900))
    os.chown(directory, NOBODY, NOBODY)
    return directory


def leave_for(pidfile: Path, **changes: Any) -> str:
    """The permit for one pid file."""
    status = pidfile.stat()
    entry = {
        "path": str(pidfile),
        "inode": status.st_ino,
        "dev": status.st_dev,
        "size_bytes": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "content_sha256": hashlib.sha256(pidfile.read_bytes()).hexdigest(),
    }
    entry.update(changes.pop("entry", {}))
    return permit({"files": [entry]}, **changes)


def set_aside(agent: Agent, pidfile: Path, leave: str, **others: Any) -> Answer:
    """Set a pid file aside with a permit on standard input."""
    return agent.run("set-aside", *INCIDENT, "--permit", "-", pidfile, stdin=leave, **others)


def test_a_stale_pid_file(agent: Agent, datadir: Path) -> None:
    """It should move the file to quarantine although an innocent process has its pid, once, and purge it later."""
    pidfile = datadir / "postmaster.pid"
    text, inode = pidfile.read_text(), pidfile.stat().st_ino
    leave = leave_for(pidfile)
    answer = set_aside(agent, pidfile, leave).done()
    (entry,) = answer.files
    assert (entry["state"], entry["inode_before"], entry["inode_after"]) == ("set_aside", inode, None)
    assert Path(entry["quarantine"]).read_text() == text
    assert not pidfile.exists()
    assert set_aside(agent, pidfile, leave).done().files == answer.files
    assert agent.run("status", *INCIDENT, datadir).done().document["repair"]["state"] == "committed"
    pidfile.write_text(content(datadir, os.getpid(), time.time()))  # the server's next start
    (verified,) = agent.run("verify", *INCIDENT, datadir).done().files
    assert verified["ok"] is True
    agent.run("purge", *INCIDENT, datadir).done()
    assert our_files(datadir) == set()
    assert pidfile.exists()


def test_restore(few_agent: Agent, datadir: Path) -> None:
    """It should put the file back, but never over a newer one."""
    pidfile = datadir / "postmaster.pid"
    before = names_and_inodes(datadir)
    set_aside(few_agent, pidfile, leave_for(pidfile)).done()
    pidfile.write_text(content(datadir, os.getpid(), time.time()))
    few_agent.run("restore", *INCIDENT, datadir).refused("name_taken")
    pidfile.unlink()
    few_agent.run("restore", *INCIDENT, datadir).done()
    assert names_and_inodes(datadir) == before
    set_aside(few_agent, pidfile, leave_for(pidfile)).done()


@pytest.mark.parametrize(
    ("started_s", "touched_s", "code"),
    [
        (BOOTED_S + 30, BOOTED_S - 900, "pidfile_of_this_boot"),
        (BOOTED_S - 1000, BOOTED_S + 30, "pidfile_of_this_boot"),
        (None, BOOTED_S - 900, "pidfile_unreadable"),
    ],
    ids=["started-in-this-boot", "touched-in-this-boot", "names-no-start"],
)
def test_a_pid_file_of_this_boot(
    few_agent: Agent, datadir: Path, started_s: float | None, touched_s: float, code: str
) -> None:
    """It should refuse a file that this boot has written, or that says nothing about its start."""
    pidfile = datadir / "postmaster.pid"
    pidfile.write_text("4711\n" if started_s is None else content(datadir, 4711, started_s))
    os.utime(pidfile, (touched_s, touched_s))
    set_aside(few_agent, pidfile, leave_for(pidfile)).refused(code)
    assert pidfile.exists()
    assert our_files(datadir) == set()


def _as_postgres(tmp_path: Path, *argv: str, cwd: Path) -> subprocess.Popen[bytes]:
    """Start a process whose executable is called postgres."""
    binary = tmp_path / "postgres"
    shutil.copy("/bin/sleep", binary)
    return subprocess.Popen([binary, *argv], cwd=cwd)


@pytest.mark.parametrize("tie", ["cwd", "argument", "open file"])
def test_a_living_server(few_agent: Agent, datadir: Path, tmp_path: Path, tie: str) -> None:
    """It should refuse when a process is tied to the data directory in any way."""
    pidfile = datadir / "postmaster.pid"
    leave = leave_for(pidfile)
    if tie == "cwd":
        server = _as_postgres(tmp_path, "1000", cwd=datadir)
    elif tie == "argument":
        script = tmp_path / "server.py"
        script.write_text("import sys; sys.stdin.read()")
        server = subprocess.Popen([sys.executable, script, "-D", datadir], stdin=subprocess.PIPE)
    else:
        with (datadir / "PG_VERSION").open() as held:
            server = subprocess.Popen(["sleep", "1000"], stdin=held)
    try:
        set_aside(few_agent, pidfile, leave).refused("local_holder")
    finally:
        server.kill()
        server.communicate()
    assert pidfile.exists()
    assert our_files(datadir) == set()
    set_aside(few_agent, pidfile, leave).done()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"entry": {"inode": 1}}, "permit_mismatch"),
        ({"entry": {"content_sha256": None}}, "permit_mismatch"),
        ({"entry": {"content_sha256": "0" * 64}}, "source_changed"),
        ({"entry": {"path": "/tmp/postmaster.pid"}}, "permit_mismatch"),
        ({"boot_id": "another"}, "permit_mismatch"),
        ({"incident": "inc-2"}, "permit_mismatch"),
        ({"expires_boottime_s": 1.0}, "permit_expired"),
    ],
)
def test_permits_that_do_not_fit(few_agent: Agent, datadir: Path, change: dict[str, Any], code: str) -> None:
    """It should touch nothing when the permit is not exactly for this file."""
    pidfile = datadir / "postmaster.pid"
    set_aside(few_agent, pidfile, leave_for(pidfile, **change)).refused(code)
    assert pidfile.exists()
    assert our_files(datadir) == set()


def _newcomer(datadir: Path) -> Callable[[], list[str]]:
    """A new server that replaces the pid file in the very moment of the rename."""
    other = datadir / "new"
    other.write_text(content(datadir, os.getpid(), time.time()))
    return lambda: ["mv", str(other), str(datadir / "postmaster.pid")]


def test_a_race(agent: Agent, datadir: Path) -> None:
    """It should put a newcomer's file back under its name when that was moved instead."""
    pidfile = datadir / "postmaster.pid"
    leave = leave_for(pidfile)
    command = _newcomer(datadir)()
    newcomer = (datadir / "new").stat().st_ino
    set_aside(agent, pidfile, leave, faults={"run": ["rename", 1, command]}).refused("raced", 6)
    assert pidfile.stat().st_ino == newcomer
    assert our_files(datadir) == {".unlatch-inc-1.journal"}
    agent.run("purge", *INCIDENT, datadir).done()
    assert our_files(datadir) == set()


def test_a_race_and_a_kill(few_agent: Agent, datadir: Path) -> None:
    """It should put a newcomer's file back also after being killed right after the rename."""
    pidfile = datadir / "postmaster.pid"
    leave = leave_for(pidfile)
    command = _newcomer(datadir)()
    newcomer = (datadir / "new").stat().st_ino
    calls = 5  # the journal: create, its directory, begin, the intent; then the rename
    set_aside(few_agent, pidfile, leave, faults={"run": ["rename", 1, command], "kill": [calls, "after"]})
    assert not pidfile.exists()
    few_agent.run("restore", *INCIDENT, datadir).refused("raced")
    set_aside(few_agent, pidfile, leave).refused("raced", 6)
    assert pidfile.stat().st_ino == newcomer


def test_a_double_race(one_agent: Agent, datadir: Path) -> None:
    """It should keep both files when yet another newcomer has taken the name meanwhile."""
    pidfile = datadir / "postmaster.pid"
    leave = leave_for(pidfile)
    command = _newcomer(datadir)()
    third = ["sh", "-c", f"test -e {pidfile} || echo 1 > {pidfile}"]
    faults = {"run": ["rename", 1, command], "second": ["link", 1, third]}
    set_aside(one_agent, pidfile, leave, faults=faults).refused("raced", 4)
    assert pidfile.read_text() == "1\n"
    assert len(our_files(datadir)) == 2


def test_a_process_of_the_same_user_that_cannot_be_seen(one_agent: Agent, datadir: Path, open_volume: Path) -> None:
    """It should not act when it cannot look at a process of the data directory's user."""
    hidden = "import ctypes, os, sys; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0); print(1, flush=True); sys.stdin.read()"
    drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "/usr/bin/python3", "-c", hidden]
    pidfile = open_volume / "postmaster.pid"
    shutil.copy2(datadir / "postmaster.pid", pidfile)
    os.chown(pidfile, NOBODY, NOBODY)
    one_agent.scratch = open_volume.parent
    one_agent.state.mkdir()
    for path in (open_volume.parent, one_agent.state):
        os.chown(path, NOBODY, NOBODY)
    leave = leave_for(pidfile)
    with subprocess.Popen(drop, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.read(2)
        set_aside(one_agent, pidfile, leave, uid=NOBODY).refused("not_observed", 5)
        process.stdin.close()
    set_aside(one_agent, pidfile, leave, uid=NOBODY).done()


def test_another_pid_file(one_agent: Agent, datadir: Path) -> None:
    """It should go by the file's own time when it records no start."""
    pidfile = datadir / "server.pid"
    pidfile.write_text("4711\n")
    set_aside(one_agent, pidfile, leave_for(pidfile)).refused("pidfile_of_this_boot")
    os.utime(pidfile, (BOOTED_S - 900, BOOTED_S - 900))
    set_aside(one_agent, pidfile, leave_for(pidfile)).done()
