"""From a verdict to a plan: which remedy, in which order, and how long it should take. Pure: no IO, no clock.

The cheapest safe remedy comes first, by estimate. A copy is the one that surely works and the one that leaves work
behind (originals to purge the next working day, space that is taken twice until then), so it comes first only where it
is at least `COPY_COSTS_S` faster than waiting, notifying or clearing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath

from unlatch.models import (
    LOCK_REMEDIES,
    FileFact,
    FilePlan,
    FileState,
    LockKind,
    Plan,
    Reach,
    Remedy,
    RemedyOption,
    RemedyPolicy,
    Verdict,
    VerdictKind,
)

COPY_RATE_BYTES_S = 100e6
"""Assumed rate of a verified copy, for estimates before the agent has measured its own; low on purpose."""

COPY_COSTS_S = 120.0
"""What a copy is taken to cost beyond its own time: the purge of the next working day, and space until then."""

LEASE_S = 90.0
"""The lease of a Linux NFSv4 server, where the server does not tell its own (nfsd's default)."""

LEASE_SLACK_S = 10.0
"""How long after the lease a server may take to let go of a dead client's locks."""

NOTIFY_S, CLEAR_S, SET_ASIDE_S = 15.0, 5.0, 1.0


@dataclass(frozen=True)
class Obstacle:
    """Why a remedy must not or cannot be used now; `grant` is what would give the privilege, where it lacks one."""

    why: str
    grant: str | None = None


@dataclass(frozen=True)
class Circumstances:
    """What the choice depends on beyond files and verdict.

    Attributes:
        now: The present moment.
        died_at: When the holder died; None when it is not known.
        nfs_version: Of the volume's mount, as `3` or `4.2`; None when it is no NFS.
        lease_s: The NFSv4 server's lease, where it told.
        notify_refused: Why the guest's lock notification must not or cannot be used now; None when it may.
        clear_reach: Whose locks a clear on the NAS would free; None when that is not known, or no clearer is declared.
        clear_refused: Why clearing on the NAS must not or cannot be used now; None when it may.
    """

    now: datetime
    died_at: datetime | None = None
    nfs_version: str | None = None
    lease_s: float | None = None
    notify_refused: Obstacle | None = None
    clear_reach: Reach | None = None
    clear_refused: Obstacle | None = None


def file_state(fact: FileFact, verdict: VerdictKind) -> FileState:
    """What the lock on one file means, given the verdict on its instance (rule 1)."""
    lock = fact.lock
    if lock.kind is LockKind.NONE or (lock.kind is LockKind.PIDFILE and lock.process is None):
        return FileState.FREE  # an engine ignores a pid file whose pid nobody has
    if lock.kind is LockKind.LOCAL or verdict is VerdictKind.ALIVE:
        return FileState.HELD
    return FileState.STALE if verdict is VerdictKind.DEAD else FileState.UNKNOWN


def plan(
    files: Sequence[FileFact],
    verdict: Verdict,
    *,
    order: Sequence[PurePosixPath],
    circumstances: Circumstances,
    policy: RemedyPolicy,
    hold_for_person: str | None = None,
) -> Plan:
    """What will be done for the instance, file by file in the order of the swap, and by which remedy first.

    Args:
        files: Locked files and pid files as the agent saw them.
        verdict: The verdict on the instance.
        order: All paths of `files` in the engine's commit order.
        circumstances: What decides which remedies are safe now.
        policy: The site's order, and what it forbids.
        hold_for_person: Why a person must agree even to a `dead` verdict (a storm, a maintenance window), or None.
    """
    by_path = {f.path: f for f in files}
    planned = tuple(_file_plan(by_path[path], file_state(by_path[path], verdict.kind)) for path in order)
    copied = [f for f in planned if f.remedy is Remedy.RECREATE]
    options = _options(copied, circumstances, policy) if copied else ()
    first = next((o.estimate_s for o in options if o.allowed), 0.0)
    needs_person = hold_for_person
    if verdict.kind is VerdictKind.UNKNOWN:
        needs_person = "; ".join(
            ["the proof of death is not complete", *([hold_for_person] if hold_for_person else [])]
        )
    return Plan(
        files=planned,
        estimate_s=round(first + sum(f.estimate_s for f in planned if f.remedy is Remedy.SET_ASIDE), 1),
        needs_person=needs_person,
        options=options,
    )


def _file_plan(fact: FileFact, state: FileState) -> FilePlan:
    remedy: Remedy | None = None
    estimate_s = 0.0
    if state is FileState.FREE:
        why = "not locked: nothing to do"
    elif state is FileState.HELD:
        why = "its holder lives: must not be touched"
    elif fact.lock.kind is LockKind.PIDFILE:
        remedy, estimate_s = Remedy.SET_ASIDE, SET_ASIDE_S
        why = f"names pid {fact.lock.pid}, which now belongs to another program: the server would not start"
    else:
        remedy, estimate_s = Remedy.RECREATE, 1.0 + fact.size_bytes / COPY_RATE_BYTES_S
        why = "its lock stays with the inode: the same content gets a new inode"
    return FilePlan(fact.path, state, remedy, why, fact.size_bytes, round(estimate_s, 1))


def _options(copied: Sequence[FilePlan], now: Circumstances, policy: RemedyPolicy) -> tuple[RemedyOption, ...]:
    """What applies to this kind of storage, in the order of the tries; what may not be used now stands last."""
    applying = [o for o in (_wait_lease(now), _notify(now), _clear(now), _recreate(copied, now)) if o is not None]
    permitted = [_as_policy_has_it(option, policy) for option in applying]
    return tuple(sorted(permitted, key=lambda option: (not option.allowed, *_rank(option, policy))))


def _rank(option: RemedyOption, policy: RemedyPolicy) -> tuple[float, int]:
    if policy.order:
        named = list(policy.order)
        return (named.index(option.remedy) if option.remedy in named else len(named), 0)
    cost = option.estimate_s + (COPY_COSTS_S if option.remedy is Remedy.RECREATE else 0.0)
    return (cost, LOCK_REMEDIES.index(option.remedy))


def _as_policy_has_it(option: RemedyOption, policy: RemedyPolicy) -> RemedyOption:
    if option.remedy not in policy.forbid:
        return option
    return RemedyOption(option.remedy, False, option.estimate_s, "the site's policy forbids it (policy.remedies)")


def _wait_lease(now: Circumstances) -> RemedyOption | None:
    if not _is_nfs4(now):
        return None  # an NFSv3 server never forgets by itself
    why = f"the server forgets a dead client after its lease ({now.lease_s or LEASE_S:.0f} s); nothing is touched"
    return RemedyOption(Remedy.WAIT_LEASE, True, _lease_left_s(now), why)


def _is_nfs4(now: Circumstances) -> bool:
    return now.nfs_version is not None and now.nfs_version.startswith("4")


def _lease_left_s(now: Circumstances) -> float:
    """How long until a client that died then is forgotten, with some slack."""
    lease_s = (now.lease_s or LEASE_S) + LEASE_SLACK_S
    passed_s = (now.now - now.died_at).total_seconds() if now.died_at else 0.0
    return round(max(LEASE_SLACK_S, lease_s - passed_s), 1)


def _notify(now: Circumstances) -> RemedyOption | None:
    if now.nfs_version is None or not now.nfs_version.startswith("3"):
        return None  # NFSv4 has no lock notifications
    if now.notify_refused is not None:
        return _refused(Remedy.NOTIFY, NOTIFY_S, now.notify_refused)
    why = "the guest tells the server that it has restarted, which frees its old locks; no database on it holds any now"
    return RemedyOption(Remedy.NOTIFY, True, NOTIFY_S, why)


def _refused(remedy: Remedy, estimate_s: float, obstacle: Obstacle) -> RemedyOption:
    return RemedyOption(remedy, False, estimate_s, obstacle.why, obstacle.grant)


_FREED = {
    Reach.FILES: "frees just these files",
    Reach.CLIENT: "frees what the dead client held",
    Reach.VOLUME: "frees every lock on the volume; nobody who may mount it holds one",
}


def _clear(now: Circumstances) -> RemedyOption | None:
    if now.clear_refused is not None:
        return _refused(Remedy.CLEAR, CLEAR_S, now.clear_refused)
    if now.clear_reach is None:
        return None  # no lock clearer is declared for the volume
    return RemedyOption(Remedy.CLEAR, True, CLEAR_S, f"the NAS drops the locks: {_FREED[now.clear_reach]}")


def _recreate(copied: Sequence[FilePlan], now: Circumstances) -> RemedyOption:
    size_bytes = sum(f.size_bytes for f in copied)
    why = f"a verified copy of {len(copied)} files ({size_bytes / 1e6:.0f} MB) gets new inodes, which nobody has locked"
    if _is_nfs4(now) and _lease_left_s(now) > LEASE_SLACK_S:
        why += "; the swap may have to wait until the server has forgotten the dead client's delegations"
    return RemedyOption(Remedy.RECREATE, True, round(sum(f.estimate_s for f in copied), 1), why)
