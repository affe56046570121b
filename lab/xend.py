"""Lines of a hypervisor's xend.log, as they were in 2014, with current time stamps."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

PREFIX_NUMBER = 2130
"""Oracle VM puts a number before the guest's name: 2130_dbvrtg4037."""
XEND_PID = 4572


@dataclass(frozen=True)
class XendLog:
    """The log of one hypervisor.

    Attributes:
        path: Its file, on the host.
        timezone: Zone of its time stamps, which carry none themselves.
        guest: Name of the guest that the lines are about.
    """

    path: Path
    timezone: str
    guest: str

    @property
    def domain(self) -> str:
        """The guest's domain name."""
        return f"{PREFIX_NUMBER}_{self.guest}"

    def append(self, *lines: str, at: datetime | None = None) -> None:
        """Append lines as xend does, each with a time stamp (`at`, an aware datetime, or now)."""
        zone = ZoneInfo(self.timezone)
        stamp = (at or datetime.now(zone)).astimezone(zone).strftime("%Y-%m-%d %H:%M:%S")
        with self.path.open("a") as stream:
            stream.write("".join(f"[{stamp} {XEND_PID}] {line}\n" for line in lines))

    def crashed(self, domain_id: int, device_model_pid: int, at: datetime) -> None:
        """Write that the guest's device model died, the domain crashed and xend destroys it."""
        log_name = f"/var/log/xen/qemu-dm-{self.domain}.log"
        self.append(
            f"WARNING (image:490) domain {self.domain}: device model failure: pid {device_model_pid}: "
            f"died due to signal 11; see {log_name} ",
            f"WARNING (XendDomainInfo:1907) Domain has crashed: name={self.domain} id={domain_id}.",
            f"DEBUG (XendDomainInfo:2732) XendDomainInfo.destroy: domid={domain_id}",
            f"DEBUG (XendDomainInfo:2753) XendDomainInfo.destroyDomain({domain_id})",
            at=at,
        )

    def started(self, domain_id: int) -> None:
        """Write that xend builds the domain anew and lets it run."""
        name, identity = self.domain, uuid.uuid5(uuid.NAMESPACE_DNS, self.domain)
        self.append(
            "DEBUG (XendDomainInfo:117) XendDomainInfo.create_from_dict({'vcpus_params': {'cap': 0, 'weight': 27500}, "
            f"'PV_args': '', 'memory_static_max': 4294967296, 'uuid': '{identity}', 'actions_after_crash': 'restart', "
            f"'on_xend_start': 'ignore', 'name_label': '{name}', 'VCPUs_max': 2, 'platform': {{'device_model': "
            "'/usr/lib/xen/bin/qemu-dm', 'localtime': 0}})",
            "DEBUG (XendDomainInfo:2327) XendDomainInfo.constructDomain",
            f"DEBUG (XendDomainInfo:2464) XendDomainInfo.initDomain: {domain_id} 256",
            f"INFO (XendDomain:1182) Domain {name} ({domain_id}) unpaused.",
        )

    def stopped(self, domain_id: int) -> None:
        """Write that the domain was shut down in an orderly way."""
        self.append(
            f"INFO (XendDomainInfo:1903) Domain has shutdown: name={self.domain} id={domain_id} reason=poweroff.",
            f"DEBUG (XendDomainInfo:2732) XendDomainInfo.destroy: domid={domain_id}",
        )
