"""virt-launcher of KubeVirt, as JSON lines or logfmt.

`Shutoff(5):Crashed(3)` is libvirt's word that qemu went without a shutdown; `Destroyed(2)` is what someone ordered. A
process that SIGKILL did not end may still run. The domain stands in the field `name`, else in the path of the pod's
log.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from unlatch.crash_sources._format import LineFormat, Memory, Said, unnamed
from unlatch.crash_sources._lines import Line, compiled
from unlatch.models import DomainChange

_STATUS = compiled(r"kubevirt domain status: (Shutoff|Running)\(\d\):(\w{1,30})\(\d{1,2}\)")
_LIFECYCLE = compiled(r'DomainLifecycle event Domain event="stopped" detail="(\w{1,20})"')
_REAPED = compiled(r"Reaped pid \d{1,10} with status (\d{1,3})$")
_UNKILLED = compiled(r"Failed to terminate process \d{1,10} with SIGKILL")
_POD = compiled(r"(?:^|[_/])virt-launcher-(.{1,200})-[a-z0-9]{5}(?:[_.]|$)")
_ENDS = {
    "crashed": DomainChange.CRASHED,
    "destroyed": DomainChange.DESTROYED,
    "shutdown": DomainChange.SHUT_DOWN,
    "migrated": DomainChange.MIGRATED,
    "saved": DomainChange.MIGRATED,
}


def _meaning(line: Line, memory: Memory, path: PurePosixPath) -> Iterator[Said]:
    if not line.program.startswith("virt-launcher"):
        return
    text, name = line.message[:4000], _name(line, memory, path)
    if found := _STATUS.search(text):
        if found[1] == "Running":
            yield Said(DomainChange.CREATED, name)
        elif change := _ENDS.get(found[2].lower()):
            yield Said(change, name, cause=_why(memory) if change is DomainChange.CRASHED else None)
    elif found := _LIFECYCLE.search(text):
        if change := _ENDS.get(found[1]):
            yield Said(change, name, cause=_why(memory) if change is DomainChange.CRASHED else None)
        elif found[1] == "failed":
            yield Said(DomainChange.SUSPECTED, name, cause="the domain failed")
    elif (found := _REAPED.search(text)) and found[1] != "0":
        memory.keep("reaped", "", found[1])
    elif _UNKILLED.search(text):
        yield Said(DomainChange.DESTROY_FAILED, name)


def _why(memory: Memory) -> str:
    return f"qemu ended with status {status}" if (status := memory.get("reaped")) else "domain crashed"


def _name(line: Line, memory: Memory, path: PurePosixPath) -> str:
    given = line.fields.get("name")
    if isinstance(given, str) and given and given != "containerd-shim-v2":
        memory.keep("name", "", given)
        return given
    pod = _POD.search(str(path)[:1000])
    return pod[1] if pod else memory.get("name") or unnamed("qemu")


PLUGIN = LineFormat(
    "kubevirt",
    _meaning,
    ("kubevirt domain status", "DomainLifecycle event", "Reaped pid", "Failed to terminate process"),
)
