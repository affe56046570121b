"""What one does with the lab: bring it up, crash it, look at it, take it down."""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab import databases, ghost, instances, locks, processes, requirements, template
from lab.errors import LabError
from lab.ghost import WaitingGhost
from lab.holder import LocalHolder
from lab.instances import Instance
from lab.processes import ProcessId
from lab.site import Site, cache_directory
from lab.state import exclusive
from lab.writer import Writer

RESTART_DELAY_S = 2.0
"""From the death of the guest to its next boot; it took xend about five seconds in 2014."""

BOOT_MARGIN_S = 4.0
"""How much later than the start of any server that died the guest boots: no real machine is back within the full
seconds that a pid file records and the steps of a clock, and evidence rightly takes such a file for a new server's.
"""


@dataclass(frozen=True)
class CrashReport:
    """What `Lab.crash` did.

    Attributes:
        crashed_at: When the guest was killed (UTC). The first line in xend.log has the same second.
        locked_files: Files of the volume, as paths on the host, whose locks outlived their owner.
        old_boot_id: Boot id of the guest that died.
        acknowledged: Commits that each instance has acknowledged before the crash.
    """

    crashed_at: datetime
    locked_files: tuple[Path, ...]
    old_boot_id: str
    acknowledged: Mapping[str, int]


