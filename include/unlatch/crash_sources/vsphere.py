"""vSphere around the virtual machines: hostd.log, fdm.log (high availability), vpxd.log and events of vCenter.

Certain is what says that a guest ended: an unrecoverable error that vCenter reports, a reset by high availability, a
power-off that was not clean, a host that lost its power. Hosts that are `Dead` or unreachable for high availability may
be cut off only, with their guests alive: signs. None of them proves a death.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from unlatch.crash_sources._format import LineFormat, Memory, Said, unnamed
from unlatch.crash_sources._lines import Line, compiled
from unlatch.models import DomainChange

_POWER_LOST = compiled(
    r"Event \d{1,10} : Host had been powered off\. The power off was not the result of a kernel error"
)
_ERROR_ON = compiled(
    r"Error message on (.{1,255}?) on .{1,255}? in .{1,255}?: VMware ESX unrecoverable error: \((?!vmui\))[\w-]{1,40}\)"
)
_RESET = compiled(r"(?:Virtual machine )?(\S{1,255}) on \S{1,255} in cluster .{1,255}? reset by vSphere HA\b")
_POWER = compiled(
    r"\[VmStateChange::SavePowerChange\] vm (/.{1,600}?\.vmx) curPwrState=.{1,20}? curPowerOnCount=\d{1,6} "
    r"newPwrState=powered (on|off) clnPwrOff=(true|false)"
)
_RESTARTED = compiled(r"com\.vmware\.vc\.ha\.VmRestartedByHAEvent vm=(/.{1,600}?\.vmx)")
_HOST_STATE = compiled(
    r"(?:VC state for host (\S{1,60}) .{0,80}?FDM state \(\w{1,40} -> FDMUnreachable\)"
    r"|Host (\S{1,60}) changed state: Dead)"
)
_TRANSITION = compiled(r"vm:(/.{1,600}?\.vmx)\] State Transition \((VM_STATE_\w{1,40}) -> (VM_STATE_\w{1,40})\)")
_TRANSITIONS = {
    ("VM_STATE_ON", "VM_STATE_OFF"): (DomainChange.SUSPECTED, "it was switched off"),
    ("VM_STATE_POWERING_OFF", "VM_STATE_OFF"): (DomainChange.DESTROYED, None),
    ("VM_STATE_EMIGRATING", "VM_STATE_OFF"): (DomainChange.MIGRATED, None),
    ("VM_STATE_POWERING_ON", "VM_STATE_ON"): (DomainChange.CREATED, None),
}


def _meaning(line: Line, _memory: Memory, _path: PurePosixPath) -> Iterator[Said]:  # one branch per message
    text = line.message[:4000]
    if _POWER_LOST.search(text):
        yield Said(DomainChange.DOWN, unnamed("this machine"), cause="the host lost its power")
    elif found := _ERROR_ON.search(text):
        yield Said(DomainChange.DOWN, found[1], cause="vmx failed")
    elif found := _RESET.search(text):
        yield Said(DomainChange.DOWN, found[1], cause="high availability reset it")
    elif found := _POWER.search(text):
        yield from _power(found[1], found[2], clean=found[3] == "true")
    elif found := _RESTARTED.search(text):
        yield Said(DomainChange.SUSPECTED, _of_file(found[1]), cause="high availability restarted it elsewhere")
    elif found := _HOST_STATE.search(text):
        yield Said(DomainChange.SUSPECTED, unnamed(found[1] or found[2]), cause="the host is out of reach")
    elif found := _TRANSITION.search(text):
        change, cause = _TRANSITIONS.get((found[2], found[3]), (None, None))
        if change is not None:
            yield Said(change, _of_file(found[1]), cause=cause)


def _power(file: str, state: str, *, clean: bool) -> Iterator[Said]:
    name = _of_file(file)
    if clean:
        if state == "off":
            yield Said(DomainChange.SHUT_DOWN, name)
    elif state == "off":
        yield Said(DomainChange.DOWN, name, cause="its power-off was not clean")
    else:  # also how a new master learns of guests that simply run
        yield Said(DomainChange.SUSPECTED, name, cause="it was on when its host was seen again")


def _of_file(path: str) -> str:
    return PurePosixPath(path).stem


PLUGIN = LineFormat(
    "vsphere",
    _meaning,
    (
        "Host had been powered off",
        "unrecoverable error",
        "reset by vSphere HA",
        "SavePowerChange",
        "VmRestartedByHAEvent",
        "FDMUnreachable",
        "changed state: Dead",
        "State Transition (VM_STATE_",
    ),
    tells_of_other_hosts=True,
)
