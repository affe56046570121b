"""The remedies that free stale locks and copy nothing: wait for the lease, notify, clear on the NAS.

Each is tried in the order of the plan. One that lacks its privilege is kept as such, with what would grant it, and the
next one is tried. After each the locks are looked at again: only a free file counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import PurePosixPath

from unlatch.actions import hold
from unlatch.assessment import look_at_files, pass_the_gate
from unlatch.errors import CheckFailedError, ConfigError, RefusedError, TransientError
from unlatch.looking import Look
from unlatch.models import FileFact, Json, LockKind, Plan, Reach, Remedy, RemedyOption
from unlatch.ports import Ports
from unlatch.recording import Case
from unlatch.remedies import Obstacle
from unlatch.start_right import give_back_start_rights, no_starts
from unlatch.sweeping import why_not_clear, why_not_notify

SETTLE_S = 15.0
"""How long a freed lock may take to be seen as free."""

LEASE_EXTRA_S = 60.0
"""How long after the estimate a lease is still waited for: a server in grace begins its clients' leases anew."""

_LOOK_S = 2.0
_INSTEAD = "the next remedy is tried; to use this one, stop what it names and clear the task verdict."

Paths = tuple[PurePosixPath, ...]


@dataclass(frozen=True)
class Cure:
    """What was tried, in order, and which files are free now."""

    tried: tuple[Json, ...]
    freed: Paths


def free_without_copy(case: Case, ports: Ports, repair: Plan) -> Cure:
    """Try what the plan has before the copy. Again after a kill: what is free already needs nothing more.

    Raises:
        RefusedError: the gate is closed; or all that the policy allows was tried and files are still locked.
        TransientError: a lane beside this one is starting a database; or the guest is out of reach.
    """
    before = tuple(_before_the_copy(repair))
    may_copy = any(o.allowed for o in repair.options if o.remedy is Remedy.RECREATE)
    if not before and (may_copy or not repair.options):
        return Cure((), ())
    give_back_start_rights(case, ports)  # a try that was killed in a sweep has found the locks free, and ends here
    targets = _not_begun(case, ports, repair.paths(Remedy.RECREATE))
    tried = []
    left = _locked(case, ports, targets)
    for option in before:
        if not option.allowed:
            tried.append(_not_now(option))
        elif left:
            done, left = _try(case, ports, option, targets)
            tried.append(done)
    if left and not may_copy:
        raise RefusedError(
            f"{', '.join(p.name for p in left)} of {case.instance.name} is still locked, and the site's policy forbids "
            "the copy.",
            next_step="free the locks on the NAS, or allow recreate in policy.remedies; then clear the task verdict.",
            detail={"tried": tried},
        )
    return Cure(tuple(tried), tuple(p for p in targets if p not in left))


def _before_the_copy(repair: Plan) -> Iterator[RemedyOption]:
    """What cannot be used is told as well, though it stands behind the copy."""
    copy_seen = False
    for option in repair.options:
        copy_seen = copy_seen or (option.remedy is Remedy.RECREATE and option.allowed)
        if option.remedy is not Remedy.RECREATE and not (copy_seen and option.allowed):
            yield option


def _not_begun(case: Case, ports: Ports, paths: Paths) -> Paths:
    """Without files that this incident has swapped already: those are free for another reason."""
    if not paths:
        return ()
    directories = tuple(sorted({p.parent for p in paths}))
    begun = {f.path for f in ports.agent.status(case.incident, case.instance, directories).files}
    return tuple(p for p in paths if p not in begun)


def _locked_files(case: Case, ports: Ports) -> tuple[FileFact, ...]:
    return tuple(f for f in look_at_files(case, ports) if f.lock.kind in {LockKind.REMOTE, LockKind.LOCAL})


def _locked(case: Case, ports: Ports, targets: Paths) -> Paths:
    locked = {f.path for f in _locked_files(case, ports)}
    return tuple(p for p in targets if p in locked)


def _try(case: Case, ports: Ports, option: RemedyOption, targets: Paths) -> tuple[Json, Paths]:
    """What came of one remedy, and what is locked after it."""
    pass_the_gate(case, ports)
    hold(case, ports)  # a guest that was booted while a person was asked has forgotten the hold
    detail = {"remedy": option.remedy.value, "estimate_s": option.estimate_s, "why": option.why}
    ports.store.note(case.incident, case.instance.name, "clear_locks", "remedy", actor=ports.actor, detail=detail)
    began = ports.clock.now()
    try:
        words, left = _REMEDIES[option.remedy](case, ports, option, targets)
    except ConfigError as error:
        done = _outcome(option, "no_privilege", error.what, grant=error.next_step)
    except (RefusedError, CheckFailedError, TransientError) as error:
        done = _outcome(option, "refused" if isinstance(error, RefusedError) else "failed", str(error))
    else:
        seconds = round((ports.clock.now() - began).total_seconds(), 1)
        found = "freed" if not left else "no_effect" if len(left) == len(targets) else "partly"
        done = _outcome(option, found, words, seconds=seconds, still_locked=[str(p) for p in left])
    ports.store.note(case.incident, case.instance.name, "clear_locks", "tried", actor=ports.actor, detail=done)
    return done, left if "still_locked" in done else _locked(case, ports, targets)