class Lab:
    """A lab in one directory. Several objects, in several programs, may use the same one, one after the other."""

    def __init__(self, root: Path, voms_mb: int = 200, *, cache: Path | None = None) -> None:
        """Look at the lab in `root`; nothing is started.

        Args:
            root: Directory of all its files; made by `up`.
            voms_mb: MB of rows in the ibdata1 of voms; counts when the data are made: first `up`, and `reset`.
            cache: Where loaded data directories are kept; default $UNLATCH_LAB_CACHE or var/lab/cache.
        """
        self.root = root.resolve()
        self._voms_mb = voms_mb
        self._cache = (cache or cache_directory()).resolve()
        self._site = Site(self.root)
        self.last_crash: CrashReport | None = None

    # --- where things are -------------------------------------------------------------------------------------------

    @property
    def inventory_path(self) -> Path:
        """The inventory of this lab, written by `up`."""
        return self._site.inventory_path

    @property
    def volume(self) -> Path:
        """The volume's directory on the host; the guest sees it as /ORA/dbs03, with the same inodes."""
        return self._site.volume

    @property
    def xend_log(self) -> Path:
        """The hypervisor's log, as a path on the host."""
        return self._site.xend.path

    @property
    def instances(self) -> Mapping[str, Instance]:
        """All three instances by name."""
        return self._site.instances

    def instance(self, name: str) -> Instance:
        """Return what is known about voms, alvmysql or lxr."""
        return self._site.instances[name]

    def connections(self) -> dict[str, dict[str, Any]]:
        """Return the Airflow connections that the inventory names, with passwords.

        Each is `{"conn_type", "host", "port", "login", "password"?, "schema"?, "extra": {…}}` under its conn_id.
        """
        return self._site.connections()

    def host_path(self, guest_path: Path | str) -> Path:
        """Translate a path of the guest, on the volume or elsewhere in its file system, into one of the host."""
        path = Path(guest_path)
        if path.is_relative_to(instances.VOLUME_PATH):
            return self.volume / path.relative_to(instances.VOLUME_PATH)
        return self._site.guest.rootfs / path.relative_to("/")

    def guest_path(self, host_path: Path | str) -> Path:
        """Translate a path of the host on the volume into the guest's; one that is the guest's already stays."""
        path = Path(host_path)
        return Path(instances.VOLUME_PATH) / path.relative_to(self.volume) if path.is_relative_to(self.volume) else path

    # --- life cycle -------------------------------------------------------------------------------------------------

    def up(self) -> None:
        """Make everything run: hypervisor, guest, three databases that accept logins. Idempotent.

        After a crash that nobody has repaired it boots what is down and returns; the locks stay as they are.

        Raises:
            LabUnavailableError: Not root, or a package is missing.
            LabError: Something did not start; the message has its last words.
        """
        requirements.check()
        with exclusive(self.root / "lab.lock"):
            self._site.load()
            self._end_strays()
            self._site.prepare()
            if not (self._site.state.provisioned or self._site.guest.running):
                self._fill_volume()
            self._boot_all()
            if not self._site.state.ghosts:
                self._await_logins()

    def down(self) -> None:
        """End all processes of this lab, also those of a killed run; locks and mounts go with them. Idempotent.

        The data stay: the next `up` lets the databases recover from them.
        """
        if not self.root.exists():
            return
        requirements.check_root()
        with exclusive(self.root / "lab.lock"):
            self._site.load()
            self.writer().stop()
            self._release_ghosts()
            if self._site.guest.kill():
                self._site.xend.stopped(self._site.state.domain_id)
            self._site.hypervisor.kill()
            self._site.save()
            self._end_strays()

    def reset(self) -> None:
        """Go back to the start: fresh data, no ghost, all up. Ports, keys, passwords and xend.log stay as they are."""
        requirements.check()
        with exclusive(self.root / "lab.lock"):
            self._site.load()
            self.writer().forget()
            self._release_ghosts()
            if self._site.guest.kill():
                self._site.xend.stopped(self._site.state.domain_id)
            self._site.state.provisioned = False
            self._site.save()
            for name in ("var/log/db", "var/tmp", "var/lib", "home"):
                shutil.rmtree(self._site.guest.rootfs / name, ignore_errors=True)
            shutil.rmtree(self.volume, ignore_errors=True)
            self._site.prepare()
            self._fill_volume()
            self._boot_all()
            self._await_logins()

    def crash(self, *, boot: bool = True, locks: bool = True) -> CrashReport:
        """Kill the guest while the writer commits, and leave the locks of its databases behind.

        Args:
            boot: Boot the guest again, as the hypervisor would; else it stays down until `boot`.
            locks: Keep the locks, and let lxr's old pid belong to another process after the boot.

        Raises:
            LabError: The guest does not run, or a database that is up takes no rows.
        """
        with exclusive(self.root / "lab.lock"):
            self._site.load()
            guest, state = self._site.guest, self._site.state
            if not guest.running:
                raise LabError("the guest does not run, so it can't crash: run `up` or `boot` first")
            self._end_strays()
            writer = self.writer()
            if databases.all_accept(guest, self.instances.values()):
                writer.start()
            waiting = self._wait_for_locks() if locks else None
            state.stale_postmaster_pid = databases.postmaster_pid(self.volume / "lxr") if locks else None
            crashed_at, died = datetime.now(UTC), time.monotonic()
            guest.kill()
            if waiting is not None:
                waiting.take_over()
                state.ghosts.append(waiting.record)
            writer.stop()
            self._site.xend.crashed(state.domain_id, device_model_pid=random.randint(1000, 9999), at=crashed_at)
            self._site.save()
            report = CrashReport(crashed_at, tuple(self._ghost_paths()), guest.boot_id, writer.acknowledged)
            self.last_crash = report
            if boot:
                time.sleep(max(0.0, RESTART_DELAY_S - (time.monotonic() - died)))
                self._boot_all()
            return report

    def boot(self) -> None:
        """Boot what is down. It returns when sshd answers; the databases start on their own. Idempotent."""
        with exclusive(self.root / "lab.lock"):
            self._site.load()
            self._boot_all()

    # --- inside -----------------------------------------------------------------------------------------------------

    def guest(
        self, argv: Sequence[str], user: str = "root", check: bool = True, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program inside the guest, in its namespaces, not over SSH.

        Raises:
            LabError: The guest does not run, or (with `check`) the program failed.
        """
        self._site.load()
        return self._site.guest.run(argv, user, check=check, stdin=stdin)

    def guest_argv(self, argv: Sequence[str], user: str = "root") -> list[str]:
        """Return the argument vector that, run as root on the host, runs `argv` inside the guest."""
        self._site.load()
        return self._site.guest.argv(argv, user)

    def service(self, verb: str, instance: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the guest's `dbservice` for one instance."""
        return self.guest([databases.DBSERVICE, verb, instance], check=check)

    def log(self, line: str, at: datetime | None = None) -> None:
        """Append a line to xend.log, with a time stamp before it.

        Args:
            line: The text after the stamp, such as `WARNING (XendDomainInfo:1907) Domain has crashed: …`.
            at: An aware time for the stamp, default now.
        """
        self._site.xend.append(line, at=at)

    def writer(self) -> Writer:
        """Return the client that commits rows all the time."""

        def remember(process: ProcessId | None) -> None:
            self._site.state.writer = process.to_json() if process else None
            self._site.save()

        known = ProcessId.from_json(self._site.state.writer) if self._site.state.writer else None
        return Writer(self.root / "writer", self.root, self.instances, remember, known)

    def ghost_locks(self) -> list[Path]:
        """Return the files, as paths on the host, that the ghost keeps locked: under the name that they have now."""
        self._site.load()
        return self._ghost_paths()

    def release_ghost(self) -> None:
        """Let all locks go, as a storage server does whose lock table was cleared. Idempotent."""
        with exclusive(self.root / "lab.lock"):
            self._site.load()
            self._release_ghosts()
            self._site.save()

    def start_local_holder(self, path: Path | str, user: str = "mysql") -> LocalHolder:
        """Start a living process inside the guest that locks a file; `.kill()` or `.terminate()` ends it.

        Args:
            path: The file, as the guest sees it or as a path on the host below the volume.
            user: Who it runs as.

        Raises:
            LabError: It did not get the lock.
        """
        argv = ["/usr/bin/python3", "-I", "/usr/local/lib/lab/holder.py", str(self.guest_path(path))]
        return LocalHolder(self.guest_argv(argv, user))

    def summary(self) -> str:
        """Describe the lab for a person."""
        self._site.load()
        lines = [f"lab in {self.root}"]
        for name, machine in self._site.machines.items():
            state = f"up, boot id {machine.boot_id}" if machine.running else "down"
            lines.append(f"  {name:<12}{state}, ssh port {machine.layout.ssh_port}")
        for instance in self.instances.values():
            state = "guest down"
            if self._site.guest.running:
                state = self.service("status", instance.name, check=False).stdout.strip().partition(": ")[2]
            lines.append(f"  {instance.name:<12}{state}; {instance.engine}, port {instance.port}")
        held = ", ".join(str(path.relative_to(self.volume)) for path in self._ghost_paths())
        lines.append(f"  locks whose owner is dead: {held or 'none'}")
        writer = self.writer()
        counts = ", ".join(f"{name} {count}" for name, count in writer.acknowledged.items())
        lines.append(f"  writer {'runs' if writer.running else 'is stopped'}; acknowledged commits: {counts}")
        return "\n".join(lines)

    # --- the parts; the caller holds the lab's lock -----------------------------------------------------------------

    def _fill_volume(self) -> None:
        template.copy(template.ensure(self._cache, self._voms_mb), self.volume)

    def _boot_all(self) -> None:
        site = self._site
        site.hypervisor.boot()
        if not site.guest.running:
            started_at = databases.postmaster_started_at(self.volume / "lxr")
            time.sleep(max(0.0, min(BOOT_MARGIN_S, started_at + BOOT_MARGIN_S - time.time())))
            site.state.domain_id += 1
            site.xend.started(site.state.domain_id)
            site.guest.boot(claim=self._claim())
        site.save()

    def _claim(self) -> dict[str, Any] | None:
        """Say which pid an unrelated process must get at boot, so that lxr's old pid file looks valid."""
        pid = self._site.state.stale_postmaster_pid
        if pid is None or databases.postmaster_pid(self.volume / "lxr") != pid:
            return None
        return {"pid": pid, "user": "postgres", "argv": ["/usr/bin/sleep", "infinity"]}

    def _await_logins(self) -> None:
        databases.await_all(self._site.guest, self.instances.values())
        if not self._site.state.provisioned:
            for instance in self.instances.values():
                databases.set_password(self._site.guest, instance)
            self._site.state.provisioned = True
            self._site.save()

    def _wait_for_locks(self) -> WaitingGhost | None:
        known = {each.pid for each in self._site.state.ghosts}
        paths = [path for path in locks.locked_files(self.volume) if locks.holder(path) not in known]
        return WaitingGhost(paths, self.root) if paths else None

    def _ghost_paths(self) -> list[Path]:
        return ghost.locked_paths(self._site.state.ghosts, self.volume)

    def _release_ghosts(self) -> None:
        for each in self._site.state.ghosts:
            ghost.identity(each).kill()
        self._site.state.ghosts = []
        self._site.state.stale_postmaster_pid = None

    def _end_strays(self) -> None:
        """End processes with this lab's mark that the state file does not know: what a killed command left."""
        known = {each.pid for each in self._site.state.ghosts} | {(self._site.state.writer or {}).get("pid")}
        for machine in self._site.machines.values():
            if machine.process is not None and machine.running:
                known |= {machine.process.pid, processes.parent(machine.process.pid)}
        for stray in processes.strays(self.root):
            if stray.pid not in known:
                stray.kill()
