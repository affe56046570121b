"""A machine of the lab: namespaces, a root file system, an init; started and killed as a whole."""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab import processes, rootfs
from lab.errors import LabError
from lab.processes import ProcessId

BOOT_TIMEOUT_S = 20.0
SSHD = ["/usr/sbin/sshd", "-D", "-e", "-f", "/etc/ssh/sshd_config"]


@dataclass
class Machine:
    """One machine, on this host's kernel and network, with everything else its own.

    Attributes:
        lab_root: Root of the lab that it belongs to; marks its processes.
        directory: Where its files are on the host.
        layout: Its accounts and its sshd.
        binds: Directories of the host that it sees: path in the machine -> path on the host.
        daemons: Argument vectors that its init starts.
        process: Its init as the host sees it, while it is known.
        boot_id: The boot id of its last boot.
    """

    lab_root: Path
    directory: Path
    layout: rootfs.Layout
    binds: Mapping[str, Path] = field(default_factory=dict)
    daemons: Sequence[Sequence[str]] = (SSHD,)
    process: ProcessId | None = None
    boot_id: str = ""

    @property
    def rootfs(self) -> Path:
        """Its root directory, on the host."""
        return self.directory / "rootfs"

    @property
    def host_key(self) -> str:
        """The public host key of its sshd, as `ssh-ed25519 AAAA…`."""
        words = (self.rootfs / "etc/ssh/ssh_host_ed25519_key.pub").read_text().split()
        return " ".join(words[:2])

    @property
    def running(self) -> bool:
        """Whether its init lives."""
        return self.process is not None and self.process.alive()

    def build(self) -> None:
        """Make or refresh its file system. Idempotent."""
        rootfs.build(self.rootfs, self.layout)
        for target in self.binds:
            (self.rootfs / target.lstrip("/")).mkdir(parents=True, exist_ok=True)

    def boot(self, claim: Mapping[str, Any] | None = None) -> None:
        """Boot: new namespaces, new boot id, uptime from zero. Returns when its sshd accepts connections.

        Args:
            claim: A program that must run under a given pid: `{"pid": int, "user": str, "argv": [str]}`.

        Raises:
            LabError: It did not come up; the message ends with its console.
        """
        if self.running:
            return
        self.boot_id = str(uuid.uuid4())
        config = {
            "rootfs": str(self.rootfs),
            "hostname": self.layout.hostname,
            "boot_id": self.boot_id,
            "binds": [{"source": str(source), "target": target} for target, source in self.binds.items()],
        }
        config_path = self.directory / "boot.json"
        config_path.write_text(json.dumps(config))
        init = {"claim": claim, "daemons": [list(argv) for argv in self.daemons]}
        (self.rootfs / "etc/lab/init.json").write_text(json.dumps(init))
        offset_s = -int(time.clock_gettime(time.CLOCK_BOOTTIME))
        argv = [
            "unshare", "--pid", "--mount", "--uts", "--ipc", "--time", "--boottime", str(offset_s), "--fork",
            "/usr/bin/python3", "-I", str(rootfs.GUEST_PROGRAMS / "enter.py"), str(config_path),
        ]  # fmt: skip
        with (self.directory / "console.log").open("ab") as console:
            wrapper = processes.start(argv, root=self.lab_root, stdout=console)
        self._wait_for_sshd(wrapper)

    def _wait_for_sshd(self, wrapper: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + BOOT_TIMEOUT_S
        while time.monotonic() < deadline and wrapper.poll() is None:
            if self.process is None or not self.process.alive():
                for pid in processes.children(wrapper.pid):
                    self.process = ProcessId.of(pid)
            if self._entered() and (SSHD not in self.daemons or self._ssh_answers()):
                return
            time.sleep(0.02)
        console = (self.directory / "console.log").read_text(errors="replace")[-2000:]
        raise LabError(f"{self.layout.hostname} did not boot within {BOOT_TIMEOUT_S:g} s. Its console:\n{console}")

    def _entered(self) -> bool:
        """Say whether its init has left the host's file system for its own."""
        if self.process is None:
            return False
        try:
            return Path(f"/proc/{self.process.pid}/root/run/boot_id").read_text().strip() == self.boot_id
        except OSError:
            return False

    def _ssh_answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.layout.ssh_port), timeout=1) as client:
                return client.recv(4) == b"SSH-"
        except OSError:
            return False

    def kill(self) -> bool:
        """Kill it as a power cut would: SIGKILL to its init takes every process with it. Idempotent.

        Returns:
            True when it ran.
        """
        return self.process is not None and self.process.kill()

    def argv(self, argv: Sequence[str], user: str = "root") -> list[str]:
        """Return the argument vector that, run as root on the host, runs `argv` inside the machine as `user`.

        Raises:
            LabError: The machine does not run.
        """
        if self.process is None or not self.process.alive():
            raise LabError(f"{self.layout.hostname} does not run: {shlex.join(argv)} was not started")
        inside = ["nsenter", "--target", str(self.process.pid), "--mount", "--uts", "--ipc", "--pid", "--time", "--"]
        home = "/root" if user == "root" else f"/home/{user}"
        inside += ["env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"]
        inside += [f"HOME={home}", f"USER={user}"]
        if user != "root":
            inside += ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
        return [*inside, *argv]

    def run(
        self, argv: Sequence[str], user: str = "root", *, check: bool = True, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program inside the machine and wait for it.

        Raises:
            LabError: With `check`, the program failed; the message has its output.
        """
        command = self.argv(argv, user)
        done = subprocess.run(command, input=stdin or "", capture_output=True, text=True, check=False)
        if check and done.returncode != 0:
            text = f"{done.stdout}{done.stderr}".strip()
            raise LabError(f"{self.layout.hostname}: {shlex.join(argv)} returned {done.returncode}:\n{text}")
        return done
