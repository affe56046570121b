"""The lab as Unlatch sees it: its inventory file and its Airflow connections."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.instances import VOLUME_PATH, Instance
from lab.machine import Machine

GUEST = "dbvrtg4037"
HYPERVISOR = "hv01"
VOLUME = "dbs03"
TIMEZONE = "Europe/Zurich"
XEND_LOG = "/var/log/xen/xend.log"
SERVICE_VERBS = ("start", "stop", "status", "hold", "release")


def service_argv(verb: str, instance: str) -> list[str]:
    """Return the command that the guest's login runs for one verb of an instance's service."""
    return ["sudo", "-n", "/usr/local/sbin/dbservice", verb, instance]


def inventory(instances: Mapping[str, Instance]) -> dict[str, Any]:
    """Return the inventory document."""
    return {
        "version": 1,
        "site": {"timezone": TIMEZONE, "country": "CH", "ticketing": "file"},
        "policy": {
            "storm": {"events": 5, "window_s": 600},
            "max_event_age_s": 3600,
            "guest_return_s": 900,
            "repairs_per_volume": 2,
            "repairs_per_guest_day": 1000,  # a lab crashes all day
            "incidents_per_guest_hour": 1000,
            "approval_timeout_s": 3600,
            "objective_s": 900,
        },
        "volumes": {VOLUME: {"kind": "lab", "path": VOLUME_PATH}},
        "hypervisors": {
            HYPERVISOR: {
                "conn_id": f"unlatch_hv_{HYPERVISOR}",
                "logs": [{"format": "xend", "path": XEND_LOG, "timezone": TIMEZONE}],
            }
        },
        "guests": {
            GUEST: {
                "hypervisor": HYPERVISOR,
                "conn_id": f"unlatch_guest_{GUEST}",
                "names": [rf"^\d+_{GUEST}$"],
                "approvers": ["admin"],
            }
        },
        "instances": {name: _instance(instance) for name, instance in instances.items()},
    }


def _instance(instance: Instance) -> dict[str, Any]:
    return {
        "guest": GUEST,
        "engine": instance.engine,
        "volume": VOLUME,
        "os_user": instance.os_user,
        "datadir": instance.datadir,
        "host": "127.0.0.1",
        "port": instance.port,
        "error_log": instance.error_log,
        "login_conn_id": f"unlatch_db_{instance.name}",
        "read_table": instance.read_table,
        "write_probe": False,
        "owner_confirms": False,
        "service": {verb: service_argv(verb, instance.name) for verb in SERVICE_VERBS},
        "waive": [],
    }


def connections(
    instances: Mapping[str, Instance], machines: Mapping[str, Machine], key_file: Path
) -> dict[str, dict[str, Any]]:
    """Return the Airflow connections: conn_id -> fields of airflow.models.Connection, `extra` as a dictionary.

    Args:
        instances: The databases.
        machines: The machines by their name in the inventory.
        key_file: The private key that both machines let in.
    """
    made: dict[str, dict[str, Any]] = {}
    for name, machine in machines.items():
        made[f"unlatch_{'hv' if name == HYPERVISOR else 'guest'}_{name}"] = {
            "conn_type": "ssh",
            "host": "127.0.0.1",
            "port": machine.layout.ssh_port,
            "login": machine.layout.account.name,
            "extra": {"key_file": str(key_file), "host_key": machine.host_key, "no_host_key_check": False},
        }
    for name, instance in instances.items():
        made[f"unlatch_db_{name}"] = {
            "conn_type": "postgres" if instance.engine == "postgresql" else "mysql",
            "host": "127.0.0.1",
            "port": instance.port,
            "login": instance.login,
            "password": instance.password,
            "schema": instance.database,
            "extra": {},
        }
    return made
