"""What a Linux NFS server tells of its clients, exports and connections. Pure: texts in, values out.

The texts are those of /proc/fs/nfsd (kernel 5.3 and later), /var/lib/nfs/etab and /proc/net/tcp.
"""

import os
import re
import socket
import struct
from typing import Dict, List, NamedTuple, Optional

from unlatch_agent.proclocks import Inode

NFS_PORT = 2049
_ESTABLISHED = "01"
_CONNECTION_FIELDS = 4
_LINE = re.compile(r"([a-z][a-z ]*): (.*)", re.IGNORECASE)
_STATE = re.compile(r"- \S+: \{ type: (\w+), (.*) \}")
_SUPERBLOCK = re.compile(r'superblock: "([0-9a-f]+):([0-9a-f]+):(\d+)"')
_FILE = re.compile(r'filename: "(.*?)"(?:, owner: "| *$|, admin-revoked)')
# A courtesy client that a conflict has already sentenced; the laundromat has only not come by yet.
_COURTESY = ("courtesy", "expirable")


class Client(NamedTuple):
    """An NFSv4 client as its ``info`` file shows it.

    Attributes:
        address: without the port.
        status: ``confirmed``, ``courtesy`` (its lease is over, and nobody wanted its locks yet) or ``unconfirmed``.
        seconds_since_renewal: None where the kernel does not tell (before 5.17).
        version: ``4.0``, ``4.1`` or ``4.2``.
    """

    address: Optional[str]
    name: Optional[str]
    status: str
    seconds_since_renewal: Optional[int]
    version: Optional[str]


class State(NamedTuple):
    """One line of a client's ``states`` file.

    Attributes:
        kind: ``lock``, ``open``, ``deleg``, ``layout``.
        inode: None where the server has the file closed already.
        file: the last two parts of the file's path.
    """

    kind: str
    inode: Optional[Inode]
    file: Optional[str]


def _unquoted(text: str) -> str:
    """Undo the quotes of a value, and the hexadecimal escapes in it."""
    inner = text[1:-1] if text[:1] == '"' and text[-1:] == '"' and len(text) > 1 else text
    return re.sub(r"\\x([0-9a-f]{2})", lambda match: chr(int(match.group(1), 16)), inner)


def _without_port(address: str) -> str:
    """``10.77.0.37:885`` and ``[fe80::1]:885`` without the port; an IPv4 address in IPv6 clothes as IPv4."""
    host = address.rpartition(":")[0].strip("[]") or address
    return host[len("::ffff:") :] if host.startswith("::ffff:") and "." in host else host


def parse_info(text: str) -> Client:
    """Parse a client's ``info``."""
    values: Dict[str, str] = {}
    for line in text.splitlines():
        found = _LINE.fullmatch(line.strip())
        if found is not None:
            values.setdefault(found.group(1), found.group(2))
    renewed = values.get("seconds from last renew", "")
    minor = values.get("minor version")
    status = values.get("status", "unknown")
    address = _unquoted(values.get("address", ""))
    return Client(
        address=_without_port(address) if address else None,
        name=_unquoted(values["name"]) if "name" in values else None,
        status="courtesy" if status in _COURTESY else status,
        seconds_since_renewal=int(renewed) if re.fullmatch(r"-?\d+", renewed) else None,
        version="4.{}".format(minor) if minor is not None else None,
    )


def parse_states(text: str) -> List[State]:
    """Parse a client's ``states``; what an administrator revoked is left out."""
    found = []
    for line in text.splitlines():
        match = _STATE.fullmatch(line.strip())
        if match is None or "admin-revoked" in match.group(2).rpartition('"')[2]:
            continue
        block = _SUPERBLOCK.search(match.group(2))
        inode = None
        if block is not None:
            inode = (os.makedev(int(block.group(1), 16), int(block.group(2), 16)), int(block.group(3)))
        name = _FILE.search(match.group(2))
        found.append(State(match.group(1), inode, name.group(1) if name is not None else None))
    return found


def parse_exports(text: str) -> List[str]:
    """Return the exported directories of ``etab`` or /proc/fs/nfsd/exports, once each."""
    paths = [line.split()[0] for line in text.splitlines() if line.strip() and not line.startswith("#")]
    plain = [re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), path) for path in paths]
    return list(dict.fromkeys(path for path in plain if path.startswith("/")))


def is_exported(directory: str, exports: List[str]) -> bool:
    """Say whether clients can mount a directory: it is exported, or lies below a directory that is."""
    return any((directory + "/").startswith(export.rstrip("/") + "/") for export in exports)


def escaped(path: str) -> str:
    """Write a path as nfsd's control files read it: blanks, backslashes and the like as octal."""
    return "".join(
        char if char.isprintable() and char not in ' \\"' and ord(char) < 128 else _octal(char)  # noqa: PLR2004 (ASCII)
        for char in path
    )


def _octal(char: str) -> str:
    return "".join("\\{:03o}".format(byte) for byte in os.fsencode(char))


def parse_connections(text: str) -> List[str]:
    """Return the remote addresses of established connections to the NFS port, once each.

    Args:
        text: of /proc/net/tcp or /proc/net/tcp6.
    """
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < _CONNECTION_FIELDS or fields[3] != _ESTABLISHED:
            continue
        if int(fields[1].rpartition(":")[2], 16) == NFS_PORT:
            found.append(_address(fields[2].rpartition(":")[0]))
    return list(dict.fromkeys(found))


def _address(text: str) -> str:
    """Read an address: words of 32 bits in the machine's own byte order, each as eight hexadecimal digits."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    content = b"".join(struct.pack("=I", word) for word in words)
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    return _without_port(socket.inet_ntop(family, content) + ":0")
