"""The console of the Xen hypervisor itself (`xl dmesg`, `hypervisor.log`).

It says with certainty that a domain crashed, and knows only its number. Which guest that is, it cannot say: events are
about `?domain 24`, and wait for the log of xend, xl or xenopsd. `domain_crash called` alone names no domain at all, and
is printed while the machine is shut down in good order too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from unlatch.crash_sources._format import LineFormat, Memory, Said, unnamed
from unlatch.crash_sources._lines import Line, compiled
from unlatch.models import DomainChange

_STAMP = r"(?:\[[\d\s:.-]{1,30}\] )?"
_CRASHED = compiled(
    rf"\s*\(XEN\)\s{{1,4}}{_STAMP}Domain (\d{{1,10}}) "
    r"(?:\(vcpu#\d{1,4}\) crashed|reported crashed by domain \d{1,10}) on cpu#\d{1,4}:"
)
_WHOLE = compiled(rf"\s*\(XEN\)\s{{1,4}}{_STAMP}(?:Hardware )?Dom(?:ain )?0 crashed:")


def _meaning(line: Line, _memory: Memory, _path: PurePosixPath) -> Iterator[Said]:
    if (found := _CRASHED.match(line.message)) and found[1] != "0":
        yield Said(DomainChange.CRASHED, unnamed(f"domain {found[1]}"), int(found[1]))
    elif found or _WHOLE.match(line.message):
        yield Said(DomainChange.DOWN, unnamed("domain 0"), 0, cause="the hypervisor's own domain crashed")


PLUGIN = LineFormat("xen_console", _meaning, (" crashed on cpu#", " reported crashed by domain ", " 0 crashed:"))
