"""The guest's agent in memory: files with inodes and locks, a journal, a copy job, a service.

It behaves as the real one where the runbook depends on it: `prepare` refuses what is swapped already, `commit` and
`set_aside` answer the same again once they are done, a permit is compared with the files and the boot clock, and one
word of `status` covers all files of a directory.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from tests.unit.world_parts import DIED_AT, GUEST, Entry, Inode, Unit, counted
from unlatch.errors import RefusedError, TransientError
from unlatch.models import (
    FileFact,
    FileProgress,
    HostFacts,
    Instance,
    KeptFile,
    LiveLock,
    Lock,
    LockKind,
    MountFact,
    NotifyAnswer,
    Opener,
    OpenerScan,
    OpenFile,
    OurFile,
    Permit,
    ProcessFact,
    PurgedFile,
    RepairStatus,
    Sample,
    SwappedFile,
    VolumeKind,
)
from unlatch.ports import CommandAnswer

if TYPE_CHECKING:
    from tests.unit.fakes import World


class Agent:
    """See `ports.HostAgent`."""

    port = "agent"

    def __init__(self, world: World) -> None:
        """The world's guest."""
        self.world = world
        self._looks: dict[str, int] = {}
        self._wanted: dict[str, tuple[PurePosixPath, ...]] = {}

    @counted()
    def facts(self, paths: Sequence[PurePosixPath] = ()) -> HostFacts:
        """The guest, up since 20 s after the crash."""
        if not self.world.guest_answers:
            raise TransientError("dbvrtg4037 does not answer.")
        booted_at = DIED_AT + timedelta(seconds=2)
        now = self.world.clock.now()
        kind = "nfs" if self.world.volume.kind is VolumeKind.NFS else "ext4"
        version = self.world.nfs_version if kind == "nfs" else None
        mounts = tuple(MountFact(path, "/ORA/dbs03", kind, version, self.world.local_lock) for path in paths)
        return HostFacts(GUEST.name, self.world.boot_id, booted_at, (now - booted_at).total_seconds(), now, mounts)

    @counted()
    def check_locks(
        self, _of: Instance, paths: Sequence[PurePosixPath], pid_files: Sequence[PurePosixPath]
    ) -> tuple[FileFact, ...]:
        """Named files, locked files below named directories, existing pid files."""
        found = []
        over = self.world.lease_over_at
        if over is not None and self.world.clock.now() >= over:
            self._free_all()
        for path, inode in self.world.names.items():
            below = any(directory in path.parents for directory in paths) and inode.lock is not LockKind.NONE
            is_pid_file = inode.lock is LockKind.PIDFILE
            if path in pid_files or (not is_pid_file and (path in paths or below)):
                found.append(self._fact(path, inode))
        return tuple(found)

    def _fact(self, path: PurePosixPath, inode: Inode) -> FileFact:
        holder = ProcessFact(pid=321, exe="/usr/bin/sleep") if inode.lock is LockKind.PIDFILE else None
        sha = f"sha of {inode.content}" if holder else None
        lock = Lock(inode.lock, type="write", pid=inode.pid, process=holder, content_sha256=sha)
        size = len(inode.content)
        return FileFact(path, inode.number, 1, size, lock, Sample(size, inode.mtime_ns))

    def _free_all(self) -> None:
        for inode in self.world.names.values():
            if inode.lock is LockKind.REMOTE:
                inode.lock = LockKind.NONE

    @counted()
    def samples(self, _of: Instance, paths: Sequence[PurePosixPath]) -> tuple[FileFact, ...]:
        """Named files that exist."""
        return tuple(self._fact(path, self.world.names[path]) for path in paths if path in self.world.names)

    @counted()
    def live_locks(self, _mountpoint: PurePosixPath | None = None) -> tuple[LiveLock, ...]:
        """What the world's `live_locks` holds."""
        return self.world.live_locks

    @counted()
    def connects(self, _host: str, _port: int) -> str:
        """Nothing listens."""
        return "refused"

    @counted(touches=lambda *_, **named: not named.get("check"))
    def notify(self, *, check: bool = False) -> NotifyAnswer:
        """Free all locks of the guest, unless the world has it otherwise."""
        if self.world.notify_error is not None:
            raise self.world.notify_error
        if not check and self.world.notify_frees:
            self._free_all()
        heard = ("nas",) if self.world.notify_frees else ()
        return NotifyAnswer(("nas",), acknowledged=heard, unanswered=() if heard else ("nas",))

    @counted()
    def openers(self, of: Instance, _executables: Sequence[str]) -> OpenerScan:
        """The server, when it runs."""
        if not self.world.units[of.name].running:
            return OpenerScan((), ())
        fds = [OpenFile(str(p), i.number, 1) for p, i in self.world.names.items() if of.datadir in p.parents]
        return OpenerScan((Opener(4711, ("open files",), exe="/usr/sbin/mariadbd", fds=tuple(fds)),), ())

    @counted(touches=True)
    def prepare(self, incident: str, of: Instance, paths: Sequence[PurePosixPath]) -> None:
        """Begin to copy; `status` goes on with it."""
        for path in paths:
            entry = self.world.journal.get((incident, path))
            if entry is not None and entry.state != "prepared":
                raise RefusedError(f"{path} is {entry.state} in this incident (already_begun).")
        self._looks.setdefault(f"{incident}/{of.name}", 0)
        self._wanted[f"{incident}/{of.name}"] = tuple(paths)

    @counted()
    def status(self, incident: str, of: Instance, directories: Sequence[PurePosixPath]) -> RepairStatus:
        """How far the copy is; it ends after the world's `copy_looks` looks."""
        key = f"{incident}/{of.name}"
        wanted = self._wanted.get(key, ())
        entries = {p: self.world.journal.get((incident, p)) for p in wanted}
        running = False
        if any(e is None for e in entries.values()):
            if self.world.copy_error is not None:
                return RepairStatus(
                    "preparing", running=False, bytes_done=0, bytes_total=8, error=self.world.copy_error
                )
            self._looks[key] += 1
            running = self._looks[key] <= self.world.copy_looks
            if not running:
                self._copy(incident, wanted)
        total = 8 * len(wanted)
        done = 4 * len(wanted) if running else total
        files = tuple(
            FileProgress(p, e.state)
            for (i, p), e in self.world.journal.items()
            if i == incident and p.parent in directories
        )
        return RepairStatus(self._state(incident, directories, running=running), running, done, total, files=files)

    def _copy(self, incident: str, paths: Sequence[PurePosixPath]) -> None:
        for path in paths:
            source = self.world.names[path]
            copied = Inode(next(self.world.numbers), source.content, mtime_ns=source.mtime_ns)
            self.world.journal.setdefault((incident, path), Entry("prepared", source, copied, source.mtime_ns))

    def _state(self, incident: str, directories: Sequence[PurePosixPath], *, running: bool) -> str:
        """The agent's word for a mixture of states (`unlatch_agent.status.overall`)."""
        states = {e.state for (i, p), e in self.world.journal.items() if i == incident and p.parent in directories}
        if running:
            states.add("copying")
        finished = states & {"committed", "set_aside"}
        if not states:
            return "none"
        if states & {"swapping", "setting_aside"} or (finished and states & {"prepared", "copying"}):
            return "committing"
        if finished:
            return "committed"
        return "preparing" if "copying" in states else "prepared"

    @counted(touches=True)
    def commit(self, of: Instance, permit: Permit) -> tuple[SwappedFile, ...]:
        """Swap the batch, or answer again what was done."""
        entries = {f.path: self.world.journal.get((permit.incident, f.path)) for f in permit.files}
        missing = [str(p) for p, e in entries.items() if e is None]
        if missing:
            raise RefusedError(f"{', '.join(missing)}: nothing is prepared (not_prepared).")
        found = {p: e for p, e in entries.items() if e is not None}
        if any(e.state != "committed" for e in found.values()):
            self._insist_on_permit(permit)
            if self.world.units[of.name].running:
                raise RefusedError("a process of this host has the files open (local_holder).")
            for allowed in permit.files:
                self._insist_on_file(allowed.inode, allowed.mtime_ns, found[allowed.path])
            for number, (path, entry) in enumerate(found.items()):
                if self.world.die_inside_commit_after == number:
                    self.world.die_inside_commit_after = None
                    raise self.world.death("inside the batch")
                self._swap(path, entry)
        return tuple(
            SwappedFile(p, e.source.number, e.temp.number, self._quarantine(p), True, e.source.lock is LockKind.REMOTE)
            for p, e in found.items()
            if e.temp is not None
        )

    def _swap(self, path: PurePosixPath, entry: Entry) -> None:
        if entry.state == "committed" or entry.temp is None:
            return
        self.world.names[path] = entry.temp
        self.world.swaps[path] = self.world.swaps.get(path, 0) + 1
        entry.state = "committed"

    def _insist_on_permit(self, permit: Permit) -> None:
        if permit.boot_id != self.world.boot_id:
            raise RefusedError("the permit is for another boot of this host (permit_mismatch).")
        if permit.expires_boottime_s <= (self.world.clock.now() - DIED_AT).total_seconds() - 2:
            raise TransientError("the permit expired (permit_expired).")

    def _insist_on_file(self, inode: int, mtime_ns: int, entry: Entry) -> None:
        known = {entry.source.number, entry.temp.number if entry.temp and entry.state == "committed" else None}
        if inode not in known or mtime_ns != entry.mtime_ns or entry.source.mtime_ns != entry.mtime_ns:
            raise RefusedError("the file has changed since it was copied (source_changed).")

    def _quarantine(self, path: PurePosixPath) -> PurePosixPath:
        return path.parent / f".unlatch-{path.name}.orig"

    @counted(touches=True)
    def set_aside(self, _of: Instance, permit: Permit) -> tuple[PurePosixPath, ...]:
        """Rename the pid files, or answer again what was done."""
        for allowed in permit.files:
            key = (permit.incident, allowed.path)
            entry = self.world.journal.get(key)
            if entry is not None:
                entry.state = "set_aside"  # a killed run got as far as the rename
                continue
            self._insist_on_permit(permit)
            present = self.world.names.get(allowed.path)
            if present is None or present.number != allowed.inode:
                raise RefusedError(f"the permit saw another {allowed.path} (permit_mismatch).")
            entry = self.world.journal[key] = Entry("setting_aside", present, None, present.mtime_ns)
            del self.world.names[allowed.path]
            self.world.swaps[allowed.path] = self.world.swaps.get(allowed.path, 0) + 1
            if self.world.die_inside_set_aside:
                self.world.die_inside_set_aside = False
                raise self.world.death("between the rename and the journal")
            entry.state = "set_aside"
        return tuple(self._quarantine(f.path) for f in permit.files)

    @counted()
    def verify(self, incident: str, _of: Instance, directories: Sequence[PurePosixPath]) -> tuple[str, ...]:
        """Originals that somebody wrote to, and swaps that were not finished."""
        problems = []
        for (owner, path), entry in self.world.journal.items():
            if owner != incident or path.parent not in directories or entry.state == "prepared":
                continue
            if entry.state in {"swapping", "setting_aside"}:
                problems.append(f"{path}: it is not as the repair left it (state {entry.state})")
            if entry.source.mtime_ns != entry.mtime_ns:
                problems.append(f"{path}: its original {self._quarantine(path)} was changed after it was set aside")
        return tuple(problems)

    def _left(self, incident: str, directories: Sequence[PurePosixPath]) -> list[tuple[PurePosixPath, Entry]]:
        settled = {"committed", "set_aside", "swapping", "setting_aside"}
        return [
            (path, entry)
            for (owner, path), entry in self.world.journal.items()
            if owner == incident and path.parent in directories and entry.state in settled
        ]

    @counted()
    def kept(self, incident: str, _of: Instance, directories: Sequence[PurePosixPath]) -> tuple[KeptFile, ...]:
        """What was swapped, and is not purged."""
        return tuple(
            KeptFile(
                path,
                self._quarantine(path),
                entry.source.number,
                ("mtime",) if entry.source.mtime_ns != entry.mtime_ns else (),
                entry.temp is None or any(self.world.names[path] is e.temp for e in self.world.journal.values()),
                entry.state,
                entry.source.lock if entry.source.lock is not LockKind.PIDFILE else LockKind.NONE,
            )
            for path, entry in self._left(incident, directories)
        )

    @counted(touches=lambda *_, **named: not named.get("dry_run"))
    def purge(
        self,
        incident: str,
        _of: Instance,
        directories: Sequence[PurePosixPath],
        *,
        holder_dead: str | None = None,
        dry_run: bool = False,
    ) -> tuple[PurgedFile, ...]:
        """Delete all or nothing; `die_inside_purge_after` deaths come between two files."""
        left = self._left(incident, directories)
        for path, entry in left:
            if entry.source.mtime_ns != entry.mtime_ns:
                raise RefusedError(f"{path} has changed since the swap (late_writer).")
            if entry.source.lock is LockKind.REMOTE and holder_dead is None:
                raise RefusedError(f"{path} is still locked (still_locked).")
        files = []
        for number, (path, entry) in enumerate(left):
            if not dry_run and self.world.die_inside_purge_after == number:
                self.world.die_inside_purge_after = None
                raise self.world.death("between two deletions")
            if not dry_run:
                entry.state = "purged"
            is_free = entry.source.lock is not LockKind.REMOTE
            files.append(PurgedFile(path, self._quarantine(path), len(entry.source.content), is_free))
        return tuple(files)

    @counted()
    def our_files(self, _of: Instance, paths: Sequence[PurePosixPath]) -> tuple[OurFile, ...]:
        """Originals and journals below directories, and the world's `strays`."""
        now_ns = int(self.world.clock.now().timestamp() * 1e9)
        found = list(self.world.strays)
        for incident in sorted({owner for owner, _ in self.world.journal}):
            left = self._left(incident, sorted({p.parent for _, p in self.world.journal}))
            below = [(p, e) for p, e in left if any(d == p.parent or d in p.parents for d in paths)]
            found += [
                OurFile(self._quarantine(p), "quarantine", len(e.source.content), now_ns, e.source.lock)
                for p, e in below
            ]
            found += [
                OurFile(d / f".unlatch-{incident}.journal", "journal", 99, now_ns, LockKind.NONE)
                for d in sorted({p.parent for p, _ in below})
            ]
        return tuple(found)

    @counted(touches=lambda _, action: action != "status")
    def service(self, of: Instance, action: str) -> CommandAnswer:
        """The service of an instance, as the lab's dbservice."""
        unit = self.world.units[of.name]
        if action == "status":
            return CommandAnswer(*(unit.status_says or (0 if unit.running else 3, "")))
        if action == "hold":
            unit.held = unit.hold_code == 0
            return CommandAnswer(unit.hold_code, "" if unit.held else "sudo: a password is required")
        if action == "release":
            unit.held = False
        elif action == "stop":
            unit.running = False
        elif action == "start":
            return self._start(of, unit)
        return CommandAnswer(0, "")

    def _start(self, of: Instance, unit: Unit) -> CommandAnswer:
        if unit.held:
            return CommandAnswer(1, "it is held")
        if unit.running:
            return CommandAnswer(0, "it runs already")
        unit.starts += 1
        locked = [
            p.name for p, i in self.world.names.items() if of.datadir in p.parents and i.lock is not LockKind.NONE
        ]
        if unit.fails_with or locked:
            return CommandAnswer(1, unit.fails_with or f"Unable to lock ./{locked[0]} error: 11")
        unit.running = True
        return CommandAnswer(0, "")

    @counted()
    def tail(self, _of: Instance, _path: PurePosixPath, lines: int) -> str:
        """The world's log lines."""
        return "\n".join(self.world.log_lines[-lines:])

    @counted(touches=lambda argv: argv[0] != "pgrep")
    def command(self, argv: Sequence[str]) -> CommandAnswer:
        """A probe of the application."""
        if argv[0] == "pgrep":
            return CommandAnswer(0, "815\n") if self.world.still_notifying else CommandAnswer(1, "")
        if argv[0] == "false":
            return CommandAnswer(1, "no such page")
        return CommandAnswer(0, "")
