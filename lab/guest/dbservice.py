#!/usr/bin/python3 -I
"""Start, stop and hold the databases of this guest. Run as root.

Usage: dbservice start|stop|status|hold|release|reset-failed INSTANCE

start waits until the server accepts connections or has ended; on failure it prints the last lines of the error log.
hold ends a start attempt and forbids starts until release or the next boot; a server that runs is left running.
Exit codes: 0 done (status: runs), 1 failed, 2 usage, 3 does not run (yet), 5 no supervisor.
"""

from __future__ import annotations

import json
import socket
import sys
import time

SOCKET = "/run/dbservice.sock"
BOOT_GRACE_S = 10.0
VERBS = ("start", "stop", "status", "hold", "release", "reset-failed")


def connect(client: socket.socket) -> None:
    """Connect to the supervisor; right after a boot it may need a moment to be there."""
    deadline = time.monotonic() + BOOT_GRACE_S
    while True:
        try:
            client.connect(SOCKET)
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def main(argv: list[str]) -> int:
    """Pass the request to the supervisor and print its answer."""
    with open("/etc/lab/instances.json") as stream:
        names = [config["name"] for config in json.load(stream)]
    verb, name = argv if len(argv) == len(("verb", "instance")) else ("", "")
    if verb not in VERBS or name not in names:
        print(__doc__.strip() + "\nInstances: " + ", ".join(names), file=sys.stderr)
        return 2
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            connect(client)
        except PermissionError:
            print("dbservice: run it as root: sudo -n /usr/local/sbin/dbservice " + " ".join(argv), file=sys.stderr)
            return 5
        except OSError as error:
            print(f"dbservice: the supervisor does not answer on {SOCKET}: {error}", file=sys.stderr)
            return 5
        with client.makefile("rw") as stream:
            stream.write(json.dumps(argv) + "\n")
            stream.flush()
            line = stream.readline()
    if not line:
        print("dbservice: the supervisor ended without an answer", file=sys.stderr)
        return 5
    rc, text = json.loads(line)
    print(text, file=sys.stdout if rc in (0, 3) else sys.stderr)
    return int(rc)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
