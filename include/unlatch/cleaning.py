"""The day after a repair: what it has left of an instance is looked at once more, and deleted.

The step can be killed at any moment and run again, also by two at once: what is deleted is seen on the volume, and what
it held is remembered. `closing.py` has what follows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath

from unlatch.actions import application_probe, log_in
from unlatch.assessment import is_running, lease_name
from unlatch.errors import CheckFailedError, RefusedError, TransientError
from unlatch.late_writers import quarantine_of, raise_alarm
from unlatch.lifecycle import WORKING_STATES, IncidentState
from unlatch.models import Json, KeptFile, LockKind, Plan, PurgedFile, VolumeKind
from unlatch.old_holder import OldHolder, look_at_old_holder
from unlatch.ports import IncidentRow, Ports, Store
from unlatch.purge_days import STEP, confirmed_at
from unlatch.recording import Case, fingerprint, recorded, refuse_while_stopped, tell
from unlatch.wording import purge_comment
from unlatch.working_days import in_words


@dataclass(frozen=True)
class Leftovers(Case):
    """What one incident has left of one instance.

    Attributes:
        day: Nothing is deleted before then; None while its access is not confirmed.
        now: The present moment by the site's calendar.
        timezone: Of the site, for people.
    """

    day: datetime | None
    now: datetime
    timezone: str


@recorded
def clean_up(case: Leftovers, ports: Ports) -> Json:
    """Look at every original, see that the database works, then delete what the repair has left of one instance.

    Returns:
        `files` with the space that each held, `freed_bytes`, `not_freed_bytes`, `why_not_freed`.

    Raises:
        RefusedError: its day has not come, or an original is still locked by somebody who may live.
        CheckFailedError: somebody wrote to an original (the database is stopped), or the database does not work.
        TransientError: it is being repaired, or out of reach.
    """
    insist_on_its_day(case, ports)
    places = directories(ports.store, case)
    if not places:
        return {**_space(()), "why": "the repair left nothing behind"}
    with its_turn(case, ports):
        found = look(case, ports, places)
        refuse_while_stopped(ports)
        doomed = remember(ports.store, case, found)
        _note(case, ports, "purging", {"files": [str(file.removed) for file in doomed]})
        ports.agent.purge(case.incident, case.instance, places, holder_dead=found.digest)
    result = {**_space(doomed), **found.words()}
    tell(case, ports, f"{STEP}/{fingerprint(str(result['files']))}", purge_comment(case.instance.name, result))
    return result


@recorded
def plan_clean_up(case: Leftovers, ports: Ports) -> Json:
    """The dry run of `clean_up`, on any day: the same look and the same result; nothing is deleted or stopped."""
    insist_on_its_day(case, ports)
    places = directories(ports.store, case)
    if not places:
        return {**_space(()), "why": "the repair left nothing behind"}
    found = look(case, ports, places)
    return {**_space(found.doomed), **found.words(), "day": case.day.isoformat() if case.day else None}


@dataclass(frozen=True)
class Found:
    """What a look before the deletion has shown; `locked`: by whom each original that is, is said to be locked."""

    locked: dict[PurePosixPath, str]
    holder: OldHolder | None
    access: Json
    doomed: tuple[PurgedFile, ...]

    @property
    def digest(self) -> str | None:
        """Names the evidence that whoever has locks is dead."""
        return self.holder.digest if self.holder else None

    def words(self) -> Json:
        """For the step's result."""
        return {"access": self.access, "holder": list(self.holder.reasons) if self.holder else []}


def look(case: Leftovers, ports: Ports, places: tuple[PurePosixPath, ...]) -> Found:
    """Everything that has to be so before anything is deleted."""
    insist_on_mount(case, ports)
    kept = originals(case, ports, places)
    insist_on_all(case, ports, kept)
    locked = still_locked(case, ports, kept)
    holder = prove_dead(case, ports, locked) if locked else None
    access = confirm_again(case, ports)
    digest = holder.digest if holder else None
    doomed = ports.agent.purge(case.incident, case.instance, places, holder_dead=digest, dry_run=True)
    found = Found(locked, holder, access, tuple(_with_locks(doomed, locked)))
    _note(case, ports, "looked", {**found.words(), "locked": {str(path): why for path, why in locked.items()}})
    return found