def _outcome(option: RemedyOption, outcome: str, words: str, **more: object) -> Json:
    return {"remedy": option.remedy.value, "outcome": outcome, "words": words, **more}


def _not_now(option: RemedyOption) -> Json:
    """What the plan has ruled out already; a privilege that is missing looks the same, whenever that is found."""
    if option.grant is not None:
        return _outcome(option, "no_privilege", option.why, grant=option.grant)
    return _outcome(option, "not_possible", option.why)


def _insist(obstacle: Obstacle | None) -> None:
    """Go on where nothing is in the way.

    Raises:
        ConfigError: a privilege is missing.
        RefusedError: somebody would be hit.
    """
    if obstacle is not None and obstacle.grant is not None:
        raise ConfigError(obstacle.why, next_step=obstacle.grant)
    if obstacle is not None:
        raise RefusedError(obstacle.why, next_step=_INSTEAD)


_Tried = tuple[str, Paths]
"""What a remedy did, in words, and which files are locked after it."""


def _wait_lease(case: Case, ports: Ports, option: RemedyOption, targets: Paths) -> _Tried:
    began = ports.clock.now()
    left = _until_free(case, ports, targets, option.estimate_s + LEASE_EXTRA_S)
    waited_s = (ports.clock.now() - began).total_seconds()
    return f"waited {waited_s:.0f} s for the server to forget the dead client", left


def _notify(case: Case, ports: Ports, _option: RemedyOption, targets: Paths) -> _Tried:
    with no_starts(case, ports, Reach.CLIENT):
        if not _locked(case, ports, targets):
            return "another lane's notification has freed them", ()
        pass_the_gate(case, ports)  # the wait for the rights may have outlived the evidence
        _insist(why_not_notify(case, ports, Look.begin(ports)))
        answer = ports.agent.notify()
        left = _until_free(case, ports, targets, SETTLE_S)
    told = ", ".join(answer.acknowledged) or "nobody"
    silent = f"; no answer from {', '.join(answer.unanswered)}" if answer.unanswered else ""
    return f"told {', '.join(answer.servers) or 'no server'}: acknowledged by {told}{silent}", left


def _clear(case: Case, ports: Ports, _option: RemedyOption, targets: Paths) -> _Tried:
    clearer = ports.clearer
    if clearer is None:
        raise RefusedError("no lock clearer is declared any more", next_step="restore it in the inventory.")
    reach = clearer.reach(clearer.list(targets))
    with no_starts(case, ports, reach):
        still = {f.path: f.inode for f in _locked_files(case, ports) if f.path in targets}
        if not still:
            return "they were free by then", ()
        pass_the_gate(case, ports)
        _insist(why_not_clear(case, Look.begin(ports), reach))
        view = clearer.list(tuple(still))
        if clearer.reach(view) is not reach:
            raise RefusedError(
                "another lock was taken on the NAS meanwhile, and a clear would now free more than that",
                next_step="the next remedy is tried; to plan anew, clear the task verdict.",
            )
        # A NAS may list an inode without its name; on NFS it is the guest's inode too.
        inodes = set(still.values())
        ours = [lock for lock in view.locks if lock.path in still or (lock.path is None and lock.inode in inodes)]
        answer = clearer.clear(ours)
        left = _until_free(case, ports, targets, SETTLE_S)
    return answer.words, left


def _until_free(case: Case, ports: Ports, targets: Paths, limit_s: float) -> Paths:
    """Look until nothing of `targets` is locked or the limit is reached; what is locked still."""
    deadline = ports.clock.now() + timedelta(seconds=limit_s)
    while (left := _locked(case, ports, targets)) and ports.clock.now() < deadline:
        ports.clock.pause(_LOOK_S)
    return left


_REMEDIES: dict[Remedy, Callable[[Case, Ports, RemedyOption, Paths], _Tried]] = {
    Remedy.WAIT_LEASE: _wait_lease,
    Remedy.NOTIFY: _notify,
    Remedy.CLEAR: _clear,
}
