"""Does anything answer at the instance's address, seen from the worker, from the guest and from each peer?

Only what the worker sees can be `clear`; the others can add a veto: a server may be hidden from the worker by a
firewall, or listen inside the guest alone.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Iterator
from functools import partial

from unlatch.errors import UnlatchError
from unlatch.evidence._answers import Check, Finding, alive, clear, not_observed
from unlatch.evidence._servers import own_start_words, own_starts
from unlatch.in_parallel import in_parallel
from unlatch.ports import GuestView, Scene

LIMIT_S = 5.0

_NO_WAY = frozenset({errno.ENETUNREACH, errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})


def _look(scene: Scene) -> Finding:
    host, port = scene.instance.host, scene.instance.port
    errors = _from_here(host, port)
    if errors is None:
        return alive(f"{host}:{port} accepts connections")
    seen = in_parallel({name: partial(_answer, view, host, port) for name, view in _others(scene)})
    on = [name for name, answer in seen.items() if answer == "open"]
    if on == [scene.guest.name] and (starting := own_starts(scene)):
        return not_observed(own_start_words(starting), asked=seen)
    if on:
        return alive(f"{host}:{port} accepts connections, asked from {' and '.join(on)}", asked=seen)
    silent = next((error for error in errors if not isinstance(error, ConnectionRefusedError)), None)
    if silent is None:
        return clear(f"{host}:{port} refuses connections", asked=seen)
    return not_observed(f"{host}:{port} does not answer ({silent}): silence is no proof", asked=seen)


def _from_here(host: str, port: int) -> list[OSError] | None:
    """Why the worker cannot connect, for each address that the name has; None when it can.

    A worker without IPv6 has no way to such an address, which the name's IPv4 address then stands for.
    """
    errors, no_way = list[OSError](), list[OSError]()
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        return [error]
    for family, kind, protocol, _, address in addresses:
        try:
            with socket.socket(family, kind, protocol) as client:
                client.settimeout(LIMIT_S)
                client.connect(address)
        except OSError as error:
            is_no_way = family is socket.AF_INET6 and error.errno in _NO_WAY
            (no_way if is_no_way else errors).append(error)
        else:
            return None
    return errors or no_way or [OSError(f"{host} has no address")]


def _others(scene: Scene) -> Iterator[tuple[str, GuestView]]:
    """Who else is asked. On loopback a peer would only find itself: the check `peers` looks at that."""
    yield scene.guest.name, scene.agent
    if not _is_loopback(scene.instance.host):
        yield from ((peer.name, peer.agent) for peer in scene.peers or ())


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _answer(view: GuestView, host: str, port: int) -> str:
    """What one host sees; a host that cannot be asked has seen nothing, which other checks say."""
    try:
        return view.connects(host, port)
    except (UnlatchError, OSError) as error:
        return f"not asked: {error}"


PLUGIN = Check("port", _look)
