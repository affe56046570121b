"""oVirt and RHV: engine.log and vdsm.log.

`VM_DOWN_ERROR` with `Lost connection with qemu process` is a crash. Other exit messages of the same event are starts
and migrations that did not succeed: signs only. The engine judges from afar, and vdsm from a connection, so neither
proves a death. engine.log names guests, vdsm.log their ids. A guest that a whole engine follows is in nobody's log
twice: give the engine's log to one of the hypervisors.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from unlatch.crash_sources._format import LineFormat, Memory, Said
from unlatch.crash_sources._lines import Line, compiled
from unlatch.models import DomainChange

_EVENT = compiled(r"EVENT_ID: ([A-Z_]{3,60})\([\d,.]{1,12}\), ")
_VM = compiled(r"(?:Highly Available )?VM (\S{1,255}) (?:is down|failed|started on|was started by|\S{0,40})")
_LOST = compiled(r"Lost connection with qemu process|qemu exited|VM terminated with error")
_VDSM = compiled(r"\(vmId='([0-9a-f-]{36})'\) ")
_DOWN = compiled(r"Changed state to Down: (.{1,200}?) \(code=\d{1,3}\)")
_CRASH = DomainChange.DOWN
_VDSM_REASONS = {
    "Lost connection with qemu process": _CRASH,
    "User shut down from within the guest": DomainChange.SHUT_DOWN,
    "Admin shut down from the engine": DomainChange.SHUT_DOWN,
    "Migration succeeded": DomainChange.MIGRATED,
}
_CAUSE = "the connection to qemu was lost"


def _meaning(line: Line, memory: Memory, _path: PurePosixPath) -> Iterator[Said]:
    text = line.message
    if (found := _EVENT.search(text[:1000])) and (vm := _VM.search(text, found.end())):
        yield from _engine(found[1], vm[1].rstrip("."), text, memory)
    elif said := _VDSM.search(text[:600]):
        ended = _DOWN.match(text, said.end())
        if ended and (change := _VDSM_REASONS.get(ended[1])):
            yield Said(change, said[1], cause=_CAUSE if change is _CRASH else None)
        elif text.startswith("underlying process disconnected", said.end()):
            yield Said(DomainChange.SUSPECTED, said[1], cause=_CAUSE)
    elif text.startswith("Exit message: ") and (name := memory.drop("down")) and _LOST.search(text[:400]):
        yield Said(_CRASH, name, cause=_CAUSE)


def _engine(event: str, name: str, text: str, memory: Memory) -> Iterator[Said]:
    memory.drop("down")
    if event == "VM_DOWN_ERROR":
        if "Exit message:" not in text:
            memory.keep("down", "", name)  # the message is on the next line
        is_crash = _LOST.search(text[:4000]) is not None
        yield Said(
            _CRASH if is_crash else DomainChange.SUSPECTED, name, cause=_CAUSE if is_crash else "down with error"
        )
    elif event == "HA_VM_FAILED":
        yield Said(_CRASH, name, cause="the engine restarts it as highly available")
    elif event == "VM_DOWN":
        yield Said(DomainChange.SHUT_DOWN, name)
    elif event in {"USER_RUN_VM", "USER_STARTED_VM", "VDS_INITIATED_RUN_VM", "VM_RESTARTED_ON_HOST"}:
        yield Said(DomainChange.CREATED, name)


PLUGIN = LineFormat(
    "ovirt",
    _meaning,
    ("EVENT_ID: ", "Changed state to Down", "underlying process disconnected", "Exit message: "),
    continues=True,
    tells_of_other_hosts=True,
)
