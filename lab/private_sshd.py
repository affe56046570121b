"""A real sshd on loopback, in a mount namespace of its own: what it writes to homes and /var/tmp vanishes with it."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

SSHD = "/usr/sbin/sshd"
LOGIN_USER = "postgres"  # an ordinary user of Debian with a shell, and without any sudo right


def missing() -> str | None:
    """Why this cannot run here, or None."""
    if os.geteuid() != 0:
        return "a private sshd in its own mount namespace needs root"
    for program in (SSHD, "ssh-keygen", "unshare", "sudo"):
        if shutil.which(program) is None:
            return f"{program} is not installed (make setup installs it)"
    try:
        pwd.getpwnam(LOGIN_USER)
    except KeyError:
        return f"there is no user {LOGIN_USER} (package postgresql)"
    return None


def free_port() -> int:
    """A TCP port on loopback that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def make_key(path: Path) -> str:
    """Make an Ed25519 key pair; the public key as `ssh-ed25519 AAAA…`."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])


@contextlib.contextmanager
def directory_for_all() -> Iterator[Path]:
    """A temporary directory that other users can enter; pytest closes its own to them."""
    with tempfile.TemporaryDirectory(prefix="unlatch-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@dataclass
class PrivateSshd:
    """Starts at `start`; `setup` are shell lines run inside the namespace before sshd.

    `directory` must be open to other users: sshd reads the authorized keys as the one who logs in.
    """

    directory: Path
    setup: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    host_key: str = ""
    server: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.host_key = make_key(self.directory / "host_key")
        self.client_key = self.directory / "client_key"
        (self.directory / "authorized_keys").write_text(make_key(self.client_key) + "\n")

    def start(self) -> PrivateSshd:
        """Start it, and wait until it listens."""
        config = self.directory / "sshd_config"
        config.write_text(
            f"ListenAddress 127.0.0.1:{self.port}\nHostKey {self.directory}/host_key\n"
            f"AuthorizedKeysFile {self.directory}/authorized_keys\nStrictModes no\nUsePAM no\nPidFile none\n"
            "PasswordAuthentication no\nPermitRootLogin prohibit-password\nPrintMotd no\nMaxStartups 100\n"
        )
        directory = shlex.quote(str(self.directory))
        lines = [
            "set -e",
            "mkdir -p /run/sshd",
            "mount -t tmpfs -o mode=1777 tmpfs /var/tmp",
            f"mount -t tmpfs -o mode=755,uid={LOGIN_USER} tmpfs ~{LOGIN_USER}",
            # sshd takes an account without any password ("!") for locked.
            f"sed 's/^{LOGIN_USER}:!*:/{LOGIN_USER}:*:/' /etc/shadow >{directory}/shadow",
            f"chmod 600 {directory}/shadow && mount --bind {directory}/shadow /etc/shadow",
            *self.setup,
            f"exec {SSHD} -D -e -f {shlex.quote(str(config))}",
        ]
        with (self.directory / "sshd.log").open("ab") as log:
            self.server = subprocess.Popen(
                ["unshare", "--mount", "--propagation", "private", "sh", "-c", "\n".join(lines)],
                stderr=log,
                start_new_session=True,
            )
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
            except ConnectionRefusedError:
                assert self.server.poll() is None, (self.directory / "sshd.log").read_text()
                time.sleep(0.02)
            else:
                return self

    def stop(self) -> None:
        """End it and every session of it."""
        if self.server is not None and self.server.poll() is None:
            os.killpg(self.server.pid, signal.SIGKILL)
            self.server.wait()

    def connection(self, **changes: object) -> str:
        """The Airflow connection to it, as the value of an AIRFLOW_CONN_… variable."""
        extra = {"key_file": str(self.client_key), "host_key": self.host_key, "look_for_keys": "false"}
        fields = {"conn_type": "ssh", "host": "127.0.0.1", "port": self.port, "login": LOGIN_USER, "extra": extra}
        changed_extra = changes.pop("extra", {})
        assert isinstance(changed_extra, dict)
        kept = {key: value for key, value in {**extra, **changed_extra}.items() if value is not None}
        return json.dumps({**fields, **changes, "extra": kept})
