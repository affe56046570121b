"""Keeps the guest's databases running, as the supervisor of a real machine would (Restart=on-failure).

It reads /etc/lab/instances.json, starts every instance when the guest boots and tries again after a failure, for ever:
what held three databases down for hours in 2014 was exactly such a loop against locked files. People and programs talk
to it through `dbservice`. All its state dies with the boot, so a hold does not survive one.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any

SOCKET = "/run/dbservice.sock"
POLL_S = 0.05
TERMINATE_GRACE_S = 2.0  # a start attempt that is waiting for a lock has nothing to save
STOP_TIMEOUT_S = 60.0


class Unit:
    """One instance: what should run, what runs, and the thread that brings the two together."""

    def __init__(self, config: dict[str, Any], *, autostart: bool) -> None:
        """Start watching; with `autostart` the instance is started at once and again after each failure."""
        self.name = config["name"]
        self.config = config
        self.changed = threading.Condition()
        self.state = "starting" if autostart else "stopped"  # also: running, retrying, stopping, failed
        self.wanted = autostart
        self.retry = autostart
        self.held = False
        self.attempt = 0
        self.outcomes = 0  # attempts that ended, one way or the other: what `start` waits for
        self.last_rc: int | None = None
        self.server: subprocess.Popen[bytes] | None = None
        self.log_offset = 0
        threading.Thread(target=self.work, daemon=True).start()

    def work(self) -> None:
        """Run one attempt after the other, as long as the instance is wanted."""
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.wanted)
            self.run_once()

    def run_once(self) -> None:
        """Start the server, say when it accepts connections, and see it end."""
        with self.changed:
            if not self.wanted:
                return
            self.attempt += 1
            self.server = server = self.spawn()
            self.become("starting")
        ready = False
        while server.poll() is None:
            if not ready and self.accepts():
                with self.changed:
                    if self.state == "starting":
                        ready = True
                        self.retry = True
                        self.outcomes += 1
                        self.become("running")
            if ready:
                server.wait()
            else:
                time.sleep(POLL_S)
        with self.changed:
            self.last_rc = server.returncode
            self.server = None
            if not ready:
                self.outcomes += 1
            if not self.wanted:
                self.become("stopped")
            elif self.retry and not self.held:
                self.become("retrying")
                self.changed.wait_for(lambda: self.state != "retrying", timeout=self.config["restart_s"])
                if self.wanted:
                    self.become("starting")
            else:
                self.wanted = False
                self.become("failed")

    def become(self, state: str) -> None:
        """Change the state (the lock is held) and wake who waits for it."""
        self.state = state
        self.changed.notify_all()

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start the server in a session of its own, its output going to the error log."""
        config = self.config
        identity: dict[str, Any] = {}
        if config["user"]:  # else it starts as root and changes its user itself, as many init scripts do
            identity = {"user": config["user"], "group": config["user"], "extra_groups": []}
        with open(config["log"], "ab") as log:
            os.fchown(log.fileno(), config["uid"], config["gid"])
            self.log_offset = log.tell()
            return subprocess.Popen(
                config["argv"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                **identity,
            )

    def accepts(self) -> bool:
        """Say whether a client could log in now."""
        if self.config["engine"] == "postgresql":
            argv = [self.config["bindir"] + "/pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.config["port"])]
            return subprocess.call(argv, stdin=subprocess.DEVNULL) == 0
        try:
            with socket.create_connection(("127.0.0.1", self.config["port"]), timeout=1) as client:
                return bool(client.recv(1))  # the server speaks first
        except OSError:
            return False

    def log_tail(self, lines: int = 12) -> str:
        """Return the last lines that this attempt wrote."""
        with open(self.config["log"], "rb") as log:
            log.seek(self.log_offset)
            text = log.read().decode("utf-8", "replace")
        return "\n".join(text.splitlines()[-lines:])

    def start(self) -> tuple[int, str]:
        """Start, or join the attempt that is under way, and wait for its outcome."""
        with self.changed:
            if self.held:
                return 1, f"{self.name} is held, it was not started. Release it first: dbservice release {self.name}"
            if self.state == "running":
                return 0, f"{self.name} is running already"
            self.changed.wait_for(lambda: self.state != "stopping")
            seen = self.outcomes
            if self.state in ("stopped", "failed"):
                self.wanted, self.retry = True, False
            self.become("starting")
            self.changed.wait_for(lambda: self.outcomes > seen or self.state == "stopped")
            if self.state == "running":
                return 0, f"{self.name} runs, pid {self.server.pid if self.server else '-'}"
            reason = "it was held or stopped meanwhile" if not self.wanted and self.state != "failed" else "it ended"
            text = f"{self.name} did not start ({reason}, rc {self.last_rc}). Last lines of {self.config['log']}:"
            return 1, f"{text}\n{self.log_tail()}"

    def stop(self) -> tuple[int, str]:
        """Stop the server in an orderly way; an attempt that is not up yet is ended."""
        with self.changed:
            return self.end()

    def end(self) -> tuple[int, str]:
        """Make `stopped` true (the lock is held)."""
        self.wanted = False
        self.changed.wait_for(lambda: self.state != "stopping")
        if self.server is None:
            self.become("stopped")
            return 0, f"{self.name} is stopped"
        was_running, server = self.state == "running", self.server
        self.become("stopping")
        server.send_signal(signal.SIGINT if self.config["engine"] == "postgresql" else signal.SIGTERM)
        grace_s = STOP_TIMEOUT_S if was_running else TERMINATE_GRACE_S
        if not self.changed.wait_for(lambda: self.state != "stopping", timeout=grace_s):
            if was_running:
                self.become("running")
                self.wanted = True
                return 1, f"{self.name} did not stop within {grace_s:g} s and still runs"
            server.kill()
            self.changed.wait_for(lambda: self.state != "stopping")
        return 0, f"{self.name} is stopped"

    def hold(self) -> tuple[int, str]:
        """Forbid starts until `release` or the next boot, and end a start attempt; a running server is left alone."""
        with self.changed:
            self.held = True
            self.changed.wait_for(lambda: self.state != "stopping")
            if self.state == "running":
                return 0, f"{self.name} is held; it runs and was left running"
            self.end()
            return 0, f"{self.name} is held and nothing of it runs"

    def release(self) -> tuple[int, str]:
        """Allow starts again; starts nothing."""
        with self.changed:
            self.held = False
            return 0, f"{self.name} is released"

    def reset_failed(self) -> tuple[int, str]:
        """Forget a failure: `failed` becomes `stopped`."""
        with self.changed:
            if self.state == "failed":
                self.become("stopped")
            return 0, f"{self.name} is {self.state}"

    def status(self) -> tuple[int, str]:
        """Describe in one line; exit codes as in the LSB and of systemctl: 0 runs, 3 does not (yet)."""
        with self.changed:
            detail = {
                "running": "pid {}".format(self.server.pid if self.server else "-"),
                "starting": f"attempt {self.attempt}",
                "retrying": f"attempt {self.attempt} ended with rc {self.last_rc}",
                "failed": f"rc {self.last_rc}",
            }.get(self.state)
            words = "{}: {}{}{}".format(
                self.name, self.state, f" ({detail})" if detail else "", ", held" if self.held else ""
            )
            return 0 if self.state == "running" else 3, words


def answer(connection: socket.socket, units: dict[str, Unit]) -> None:
    """Read one request, do it, answer."""
    with connection, connection.makefile("rw") as stream:
        verb, name = json.loads(stream.readline())
        try:
            rc, text = getattr(units[name], verb.replace("-", "_"))()
        except Exception as error:  # noqa: BLE001  # one broken request must not end the supervisor
            rc, text = 1, f"dbservice {verb} {name}: {error!r}"
        try:
            stream.write(json.dumps([rc, text]) + "\n")
            stream.flush()
        except BrokenPipeError:
            pass  # who asked has gone; what was asked is done


def main() -> None:
    """Serve until the machine dies."""
    os.makedirs("/run/db", exist_ok=True)
    os.chmod("/run/db", 0o1777)
    with open("/etc/lab/instances.json") as stream:
        configs = json.load(stream)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old_umask = os.umask(0o077)
    listener.bind(SOCKET)
    os.umask(old_umask)
    listener.listen(16)
    units = {config["name"]: Unit(config, autostart="--autostart" in sys.argv) for config in configs}
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer, args=(connection, units), daemon=True).start()


if __name__ == "__main__":
    main()
