"""Pacemaker's fencing results, where a cluster's nodes are the guests: domains are the names of nodes.

`Peer N was terminated (reboot) by D …: OK` is a completed fence, a proof of death. A fence that was only scheduled is a
sign; one that failed leaves a node that may be alive; one that a human confirmed by hand is that human's word, no
proof.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from unlatch.crash_sources._format import LineFormat, Memory, Said
from unlatch.crash_sources._lines import Line, compiled
from unlatch.models import DomainChange

_LEVEL = r"(?:(?:notice|warning|error|info): )?(?:\w{1,60}: )?"
_NODE = r"([A-Za-z0-9][\w.-]{0,254})"
_PEER = compiled(
    rf"\s{{0,4}}{_LEVEL}\s{{0,4}}Peer {_NODE} was (not )?terminated \((reboot|off|on)\) by (.{{1,255}}?) "
    r"(?:on behalf of|for) (.{1,255}?): (.{1,80})"
)
_OPERATION = compiled(
    rf"\s{{0,4}}{_LEVEL}\s{{0,4}}Operation '?(reboot|off|on)'? (?:of|targeting) {_NODE} by (\S{{1,255}}) "
    r"for (\S{1,255}): (.{1,80})"
)
_NOBODY = compiled(rf"\s{{0,4}}{_LEVEL}\s{{0,4}}Couldn't find anyone to fence \(\w{{1,10}}\) {_NODE} with any device")
_SCHEDULED = compiled(
    rf"\s{{0,4}}{_LEVEL}\s{{0,4}}(?:Scheduling Node {_NODE} for STONITH|Cluster node {_NODE} will be fenced:"
    rf"|\* Fence \((?:reboot|off)\) {_NODE} ')"
)
_MEMBER = compiled(rf"\s{{0,4}}{_LEVEL}\s{{0,4}}Node {_NODE} state is now member\b")
_PROGRAMS = ("crmd", "pacemaker", "stonith", "pengine", "attrd")


def _meaning(line: Line, _memory: Memory, _path: PurePosixPath) -> Iterator[Said]:
    if line.program and not line.program.startswith(_PROGRAMS) and line.program not in {"notice", "warning", "error"}:
        return
    text = line.message[:2000]
    if found := _PEER.match(text):
        done = not found[2] and found[6].startswith("OK")
        yield from _result(found[1], found[3], done=done, by_human="human" in found[4])
    elif found := _OPERATION.match(text):
        yield from _result(found[2], found[1], done=found[5].startswith("OK"), by_human="human" in found[3])
    elif found := _NOBODY.match(text):
        yield Said(DomainChange.DESTROY_FAILED, found[1])
    elif found := _SCHEDULED.match(text):
        yield Said(DomainChange.SUSPECTED, found[1] or found[2] or found[3], cause="the cluster wants to fence it")
    elif found := _MEMBER.match(text):
        yield Said(DomainChange.CREATED, found[1])


def _result(node: str, action: str, *, done: bool, by_human: bool) -> Iterator[Said]:
    if action == "on":
        return
    if not done:
        yield Said(DomainChange.DESTROY_FAILED, node)
    elif by_human:
        yield Said(DomainChange.DOWN, node, cause="a person confirmed its fencing")
    else:
        yield Said(DomainChange.CRASHED, node, cause="fenced")


PLUGIN = LineFormat(
    "pacemaker",
    _meaning,
    (
        "terminated (",
        "Operation reboot",
        "Operation off",
        "Operation '",
        "Couldn't find anyone",
        " for STONITH",
        "will be fenced",
        "Fence (",
        "state is now member",
    ),
    tells_of_other_hosts=True,
)
