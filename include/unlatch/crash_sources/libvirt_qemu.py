"""libvirt's log of one qemu domain (`/var/log/libvirt/qemu/<domain>.log`).

libvirt writes the reason of each end: `crashed` (the monitor closed without a word of a shutdown), `destroyed`,
`shutdown`, `migrated` (alive elsewhere), `saved`, `failed` (it never ran, or a migration to here did not succeed: that
proves nothing). Everything else is qemu's standard error, which has no stamps.

`KVM: entry failed` and its like stop the guest's processors for good, but qemu stays and holds what it held.
The domain is the file's name.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from unlatch.crash_sources._format import LineFormat, Memory, Said, unnamed
from unlatch.crash_sources._lines import Line, compiled
from unlatch.crash_sources._qemu import domain_of_command
from unlatch.models import DomainChange

_END = compiled(r"(?:shutting down, reason=([a-z-]{1,20})|reason=(crashed))\s*$")
_START = compiled(r"starting up libvirt version")
_FAILED = compiled(r"(?:error: )?(?:KVM: entry failed, hardware error|kvm run failed|KVM internal error\. Suberror: )")
_ASSERTION = compiled(r"(?:qemu[\w.-]{0,40}: )?\S{1,300}:\d{1,7}: [^:]{1,300}: Assertion `")
_FILE = compiled(r"(.{1,255}?)\.log(?:[.-]\d{1,8})?")
_REASONS = {
    "crashed": DomainChange.CRASHED,
    "destroyed": DomainChange.DESTROYED,
    "shutdown": DomainChange.SHUT_DOWN,
    "migrated": DomainChange.MIGRATED,
    "saved": DomainChange.MIGRATED,  # it may be restored anywhere
    "from-snapshot": DomainChange.REBOOTED,
}


def _meaning(line: Line, memory: Memory, path: PurePosixPath) -> Iterator[Said]:
    if line.program and not line.program.startswith(("qemu", "kvm")):
        return  # another program's line in a journal
    text = line.message
    if (found := _END.match(text)) and not line.program:
        change = _REASONS.get(found[1] or found[2])
        cause = memory.drop("cause") or "domain crashed"
        if change is not None:
            yield Said(change, _name(memory, path), cause=cause if change is DomainChange.CRASHED else None)
    elif _START.match(text):
        memory.drop("cause")
        memory.drop("name")
        yield Said(DomainChange.CREATED, _name(memory, path))
    elif _FAILED.match(text):
        memory.keep("cause", "", "the guest's processors stopped: KVM failed")
        yield Said(DomainChange.DOWN, _name(memory, path), cause="the guest's processors stopped: KVM failed")
    elif _ASSERTION.match(text) or (line.program and "Assertion `" in text):
        memory.keep("cause", "", "qemu failed an assertion")
    elif "-name" in text and (name := domain_of_command(text)):
        memory.keep("name", "", name)


def _name(memory: Memory, path: PurePosixPath) -> str:
    if path.parent.name == "qemu" and (found := _FILE.fullmatch(path.name)):
        return found[1]
    return memory.get("name") or unnamed("qemu")


PLUGIN = LineFormat(
    "libvirt_qemu",
    _meaning,
    (
        "shutting down, reason=",
        "reason=crashed",
        "starting up libvirt",
        "KVM: entry failed",
        "kvm run failed",
        "KVM internal error",
        "Assertion `",
        "-name ",
        "-name\0",
    ),
)
