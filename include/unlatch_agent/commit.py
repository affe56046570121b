"""commit: swap all prepared files of an instance in one batch, under a permit."""

import os
from typing import Dict, Iterator, List, Optional, Sequence, Set, Tuple

from unlatch_agent import (
    abreast,
    bootclock,
    descriptors,
    identity,
    journal,
    locks,
    mounts,
    positions,
    prepare,
    relay,
    safety,
    swapping,
    verify,
)
from unlatch_agent.errors import CheckFailedError, Json, RefusedError
from unlatch_agent.ioguard import Beat
from unlatch_agent.journal import Journal
from unlatch_agent.locks import Inode
from unlatch_agent.permit import Permit
from unlatch_agent.progress import Progress
from unlatch_agent.safety import Target
from unlatch_agent.swapping import UNCHANGED_BUT_LINKED, Kept, Step


def run(
    incident: str,
    targets: Sequence[Target],
    permit: Permit,
    io_timeout_s: float,
    beat: Beat,
    *,
    journals: Optional[Dict[str, Journal]] = None,
) -> Json:
    """Swap the files of a permit. The caller holds the host lock of their directories.

    Idempotent: after success it answers the same and does nothing. After a kill it goes on, with a
    valid permit, and compares every copy that is not yet swapped with its original again.

    Args:
        incident: its id.
        targets: the permit's files, resolved, in its order.
        permit: the leave.
        io_timeout_s: limit for the look at one process.
        beat: called before each touch.
        journals: those of the directories, when the caller has read them under the same lock.

    Returns:
        ``files``, which looks at each when it is asked for, and ``unchecked``.

    Raises:
        RefusedError: the permit does not fit, a file changed, someone uses one. No name was touched.
        CheckFailedError: a name does not stand for what it should after a call, or ``late_writer``.
    """
    steps = _steps(incident, targets, permit, journals or {}, beat)
    directories = {target.directory for target in targets}
    on_nfs = mounts.any_on_nfs(directories)
    if permit.incident == incident and _are_done(steps, beat, on_nfs=on_nfs):
        return {"files": _documents(steps, beat, on_nfs=on_nfs), "unchecked": []}

    permit.refuse_unless_valid(incident, bootclock.boot_id(), bootclock.boottime_s())
    safety.refuse_local_locks(directories)
    for directory in directories:
        journal.refuse_foreign(directory, incident)
    _refuse_left_out(steps)
    inodes: Set[Inode] = set()
    listed = locks.listed_here()
    for number, (kind, seen) in enumerate(abreast.each(steps, lambda step: _fit(step, listed), beat, on_nfs=on_nfs)):
        steps[number] = steps[number].at(kind)
        inodes.update((dev, inode) for dev, inode in seen)
    unchecked = safety.refuse_open(inodes, io_timeout_s, (path for step in steps for path in (step.path, step.temp)))
    del inodes
    _compare_after_interruption(steps, beat)

    held: Dict[int, Kept] = {}

    def hold(number: int) -> None:
        held[number] = swapping.kept(steps[number])

    descriptors.allow(len(steps), directories=len(directories))
    try:
        abreast.do(range(len(steps)), hold, beat, on_nfs=on_nfs)
        done = relay.swapped(
            list(swapping.groups(steps, [held[number].descriptor for number in range(len(steps))])),
            sorted(directories),
            lambda: permit.refuse_unless_valid(incident, bootclock.boot_id(), bootclock.boottime_s()),
            beat,
        )
    finally:
        for kept in held.values():
            os.close(kept.descriptor)
    were_locked = [held[number].is_locked for number in range(len(steps))]
    return {"files": _documents(done, beat, on_nfs=on_nfs, were_locked=were_locked), "unchecked": unchecked}


