"""One lab's directory: which files, machines and databases belong to it, and what it remembers."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

import yaml

from lab import instances, inventory, requirements, rootfs
from lab.inventory import GUEST, HYPERVISOR, TIMEZONE
from lab.machine import SSHD, Machine
from lab.processes import ProcessId
from lab.state import State, choose_port
from lab.xend import XendLog

REPOSITORY = Path(__file__).resolve().parent.parent


def cache_directory() -> Path:
    """Where what takes long to make is kept: $UNLATCH_LAB_CACHE, or var/lab/cache."""
    return Path(os.environ.get("UNLATCH_LAB_CACHE") or REPOSITORY / "var/lab/cache").resolve()


_SUPERVISOR = ["/usr/bin/python3", "-I", "/usr/local/lib/lab/supervisor.py", "--autostart"]
_DBSERVICE_VERBS = ("start", "stop", "status", "hold", "release", "reset-failed")


class Site:
    """The parts of a lab, as the state file says they are; `Lab` is what one does with them."""

    def __init__(self, root: Path) -> None:
        """Look at a directory; nothing is made.

        Args:
            root: The lab's directory.
        """
        self.root = root
        self.volume = root / "volume"
        self.xend = XendLog(root / "xen/xend.log", TIMEZONE, GUEST)
        self.key_file = root / "ssh/id_ed25519"
        self.inventory_path = root / "inventory.yaml"
        self.load()

    def load(self) -> None:
        """Take over what this or another program wrote to the state file."""
        self.state = State.load(self.root / "state.json")
        ports = {name: self.state.ports.get(name, 0) for name in (*instances.NAMES, GUEST, HYPERVISOR)}
        passwords = {name: self.state.passwords.get(name, "") for name in instances.NAMES}
        self.instances = instances.the_three(ports, passwords)
        self.guest = self._machine(GUEST, self._guest_layout(ports[GUEST]))
        self.guest.binds = {instances.VOLUME_PATH: self.volume}
        self.guest.daemons = (SSHD, _SUPERVISOR)
        account = rootfs.Account("logreader", self.state.uid, self._public_key())
        layout = rootfs.Layout(HYPERVISOR, account, ports[HYPERVISOR], timezone=TIMEZONE)
        self.hypervisor = self._machine(HYPERVISOR, layout)
        self.hypervisor.binds = {str(Path(inventory.XEND_LOG).parent): self.xend.path.parent}

    def save(self) -> None:
        """Write the state file."""
        for name, machine in self.machines.items():
            if machine.process is not None:
                self.state.machines[name] = machine.process.to_json()
                self.state.boot_ids[name] = machine.boot_id
        self.state.save(self.root / "state.json")

    @property
    def machines(self) -> dict[str, Machine]:
        """Hypervisor and guest by the names that the inventory gives them."""
        return {HYPERVISOR: self.hypervisor, GUEST: self.guest}

    def prepare(self) -> None:
        """Make directories, keys, ports, passwords, file systems, inventory: all that a boot needs. Idempotent."""
        for path in (self.root, self.volume, self.xend.path.parent):
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o755)
        (self.root / "machines").mkdir(mode=0o700, exist_ok=True)
        self.xend.path.touch()
        rootfs.make_key(self.key_file, "unlatch-lab")
        for name in (*instances.NAMES, GUEST, HYPERVISOR):
            if name not in self.state.ports:
                self.state.ports[name] = choose_port(set(self.state.ports.values()))
        for name in instances.NAMES:
            self.state.passwords.setdefault(name, secrets.token_urlsafe(18))
        self.state.uid = self.state.uid or rootfs.free_uid()
        self.save()
        self.load()
        for machine in self.machines.values():
            if not machine.running:
                machine.build()
        if not self.guest.running:
            self._install_programs()
        text = yaml.safe_dump(inventory.inventory(self.instances), sort_keys=False, allow_unicode=True)
        self.inventory_path.write_text(f"# Written by the lab; `python -m lab up` makes it anew.\n{text}")
        self._give_to_caller()

    def connections(self) -> dict[str, dict[str, Any]]:
        """Return the Airflow connections that the inventory names."""
        return inventory.connections(self.instances, self.machines, self.key_file)

    def _guest_layout(self, ssh_port: int) -> rootfs.Layout:
        return rootfs.Layout(
            hostname=GUEST,
            account=rootfs.Account("dbod", self.state.uid, self._public_key()),
            ssh_port=ssh_port,
            system_users=instances.OS_USERS,
            sudoers=sudoers(),
            timezone=TIMEZONE,
            directories=("var/log/db",),
        )

    def _machine(self, name: str, layout: rootfs.Layout) -> Machine:
        known = self.state.machines.get(name)
        return Machine(
            lab_root=self.root,
            directory=self.root / "machines" / name,
            layout=layout,
            process=ProcessId.from_json(known) if known else None,
            boot_id=self.state.boot_ids.get(name, ""),
        )

    def _public_key(self) -> str:
        path = self.key_file.with_name(f"{self.key_file.name}.pub")
        return path.read_text().strip() if path.exists() else ""

    def _install_programs(self) -> None:
        root = self.guest.rootfs
        units = [instance.unit() for instance in self.instances.values()]
        (root / "etc/lab/instances.json").write_text(json.dumps(units, indent=1))
        rootfs.install_program(root, rootfs.GUEST_PROGRAMS / "dbservice.py", "dbservice")
        rootfs.install_program(root, requirements.build_agent(REPOSITORY), "unlatch-openers")

    def _give_to_caller(self) -> None:
        """Let the person who called sudo read the client key: their Airflow logs in with it."""
        caller = int(os.environ.get("SUDO_UID", "0"))
        if caller:
            os.chown(self.key_file, caller, -1)


def sudoers() -> str:
    """Return the guest's sudoers: single named commands for root, anything for the databases' own users."""
    commands = ["/usr/local/sbin/unlatch-openers"]
    commands += [f"/usr/local/sbin/dbservice {verb} {name}" for name in instances.NAMES for verb in _DBSERVICE_VERBS]
    listed = ", \\\n    ".join(commands)
    return f"""Defaults env_reset, !lecture
Defaults secure_path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
root ALL=(ALL:ALL) NOPASSWD: ALL
dbod ALL=({",".join(instances.OS_USERS)}) NOPASSWD: ALL
dbod ALL=(root) NOPASSWD: {listed}
"""
