"""The journal of the host's systemd: scopes of guests, systemd-machined, systemd-oomd, systemd-coredump, coredumpctl.

`Machine qemu-4-fc32 terminated` is said at every end of a guest: a sign only. A core dump of qemu, or the killing of
its scope, is a crash. None of them proves a death: a guest that migrated away lives on elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from unlatch.crash_sources._format import LineFormat, Memory, Said, unnamed
from unlatch.crash_sources._lines import Line, compiled
from unlatch.crash_sources._qemu import (
    KVM_COMMAND,
    XEN_COMMAND,
    domain_of_command,
    domain_of_scope,
    killed_by,
    machine_domain,
    signal_number,
)
from unlatch.models import DomainChange

_MACHINE = compiled(r"(?:Machine (qemu-\S{1,255}) terminated\.|New machine (qemu-\S{1,255}?)\.$)")
_SCOPE_KILLED = compiled(
    r"(\S{1,300}\.scope): (?:A process of this unit has been killed by the OOM killer\."
    r"|Failed with result 'oom-kill'\.)"
)
_PROXMOX = compiled(r"(\d{3,9})\.scope")
_OOMD = compiled(r"Killed (/\S{1,600}\.scope) due to ")
_DUMPED = compiled(
    rf"(?:Message: )?Process (\d{{1,10}}) \(({KVM_COMMAND}|{XEN_COMMAND})\) of user \d{{1,10}} dumped core\."
)
_DETAIL = compiled(r"(Signal|Command Line|Control Group|Unit): (.{1,3000})")
_IS_XEN = compiled(XEN_COMMAND)
_SYSTEMD = frozenset({"", "systemd", "systemd-machined", "systemd-oomd", "systemd-coredump"})


def _meaning(line: Line, memory: Memory, _path: PurePosixPath) -> Iterator[Said]:
    if line.program not in _SYSTEMD:
        return
    text = line.message
    if found := _MACHINE.match(text):
        ended = found[1] is not None
        change = DomainChange.SUSPECTED if ended else DomainChange.CREATED
        yield Said(change, machine_domain(found[1] or found[2]), cause="its scope ended" if ended else None)
    elif found := _SCOPE_KILLED.match(text):
        plain = _PROXMOX.fullmatch(found[1])
        domain = plain[1] if plain else domain_of_scope(found[1])
        if domain:
            yield Said(DomainChange.DOWN, domain, signal=9, cause="qemu killed: the host was out of memory")
    elif found := _OOMD.match(text):
        if domain := domain_of_scope(found[1]):
            yield Said(DomainChange.DOWN, domain, signal=9, cause="qemu killed by systemd-oomd: memory")
    elif found := _DUMPED.match(text):
        yield _dumped(found[1], found[2], line, memory)
    elif not line.program and line.at is None:
        _learn(text, memory)


def _dumped(pid: str, command: str, line: Line, memory: Memory) -> Said:
    """Names and signal stand in the journal's fields, or in the lines before it that coredumpctl prints."""
    fields = {key: str(value) for key, value in line.fields.items() if key.startswith("COREDUMP_")}
    by = signal_number(fields.get("COREDUMP_SIGNAL") or (memory.drop("core", "Signal") or "").split(" ")[0])
    started = fields.get("COREDUMP_CMDLINE") or memory.drop("core", "Command Line") or ""
    scope = fields.get("COREDUMP_CGROUP") or memory.drop("core", "Control Group") or memory.drop("core", "Unit") or ""
    name = domain_of_scope(scope) or domain_of_command(started) or unnamed(f"{command}[{pid}]")
    change = DomainChange.DEVICE_MODEL_DIED if _IS_XEN.fullmatch(command) else DomainChange.DOWN
    return Said(change, name, signal=by, cause=killed_by(by))


def _learn(text: str, memory: Memory) -> None:
    if found := _DETAIL.match(text):
        memory.keep("core", found[1], found[2])


PLUGIN = LineFormat(
    "systemd",
    _meaning,
    (
        ".scope: A process of this unit has been killed",
        ".scope: Failed with result 'oom-kill'",
        ".scope due to ",
        "Machine qemu-",
        "New machine qemu-",
        "dumped core",
        "Signal: ",
        "Command Line: ",
        "Control Group: ",
        "Unit: ",
    ),
)
