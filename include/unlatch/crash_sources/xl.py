"""What `xl create` writes while it waits for its domain (`xl-<domain>.log`, or a journal).

It says why a domain ended in Xen's own numbers: 0 poweroff, 1 reboot, 2 suspend, 3 crash, 4 watchdog, 5 soft reset.
2 is a domain that was saved or sent to another machine: what is destroyed here afterwards is only its shell.

xl's own file has no stamps, so its deaths have no time of their own: `CrashEvent.dated`. Where xl writes to syslog or
the journal they do.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from unlatch.crash_sources._format import LineFormat, Memory, Said, unnamed
from unlatch.crash_sources._lines import Line, compiled
from unlatch.crash_sources._qemu import signal_number
from unlatch.models import DomainChange

_WAITING = compiled(r"Waiting for domain (\S{1,255}) \(domid (\d{1,10})\) to die")
_ENDED = compiled(r"Domain (\d{1,10}) has shut down, reason code (\d{1,3}) ")
_CLEANED = compiled(r"Domain (\d{1,10}) (?:needs to be cleaned up: destroying the domain|has been destroyed\.)")
_MODEL = compiled(
    r"(?:libxl: error: \S{1,200} ?)?(?:Domain (\d{1,10}):|domain (\d{1,10})) ?device model \[\d{1,10}\] "
    r"(?:died due to fatal signal (.{1,60})|exited with error status \d{1,3})"
)
_FILE = compiled(r"xl-(.{1,255})\.log(?:\.\d{1,4})?")
_REASONS = {
    "0": (DomainChange.SHUT_DOWN, None),
    "1": (DomainChange.REBOOTED, None),
    "2": (DomainChange.MIGRATED, None),
    "3": (DomainChange.CRASHED, "domain crashed"),
    "4": (DomainChange.CRASHED, "the domain's watchdog ended it"),
    "5": (DomainChange.REBOOTED, None),
}


def _meaning(line: Line, memory: Memory, path: PurePosixPath) -> Iterator[Said]:
    text = line.message
    if found := _WAITING.match(text):
        memory.keep("names", found[2], found[1])
        memory.drop("ended", found[2])
        yield Said(DomainChange.CREATED, found[1], int(found[2]))
    elif found := _ENDED.match(text):
        change, cause = _REASONS.get(found[2], (None, None))
        if change is not None:
            memory.keep("ended", found[1], change)
            yield Said(change, _name(found[1], memory, path), int(found[1]), cause=cause)
    elif found := _CLEANED.match(text):
        # Only after a crash it adds anything. Alone it is what someone ordered, or the end of a migration.
        ended = memory.get("ended", found[1])
        if ended == DomainChange.CRASHED or (ended is None and memory.get("names", found[1])):
            yield Said(DomainChange.DESTROYED, _name(found[1], memory, path), int(found[1]))
    elif found := _MODEL.match(text):
        number = found[1] or found[2]
        by = signal_number((found[3] or "").strip())
        yield Said(DomainChange.DEVICE_MODEL_DIED, _name(number, memory, path), int(number), by)


def _name(number: str, memory: Memory, path: PurePosixPath) -> str:
    of_file = _FILE.fullmatch(path.name)
    return memory.get("names", number) or (of_file[1] if of_file else unnamed(f"domain {number}"))


PLUGIN = LineFormat(
    "xl",
    _meaning,
    ("Waiting for domain", "has shut down, reason", "needs to be cleaned up", "has been destroyed.", "device model ["),
)
