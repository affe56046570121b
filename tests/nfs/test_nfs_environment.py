"""Mounts that hide locks, no lock service, a NAS that hangs, NFSv4: refused or waited for, never stuck."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.integration.repair import LANE, Repair
from tests.nfs.nfs_checks import (
    committed,
    nothing_lost,
    remedy_that_worked,
    run_lane,
    step_with_retries,
    traces,
)
from tests.nfs.nfs_lab import UNITS, Crash, NfsLab, say
from tests.nfs.nfs_provision import provision_guest, provision_nas
from tests.nfs.nfs_site import Site
from unlatch.errors import RefusedError, UnlatchError

Unlatch = Callable[..., Repair[Site]]

HUNG_LIMIT_S = 400.0
"""How long a step may take on a hung NAS before a task counts as stuck; Airflow's own limits are longer."""


def test_nfs4_lease_is_waited_for(lab_v4: NfsLab, agent, unlatch: Unlatch) -> None:
    """It should wait for the NAS to forget the dead NFSv4 client, and copy nothing.

    The guest comes back under another name, so that the NAS takes it for another client and keeps the dead one's locks.
    Nothing on it starts databases by itself.
    """
    provision_nas(lab_v4, agent, without={"unlatch-nas-clear"})
    lab_v4.is_spoiled = True  # from here on its NAS has another lease
    longer_lease(lab_v4)
    lab_v4.root("client", f"systemctl disable {' '.join(UNITS.values())}; sync")
    crash = lab_v4.crash("hostname")
    # How much of the lease is left when the plan is made is a matter of this machine's speed.
    repair = repaired_without_copies(lab_v4, unlatch, crash, policy={"remedies": {"forbid": ["recreate"]}})
    assert remedy_that_worked(repair, "voms") == "wait_lease"


def test_nfs4_start_that_hangs_until_the_lease_is_over(lab_v4: NfsLab, unlatch: Unlatch) -> None:
    """It should wait while the guest's own starts hang on the dead client's state, and copy nothing.

    A server that is stuck in open() keeps its directory locked on the guest, so that nothing can look at it either.
    """
    crash = lab_v4.crash("hostname")
    repaired_without_copies(lab_v4, unlatch, crash)


def repaired_without_copies(lab: NfsLab, unlatch: Unlatch, crash: Crash, **site: object) -> Repair[Site]:
    """All three are back, nothing is lost, and nothing was copied; other arguments as of `Site`."""
    before = traces(lab)
    repair = unlatch(peers=(), **site)
    repair.open(reason="a test")
    for instance in UNITS:
        run_lane(repair, instance, crash)
        assert repair.results[instance, "recreate_files"].get("files", []) == []
    if aside := repair.results["lxr", "clear_locks"].get("set_aside"):
        say(f"another program has the dead postmaster's pid, so its pid file went aside: {aside}")
    else:
        assert traces(lab) == before
    nothing_lost(lab, crash)
    say(f"NFSv4.2: {[(i, remedy_that_worked(repair, i)) for i in UNITS]}")
    return repair


LEASE_S = 200
"""More than crash, boot and evidence take on emulated machines."""


def longer_lease(lab: NfsLab) -> None:
    """Give the NAS another lease. Its server starts anew for that, so no database may have state there meanwhile."""
    units = " ".join(UNITS.values())
    lab.root("client", f"systemctl stop {units}")
    told = lab.root(
        "nas",
        f"printf '[nfsd]\\nlease-time={LEASE_S}\\ngrace-time=15\\n' >/etc/nfs.conf.d/lease.conf && "
        "systemctl restart nfs-server && cat /proc/fs/nfsd/nfsv4leasetime",
    )
    assert told.split() == [str(LEASE_S)]
    lab.root("client", f"systemctl start {units}", limit_s=400)


def test_mount_without_locks_is_refused(lab: NfsLab, unlatch: Unlatch) -> None:
    """It should refuse a mount whose locks reach nobody, and say which option is in the way."""
    crashed_once(lab)
    lab.remount("nolock")
    repair = unlatch(peers=())
    repair.open(reason="a test", instances=["alvmysql"])
    before = traces(lab)
    with pytest.raises(RefusedError, match="nolock"):
        repair.step("check_locks", "alvmysql")
    for step in LANE[1:-1]:
        with pytest.raises(RefusedError):
            repair.step(step, "alvmysql")
    assert lab.active("alvmysql") in {"inactive", "failed"}
    assert traces(lab) == before
    assert "nolock" in repair.ticket
    lab.remount()
    lab.root("client", f"systemctl unmask --runtime {UNITS['alvmysql']}")
    lab.root("client", f"systemctl start {' '.join(UNITS.values())}", limit_s=400)