def insist_on_its_day(case: Leftovers, ports: Ports) -> None:
    """Nothing is deleted before its day, nor while anything about the incident is open."""
    row = _row(case.incident, ports.store)
    if row.state in WORKING_STATES:
        raise TransientError(
            f"{case.incident} is being repaired ({row.state}), so nothing of it is deleted.",
            next_step="the retry looks again; when the repair has ended, the next working day counts anew.",
        )
    if row.state is IncidentState.REOPENED:
        raise RefusedError(
            f"{case.incident} was reopened, since somebody wrote to one of its originals: both files are kept.",
            next_step="find the writer, compare the files with the database's owner, then close the incident: "
            f"unlatch close {case.incident} --reason …",
        )
    if confirmed_at(ports.store.steps(case.incident), case.instance.name) is None or case.day is None:
        raise RefusedError(
            f"The access to {case.instance.name} was not confirmed in {case.incident}, so its originals are kept.",
            next_step="end its repair first: clear the failed task of the incident's run in Airflow.",
        )
    if case.now < case.day and not case.dry_run:
        raise RefusedError(
            f"The originals of {case.instance.name} are kept until {in_words(case.day, case.timezone)}.",
            next_step="it is done then by itself; --dry-run shows now what would be deleted.",
        )


def _row(incident: str, store: Store) -> IncidentRow:
    row = store.incident(incident)
    if row is None or row.dry_run:
        what = "is a dry run, which has left nothing" if row else "is not known"
        raise RefusedError(f"The incident {incident} {what}.", next_step="`unlatch incidents` lists all of them.")
    return row


@contextmanager
def its_turn(case: Case, ports: Ports) -> Iterator[None]:
    """Have the instance's lease, so that no repair goes on meanwhile. A repair that begins later may take it away.

    In a name of its own: a repair of the same incident that begins meanwhile must not lose what it has taken.

    Raises:
        TransientError: another incident repairs the instance.
    """
    owner = f"{case.incident}/{case.instance.name}"
    other = ports.store.take_lease(lease_name(case), owner)
    if other is not None:
        raise TransientError(
            f"{case.instance.name} is being repaired by {other}, so nothing of {case.incident} is deleted meanwhile.",
            next_step="the retry looks again.",
        )
    try:
        yield
    finally:
        ports.store.release_lease(lease_name(case), owner)


def directories(store: Store, case: Case) -> tuple[PurePosixPath, ...]:
    """Where the repair may have left something: beside each file that it recreated, set aside, or meant to."""
    judged = store.step(case.incident, case.instance.name, "verdict")
    plan = judged.result.get("plan") if judged else None
    meant = [f.path for f in Plan.from_dict(plan).files if f.remedy] if plan else []
    return tuple(sorted({path.parent for path in (*quarantine_of(store, case.incident, case.instance.name), *meant)}))


def insist_on_mount(case: Case, ports: Ports) -> None:
    """A volume that is not mounted has no files, which would look just like a purge that was done.

    Raises:
        TransientError: it is not mounted on the guest.
    """
    if case.volume.kind is not VolumeKind.NFS:
        return
    mounts = ports.agent.facts([case.instance.datadir]).paths
    if not mounts or mounts[0].nfs_version is None:
        raise TransientError(
            f"{case.volume.path} is not mounted on {case.guest.name}, so nothing can be looked at there.",
            next_step=f"mount it there; the retry looks again: mount {case.volume.path}",
        )


def insist_on_all(case: Leftovers, ports: Ports, kept: tuple[KeptFile, ...]) -> None:
    """What the repair has left must be there, or have been deleted by a clean-up.

    Raises:
        RefusedError: somebody else has taken it away.
    """
    known = {f.quarantine for f in kept} | {f.removed for day in remembered(ports.store, case).values() for f in day}
    gone = sorted(set(quarantine_of(ports.store, case.incident, case.instance.name)) - known)
    if gone:
        raise RefusedError(
            f"{len(gone)} of the originals that {case.incident} has left of {case.instance.name} are not found, as "
            f"{gone[0]}.",
            next_step=f"see whether {case.volume.path} is the right volume; if somebody has deleted them by hand: "
            f"unlatch close {case.incident} --reason …",
        )


def remembered(store: Store, case: Leftovers) -> dict[str, tuple[PurgedFile, ...]]:
    """What clean-ups have begun to delete, by their day: a later repair of the same incident has another one."""
    days: Json = (store.cursor(_memory(case)) or {}).get("days", {})
    return {day: tuple(PurgedFile.from_dict(file) for file in files) for day, files in days.items()}


def _memory(case: Leftovers) -> str:
    return f"{STEP}:{case.incident}/{case.instance.name}"


