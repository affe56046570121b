"""The NFS lab as Unlatch sees it: its inventory and its Airflow connections."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.nfs.nfs_hypervisor import GUEST, TIMEZONE, Hypervisor
from tests.nfs.nfs_lab import DATADIRS, EXPORT, MOUNTPOINT, UNITS, NfsLab
from tests.nfs.nfs_provision import DATABASE_LOGIN, DATABASE_PASSWORD, LOGIN, PORTS

STANDBY = "dbvrtg4038"
_ENGINES = {"voms": "mariadb", "alvmysql": "mariadb", "lxr": "postgresql"}
_USERS = {"voms": "mysql", "alvmysql": "mysql", "lxr": "postgres"}
_LOGS = {"voms": "/var/log/dbod/voms.err", "alvmysql": "/var/log/dbod/alvmysql.err", "lxr": "/tmp/lxr.log"}
_TABLES = {"voms": "audit", "alvmysql": "audit", "lxr": "audit"}
_SYSTEMCTL = ["sudo", "-n", "/usr/bin/systemctl"]


@dataclass
class Site:
    """One inventory for the lab.

    Attributes:
        peers: Other hosts that may mount the volume; None: the inventory does not say.
        clearer: The lock clearer, or None for a NAS that nobody may ask.
        policy: More of the inventory's `policy`.
        waive: Waivers by instance.
    """

    lab: NfsLab
    hypervisor: Hypervisor
    directory: Path
    peers: tuple[str, ...] | None = ()
    clearer: str | None = "linux_nfsd"
    policy: dict[str, Any] = field(default_factory=dict)
    waive: dict[str, list[dict[str, str]]] = field(default_factory=dict)

    @property
    def inventory_path(self) -> Path:
        """The inventory, written anew from the attributes."""
        path = self.directory / "inventory.yaml"
        path.write_text(yaml.safe_dump(self._inventory(), sort_keys=False))
        return path

    def connections(self) -> Mapping[str, Mapping[str, Any]]:
        """The Airflow connections, with every host key pinned."""
        lab = self.lab
        made: dict[str, Mapping[str, Any]] = {
            "unlatch_hv_hv01": json.loads(self.hypervisor.connection()),
            f"unlatch_guest_{GUEST}": self._ssh("client", lab.host_key("client")),
            "unlatch_nas_nas": self._ssh("nas", lab.host_key("nas")),
            # The second guest boots the same image, so it has the same host key, also before it is up.
            f"unlatch_guest_{STANDBY}": self._ssh("standby", lab.host_key("client")),
        }
        for name, engine in _ENGINES.items():
            made[f"unlatch_db_{name}"] = {
                "conn_type": "postgres" if engine == "postgresql" else "mysql",
                "host": lab.address("client"),
                "port": PORTS[name],
                "login": DATABASE_LOGIN,
                "password": DATABASE_PASSWORD,
                "schema": "lxr" if name == "lxr" else "voms",
                "extra": {},
            }
        return made

    def _ssh(self, machine: str, host_key: str) -> Mapping[str, Any]:
        return {
            "conn_type": "ssh",
            "host": self.lab.address(machine),
            "port": 22,
            "login": LOGIN,
            "extra": {
                "key_file": str(self.lab.key_file),
                "host_key": host_key,
                "no_host_key_check": False,
                "look_for_keys": "false",
                "conn_timeout": 20,
            },
        }

    def _inventory(self) -> dict[str, Any]:
        volume: dict[str, Any] = {"kind": "nfs", "path": MOUNTPOINT, "server": "nas", "nas": {"export": EXPORT}}
        if self.clearer is not None:
            volume["clearer"] = self.clearer
        if self.peers is not None:
            volume["peers"] = list(self.peers)
        guests = {GUEST: {"hypervisor": "hv01", "names": [rf"^\d+_{GUEST}$"], "approvers": ["admin"]}}
        guests |= {name: {"hypervisor": "hv01", "names": [rf"^\d+_{name}$"]} for name in self.peers or ()}
        return {
            "version": 1,
            "site": {"timezone": TIMEZONE, "country": "CH", "ticketing": "file"},
            # Emulated machines answer in seconds where real ones take fractions of one.
            "policy": {"max_event_age_s": 7200, "evidence_life_s": 900, **self.policy},
            "volumes": {"dbs03": volume},
            "hypervisors": {
                "hv01": {
                    "logs": [{"format": "xend", "path": str(self.hypervisor.xend.path), "timezone": TIMEZONE}],
                    "domains": [str(self.hypervisor.xl), "list"],
                }
            },
            "guests": guests,
            "instances": {name: self._instance(name) for name in UNITS},
        }

    def _instance(self, name: str) -> dict[str, Any]:
        unit = UNITS[name]
        return {
            "guest": GUEST,
            "engine": _ENGINES[name],
            "volume": "dbs03",
            "os_user": _USERS[name],
            "datadir": f"{MOUNTPOINT}/{DATADIRS[name]}",
            "host": self.lab.address("client"),
            "port": PORTS[name],
            "error_log": _LOGS[name],
            "login_conn_id": f"unlatch_db_{name}",
            "read_table": _TABLES[name],
            # As `{unit: …}` would have it, but for the status: the lab's guests run no D-Bus, without which an
            # ordinary user cannot ask systemd anything.
            "service": {
                "start": [*_SYSTEMCTL, "start", unit],
                "stop": [*_SYSTEMCTL, "stop", unit],
                "status": [*_SYSTEMCTL, "status", unit],
                "hold": [*_SYSTEMCTL, "mask", "--runtime", "--now", unit],
                "release": [*_SYSTEMCTL, "unmask", "--runtime", unit],
            },
            "waive": self.waive.get(name, []),
        }
