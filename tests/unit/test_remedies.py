"""Which remedy comes first, which may not be used, and what a plan says of each file."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.builders import NOW, locked
from unlatch import remedies
from unlatch.models import (
    LOCK_REMEDIES,
    FileFact,
    FileState,
    LockKind,
    Plan,
    Reach,
    Remedy,
    RemedyPolicy,
    Verdict,
    VerdictKind,
)
from unlatch.remedies import Circumstances, Obstacle

DEAD = Verdict(VerdictKind.DEAD, (), (), "digest", NOW + timedelta(seconds=60))
ON_V3 = Circumstances(NOW, NOW - timedelta(seconds=30), nfs_version="3")
ON_V4 = replace(ON_V3, nfs_version="4.2", lease_s=90.0)


def verdict_of(kind: VerdictKind) -> Verdict:
    return replace(DEAD, kind=kind)


def plan(
    files: list[FileFact],
    verdict: Verdict = DEAD,
    *,
    order: list[PurePosixPath] | None = None,
    circumstances: Circumstances | None = None,
    policy: RemedyPolicy | None = None,
    hold_for_person: str | None = None,
) -> Plan:
    return remedies.plan(
        files,
        verdict,
        order=[f.path for f in files] if order is None else order,
        circumstances=circumstances or Circumstances(NOW),
        policy=policy or RemedyPolicy(),
        hold_for_person=hold_for_person,
    )


def tries(circumstances: Circumstances, **policy: tuple[str, ...]) -> list[Remedy]:
    """What a plan for one big file would try, in order."""
    made = plan([locked("ibdata1", size_bytes=10**9)], circumstances=circumstances, policy=RemedyPolicy(**policy))
    return [o.remedy for o in made.options if o.allowed]


@pytest.mark.parametrize(
    ("lock", "verdict", "state", "remedy"),
    [
        (LockKind.NONE, VerdictKind.DEAD, FileState.FREE, None),
        (LockKind.NONE, VerdictKind.ALIVE, FileState.FREE, None),
        (LockKind.REMOTE, VerdictKind.DEAD, FileState.STALE, Remedy.RECREATE),
        (LockKind.REMOTE, VerdictKind.UNKNOWN, FileState.UNKNOWN, Remedy.RECREATE),
        (LockKind.REMOTE, VerdictKind.ALIVE, FileState.HELD, None),
        (LockKind.LOCAL, VerdictKind.DEAD, FileState.HELD, None),
        (LockKind.PIDFILE, VerdictKind.DEAD, FileState.STALE, Remedy.SET_ASIDE),
        (LockKind.PIDFILE, VerdictKind.ALIVE, FileState.HELD, None),
    ],
)
def test_file_state_and_remedy(lock: LockKind, verdict: VerdictKind, state: FileState, remedy: Remedy | None) -> None:
    """It should read a lock only in the light of the instance's verdict."""
    fact = locked("ibdata1", lock)
    conclusion = verdict_of(verdict)
    (planned,) = plan([fact], conclusion).files
    assert (planned.state, planned.remedy) == (state, remedy)


def test_unused_pid_is_left_to_the_engine() -> None:
    """It should leave a pid file alone whose pid belongs to nobody: the engine starts by itself."""
    fact = locked("postmaster.pid", LockKind.PIDFILE)
    unused = replace(fact, lock=replace(fact.lock, process=None))
    assert remedies.file_state(unused, VerdictKind.DEAD) is FileState.FREE


def test_plan_keeps_the_order_and_adds_up() -> None:
    """It should keep the engine's commit order and estimate more for more bytes."""
    big, small = locked("ibdata1", size_bytes=10**9), locked("aria_log_control")
    made = plan([big, small], order=[small.path, big.path])
    assert made.paths(Remedy.RECREATE) == (small.path, big.path)
    assert made.files[1].estimate_s > made.files[0].estimate_s
    assert made.needs_person is None


def test_unknown_and_storm_need_a_person() -> None:
    """It should ask a person for an unknown verdict, and for a dead one in a storm."""
    assert plan([], verdict_of(VerdictKind.UNKNOWN)).needs_person
    assert "storm" in str(plan([], hold_for_person="a storm").needs_person)
    assert plan([]).needs_person is None


def test_plan_ignores_files_outside_the_order() -> None:
    """It should not know a file that nobody looked at."""
    with pytest.raises(KeyError):
        plan([], order=[PurePosixPath("/ORA/dbs03/voms/ibdata1")])


def test_nothing_but_the_copy_on_a_local_volume() -> None:
    """It should offer no way to free locks that no server keeps."""
    assert tries(Circumstances(NOW)) == [Remedy.RECREATE]


