"""The shim of Kata Containers, where a pod's sandbox is a guest: its own lines, or the journal of containerd.

`QEMU exited with an error` with a fault of qemu's own (segmentation fault, abort) is a crash of the sandbox. Killed, or
gone with a status, it is a sign only: the shim kills the qemu of a sandbox that is to stop, and qemu that cannot start
ends with a status. The domain is the sandbox's id.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from unlatch.crash_sources._format import LineFormat, Memory, Said
from unlatch.crash_sources._lines import Line, compiled
from unlatch.crash_sources._qemu import killed_by, signal_number
from unlatch.models import DomainChange

_EXITED = compiled(
    r'msg="QEMU exited with an error" error="(?:signal: ([a-z/ -]{1,40}?)(?: \(core dumped\))?|exit status \d{1,3})"'
)
_SANDBOX = compiled(r"\bsandbox=\"?([\w.-]{1,128})")
_FAULTS = frozenset({"segmentation fault", "aborted", "bus error", "illegal instruction"})
_PROGRAMS = ("kata", "containerd", "crio")


def _meaning(line: Line, _memory: Memory, _path: PurePosixPath) -> Iterator[Said]:
    if line.program and not line.program.startswith(_PROGRAMS):
        return
    text = line.message[:4000]
    found, sandbox = _EXITED.search(text), _SANDBOX.search(text)
    if not (found and sandbox) or "subsystem=qemu" not in text:
        return
    by = signal_number(found[1]) if found[1] else None
    change = DomainChange.DOWN if found[1] in _FAULTS else DomainChange.SUSPECTED
    yield Said(change, sandbox[1], signal=by, cause=killed_by(by))


PLUGIN = LineFormat("kata", _meaning, ("QEMU exited with an error",))