def originals(case: Case, ports: Ports, places: tuple[PurePosixPath, ...]) -> tuple[KeptFile, ...]:
    """Every original, unchanged since the swap, with its name taken by the file that the repair has put there.

    Raises:
        CheckFailedError: somebody wrote to one: the database is stopped and held, the incident reopened.
        RefusedError: a name stands for something else, so the original may be the only one of its kind.
    """
    kept = ports.agent.kept(case.incident, case.instance, places)
    written = [f"{f.quarantine} was changed after it was set aside ({', '.join(f.changes)})" for f in kept if f.changes]
    if written and case.dry_run:
        raise CheckFailedError(f"LATE WRITER on {case.instance.name}: {'; '.join(written)}.", next_step=_FIND_WRITER)
    if written:
        raise raise_alarm(case, ports, tuple(written))
    other = [str(f.path) for f in kept if not f.right]
    if other:
        raise RefusedError(
            f"{', '.join(other)} of {case.instance.name} is not the file that the repair put there, so nothing is "
            "deleted: its original may be needed.",
            next_step="find out who replaced it; the original is beside it, its name ends in .orig.",
        )
    return kept


_FIND_WRITER = "find and stop the writer first; then compare the two files with the database's owner."


def still_locked(case: Case, ports: Ports, kept: tuple[KeptFile, ...]) -> dict[PurePosixPath, str]:
    """The originals that somebody has locked, each with who says so: the guest, or the NAS.

    Raises:
        RefusedError: a process of the guest itself has one locked.
        TransientError: the NAS cannot be asked: then nobody knows whether any space would come back.
    """
    mine = [str(f.quarantine) for f in kept if f.lock is LockKind.LOCAL]
    if mine:
        raise RefusedError(
            f"A process on {case.guest.name} has {', '.join(mine)} locked.",
            next_step=f"see who it is (lslocks on {case.guest.name}) and end it.",
        )
    locked = {f.quarantine: f"{case.guest.name} sees a lock" for f in kept if f.lock is not LockKind.NONE}
    if ports.clearer is not None and kept:
        view = ports.clearer.list([f.quarantine for f in kept])
        inodes, paths = {lock.inode for lock in view.locks}, {lock.path for lock in view.locks}
        for f in kept:
            if f.inode is not None and (f.inode in inodes or f.quarantine in paths):
                locked[f.quarantine] = f"{case.volume.server} lists a lock"
    return locked


def prove_dead(case: Case, ports: Ports, locked: dict[PurePosixPath, str]) -> OldHolder:
    """Who still has originals locked must be proven dead once more (rule 9).

    Raises:
        RefusedError: it is not.
    """
    holder = look_at_old_holder(case, ports)
    if holder.digest is None:
        raise RefusedError(
            f"{len(locked)} originals of {case.instance.name} are still locked, and nothing proves now that their "
            f"holder is dead: {'; '.join(holder.reasons)}. Nothing was deleted.",
            next_step="have the NAS drop those locks (docs/lock-clearers.md), then clear this task.",
            detail={"locked": {str(path): why for path, why in locked.items()}},
        )
    return holder


def confirm_again(case: Case, ports: Ports) -> Json:
    """The database runs and lets clients in, and the application's own probe passes.

    Raises:
        CheckFailedError: it does not, so the originals may still be needed.
    """
    if not is_running(case, ports):
        raise CheckFailedError(
            f"{case.instance.name} does not run on {case.guest.name}, so its originals are kept.",
            next_step=f"start it ({' '.join(case.instance.service.start)}), then clear this task.",
        )
    proof = log_in(case, ports)
    return {"proof": proof, "probe": application_probe(case, ports)}


def remember(store: Store, case: Leftovers, found: Found) -> tuple[PurgedFile, ...]:
    """Keep what is about to be deleted and what it holds, so that a run that is killed in the midst can be continued.

    Returns:
        With what earlier tries have kept.
    """
    days, today = remembered(store, case), f"{case.day:%Y%m%d}"
    earlier = days.get(today, ())
    known = {file.removed for file in earlier}
    days[today] = (*earlier, *(f for f in found.doomed if f.removed not in known))
    if days[today] != earlier:
        told = {day: [file.as_dict() for file in files] for day, files in days.items()}
        store.set_cursor(_memory(case), {"days": told})
    return days[today]


def _with_locks(files: tuple[PurgedFile, ...], locked: dict[PurePosixPath, str]) -> Iterator[PurgedFile]:
    for file in files:
        held_by = locked.get(file.removed, "" if file.freed else "a lock was seen")
        yield dataclasses.replace(file, freed=not held_by, held_by=held_by)


def _space(files: tuple[PurgedFile, ...]) -> Json:
    return {
        "files": [file.as_dict() for file in files],
        "freed_bytes": sum(file.bytes_held for file in files if file.freed),
        "not_freed_bytes": sum(file.bytes_held for file in files if not file.freed),
        "why_not_freed": {str(file.removed): file.held_by for file in files if not file.freed},
    }


def _note(case: Case, ports: Ports, phase: str, detail: Json) -> None:
    ports.store.note(case.incident, case.instance.name, STEP, phase, actor=ports.actor, detail=detail)
