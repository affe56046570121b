"""Whether something listens at an address, seen from this worker."""

from __future__ import annotations

import socket

LIMIT_S = 5.0


def accepts(host: str, port: int) -> bool:
    """Whether a connection is taken there within a few seconds; it is closed at once, with nothing said."""
    try:
        socket.create_connection((host, port), timeout=LIMIT_S).close()
    except OSError:
        return False
    return True
