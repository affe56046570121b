"""The journal of a Proxmox VE host: domains are called by their number, `143`.

What the kernel and systemd say of a guest's end there is in `kernel` and `systemd`; here is what is Proxmox's own:
qemu's words in the journal, orders to start, stop and migrate, and the recovery of a guest by high availability from a
node that was fenced. A guest agent that does not answer is no death.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from unlatch.crash_sources._format import LineFormat, Memory, Said, unnamed
from unlatch.crash_sources._lines import Line, compiled
from unlatch.models import DomainChange

_FAILED = compiled(r"(?:error: )?(?:KVM: entry failed, hardware error|kvm run failed|KVM internal error\. Suberror: )")
_TASK = compiled(r"<[^>]{1,100}> end task UPID:(?:[^:\s]{1,100}:){4}(qm[a-z]{3,12}|vzdump):(\d{3,9}):\S{1,100}: OK")
_RECOVERED = compiled(r"recover service 'vm:(\d{3,9})' from fenced node '\S{1,255}' to node '")
_TASKS = {
    "qmstart": DomainChange.CREATED,
    "qmshutdown": DomainChange.SHUT_DOWN,
    "qmreboot": DomainChange.REBOOTED,
    "qmstop": DomainChange.DESTROYED,
    "qmigrate": DomainChange.MIGRATED,
}


def _meaning(line: Line, _memory: Memory, _path: PurePosixPath) -> Iterator[Said]:
    text = line.message
    if line.program == "QEMU" and _FAILED.match(text):
        yield Said(DomainChange.DOWN, unnamed("qemu"), cause="the guest's processors stopped: KVM failed")
    elif line.program.startswith(("pvedaemon", "pveproxy", "pvesh", "pve-ha-lrm", "qm")) and (
        found := _TASK.match(text)
    ):
        change = _TASKS.get(found[1])
        if change is not None:
            yield Said(change, found[2])
    elif line.program == "pve-ha-crm" and (found := _RECOVERED.match(text)):
        yield Said(DomainChange.DOWN, found[1], cause="its node was fenced")


PLUGIN = LineFormat(
    "proxmox",
    _meaning,
    ("KVM: entry failed", "kvm run failed", "KVM internal error", "end task UPID:", "from fenced node"),
    tells_of_other_hosts=True,
)
