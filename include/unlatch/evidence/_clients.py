"""Whose is a client that a NAS names? Its words are compared with the guest and with the peers, never guessed at."""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from unlatch.in_parallel import in_parallel

LOOK_UP_LIMIT_S = 5.0

_SEPARATORS = re.compile(r"[\s/,;()]+")
_NO_HOST = re.compile(r"linux|nfsv?[\d.]*|tcp6?|udp6?|rdma|[0-9a-f-]{32,}|\d+", re.IGNORECASE)


class Whose(StrEnum):
    """To whom a client of the NAS belongs."""

    GUEST = "guest"
    OTHER = "other"
    UNSURE = "unsure"


@dataclass(frozen=True)
class Owner:
    """Whose a client is, and its name in a sentence (for `unsure`: why it cannot be told)."""

    whose: Whose
    words: str


@dataclass(frozen=True)
class Host:
    """What a machine is known by: first labels of its names in lower case, and addresses in one spelling."""

    names: frozenset[str]
    addresses: frozenset[str] = frozenset()


@dataclass(frozen=True)
class KnownHosts:
    """The guest and the peers. `also_called`: what the guest calls itself now, where that is another name."""

    guest: Host
    peers: Mapping[str, Host]
    also_called: frozenset[str] = frozenset()

    def owner(self, *, name: str | None = None, address: str | None = None, hint: str | None = None) -> Owner:
        """Whose a client is.

        Args:
            name: What the client calls itself, with its host name in it (NFSv4).
            address: Its address; a host name is taken for one.
            hint: The NAS's own id of the client: it counts when it is a name that is known, and else for nothing.
        """
        at = plain_address(address)
        told = host_names(name) | (frozenset() if at else host_names(address))
        known = told | host_names(hint)
        called = " at ".join(word for word in (name or None, at or address) if word) or hint or ""
        peers = [n for n, host in self.peers.items() if host.names & known or at in host.addresses]
        by_name = bool(self.guest.names & known)
        by_address = at in self.guest.addresses
        if peers and (by_name or by_address):
            return Owner(Whose.UNSURE, f"{called} can be the guest or {' or '.join(peers)}")
        if peers:
            return Owner(Whose.OTHER, _both(" or ".join(peers), called))
        if by_name or (by_address and not told):
            return Owner(Whose.GUEST, called)
        return self._stranger(told, at, called, by_address=by_address)

    def _stranger(self, told: frozenset[str], at: str | None, called: str, *, by_address: bool) -> Owner:
        if by_address:
            return Owner(Whose.UNSURE, f"{called} has the guest's address, but another name")
        if told & self.also_called:
            return Owner(
                Whose.UNSURE, f"{called} is what the guest calls itself now, but not its name in the inventory"
            )
        if told or (at and self.guest.addresses):
            return Owner(Whose.OTHER, f"{called}, which is not this guest")
        if at:
            return Owner(Whose.UNSURE, f"{called} may be the guest: its address is not known here")
        return Owner(Whose.UNSURE, f"it names the client only as {called}" if called else "it does not tell the client")


def _both(name: str, called: str) -> str:
    return called if name in called else f"{name} ({called})"


def plain_address(text: str | None) -> str | None:
    """An address in one spelling, without brackets, port and zone, IPv4 in IPv6 clothes as IPv4; None if it is none."""
    if not text:
        return None
    bare = text.strip()
    bracketed = re.fullmatch(r"\[([^]]*)](?::\d+)?", bare)
    ported = re.fullmatch(r"(\d+\.\d+\.\d+\.\d+):\d+", bare)
    bare = bracketed.group(1) if bracketed else ported.group(1) if ported else bare
    try:
        found = ipaddress.ip_address(bare.split("%", maxsplit=1)[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)


def host_names(text: str | None) -> frozenset[str]:
    """The host names in a client's words, such as `Linux NFSv4.2 dbvrtg4037.cern.ch`: first labels, lower case."""
    words = [word for word in _SEPARATORS.split(text or "") if word and not plain_address(word)]
    return frozenset(word.lower().split(".", maxsplit=1)[0] for word in words if not _NO_HOST.fullmatch(word))


def addresses_of(hosts: Iterable[str]) -> frozenset[str]:
    """The addresses of hosts that may be names; none for a name that is not known, or that nobody answers for in time.

    Loopback is left out: behind a forwarded port every machine has it.
    """
    found = in_parallel({host: partial(_addresses, host) for host in hosts})
    return frozenset(text for texts in found.values() for text in texts if _tells_machines_apart(text))


def _addresses(host: str) -> set[str]:
    at = plain_address(host)
    return {at} if at else _looked_up(host)


def _tells_machines_apart(text: str) -> bool:
    address = ipaddress.ip_address(text)
    return not (address.is_loopback or address.is_unspecified or address.is_link_local)


def _looked_up(host: str) -> set[str]:
    """The look-up has no time limit of its own, so it happens in a thread that is left behind when it hangs."""
    found: set[str] = set()

    def look_up() -> None:
        try:
            answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return
        found.update(filter(None, (plain_address(str(answer[4][0])) for answer in answers)))

    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(LOOK_UP_LIMIT_S)
    return set(found)
