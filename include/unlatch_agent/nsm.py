"""What statd keeps on disk: monitored hosts and the state number (nfs-utils, support/nsm/file.c). Pure."""

import re
import struct
from typing import List, NamedTuple, Optional

# Where statd keeps it: Debian's and Red Hat's place, and the one of old.
STATD_DIRECTORIES = ("/var/lib/nfs/statd", "/var/lib/nfs")
# A native int, as statd writes it; odd means "up".
_STATE = struct.Struct("@i")
_LARGEST = 0x7FFFFFFF
# Address, program, version, procedure, 16 private bytes, the host that is monitored, our name for ourselves.
_RECORD = re.compile(r"[0-9a-f]{8} [0-9a-f]{8} [0-9a-f]{8} [0-9a-f]{8} [0-9a-f]{32} (\S+) (\S+)")
# lockd on the loopback address (NLM 100021, version 3, procedure 16), as the kernel registers itself.
_LOCKD = "0100007f 000186b5 00000003 00000010"
_FILE_NAME = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9._:-]*")


class Record(NamedTuple):
    """One monitored host.

    Attributes:
        host: the other machine, under the name that it is notified by.
        own_name: the name that this machine calls itself by towards it.
    """

    host: str
    own_name: str


def parse_records(text: str) -> List[Record]:
    """Parse a file of ``sm`` or ``sm.bak``; lines that statd itself would not read are left out."""
    found = [_RECORD.fullmatch(line) for line in text.splitlines()]
    return [Record(match.group(1), match.group(2)) for match in found if match is not None]


def record_text(record: Record) -> str:
    """Write an entry for sm-notify alone.

    The private bytes, by which this host's kernel would know the entry again, are zero. So it must never be
    put where statd reads it: it would hide the kernel's own entry for the same host.
    """
    return "{} {} {} {}\n".format(_LOCKD, "0" * 32, record.host, record.own_name)


def can_name_a_file(host: str) -> bool:
    """Say whether statd's directories can have a file of this name."""
    return _FILE_NAME.fullmatch(host) is not None


def parse_state(content: bytes) -> Optional[int]:
    """Read the content of the state file; None when it is torn."""
    return _STATE.unpack(content)[0] if len(content) == _STATE.size else None


def state_bytes(number: int) -> bytes:
    """Write the content of the state file."""
    return _STATE.pack(number)


def next_state(*used: Optional[int], now_s: float) -> int:
    """Return an odd number above every one that was used, and never one that this host's earlier lives used.

    A server ignores a notification whose number it knows already. A host that was installed anew counts from
    1 again; the clock lifts it above all numbers of its earlier life.
    """
    following = [(number + 2) | 1 for number in used if number is not None and 0 <= number < _LARGEST - 1]
    return max([*following, min(int(now_s), _LARGEST) | 1, 1])


def same_host(one: str, other: str) -> bool:
    """Say whether two names can be one host's: equal, or one is the other without its domain."""
    if one.lower() == other.lower():
        return True
    shorter, longer = sorted((one.lower(), other.lower()), key=len)
    is_name = not re.fullmatch(r"[0-9.]+|.*:.*", shorter)
    return is_name and longer.startswith(shorter + ".")