def test_lock_service_that_died_is_named(lab: NfsLab, unlatch: Unlatch) -> None:
    """It should say that the lock service is missing when a start ends with ENOLCK, and repair no file for it.

    The kernel asks statd about its server once, at the first lock: the mount is new and statd killed before that. It
    gets no time to withdraw its port: asked where statd is, the kernel would wait for a minute.
    """
    crashed_once(lab)
    lab.is_spoiled = True
    lab.remount()
    lab.root("client", "systemctl mask --runtime rpc-statd; pkill -9 rpc.statd; dmesg -C")
    before = traces(lab)
    repair = unlatch(peers=())
    repair.open(reason="a test", instances=["alvmysql"])
    with pytest.raises(UnlatchError, match="ENOLCK"):
        repair.lane("alvmysql")
    assert "cannot monitor nas" in lab.root("client", "dmesg"), "the kernel has not asked statd"
    assert not repair.results.get(("alvmysql", "recreate_files"), {}).get("files")
    assert traces(lab) == before, "ENOLCK is never a reason to repair files"
    assert "rpc-statd" in repair.ticket


def crashed_once(lab: NfsLab) -> None:
    """The guest has died, so that its death is proven; by whatever cause, since nothing is locked afterwards."""
    if lab.last_crash is None:
        lab.crash("none", settle=True)


def test_hung_nas_traps_no_step(lab: NfsLab, agent, unlatch: Unlatch) -> None:
    """It should end every step within its limit while the NAS hangs, say so, and go on when the NAS is back."""
    provision_nas(lab, agent, without={"unlatch-nas-clear"})
    crash = lab.crash("statelost")
    provision_guest(lab, agent, without={"unlatch-notify"})
    lab.settled("alvmysql")
    repair = unlatch(peers=())
    repair.open(reason="a test", instances=["alvmysql"])
    for step in LANE:
        with lab.paused("nas"):
            error = ends_in_time(repair, step, "alvmysql")
        if step in NEEDS_THE_NAS:
            assert error is not None, f"{step} cannot have done its work without the NAS"
        step_with_retries(repair, step, "alvmysql")
    assert repair.results["alvmysql", "verdict"]["verdict"]["kind"] == "dead"
    assert remedy_that_worked(repair, "alvmysql") == "recreate"
    assert repair.results["alvmysql", "confirm_access"]["access"] == "ok"
    lost = crash.acknowledged["alvmysql"] - committed(lab, "alvmysql")
    assert not lost


NEEDS_THE_NAS = frozenset({"check_locks", "clear_locks", "recreate_files", "restart_database"})
"""The others may end well: a service is held, and a verdict comes to `unknown`, without a look at the volume."""


def ends_in_time(repair: Repair[Site], step: str, instance: str) -> UnlatchError | None:
    """Run a step that may fail, but only in words of Unlatch's own and within the limit; how it failed."""
    began, error = time.monotonic(), None
    try:
        result = repair.step(step, instance)
    except UnlatchError as caught:
        error = caught
    took_s = time.monotonic() - began
    if error is None:
        assert step != "verdict" or result["verdict"]["kind"] == "unknown", "a hung NAS proves nothing"
    ended = "ended well" if error is None else f"{type(error).__name__}: {error.what[:300]}"
    say(f"HUNG NAS {step}: {took_s:.0f} s, {ended}")
    assert took_s < HUNG_LIMIT_S
    return error


def test_service_that_hangs_with_the_nas_is_told(lab: NfsLab, unlatch: Unlatch) -> None:
    """It should report the hang, not a dead instance, when the NAS is silent while all databases run."""
    repair = unlatch(peers=())
    repair.open(reason="a test", instances=["voms"], incident="inc-hung")
    with lab.paused("nas"):
        assert ends_in_time(repair, "check_locks", "voms") is not None
        with pytest.raises(UnlatchError):
            repair.lane("voms", start="hold_service")
    run_lane(repair, "voms")
    assert repair.results["voms", "restart_database"]["started"] is False
