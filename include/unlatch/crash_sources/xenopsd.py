"""xensource.log of XenServer and XCP-ng, as far as it is about the end of domains.

`EPOLL error on domain-202` is a dead qemu. The domain stays (xenopsd does not destroy it), so that is a sign, no death.
xenopsd names a domain by its number, sometimes with the uuid of its VM; the number is what lines share.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from unlatch.crash_sources._format import LineFormat, Memory, Said, unnamed
from unlatch.crash_sources._lines import Line, compiled
from unlatch.models import DomainChange

_UUID = r"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"
_TAG = compiled(r"\[[^\]]{1,300}\] ")
_EPOLL = compiled(r"EPOLL error on domain-(\d{1,10}), close QMP socket")
_KNOWN = compiled(rf"VM = {_UUID}; domid = (\d{{1,10}})")


def _meaning(line: Line, memory: Memory, _path: PurePosixPath) -> Iterator[Said]:
    if not line.program.startswith("xenopsd"):
        return
    tag = _TAG.match(line.message)
    text = line.message[tag.end() :] if tag else line.message
    if found := _KNOWN.match(text):
        memory.keep("names", found[2], found[1])
    elif found := _EPOLL.match(text):
        name = memory.get("names", found[1]) or unnamed(f"domain {found[1]}")
        yield Said(DomainChange.DEVICE_MODEL_DIED, name, int(found[1]))


PLUGIN = LineFormat("xenopsd", _meaning, ("EPOLL error", "; domid = "))
