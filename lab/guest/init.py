"""PID 1 of a lab machine: start what /etc/lab/init.json lists, then collect orphans for ever."""

from __future__ import annotations

import json
import os
import signal
import subprocess


def claim_pid(pid: int, user: str, argv: list[str]) -> None:
    """Start a program under exactly this pid: the coincidence that makes a database's old pid file look valid."""
    with open("/proc/sys/kernel/ns_last_pid", "w") as stream:
        stream.write(str(pid - 1))
    claimed = subprocess.Popen(argv, user=user, group=user, extra_groups=[], cwd="/", stdin=subprocess.DEVNULL)
    if claimed.pid != pid:
        print(f"init: wanted pid {pid}, got {claimed.pid}", flush=True)


def main() -> None:
    """Run the machine until it is killed."""
    # The kernel gives PID 1 no default action for signals: a handler makes a polite shutdown possible.
    signal.signal(signal.SIGTERM, lambda _number, _frame: os._exit(0))
    os.environ.clear()
    os.environ.update(PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", LANG="C.UTF-8")
    for path, mode in (("/run/sshd", 0o755), ("/run/lock", 0o1777), ("/run/sudo", 0o711)):
        os.mkdir(path)
        os.chmod(path, mode)
    with open("/etc/lab/init.json") as stream:
        config = json.load(stream)
    # First of all, while nothing else of this boot can have taken the pid.
    if config.get("claim"):
        claim_pid(**config["claim"])
    # Daemons get pids well above those of the boot scripts, as after any real boot.
    with open("/proc/sys/kernel/ns_last_pid", "w") as stream:
        stream.write(str(max(300, config["claim"]["pid"] if config.get("claim") else 0)))
    for argv in config["daemons"]:
        subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True, cwd="/")
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            signal.pause()


if __name__ == "__main__":
    main()
