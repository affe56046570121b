"""The journal of libvirtd (or virtqemud): signs only.

`End of file from qemu monitor` is printed at every end of a qemu, also an ordered one, so it is ambiguous alone. What
libvirtd makes of it stands in the domain's own log (`libvirt_qemu`) and in the host's audit (`audit`). A crash of
libvirtd itself is no guest's: qemu goes on without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from unlatch.crash_sources._format import LineFormat, Memory, Said, unnamed
from unlatch.crash_sources._lines import Line, compiled
from unlatch.models import DomainChange

_CLOSED = compiled(r"internal error: (?:End of file from qemu monitor|qemu unexpectedly closed the monitor)")
_UNKILLED = compiled(r"Failed to terminate process \d{1,10} with SIGKILL")
_NAMED = compiled(r"\(vm='([^']{1,255})'\)")


def _meaning(line: Line, _memory: Memory, _path: PurePosixPath) -> Iterator[Said]:
    if line.program not in {"libvirtd", "virtqemud"}:
        return
    named = _NAMED.search(line.message[:2000])
    name = named[1] if named else unnamed("qemu")
    if _CLOSED.search(line.message[:500]):
        yield Said(DomainChange.SUSPECTED, name, cause="qemu's monitor closed")
    elif _UNKILLED.search(line.message[:500]):
        yield Said(DomainChange.DESTROY_FAILED, name)


PLUGIN = LineFormat(
    "libvirtd",
    _meaning,
    ("unexpectedly closed the monitor", "End of file from qemu monitor", "Failed to terminate process"),
)
