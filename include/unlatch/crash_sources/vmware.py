"""vmware.log: what the process of one virtual machine (vmx) says of itself.

`unrecoverable error` of a virtual processor, the screen or vmx is the guest's end; of `vmui` it is only the window's.
The dying process cannot say that it is dead, so this is no proof. The domain is the name of the directory that the log
lies in.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from unlatch.crash_sources._format import LineFormat, Memory, Said, unnamed
from unlatch.crash_sources._lines import Line, compiled
from unlatch.models import DomainChange

_WHO = compiled(
    r"(?:\[[+-]\d{1,9}\.\d{1,9}\])?\|\s?([\w-]{1,40})\s?\|(?:\s?[\w+:]{1,8}:? ?\|?)?\s?[IEWA]?\d{0,3}[:+]? ?"
)
_UNRECOVERABLE = compiled(
    r"(?:\[msg\.log\.error\.unrecoverable\] )?VMware [A-Za-z ]{1,40} unrecoverable error: \(([\w-]{1,40})\)"
)
_PANIC = compiled(
    r"(?:PANIC: |Panic: |\[msg\.panic\.\w{1,40}\] )(?!monitor not available)(?:Unexpected signal: (\d{1,3}))?"
)
_EXIT = compiled(r"VMX (?:exit \(0\)|has left the building: 0)\.")
_LOG_BEGINS = compiled(r"Log for VMware \S{1,30} pid=\d{1,10} ")
_SCREEN = frozenset({"vmui", "vmplayer", "ui"})


def _meaning(line: Line, _memory: Memory, path: PurePosixPath) -> Iterator[Said]:
    if line.program:
        return
    who = _WHO.match(line.message)
    text = line.message[who.end() :] if who else line.message
    name = path.parent.name or unnamed("vmx")
    if who and who[1] in _SCREEN:
        return
    if found := _UNRECOVERABLE.match(text):
        if found[1] not in _SCREEN:
            yield Said(DomainChange.DOWN, name, cause=f"vmx failed in {found[1]}")
    elif found := _PANIC.match(text):
        yield Said(DomainChange.DOWN, name, signal=int(found[1]) if found[1] else None, cause="vmx panicked")
    elif _EXIT.match(text):
        yield Said(DomainChange.SHUT_DOWN, name)
    elif _LOG_BEGINS.match(text):
        yield Said(DomainChange.CREATED, name)


PLUGIN = LineFormat(
    "vmware",
    _meaning,
    ("unrecoverable error", "PANIC: ", "Panic: ", "msg.panic.", "VMX exit (0)", "VMX has left", "Log for VMware"),
)