def _steps(
    incident: str, targets: Sequence[Target], permit: Permit, known: Dict[str, Journal], beat: Beat
) -> List[Step]:
    journals = known or journal.of_directories((target.directory for target in targets), incident, beat)
    steps = []
    for target, allowed in zip(targets, permit.files):
        beat(None)
        owner = journals[target.directory]
        entry = owner.entry(target.name)
        if entry is None or entry.state not in ("prepared", "swapping", "committed"):
            raise _not_prepared(target.path, "nothing is prepared" if entry is None else "it is " + entry.state)
        steps.append(Step(owner, entry, allowed))
    return steps


def _are_done(steps: Sequence[Step], beat: Beat, *, on_nfs: bool) -> bool:
    """Say whether journal and names agree that every file is swapped."""
    if any(step.entry.state != "committed" for step in steps):
        return False
    kinds = abreast.each(steps, lambda step: positions.look(step.owner, step.entry).kind, beat, on_nfs=on_nfs)
    return all(kind == positions.SWAPPED for kind in kinds)


def _fit(step: Step, listed: locks.Holders) -> Tuple[str, List[Inode]]:
    """Look at a file, refuse it when it is not to be swapped, and say where it is and what nobody may have open."""
    step = Step(step.owner, step.entry, step.allowed, positions.look(step.owner, step.entry))
    _refuse_changed(step)
    inodes = [safety.unlocked(step.path, listed)]
    copy = step.position.temp
    if copy is not None:  # that it is not locked either shows when it is locked for the swap
        inodes.append((copy.dev, copy.inode))
    return step.position.kind, inodes


def _not_prepared(path: str, why: str) -> RefusedError:
    return RefusedError("not_prepared", "{}: {}".format(path, why), "run prepare for all files of the permit first")


def _refuse_left_out(steps: Sequence[Step]) -> None:
    """The batch is whole: a prepared file that the permit does not name would stay behind locked."""
    named = {step.path for step in steps}
    for owner in {step.owner.directory: step.owner for step in steps}.values():
        for entry in owner.entries:
            path = owner.beside(entry.name)
            if entry.state in ("prepared", "swapping") and path not in named:
                raise RefusedError(
                    "permit_mismatch",
                    "{} is prepared and the permit does not name it".format(path),
                    "ask for a permit for all prepared files; they are swapped in one batch",
                )


def _refuse_changed(step: Step) -> None:
    """Compare a file with what the permit says and with what prepare copied."""
    source, position = step.entry.facts["source"], step.position
    named = position.named
    begun = step.entry.state != "prepared"
    usual = (positions.ORIGINAL, positions.LINKED, positions.SWAPPED) if begun else (positions.ORIGINAL,)
    if named is None or position.kind not in usual:
        raise RefusedError(
            "unexpected_inode",
            "{} or its quarantined original is not the file that was prepared".format(step.path),
            "someone else has changed these names: look with ls -li {}/.unlatch-*; nothing was touched".format(
                step.owner.directory
            ),
        )
    if position.kind == positions.ORIGINAL:
        safety.refuse_unfit(step.path, named)
        changed = identity.differences(source, named, prepare.UNCHANGED)
    elif position.kind == positions.LINKED:
        safety.refuse_unfit(step.path, named, links=2)
        changed = identity.differences(source, named, UNCHANGED_BUT_LINKED)
    else:
        changed = identity.differences(step.entry.facts["temp"], named, UNCHANGED_BUT_LINKED)
        written = [] if step.entry.state == "committed" else swapping.written_late(step)
        if written:
            alarm = verify.late_writer(step.quarantine, step.path, written)
            raise RefusedError(alarm.code, alarm.message, alarm.next_step)
    if changed:
        raise prepare.source_changed(step.owner, step.path, changed)
    allowed = step.allowed
    # After a kill the permit may name a swapped file by its old inode or by its new one.
    fits = allowed.inode in (step.entry.source_inode, named.inode) and allowed.dev == named.dev
    if not fits or (allowed.size_bytes, allowed.mtime_ns) != (source["size_bytes"], source["mtime_ns"]):
        raise RefusedError(
            "permit_mismatch",
            "the permit saw another {} (inode {}, {} bytes)".format(step.path, allowed.inode, allowed.size_bytes),
            "ask the controller for a new permit: it looks at all evidence again",
        )
    if position.kind != positions.SWAPPED and not _copy_is_intact(step):
        raise _not_prepared(step.path, "its copy is gone or was changed")


