"""facts, check-locks, openers, preflight: they see what is there, and say what they could not see."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.agent.agent_runner import BOOT_ID, NOBODY, Agent
from tests.agent.conftest import need_root

OFD_SETLK = 37
VERBS = [
    "facts",
    "check-locks",
    "openers",
    "samples",
    "live-locks",
    "connect",
    "preflight",
    "status",
    "verify",
    "precompile",
    "prepare",
    "commit",
    "set-aside",
    "recreate",
    "restore",
    "purge",
]


def test_facts(agent: Agent, tmp_path: Path) -> None:
    """It should tell this boot, this host, its mounts, and the mount of a path."""
    answer = agent.run("facts", tmp_path).done().document
    facts = answer["facts"]
    assert facts["boot_id"] == BOOT_ID.read_text().strip()
    assert facts["host"] == socket.gethostname()
    assert 0 <= time.clock_gettime(time.CLOCK_BOOTTIME) - facts["uptime_s"] < 60
    assert facts["booted_at"].endswith("Z")
    assert facts["uid"] == os.geteuid()
    assert {"mountpoint", "fstype", "source", "options", "nfs_version", "local_lock"} <= set(facts["mounts"][0])
    assert answer["paths"][0]["fstype"]
    assert answer["paths"][0]["path"] == str(tmp_path)


def test_a_fresh_process(agent: Agent, volume: Path) -> None:
    """It should run as a program of its own, with tables for people and JSON for programs."""
    table = agent.fresh("check-locks", volume).done().text
    assert "aria_log_control" in table
    prepared = agent.fresh("prepare", "--json", "--incident", "i", volume / "ibdata1").done()
    assert prepared.files[0]["state"] == "prepared"
    assert prepared.progress[-1]["bytes_done"] == prepared.progress[-1]["bytes_total"] == 300_000


def test_every_help_has_an_example(few_agent: Agent) -> None:
    """It should show how to call each verb."""
    for verb in VERBS:
        assert "example:\n  python3 unlatch-agent.pyz " + verb in few_agent.run(verb, "--help").done().text


@pytest.mark.parametrize(
    "argv",
    [
        ("nonsense",),
        ("check-locks",),
        ("check-locks", ""),
        ("prepare", "/x"),
        ("prepare", "--incident", "../x", "/x"),
        ("prepare", "--incident", "a" * 81, "/x"),
        ("prepare", "--incident", ".hidden", "/x"),
        ("prepare", "--inc", "a", "/x"),
        ("prepare", "--incident", "a", "--method", "magic", "/x"),
        ("check-locks", "--io-timeout", "-1", "/"),
        ("check-locks", "--io-timeout", "soon", "/"),
        ("purge", "--incident", "a", "--holder-dead", "yes", "/"),
        ("openers", "relative"),
        ("status", "--incident", "a", "/etc/hostname"),
    ],
)
def test_nonsense(few_agent: Agent, argv: tuple[str, ...]) -> None:
    """It should answer nonsense with one JSON document and exit code 2."""
    answer = few_agent.run(*argv)
    assert answer.code == 2, answer
    assert answer.document["ok"] is False
    assert answer.document["error"]["next"]


def test_a_free_file(agent: Agent, volume: Path) -> None:
    """It should describe a free file and change nothing about it."""
    before = (volume / "ibdata1").stat()
    (entry,) = agent.run("check-locks", volume / "ibdata1").done().files
    assert entry["lock"] == {"kind": "none", "type": None, "pid": None}
    assert (entry["inode"], entry["dev"], entry["size_bytes"]) == (before.st_ino, before.st_dev, before.st_size)
    assert (entry["uid"], entry["gid"], entry["nlink"]) == (before.st_uid, before.st_gid, 1)
    after = (volume / "ibdata1").stat()
    head = hashlib.sha256((volume / "ibdata1").read_bytes()[:65536]).hexdigest()
    assert entry["sample"]["head_sha256"] == head
    assert (after.st_atime_ns, after.st_mtime_ns, after.st_ctime_ns) == (
        before.st_atime_ns,
        before.st_mtime_ns,
        before.st_ctime_ns,
    )


def _posix(descriptor: int) -> None:
    fcntl.lockf(descriptor, fcntl.LOCK_EX)


def _range(descriptor: int) -> None:
    fcntl.lockf(descriptor, fcntl.LOCK_SH, 10, 1_000_000)


def _ofd(descriptor: int) -> None:
    fcntl.fcntl(descriptor, OFD_SETLK, struct.pack("@hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))


def _flock(descriptor: int) -> None:
    fcntl.flock(descriptor, fcntl.LOCK_EX)


@pytest.mark.parametrize(("take", "kind"), [(_posix, "write"), (_range, "read"), (_ofd, "write"), (_flock, "write")])
def test_a_local_holder(few_agent: Agent, volume: Path, take: Callable[[int], None], kind: str) -> None:
    """It should name the process of this host that holds a lock, of every kind, and leave the lock alone."""
    with (volume / "ibdata1").open("r+b") as held:
        take(held.fileno())
        (entry,) = few_agent.run("check-locks", "--only-locked", volume).done().files
        assert entry["lock"] == {"kind": "local", "type": kind, "pid": os.getpid()}
        assert entry["openers"] == [os.getpid()]
        (again,) = few_agent.run("check-locks", "--only-locked", volume).done().files
        assert again["lock"] == entry["lock"]


@pytest.mark.parametrize(("take", "kind"), [(_posix, "write"), (_range, "read"), (_ofd, "write")])
def test_a_holder_that_nobody_here_is(far_agent: Agent, volume: Path, take: Callable[[int], None], kind: str) -> None:
    """It should call a lock remote when no process of this host has it, whatever its pid says."""
    with (volume / "ibdata1").open("r+b") as held:
        take(held.fileno())
        (entry,) = far_agent.run("check-locks", "--only-locked", volume).done().files
    assert (entry["lock"]["kind"], entry["lock"]["type"]) == ("remote", kind)
    assert entry["lock"]["pid"] <= 0
    assert entry["openers"] == []


def test_local_and_remote_on_one_file(far_agent: Agent, volume: Path) -> None:
    """It should say local when one of several holders is a process of this host: that one lives."""
    holder = (
        "import fcntl,os,sys; d=os.open(sys.argv[1],os.O_RDWR); fcntl.lockf(d,fcntl.LOCK_EX,100,1000);"
        "print(1,flush=True); sys.stdin.read()"
    )
    inside = far_agent.run("facts").done()  # starts the namespace
    assert inside.document["facts"]["boot_id"]
    assert far_agent._warm is not None
    init = subprocess.run(
        ["pgrep", "-P", str(far_agent._warm.pid)], capture_output=True, text=True, check=True
    ).stdout.split()[0]
    command = ["nsenter", "--target", init, "--pid", "--mount", sys.executable, "-c", holder, str(volume / "ibdata1")]
    with (volume / "ibdata1").open("r+b") as held:
        fcntl.lockf(held.fileno(), fcntl.LOCK_EX, 10, 0)
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as near:
            assert near.stdout is not None
            assert near.stdin is not None
            near.stdout.read(2)
            (entry,) = far_agent.run("check-locks", "--only-locked", volume).done().files
            near.stdin.close()
    assert entry["lock"]["kind"] == "local"
    assert entry["lock"]["pid"] > 0


def test_files_below_directories(few_agent: Agent, volume: Path, tmp_path: Path) -> None:
    """It should look at regular files below a directory, follow no symlink out, and open nothing that blocks."""
    (volume / "app").mkdir()
    (volume / "app" / "t.ibd").write_bytes(b"x")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret").write_bytes(b"x")
    (volume / "out").symlink_to(tmp_path / "elsewhere")
    (volume / "link").symlink_to(tmp_path / "elsewhere" / "secret")
    os.mkfifo(volume / "fifo")
    names = {entry["path"] for entry in few_agent.run("check-locks", volume).done().files}
    assert names == {str(volume / name) for name in ("ibdata1", "aria_log_control", "app/t.ibd")}
    answer = few_agent.run("check-locks", volume / "link")
    answer.refused("unreadable", 5)
    assert answer.files[0]["lock"]["kind"] == "unknown"
    few_agent.run("check-locks", volume / "nothing").refused("no_such_path", 5)


@pytest.mark.parametrize("verb", [["check-locks"], ["prepare", "--incident", "i"]], ids=lambda v: v[0])
def test_a_missing_lock_service(one_agent: Agent, volume: Path, verb: list[str]) -> None:
    """It should say enolck, never free, and copy nothing when the kernel answers a lock question with ENOLCK."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed, which makes the kernel answer ENOLCK here")
    target = volume / "ibdata1"
    tracer = ["strace", "-f", "-qq", "-o", "/dev/null", "-P", str(target), "-e", "trace=fcntl"]
    agent = [one_agent.interpreter, str(one_agent.file), *verb, "--json", str(target)]
    found = subprocess.run(
        [*tracer, "-e", "inject=fcntl:error=ENOLCK", *agent],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, **one_agent.environment},
    )
    assert found.returncode == 5, found.stderr
    error = json.loads(found.stdout)["error"]
    assert error["code"] == "enolck"
    assert "systemctl start rpc-statd" in error["next"]
    assert "statd is missing" in error["message"]
    assert {name.name for name in volume.iterdir()} == {"ibdata1", "aria_log_control"}


