"""connect: does anything answer on a TCP port, asked from this host?"""

import errno
import socket
from typing import List, Optional, Sequence, Tuple

from unlatch_agent import ioguard
from unlatch_agent.errors import HostError, Json

LIMIT_S = 3.0
# The look-up of a name has its own limit: resolvers try several servers.
_LOOK_UP_S = 10.0

_Address = Tuple[int, str]


def run(host: str, ports: Sequence[int]) -> Json:
    """Try to connect to each port; every connection that opens is closed again, nothing is sent.

    Returns:
        ``ports``: ``host``, ``port``, ``state``: ``open``, ``refused`` (that host says that nothing listens) or
        ``silent`` (no answer within 3 s, or no way there: this says nothing about a server).

    Raises:
        HostError: the name is not known here (``unknown_host``).
    """
    (looked_up,) = ioguard.each([host], lambda name, _: _addresses(name), _LOOK_UP_S)
    if looked_up.timed_out or not looked_up.value:
        raise HostError(
            "unknown_host",
            "{} has no address here".format(host),
            "name it by its address, or correct the name service of this host",
        )
    addresses = [(int(family), str(address)) for family, address in looked_up.value]
    found = []
    for port in ports:
        state, why = _asked(addresses, port)
        found.append({"host": host, "port": port, "state": state, "why": why})
    return {"ports": found}


def _addresses(host: str) -> List[_Address]:
    try:
        answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return list(dict.fromkeys((int(answer[0]), str(answer[4][0])) for answer in answers))


def _asked(addresses: Sequence[_Address], port: int) -> Tuple[str, Optional[str]]:
    """Ask every address of a host: one that opens decides; all must refuse before the host does."""
    reasons: List[str] = []
    refused = 0
    for family, address in addresses:
        try:
            with socket.socket(family, socket.SOCK_STREAM) as connection:
                connection.settimeout(LIMIT_S)
                connection.connect((address, port))
        except OSError as error:
            refused += error.errno == errno.ECONNREFUSED
            reasons.append("{}: {}".format(address, error.strerror or "no answer for {:g} s".format(LIMIT_S)))
        else:
            return "open", None
    return "refused" if refused == len(addresses) else "silent", "; ".join(reasons)
