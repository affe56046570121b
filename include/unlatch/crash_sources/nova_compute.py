"""nova-compute.log of OpenStack: instances by their uuid.

nova compares what it wants with what runs. `Instance shutdown by itself` with power state 6 is a crash; with 4 the
guest may as well have switched itself off in good order, so it is a sign only, like `VM Stopped`. nova proves no death.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from unlatch.crash_sources._format import LineFormat, Memory, Said
from unlatch.crash_sources._lines import Line, compiled
from unlatch.models import DomainChange

_INSTANCE = compiled(r"\[instance: ([0-9a-f-]{36})\] ")
_BY_ITSELF = compiled(
    r"Instance shutdown by itself\. Calling the \S{1,40}(?: API)?\. Current vm_state: (\w{1,20}), "
    r"current task_state: (\w{1,40}),.{0,120}?current VM power_state: (\d)"
)
_LIFECYCLE = compiled(r"VM (Started|Stopped) \(Lifecycle Event\)")
_CRASHED_STATE = "6"


def _meaning(line: Line, _memory: Memory, _path: PurePosixPath) -> Iterator[Said]:
    found = _INSTANCE.search(line.message[:600])
    if not found or "nova." not in line.message[: found.start()]:
        return
    text, name = line.message[found.end() :], found[1]
    if by_itself := _BY_ITSELF.match(text):
        crashed = by_itself[3] == _CRASHED_STATE
        change = DomainChange.DOWN if crashed else DomainChange.SUSPECTED
        yield Said(
            change, name, cause="the instance crashed" if crashed else "the instance is off, and nobody asked for it"
        )
    elif event := _LIFECYCLE.match(text):
        started = event[1] == "Started"
        change = DomainChange.CREATED if started else DomainChange.SUSPECTED
        yield Said(change, name, cause=None if started else "the instance stopped")


PLUGIN = LineFormat("nova_compute", _meaning, ("Instance shutdown by itself", " (Lifecycle Event)"))
