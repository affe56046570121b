"""The NFS lab as tests drive it: a NAS and its client in two virtual machines, a network of their own, real crashes.

The lab is a folder of shell scripts (up.sh, crash.sh, standby.sh, pause.sh, down.sh) that is not part of this project;
`UNLATCH_NFS_LAB` names it. Its addresses exist only in a network namespace. `NfsLab.up` moves the calling thread into
that namespace, so that Unlatch reaches the machines directly and a port on which nobody listens is really refused.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import select
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from tests.nfs import nfs_network
from tests.nfs.nfs_scripts import FINGERPRINT

MACHINES = {"nas": "NET_NAS", "client": "NET_CLI", "standby": "NET_SBY"}
UNITS = {"voms": "dbod-mysql@voms", "alvmysql": "dbod-mysql@alvmysql", "lxr": "dbod-pg@lxr"}
DATADIRS = {"voms": "VOMS/mysql", "alvmysql": "ALVMYSQL/mysql", "lxr": "LXR/data"}
EXPORT = "/srv/dbod/dbs03"
MOUNTPOINT = "/ORA/dbs03"

_KILL = re.compile(r"kill -SEGV (\d+) ")
_ACK = re.compile(r"^ACK (\d+)$", re.MULTILINE)


def say(words: str) -> None:
    """Tell whoever waits for the machines; written past pytest's capture of sys.stderr."""
    print(f"[{datetime.now(UTC):%H:%M:%S}] {words}", file=sys.__stderr__, flush=True)


@dataclass(frozen=True)
class Crash:
    """One death of the guest's qemu by SIGSEGV. `acknowledged`: ids that the databases said were committed."""

    cause: str
    died_at: datetime
    back_at: datetime
    acknowledged: Mapping[str, frozenset[int]]
    locks_before: tuple[str, ...]


