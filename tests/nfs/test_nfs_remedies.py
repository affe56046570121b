"""Which remedy is right for which crash on NFSv3, on real stale locks: each test names it."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.integration.repair import Repair
from tests.nfs.nfs_checks import committed, live_locks, nothing_lost, remedy_that_worked, run_lane, traces, tried
from tests.nfs.nfs_lab import UNITS, NfsLab, say
from tests.nfs.nfs_provision import provision_guest, provision_nas
from tests.nfs.nfs_site import Site
from unlatch import wiring
from unlatch.lifecycle import IncidentState

Unlatch = Callable[..., Repair[Site]]


def test_blocked_notifications_need_the_copy(lab: NfsLab, agent, unlatch: Unlatch) -> None:
    """It should try the notification, see that it has no effect where the NAS cannot hear it, and recreate the files.

    As in 2014: the storage team lets nobody clear. Its firewall drops what guests say of their restarts.
    """
    provision_nas(lab, agent, without={"unlatch-nas-clear"})
    crash = lab.crash("firewall", settle=True)
    repair = unlatch(peers=())
    repair.open(reason="a test")
    for instance in UNITS:
        run_lane(repair, instance, crash)
    wiring.update_ticket(repair.incident, actor="test")

    for instance in ("voms", "alvmysql"):
        assert remedy_that_worked(repair, instance) == "recreate"
    outcomes = {i: {name: one["outcome"] for name, one in tried(repair, i).items()} for i in ("voms", "alvmysql")}
    assert outcomes["voms"] == {"clear": "no_privilege", "notify": "no_effect"}
    assert outcomes["alvmysql"] == {"clear": "not_possible", "notify": "not_possible"}, "voms lives by then"
    recreated = [f for i in ("voms", "alvmysql") for f in repair.results[i, "recreate_files"]["files"]]
    assert all(f["content_equal"] and f["old_inode_still_locked"] for f in recreated)
    assert {str(f["inode_before"]) for f in recreated} == {_inode(line) for line in crash.locks_before}
    nothing_lost(lab, crash)
    for instance in ("voms", "alvmysql"):
        assert live_locks(lab, instance), f"{instance} runs without its locks"
    row = repair.store.incident(repair.incident)
    assert row is not None
    assert row.state is IncidentState.AWAITING_PURGE

    # What the boot's own notification still does: it has gone on trying, and is heard once the block is gone.
    before = {i: live_locks(lab, i) for i in ("voms", "alvmysql")}
    lab.root("nas", "nft delete table inet nsm")
    notifying = lab.root("client", "pgrep -a sm-notify", check=False).strip()
    say(f"the block is gone; still notifying: {notifying or 'nobody'}")
    time.sleep(30)  # nothing tells that a notification will NOT come: its retry interval is half of that
    after = {i: live_locks(lab, i) for i in ("voms", "alvmysql")}
    assert after == before, "a notification of the last boot has freed the locks of the repaired databases"


def _inode(line: str) -> str:
    return next(word.removeprefix("ino=") for word in line.split() if word.startswith("ino="))


def test_storage_team_that_lets_clear(lab: NfsLab, agent, unlatch: Unlatch) -> None:
    """It should clear on the NAS, which is the quickest, when that is granted and hits nobody who lives."""
    crash = lab.crash("statelost")
    provision_guest(lab, agent)
    repair = unlatch(peers=())
    repair.open(reason="a test")
    for instance in UNITS:
        run_lane(repair, instance, crash)
    assert remedy_that_worked(repair, "voms") == "clear"
    assert repair.results["voms", "recreate_files"]["files"] == []
    nothing_lost(lab, crash)
    for instance in ("voms", "alvmysql"):
        assert live_locks(lab, instance), f"{instance} runs without its locks"


def test_missing_grants_are_recorded_and_the_next_remedy_is_tried(lab: NfsLab, agent, unlatch: Unlatch) -> None:
    """It should record what would have let it clear and notify, and recreate the files with what it may do."""
    provision_nas(lab, agent, without={"unlatch-nas-clear"})
    crash = lab.crash("statelost")
    provision_guest(lab, agent, without={"unlatch-notify"})
    repair = unlatch(peers=())
    repair.open(reason="a test", instances=["alvmysql"])
    run_lane(repair, "alvmysql", crash)
    assert remedy_that_worked(repair, "alvmysql") == "recreate"
    for remedy, command in (("clear", "unlatch-nas-clear"), ("notify", "unlatch-notify")):
        said = str(tried(repair, "alvmysql")[remedy])
        assert "NOPASSWD" in said
        assert command in said
        assert command in repair.ticket
    lost = crash.acknowledged["alvmysql"] - committed(lab, "alvmysql")
    assert not lost


def test_living_neighbour_keeps_its_locks(lab: NfsLab, agent, unlatch: Unlatch) -> None:
    """It should recreate, though notifying and clearing are granted: both would cost the running voms its locks."""
    crash = lab.crash("statelost")
    provision_guest(lab, agent)
    only_copy = {"remedies": {"forbid": ["clear", "notify"]}}
    first = unlatch(peers=(), policy=only_copy)
    first.open(reason="voms first", instances=["voms"])
    run_lane(first, "voms", crash)
    assert remedy_that_worked(first, "voms") == "recreate"
    living = live_locks(lab, "voms")
    assert living

    second = unlatch(peers=())
    opened = second.open(reason="now alvmysql", instances=["alvmysql"], incident="inc-the-other-one")
    assert opened["instances"] == ["alvmysql"]
    run_lane(second, "alvmysql", crash)
    assert remedy_that_worked(second, "alvmysql") == "recreate"
    for remedy in ("clear", "notify"):
        attempt = tried(second, "alvmysql")[remedy]
        assert attempt["outcome"] in {"not_possible", "refused"}
        assert "voms" in attempt["words"] or "mariadbd" in attempt["words"]
    assert live_locks(lab, "voms") == living
    nothing_lost(lab, crash)


@pytest.mark.parametrize("cause", ["none", "hostname"])
def test_guest_that_heals_by_itself_is_left_alone(lab: NfsLab, agent, unlatch: Unlatch, cause: str) -> None:
    """It should see that all three came back by themselves, touch nothing, confirm access, and say so."""
    crash = lab.crash(cause, settle=True)
    before = traces(lab)
    repair = unlatch(peers=())
    repair.open(reason="a test")
    for instance in UNITS:
        run_lane(repair, instance, crash)
        assert repair.results[instance, "check_locks"]["healthy"]
        assert not repair.results[instance, "hold_service"]["held"]
        assert remedy_that_worked(repair, instance) is None
        assert repair.results[instance, "restart_database"] == {"started": False, "why": "it was up already"}
    wiring.update_ticket(repair.incident, actor="test")
    assert traces(lab) == before
    nothing_lost(lab, crash)
    row = repair.store.incident(repair.incident)
    assert row is not None
    assert row.state is IncidentState.CLOSED
    assert "accepts logins" in repair.ticket
