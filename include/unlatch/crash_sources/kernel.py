r"""The kernel log of the host: qemu killed by a fault, for memory, or for a machine check.

The kernel knows processes, not domains. Which guest it was is known when the out-of-memory report names the scope
(`machine-qemu\x2d4\x2dfc32.scope`, `qemu.slice/143.scope`); else the event is about `?qemu-kvm[1385]`.

Under KVM the process is the guest: its end is a crash. It is no proof of death: a guest that was just migrated away
lives on where it went, which the kernel does not know. Xen's device models are signs only: a guest can outlive them. So
are memory errors that qemu may pass on to the guest, and warnings from one of its vhost threads. An oops in such a
thread takes a device from the guest for good, so it is a crash, while qemu stays and holds what it held. Any other oops
ends one task, and the machine goes on; when it does not, the kernel says that it panics.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from unlatch.crash_sources._format import LineFormat, Memory, Said, unnamed
from unlatch.crash_sources._lines import Line, compiled
from unlatch.crash_sources._qemu import KVM_COMMAND, XEN_COMMAND, domain_of_scope, killed_by
from unlatch.models import DomainChange

_THREAD = r"CPU \d{1,4}/(?:KVM|TCG)"
_FAULT = compiled(
    rf"(?:traps: )?({KVM_COMMAND}|{XEN_COMMAND}|{_THREAD})\[(\d{{1,10}})\]:? "
    r"(segfault at|general protection|trap [a-z ]{1,40}|bad frame|error )"
)
_KILLED = compiled(
    r"(?:(?:Memory cgroup out of memory|Out of memory)(?: \([a-z_]{1,40}\))?: )?"
    rf"Killed process (\d{{1,10}}),? ?(?:UID \d{{1,10}},? ?)?\(({KVM_COMMAND}|{XEN_COMMAND})\)"
)
_MACHINE_CHECK = compiled(
    r"(?:MCE|Memory failure)(?::? 0x[0-9a-f]{1,16})?: "
    rf"((?:forcibly )?[kK]illing|Sending SIGBUS to) ({KVM_COMMAND}|{XEN_COMMAND}|{_THREAD}):(\d{{1,10}})\b"
)
_OOM_TASK = compiled(r"oom-kill:\S{0,1000}?task_memcg=([^,]{1,600}),task=[^,]{1,60},pid=(\d{1,10})")
_OOPS = compiled(r"(?:BUG: unable to handle |Oops: |general protection fault)")
_TASK = compiled(r"CPU: \d{1,5} (?:UID: \d{1,10} )?PID: \d{1,10} Comm: (?:vhost-(\d{1,10}) )?")
_PANIC = compiled(r"Kernel panic - not syncing: ")
_IS_XEN = compiled(XEN_COMMAND)


def _meaning(line: Line, memory: Memory, _path: PurePosixPath) -> Iterator[Said]:
    if line.program not in {"", "kernel"}:
        return
    text = line.message[:4000]
    if found := _OOM_TASK.match(text):
        domain = domain_of_scope(found[1])
        if domain:
            memory.keep("scopes", found[2], domain)
    elif found := _FAULT.match(text):
        by = 11 if found[3] == "segfault at" else None
        yield _died(found[1], found[2], by, killed_by(by), memory)
    elif found := _KILLED.match(text):
        yield _died(found[2], found[1], 9, "qemu killed: the host was out of memory", memory)
    elif found := _MACHINE_CHECK.match(text):
        if found[1] == "forcibly killing":
            yield _died(found[2], found[3], 9, "qemu killed: machine check", memory)
        else:
            yield Said(DomainChange.SUSPECTED, _name(found[2], found[3], memory), cause="machine check in qemu")
    else:
        yield from _trouble_of_its_own(text, memory)


def _trouble_of_its_own(text: str, memory: Memory) -> Iterator[Said]:
    if _OOPS.match(text):
        memory.keep("oops", "")
    elif found := _TASK.match(text):  # whose trouble it is; also below warnings
        change = DomainChange.SUSPECTED if memory.drop("oops") is None else DomainChange.DOWN
        if found[1]:
            yield Said(change, _name("qemu", found[1], memory), cause="the host's kernel failed in vhost")
    elif _PANIC.match(text):
        yield Said(DomainChange.DOWN, unnamed("this machine"), cause="kernel panic")


def _died(command: str, pid: str, by: int | None, cause: str, memory: Memory) -> Said:
    change = DomainChange.DEVICE_MODEL_DIED if _IS_XEN.fullmatch(command) else DomainChange.DOWN
    return Said(change, _name(command, pid, memory), signal=by, cause=cause)


def _name(command: str, pid: str, memory: Memory) -> str:
    return memory.get("scopes", pid) or unnamed(f"{command}[{pid}]")


PLUGIN = LineFormat(
    "kernel",
    _meaning,
    (
        "segfault at",
        "traps: ",
        "Killed process",
        "oom-kill:",
        "MCE",
        "Memory failure",
        "BUG: unable",
        "Oops: ",
        "general protection",
        "Comm: ",
        "Kernel panic",
    ),
)