@pytest.mark.parametrize("option", ["nolock,local_lock=all", "local_lock=posix"])
def test_locks_that_stay_on_this_host(one_agent: Agent, volume: Path, option: str) -> None:
    """It should refuse to say who holds what on a mount whose locks no other machine sees."""
    table = f"1 0 254:0 / / rw - ext4 /dev/a rw\n2 1 0:50 / {volume} rw - nfs nas:/x rw,vers=3,{option}\n"
    answer = one_agent.run("check-locks", volume, faults={"mounts": table}).refused("local_locks", 3)
    assert "nolock" in answer.document["error"]["next"]


def test_postmaster_pid(few_agent: Agent, volume: Path) -> None:
    """It should read a pid file and show who has that pid now."""
    pidfile = volume / "postmaster.pid"
    pidfile.write_text(f"{os.getpid()}\n{volume}\n1413604492\n5432\n\nlocalhost\n")
    other = volume / "server.pid"
    other.write_text("not a pid\n")
    files = {
        Path(entry["path"]).name: entry
        for entry in few_agent.run("check-locks", "--only-locked", "--pidfile", other, volume).done().files
    }
    entry = files["postmaster.pid"]
    assert entry["lock"] == {"kind": "pidfile", "type": "excl", "pid": os.getpid()}
    assert entry["recorded_start_s"] == 1413604492
    assert entry["recorded_started_at"] == "2014-10-18T03:54:52.000000Z"
    assert entry["process"]["pid"] == os.getpid()
    assert entry["process"]["start_ticks"] > 0
    assert entry["content_sha256"] == hashlib.sha256(pidfile.read_bytes()).hexdigest()
    assert files["server.pid"]["lock"] == {"kind": "pidfile", "type": "excl", "pid": None}
    assert files["server.pid"]["process"] is None