def test_v3_notifies_first() -> None:
    """It should notify before it copies, and clear on the NAS before both, as the estimates have it."""
    assert tries(ON_V3) == [Remedy.NOTIFY, Remedy.RECREATE]
    assert tries(replace(ON_V3, clear_reach=Reach.VOLUME)) == [Remedy.CLEAR, Remedy.NOTIFY, Remedy.RECREATE]


def test_v4_waits_for_the_rest_of_the_lease() -> None:
    """It should wait as long as the lease still runs, counted from the death, and never less than the slack."""
    (first, *_) = plan([locked("ibdata1")], circumstances=ON_V4).options
    assert (first.remedy, first.estimate_s) == (Remedy.WAIT_LEASE, 70.0)
    later = replace(ON_V4, now=NOW + timedelta(hours=1))
    assert plan([locked("ibdata1")], circumstances=later).options[0].estimate_s == remedies.LEASE_SLACK_S


def test_a_long_lease_is_not_waited_for() -> None:
    """It should copy at once where waiting would take longer than the copy is worth avoiding."""
    assert tries(replace(ON_V4, lease_s=3600.0))[0] is Remedy.RECREATE


def test_a_copy_under_a_living_lease_may_wait_and_says_so() -> None:
    """It should say that the swap may have to wait for the server, only while the dead client has a lease."""

    def why(now: Circumstances) -> str:
        return next(o.why for o in plan([locked("ibdata1")], circumstances=now).options if o.remedy is Remedy.RECREATE)

    assert "delegations" in why(ON_V4)
    assert "delegations" not in why(replace(ON_V4, now=NOW + timedelta(hours=1)))
    assert "delegations" not in why(ON_V3)


def test_what_would_hit_the_living_is_not_allowed_and_says_why() -> None:
    """It should keep what may not be used in the plan, behind the rest, with the reason."""
    now = replace(ON_V3, notify_refused=Obstacle("alvmysql runs on this guest"))
    made = plan([locked("ibdata1")], circumstances=now)
    assert [(o.remedy, o.allowed) for o in made.options] == [(Remedy.RECREATE, True), (Remedy.NOTIFY, False)]
    assert (made.options[1].why, made.options[1].grant) == ("alvmysql runs on this guest", None)


def test_missing_privilege_is_in_the_plan_with_its_grant() -> None:
    """It should say what would grant it, apart from the reason; not so when the policy forbids the remedy anyway."""
    now = replace(ON_V3, notify_refused=Obstacle("sudo says no", "a line of sudoers"))
    assert plan([locked("ibdata1")], circumstances=now).options[1].grant == "a line of sudoers"
    forbidding = RemedyPolicy(forbid=("notify",))
    assert plan([locked("ibdata1")], circumstances=now, policy=forbidding).options[1].grant is None


def test_policy_orders_and_forbids() -> None:
    """It should follow the site's order, put what it does not name behind, and never use what it forbids."""
    everything = replace(ON_V3, clear_reach=Reach.FILES)
    assert tries(everything, order=("recreate", "notify")) == [Remedy.RECREATE, Remedy.NOTIFY, Remedy.CLEAR]
    assert tries(everything, forbid=("clear", "recreate")) == [Remedy.NOTIFY]
    assert tries(everything, order=("clear",), forbid=("clear",)) == [Remedy.NOTIFY, Remedy.RECREATE]


@given(
    st.sampled_from([None, "3", "4.0", "4.2"]),
    st.none() | st.sampled_from(list(Reach)),
    st.none() | st.just(Obstacle("hits the living")),
    st.sets(st.sampled_from([r.value for r in LOCK_REMEDIES])),
)
def test_what_is_refused_or_forbidden_is_never_allowed(
    version: str | None, reach: Reach | None, refused: Obstacle | None, forbidden: set[str]
) -> None:
    """It should never allow a remedy that the circumstances or the policy rule out, nor name one twice."""
    now = Circumstances(NOW, nfs_version=version, clear_reach=reach, clear_refused=refused, notify_refused=refused)
    made = plan([locked("ibdata1")], circumstances=now, policy=RemedyPolicy(forbid=tuple(sorted(forbidden))))
    allowed = [o.remedy for o in made.options if o.allowed]
    assert not {r.value for r in allowed} & forbidden
    assert len({o.remedy for o in made.options}) == len(made.options)
    if refused is not None:
        assert not {Remedy.CLEAR, Remedy.NOTIFY} & set(allowed)
    if version != "3":
        assert Remedy.NOTIFY not in allowed
    if version is None or version == "3":
        assert Remedy.WAIT_LEASE not in allowed


def test_free_files_need_no_remedy() -> None:
    """It should offer nothing when nothing is locked."""
    assert plan([locked("ibdata1", LockKind.NONE)], circumstances=ON_V3).options == ()
