"""libvirt's records in the audit of the host (`VIRT_CONTROL`), from audit.log, ausearch or the journal.

The one record with domain, reason and result in one line. `op=stop reason=failed` is libvirt's word for a qemu that
went without a shutdown. The same word ends a migration to here that did not succeed, while the guest lives on where it
was: so it is a crash only when the domain did not arrive lately by migration, and never a proof.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import PurePosixPath

from unlatch.crash_sources._format import LineFormat, Memory, Said
from unlatch.crash_sources._lines import Line, compiled
from unlatch.models import DomainChange

_CONTROL = compiled(r"VIRT_CONTROL\s")
_OPERATION = compiled(r"\bvirt=(?:kvm|qemu)\s+op=(start|stop)\s+reason=([a-z-]{1,20})\s")
_VM = compiled(r"\bvm=(?:\"([^\"]{1,255})\"|([^\s\"]{1,255}))")
_RESULT = compiled(r"\bres=(success|failed)")
_ARRIVING = timedelta(hours=6)
_STOPS = {
    "shutdown": DomainChange.SHUT_DOWN,
    "destroyed": DomainChange.DESTROYED,
    "migrated": DomainChange.MIGRATED,
    "saved": DomainChange.MIGRATED,
    "crashed": DomainChange.CRASHED,
    "failed": DomainChange.DOWN,
}


def _meaning(line: Line, memory: Memory, _path: PurePosixPath) -> Iterator[Said]:
    if line.program and not line.program.startswith("audit"):
        return  # someone's words about it
    text = line.message
    control, found, vm = _CONTROL.search(text[:200]), _OPERATION.search(text), _VM.search(text)
    result = _RESULT.search(text)
    if not (control and found and vm) or (result and result[1] == "failed"):
        return
    name, when = vm[1] or vm[2], line.at.isoformat() if line.at else ""
    if found[1] == "start":
        memory.drop("arriving", name)
        if found[2] == "migrated":
            memory.keep("arriving", name, when)
        yield Said(DomainChange.CREATED, name)
        return
    change = _STOPS.get(found[2])
    if change is DomainChange.DOWN and _is_arriving(memory.get("arriving", name), line.at):
        change = DomainChange.SUSPECTED
    if change is not None:
        crash = change in {DomainChange.CRASHED, DomainChange.DOWN, DomainChange.SUSPECTED}
        yield Said(change, name, cause="qemu ended without a shutdown" if crash else None)


def _is_arriving(since: str | None, now: datetime | None) -> bool:
    if since is None:
        return False
    return not since or now is None or now - datetime.fromisoformat(since) < _ARRIVING


PLUGIN = LineFormat("audit", _meaning, ("VIRT_CONTROL",))