def _tied(answer: dict[str, Any], pid: int) -> list[str]:
    return next((entry["why"] for entry in answer["openers"] if entry["pid"] == pid), [])


@pytest.mark.parametrize("tie", ["descriptor", "mapping", "cwd", "cmdline"])
def test_openers(few_agent: Agent, volume: Path, tmp_path: Path, tie: str) -> None:
    """It should find a process by an open file, a mapping, its directory, or its arguments alone."""
    script = tmp_path / "server.py"  # its own arguments must not name the volume
    begin = {
        "descriptor": "file = open(name)",
        "mapping": "import mmap, os; d = os.open(name, os.O_RDWR); m = mmap.mmap(d, 0); os.closerange(3, 20)",
    }.get(tie, "")
    name = str(volume / "ibdata1")
    script.write_text(f"import sys; name = {name!r}; {begin}\nprint(1, flush=True)\nsys.stdin.read()\n")
    command = [sys.executable, str(script)] + ([f"--datadir={volume}"] if tie == "cmdline" else [])
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=volume if tie == "cwd" else "/"
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.read(2)
        answer = few_agent.run("openers", volume, "--executable", Path(sys.executable).resolve().name).done().document
        process.stdin.close()
    assert tie in _tied(answer, process.pid)
    entry = next(entry for entry in answer["openers"] if entry["pid"] == process.pid)
    assert "executable" in entry["why"]
    assert entry["start_ticks"] > 0
    assert entry["exe"]


def test_openers_by_another_name(few_agent: Agent, volume: Path, tmp_path: Path) -> None:
    """It should know a file by its inode when it is open under another name."""
    os.link(volume / "ibdata1", tmp_path / "other-name")
    with (tmp_path / "other-name").open() as _:
        answer = few_agent.run("openers", volume).done().document
    assert "descriptor" in _tied(answer, os.getpid())