@dataclass
class NfsLab:
    """The lab.

    Attributes:
        scripts: The folder of its scripts.
        settings: Its own settings, such as addresses and folders.
        watchers: Told of deaths and starts of the guest's machine the moment they happen.
        vers: The NFS version with which it is up; None: it is not.
        last_crash: The newest crash since it came from its images.
        has_booted: Whether its machines have come up once.
        is_spoiled: Whether a test has left machines that are no use to the next one.
    """

    scripts: Path
    settings: dict[str, str] = field(default_factory=dict)
    watchers: list[Callable[[str, datetime], None]] = field(default_factory=list)
    vers: str | None = None
    last_crash: Crash | None = None
    has_booted: bool = False
    is_spoiled: bool = False
    _outside: int = -1
    _lock: IO[str] | None = None

    def __post_init__(self) -> None:
        wanted = ("LAB_DIR", "RUN", "KEYS", "NETNS", "NET_HOST", *MACHINES.values(), "CLI_NAME", "SBY_NAME")
        shown = "; ".join(f'printf "%s=%s\\n" {name} "${name}"' for name in wanted)
        answer = subprocess.run(
            ["bash", "-c", f". {shlex.quote(str(self.scripts / 'lab.conf'))}; {shown}"],
            check=True,
            capture_output=True,
            text=True,
        )
        self.settings = dict(line.split("=", 1) for line in answer.stdout.splitlines())
        self._outside = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    # --- machines ------------------------------------------------------------------------------------------------

    def build(self) -> str | None:
        """Make the images, once: it needs a package mirror. Why that did not succeed, or None."""
        self._only_one()
        if (Path(self.settings["LAB_DIR"]) / "stamp" / "images").exists():
            return None
        say("the lab builds its images now: several minutes")
        try:
            self._script("build.sh")
        except AssertionError as error:
            return str(error)
        return None

    def up(self, *, fresh: bool = False, vers: str = "3", opts: str | None = None) -> None:
        """Boot NAS and guest, and enter their network. `fresh`: from the images, all that ever happened forgotten."""
        self._only_one()
        self._leave()
        words = [*(["--fresh"] if fresh else []), "--vers", vers, *(["--opts", opts] if opts else [])]
        self.vers = None
        self._script("up.sh", *words)
        self._enter()
        self.vers, self.last_crash = vers, None if fresh else self.last_crash
        self.is_spoiled = self.is_spoiled and not fresh
        self.has_booted = True

    def down(self) -> None:
        """Power all machines off and take their network away. Nothing when they are not up."""
        self._leave()
        self._close_shells()
        self.vers = None
        self._script("down.sh")

    def close(self) -> None:
        """Let others have the lab; the last call."""
        self._leave()
        os.close(self._outside)
        if self._lock is not None:
            self._lock.close()

    def crash(
        self, cause: str, *, load_s: int = 12, settle: bool = False, warm: bool = True, opts: str | None = None
    ) -> Crash:
        """Load the databases, kill the guest's qemu by SIGSEGV, start it again; returns when it answers SSH.

        Args:
            cause: `statelost`, `firewall`, `hostname` or `none`, as the lab explains them.
            load_s: How long the databases commit before.
            settle: Wait also until each database's own start has ended, well or badly.
            warm: Restart the databases before, with lock owners as of a long uptime. Not while one lives elsewhere.
            opts: Mount options from the next boot on.
        """
        moments: dict[str, datetime] = {}

        def on_line(line: str) -> None:
            if found := _KILL.search(line):
                self._wait_for_exit(int(found[1]))
                moments["died"] = datetime.now(UTC)
                self._tell("died", moments["died"])
                if cause == "firewall":
                    # A firewall stands between machines: the NAS's own lockd must go on reaching its own statd.
                    self.root("nas", "nft insert rule inet nsm in iif lo accept")
                old = int(found[1])
                while self.pid("client") in {None, old}:
                    time.sleep(0.05)
                self._tell("started", datetime.now(UTC))

        self._close_shells("client")
        words = ["--cause", cause, "--load", str(load_s)]
        words += [
            *([] if settle else ["--no-wait"]),
            *([] if warm else ["--no-warm"]),
            *(["--opts", opts] if opts else []),
        ]
        self._script("crash.sh", *words, on_line=on_line)
        run = Path(self.settings["RUN"])
        self.last_crash = Crash(
            cause=cause,
            died_at=moments["died"],
            back_at=datetime.now(UTC),
            acknowledged={
                name: frozenset(map(int, _ACK.findall((run / f"load-{name}.log").read_text()))) for name in UNITS
            },
            locks_before=tuple((run / "locks.before").read_text().splitlines()),
        )
        return self.last_crash

    def standby(self, verb: str, instance: str | None = None) -> None:
        """The second guest: `up`, `start INSTANCE`, `stop INSTANCE`, `down`."""
        self._script("standby.sh", verb, *([instance] if instance else []))

    def pause(self, machine: str, *, on: bool) -> None:
        """Freeze a machine, which is then silent but not dead; or let it go on."""
        self._script("pause.sh", machine, "on" if on else "off")

    @contextmanager
    def paused(self, machine: str) -> Iterator[None]:
        """A machine that is silent for a while."""
        self.pause(machine, on=True)
        try:
            yield
        finally:
            self.pause(machine, on=False)

    def remount(self, opts: str = "") -> None:
        """Stop the guest's databases and mount its volumes anew, with more options."""
        vers = shlex.quote(self.vers or "3")
        self.root(
            "client",
            f"systemctl stop {' '.join(UNITS.values())}; umount -a -t nfs,nfs4 && "
            f"/usr/local/sbin/ora-mount {vers} {shlex.quote(opts)} && grep ' {MOUNTPOINT} ' /proc/mounts",
        )

    def pid(self, machine: str) -> int | None:
        """The pid of a machine's qemu, while it runs."""
        try:
            pid = int((Path(self.settings["RUN"]) / f"{machine}.pid").read_text())
        except (OSError, ValueError):
            return None
        return pid if Path(f"/proc/{pid}").exists() else None

    def runs(self, vers: str) -> bool:
        """Whether machines of an earlier session are up with that NFS version."""
        arguments = Path(self.settings["RUN"]) / "client.args"
        if self.pid("client") is None or self.pid("nas") is None or not arguments.exists():
            return False
        words = arguments.read_text().split()
        return f"dbod.vers={vers}" in words and not any(word.startswith("dbod.opts=") for word in words)

    def address(self, machine: str) -> str:
        """A machine's address in the lab's network."""
        return self.settings[MACHINES[machine]]

    @property
    def key_file(self) -> Path:
        """The private key that lets in root and dbod."""
        return Path(self.settings["KEYS"]) / "id_lab"

    # --- commands on them ----------------------------------------------------------------------------------------

    def root(self, machine: str, command: str, *, stdin: bytes = b"", check: bool = True, limit_s: float = 240) -> str:
        """Run shell text as root on a machine, as its administrator would; what it printed.

        Raises:
            AssertionError: it failed, and `check` is set; its whole output is in the message.
        """
        done = subprocess.run(
            self.shell(machine, command), input=stdin, check=False, capture_output=True, timeout=limit_s
        )
        said = (done.stdout + done.stderr).decode("utf-8", "replace")
        assert not check or done.returncode == 0, f"{machine}: {command}\nexit {done.returncode}\n{said}"
        return done.stdout.decode("utf-8", "replace")

    def shell(self, machine: str, command: str) -> list[str]:
        """The program and arguments that run shell text as root on a machine."""
        control = f"{self.settings['RUN']}/unlatch-%h"
        options = ("-o", "ControlMaster=auto", "-o", f"ControlPath={control}", "-o", "ControlPersist=300")
        argv = ["ssh", *self._ssh_options(), *options, f"root@{self.address(machine)}", command]
        return [*nfs_network.nsenter(f"/run/netns/{self.settings['NETNS']}"), *argv]

    def host_key(self, machine: str) -> str:
        """The machine's public host key, asked of the machine itself, to be pinned."""
        return " ".join(self.root(machine, "cat /etc/ssh/ssh_host_ed25519_key.pub").split()[:2])

    def active(self, instance: str) -> str:
        """What systemd on the guest says of an instance's unit: active, activating, failed, inactive."""
        return self.root("client", f"systemctl is-active {UNITS[instance]}", check=False).strip()

    def settled(self, instance: str, limit_s: float = 240) -> str:
        """Wait until the unit's own start has ended, and return how."""
        deadline = time.monotonic() + limit_s
        while (state := self.active(instance)) in {"activating", "deactivating", "reloading"}:
            assert time.monotonic() < deadline, f"{instance} is still {state} after {limit_s:.0f} s"
            time.sleep(1)
        return state

    def locks(self) -> tuple[str, ...]:
        """Every lock on the NAS's exported volumes, one line each, with the path."""
        return tuple(self.root("nas", "nas-locks").splitlines())

    def locks_on(self, instance: str) -> tuple[str, ...]:
        """The locks on files of one instance."""
        return tuple(line for line in self.locks() if f"{EXPORT}/{DATADIRS[instance]}/" in line)

    def fingerprint(self, instance: str) -> dict[str, list[object]]:
        """Inode, size, mtime and SHA-256 of every file of an instance, taken on the NAS behind all clients' backs."""
        return self.fingerprint_of(f"{EXPORT}/{DATADIRS[instance]}")

    def fingerprint_of(self, directory: str) -> dict[str, list[object]]:
        """The same of every file below a directory of the NAS."""
        text = self.root("nas", f"python3 - {shlex.quote(directory)}", stdin=FINGERPRINT)
        found: dict[str, list[object]] = json.loads(text)
        return found

    def quiet_fingerprint(self, instance: str, limit_s: float = 180) -> dict[str, list[object]]:
        """The fingerprint once a living, idle database has stopped writing."""
        deadline, before = time.monotonic() + limit_s, self.fingerprint(instance)
        while True:
            time.sleep(3)
            now = self.fingerprint(instance)
            if now == before:
                return now
            changed = sorted(k for k in now.keys() | before.keys() if now.get(k) != before.get(k))
            assert time.monotonic() < deadline, f"{instance} does not come to rest: {changed}"
            before = now

    # --- inside --------------------------------------------------------------------------------------------------

    def _script(self, name: str, *words: str, on_line: Callable[[str], None] | None = None) -> None:
        """Run one of the lab's scripts outside of its network; each line it says is shown and given to `on_line`."""
        for _ in range(nfs_network.TRIES):
            returncode, said = self._script_once(name, words, on_line)
            if returncode == 0 or not nfs_network.lost_the_race(said):
                break
        assert returncode == 0, f"{name} {' '.join(words)} failed:\n{said}"

    def _script_once(self, name: str, words: tuple[str, ...], on_line: Callable[[str], None] | None) -> tuple[int, str]:
        """The exit code and all that it said."""
        argv = [*nfs_network.nsenter(f"/proc/{os.getpid()}/fd/{self._outside}"), str(self.scripts / name), *words]
        said: list[str] = []
        with (
            self._machines_first(),
            subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
            ) as script,
        ):
            assert script.stdout is not None
            for line in script.stdout:
                said.append(line)
                say(f"{name}: {line.rstrip()}")
                if on_line is not None:
                    on_line(line)
        return script.returncode, "".join(said)

    @contextmanager
    def _machines_first(self) -> Iterator[None]:
        """Let machines that are started meanwhile go before whatever else runs here: emulated, they are slow enough."""
        over = threading.Event()

        def prefer() -> None:
            while not over.wait(0.5):
                for machine in MACHINES:
                    with contextlib.suppress(OSError):  # a kernel without groups of its own per session
                        Path(f"/proc/{self.pid(machine)}/autogroup").write_text("-10")

        watch = threading.Thread(target=prefer, daemon=True)
        watch.start()
        try:
            yield
        finally:
            over.set()
            watch.join()

    def _ssh_options(self) -> tuple[str, ...]:
        # The lab's administrator trusts his own virtual cable; what Unlatch trusts is pinned by `host_key`.
        plain = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "ConnectTimeout=20"]
        alive = ["ServerAliveInterval=10", "ServerAliveCountMax=6"]
        return ("-i", str(self.key_file), *(word for option in (*plain, *alive) for word in ("-o", option)))

    def _close_shells(self, *machines: str) -> None:
        for machine in machines or MACHINES:
            control = f"{self.settings['RUN']}/unlatch-{self.address(machine)}"
            if Path(control).exists():
                subprocess.run(
                    ["ssh", "-o", f"ControlPath={control}", "-O", "exit", "unlatch"], check=False, capture_output=True
                )

    def _tell(self, what: str, at: datetime) -> None:
        for watcher in self.watchers:
            watcher(what, at)

    @staticmethod
    def _wait_for_exit(pid: int) -> None:
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            select.select([process], [], [], 60)
        finally:
            os.close(process)

    def _enter(self) -> None:
        with Path(f"/run/netns/{self.settings['NETNS']}").open() as inside:
            nfs_network.setns(inside.fileno())

    def _leave(self) -> None:
        nfs_network.setns(self._outside)

    def _only_one(self) -> None:
        """Take the lab for this process: two users of one set of machines would wreck each other's tests."""
        if self._lock is not None:
            return
        folder = Path(self.settings["LAB_DIR"])
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "unlatch-tests.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AssertionError(f"another test run uses the NFS lab in {folder}: wait for its end") from None
        self._lock = lock
