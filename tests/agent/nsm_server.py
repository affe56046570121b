"""A network of its own with an NFS server's rpcbind and statd in it, and unlatch-notify run against that.

    unshare --net python nsm_server.py REQUEST.json

The server answers the two calls that the real sm-notify makes (RFC 1833: which port has statd; Network Lock Manager
protocol: SM_NOTIFY), on 127.0.0.1, or not at all. The request: `directory` (statd's), `proc`, `scratch`, `path`,
`limit_s`, `check`, `answers` (whether the server does). Prints one JSON line: the command's answer or error, and what
the server heard as [name, state] each.
"""

from __future__ import annotations

import fcntl
import json
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "include"))

from unlatch_agent import notify
from unlatch_agent.errors import AgentError

RPCBIND_PORT, STATD_PORT = 111, 4045
PORTMAPPER, STATD = 100000, 100024
SET_FLAGS, INTERFACE_UP = 0x8914, 1
ACCEPTED = struct.pack(">IIIII", 1, 0, 0, 0, 0)  # a reply, accepted, no verifier, success


def body_of(call: bytes) -> tuple[bytes, int, int, bytes]:
    """Take a call apart: transaction, program, version and arguments."""
    _, _, program, version = struct.unpack_from(">IIII", call, 4)
    at = 24
    for _ in range(2):  # credentials and verifier
        (length,) = struct.unpack_from(">I", call, at + 4)
        at += 8 + (length + 3) // 4 * 4
    return call[:4], program, version, call[at:]


def rpcbind(server: socket.socket) -> None:
    """Tell where statd is, to callers of the portmapper's version 2 and of rpcbind's 3 and 4."""
    while True:
        call, caller = server.recvfrom(4096)
        transaction, _, version, _ = body_of(call)
        if version == 2:
            answer = struct.pack(">I", STATD_PORT)
        else:
            address = f"127.0.0.1.{STATD_PORT >> 8}.{STATD_PORT & 255}".encode()
            answer = struct.pack(">I", len(address)) + address.ljust((len(address) + 3) // 4 * 4, b"\0")
        server.sendto(transaction + ACCEPTED + answer, caller)


def statd(server: socket.socket, heard: list[list[object]]) -> None:
    """Acknowledge notifications and keep them."""
    while True:
        call, caller = server.recvfrom(4096)
        transaction, program, _, arguments = body_of(call)
        assert program == STATD
        (length,) = struct.unpack_from(">I", arguments)
        (state,) = struct.unpack_from(">i", arguments, 4 + (length + 3) // 4 * 4)
        heard.append([arguments[4 : 4 + length].decode(), state])
        server.sendto(transaction + ACCEPTED, caller)


def serve(heard: list[list[object]]) -> None:
    """Start both."""
    for port, work in ((RPCBIND_PORT, rpcbind), (STATD_PORT, lambda server: statd(server, heard))):
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("127.0.0.1", port))
        threading.Thread(target=work, args=(server,), daemon=True).start()


def main() -> None:
    """See the module."""
    request = json.loads(Path(sys.argv[1]).read_text())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SET_FLAGS, struct.pack("16sh14x", b"lo", INTERFACE_UP))
    heard: list[list[object]] = []
    if request["answers"]:
        serve(heard)
    places = notify.Places(request["proc"], [request["directory"]], request["scratch"], request["path"])
    started = None
    if "first" in request:  # the sm-notify of the boot, which is still trying
        started = subprocess.Popen(request["first"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while Path(f"/proc/{started.pid}/comm").read_text().strip() != "sm-notify":
            time.sleep(0.01)
    try:
        answer = notify.run(request["check"], places, request["limit_s"])
    except AgentError as error:
        answer = {"error": error}
    if started is not None:
        answer["first"] = [started.pid, started.wait()]
    if isinstance(answer.get("error"), AgentError):
        answer["error"] = [answer["error"].code, answer["error"].exit_code, answer["error"].message]
    print(json.dumps({"answer": answer, "heard": heard}))


if __name__ == "__main__":
    main()