def test_another_agent_is_no_opener(one_agent: Agent, volume: Path, tmp_path: Path) -> None:
    """It should keep other runs of itself, and the shells that carry them, apart from a database."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    script = f"import sys\nopen({str(fifo)!r}).read()"
    fake = tmp_path / "unlatch-agent-abc.pyz"
    fake.write_text(script)
    command = f"{sys.executable} {fake} status {volume}; true"
    with subprocess.Popen(["sh", "-c", command]) as shell, fifo.open("w"):
        answer = one_agent.run("openers", volume).done().document
    assert shell.pid not in [entry["pid"] for entry in answer["openers"]]
    assert shell.pid in [entry["pid"] for entry in answer["agents"]]
    assert len(answer["agents"]) == 2


def test_the_root_command_knows_one_verb(few_agent: Agent, volume: Path, tmp_path: Path) -> None:
    """It should run only the opener scan under the name unlatch-openers, and write nothing."""
    command = tmp_path / "unlatch-openers"
    command.write_bytes(few_agent.file.read_bytes())
    renamed = Agent(few_agent.interpreter, command, tmp_path)
    with (volume / "ibdata1").open():
        answer = renamed.fresh("--json", volume).done()
        assert answer.document["verb"] == "openers"
        assert "descriptor" in _tied(answer.document, os.getpid())
    assert renamed.fresh("purge", "--json", "--incident", "x", volume).code == 2
    assert renamed.fresh("facts", "--json").code == 2
    assert not renamed.state.exists()
    assert {path.name for path in volume.iterdir()} == {"ibdata1", "aria_log_control"}


# Long enough for a loaded machine to get anywhere, short enough for a test.
LIMIT = ("--io-timeout", "1.5")


def test_many_files(one_agent: Agent, volume: Path, holding: Callable[[Path], int]) -> None:
    """It should find the locked ones among thousands of files, in order, and name a file that hangs."""
    for number in range(1200):
        (volume / f"{number:04}.ibd").write_bytes(b"x")
    locked = [volume / f"{number:04}.ibd" for number in (3, 700, 1199)]
    for path in locked:
        holding(path)
    files = one_agent.run("check-locks", "--only-locked", volume, volume / "0005.ibd").done().files
    assert [Path(entry["path"]) for entry in files] == [locked[0], volume / "0005.ibd", *locked[1:]]
    assert [entry["lock"]["kind"] for entry in files] == ["local", "none", "local", "local"]
    assert len(one_agent.run("check-locks", volume).done().files) == 1202
    stuck = {"stop": ["0800.ibd", "identity", "open_to_read"]}
    answer = one_agent.run("check-locks", *LIMIT, "--only-locked", volume, faults=stuck).refused("io_timeout", 6)
    kinds = {Path(entry["path"]).name: entry["lock"]["kind"] for entry in answer.files}
    assert kinds == {"0003.ibd": "local", "0700.ibd": "local", "0800.ibd": "unknown", "1199.ibd": "local"}


def test_unreadable_processes(agent: Agent, volume: Path) -> None:
    """It should call other users' processes unchecked, and say how to grant the look at them."""
    need_root()
    answer = agent.run("openers", "/usr/local/bin", uid=NOBODY).done().document
    assert os.getpid() in [entry["pid"] for entry in answer["unchecked"]]
    checks = agent.run("preflight", "/usr/local/bin", uid=NOBODY).done().document["privileges"]
    visible = next(check for check in checks if check["privilege"] == "see every process")
    assert visible["ok"] is False
    assert "sudoers" in visible["grant"]


def test_unreadable_files(few_agent: Agent, open_volume: Path) -> None:
    """It should call a file unknown that it may not read, and a directory that it may not list an error."""
    need_root()
    os.chown(open_volume / "ibdata1", 0, 0)
    (open_volume / "ibdata1").chmod(0o600)
    answer = few_agent.run("check-locks", open_volume, uid=NOBODY).refused("unreadable", 5)
    kinds = {Path(entry["path"]).name: entry["lock"]["kind"] for entry in answer.files}
    assert kinds == {"ibdata1": "unknown", "aria_log_control": "none"}
    os.chown(open_volume, 0, 0)
    open_volume.chmod(0o700)
    few_agent.run("check-locks", open_volume.parent, uid=NOBODY).refused("unreadable", 5)


def test_preflight(few_agent: Agent, volume: Path) -> None:
    """It should say yes for what works here, no with a reason and a grant for what does not, and write nothing."""
    checks = few_agent.run("preflight", volume).done().document["privileges"]
    assert {check["ok"] for check in checks if check["privilege"] != "see every process"} <= {True, None}
    missing = few_agent.run("preflight", volume / "nothing").done().document["privileges"]
    assert [check["ok"] for check in missing if check["privilege"] == "reach the volume"] == [False]
    few_agent.run("preflight", "--os-user", "no-such-user", volume).refused("no_such_user", 2)
    if os.geteuid() == 0:
        checks = few_agent.run("preflight", "--os-user", "nobody", volume).done().document["privileges"]
        found = {check["privilege"]: check for check in checks}
        bad = found.get("write in the directory") or found["reach the volume"]
        assert bad["ok"] is False
        assert bad["grant"]
    assert {path.name for path in volume.iterdir()} == {"ibdata1", "aria_log_control"}