def _copy_is_intact(step: Step) -> bool:
    """Say whether a finished copy is still as it was left."""
    temp = step.position.temp
    return temp is not None and not identity.differences(step.entry.facts["temp"], temp, prepare.UNCHANGED)


def _compare_after_interruption(steps: Sequence[Step], beat: Beat) -> None:
    """After a kill, or another boot, a copy is trusted only after a new look at every byte."""
    begun = any(step.entry.state != "prepared" for step in steps)
    this_boot = bootclock.boot_id()
    rebooted = any(step.owner.history.boot_id != this_boot for step in steps)
    if not begun and not rebooted:
        return
    pending = [step for step in steps if step.position.kind in (positions.ORIGINAL, positions.LINKED)]
    progress = Progress(sum(step.entry.facts["source"]["size_bytes"] for step in pending), beat)
    for step in pending:
        if not prepare.same_content(step.owner, step.entry, progress):
            raise prepare.source_changed(step.owner, step.path, ["content"])


def _documents(
    steps: Sequence[Step], beat: Beat, *, on_nfs: bool, were_locked: Optional[Sequence[bool]] = None
) -> Iterator[Json]:
    """Yield the answer's entries of files that are swapped, after a last look at both locks of each.

    Args:
        steps: the files.
        beat: called before each touch.
        on_nfs: whether a look waits for a server.
        were_locked: when they were swapped just now, of each whether this program kept its new inode locked all the
            time: then nobody else could lock that. A lock on a new one is an error then; None when they were not.

    Raises:
        CheckFailedError: after the last of them, ``new_inode_locked``.
    """
    listed = locks.listed_here()

    def was_locked(number: int) -> bool:
        return were_locked is not None and were_locked[number]

    def asked(number: int) -> Tuple[Optional[Json], bool]:
        step = steps[number]
        new = None if was_locked(number) else locks.on_file(step.path, listed)
        old = locks.on_file(step.quarantine, listed)
        return new, old is not None and old["kind"] != "none"

    locked = None
    for number, (seen, is_old_locked) in enumerate(abreast.each(range(len(steps)), asked, beat, on_nfs=on_nfs)):
        step = steps[number]
        inode = (step.allowed.dev, step.entry.temp_inode or 0)
        new = locks.describe([], listed.get(inode, set())) if was_locked(number) else seen
        entry = _document(step, new, is_old_locked)
        if were_locked is not None and locked is None and (new is None or new["kind"] != "none"):
            locked = entry["path"]
        yield entry
    if locked is not None:
        raise CheckFailedError(
            "new_inode_locked",
            "{} is locked again right after its swap".format(locked),
            "look who locked it (check-locks): something was started, or another machine works on the volume",
        )


def _document(step: Step, lock: Optional[Json], is_old_locked: bool) -> Json:
    """Return the answer's entry of a swapped file."""
    method, verified = step.entry.facts["method"], step.entry.facts.get("verified", "content")
    return {
        "path": step.path,
        "inode_before": step.entry.source_inode,
        "inode_after": step.entry.temp_inode,
        "size_bytes": step.entry.facts["source"]["size_bytes"],
        "quarantine": step.quarantine,
        "content_equal": verified in ("content", "extents"),  # of a clone: that it shares the original's blocks
        "method": method,
        "verified": verified,
        "lock": lock,
        "old_inode_still_locked": is_old_locked,
        "metadata_lost": step.entry.facts["metadata_lost"],
        "state": "committed",
    }
