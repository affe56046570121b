"""Owners that live, though they look dead: every one must be refused, and nothing of theirs be touched."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from tests.integration.repair import LANE, Repair
from tests.nfs.nfs_checks import live_locks, refused_everywhere, run_lane, traces, untouched
from tests.nfs.nfs_hypervisor import GUEST
from tests.nfs.nfs_lab import DATADIRS, MOUNTPOINT, UNITS, NfsLab, say
from tests.nfs.nfs_provision import provision_guest
from tests.nfs.nfs_site import STANDBY, Site
from unlatch import wiring
from unlatch.errors import CheckFailedError, RefusedError, TransientError, UnlatchError
from unlatch.lifecycle import IncidentState

Unlatch = Callable[..., Repair[Site]]


@contextmanager
def moved(lab: NfsLab, agent, instance: str) -> Iterator[None]:
    """An instance served by the standby instead of the guest, as after a move; moved back at the end."""
    unit = UNITS[instance]
    lab.standby("up")
    provision_guest(lab, agent, machine="standby")
    lab.root("client", f"systemctl disable {unit}; systemctl stop {unit}; sync")
    lab.standby("start", instance)
    try:
        yield
    finally:
        lab.standby("stop", instance)
        lab.root(
            "client",
            f"systemctl unmask --runtime {unit}; systemctl reset-failed {unit}; systemctl enable --now {unit}",
        )


def test_instance_that_was_moved_is_refused_when_its_old_guest_crashes(
    lab: NfsLab, standby: NfsLab, agent, unlatch: Unlatch
) -> None:
    """It should repair what died with the guest, and refuse alvmysql, which another host serves since before.

    That host's silence proves nothing either: then a person is asked, and a yes falls when the host answers again.
    """
    with moved(lab, agent, "alvmysql"):
        before = lab.quiet_fingerprint("alvmysql")
        crash = lab.crash("none", warm=False)
        for instance in ("voms", "lxr"):
            lab.settled(instance)
        repair = unlatch(peers=(STANDBY,), policy={"evidence_life_s": LIFE_S})
        repair.open(reason="a test")
        asked_while_the_peer_is_silent(lab, repair)

        for instance in ("voms", "lxr"):
            run_lane(repair, instance, crash)
        wait_until_expired(repair, "alvmysql")  # what was seen while it was silent must not let anything be touched
        for step in ("recreate_files", "restart_database", "verdict"):
            with pytest.raises(RefusedError, match=STANDBY):
                repair.step(step, "alvmysql")
        refused_everywhere(repair, "alvmysql")
        with pytest.raises(CheckFailedError, match="alvmysql"):
            wiring.update_ticket(repair.incident, actor="test")
        untouched(before, lab.quiet_fingerprint("alvmysql"))
        assert STANDBY in repair.ticket
        assert lab.root("standby", "mariadb-admin -S /run/dbod/alvmysql.sock ping").strip() == "mysqld is alive"


LIFE_S = 240
"""How long evidence lives here: a round of it on these machines, with a silent peer, and half of that again."""


def asked_while_the_peer_is_silent(lab: NfsLab, repair: Repair[Site]) -> None:
    """A person is asked, told which host was silent, and says yes; nothing is done before that answer."""
    with lab.paused("standby"):
        repair.lane("alvmysql", until="verdict")
        found = repair.results["alvmysql", "verdict"]
        assert found["verdict"]["kind"] == "unknown"
        assert STANDBY in " ".join(found["verdict"]["reasons"])
        question = wiring.question(repair.incident, "alvmysql", actor="test")
        assert question is not None
        assert STANDBY in question
        freed = repair.step("clear_locks", "alvmysql")
        assert {one["outcome"] for one in freed["tried"]} == {"not_possible"}, "voms lives, and would lose its locks"
        with pytest.raises(RefusedError, match="approval"):
            repair.step("recreate_files", "alvmysql")
    wiring.approve(repair.incident, "alvmysql", approved=True, by="eva", comment="it must be dead")


def wait_until_expired(repair: Repair[Site], instance: str) -> None:
    """Until the evidence of the instance's verdict may not be acted on any more."""
    expires_at = datetime.fromisoformat(repair.results[instance, "verdict"]["verdict"]["expires_at"])
    left_s = (expires_at - datetime.now(UTC)).total_seconds()
    say(f"the evidence that the person was shown lives for {left_s:.0f} s more")
    time.sleep(max(0.0, left_s + 1))  # the moment itself is what is waited for


@pytest.mark.parametrize("vers", ["3", "4.2"])
def test_guest_that_is_only_silent_is_never_dead(healthy: Callable[..., NfsLab], unlatch: Unlatch, vers: str) -> None:
    """It should wait for a guest that does not answer, and leave it alone when it does: it never died."""
    lab = healthy(vers)
    for instance in UNITS:
        lab.settled(instance)
    repair = unlatch(peers=())
    before, locked, inodes = traces(lab), locks_by_instance(lab), inodes_by_instance(lab)
    repair.open(
        reason="monitoring says that it is down", crashed_at=datetime.now(UTC).isoformat(), incident="inc-silent"
    )
    with lab.paused("client"):
        with pytest.raises((TransientError, CheckFailedError), match=GUEST):
            wiring.wait_for_guest(repair.incident, actor="test")
        with pytest.raises(CheckFailedError, match="accepts no login"):
            repair.step("confirm_access", "voms")  # it waits for minutes, in which an NFSv4 lease ends
        if vers != "3":
            _wait_for_courtesy(lab)
        for step in LANE[:-1]:
            with pytest.raises(UnlatchError):
                repair.step(step, "voms")
    wiring.wait_for_guest(repair.incident, actor="test")
    for instance in UNITS:
        run_lane(repair, instance)
        assert repair.results[instance, "check_locks"]["healthy"]
        assert not repair.results[instance, "hold_service"]["held"]
        assert repair.results[instance, "restart_database"]["started"] is False
    assert "dead" not in verdicts(repair)
    assert traces(lab) == before
    assert locks_by_instance(lab) == locked
    assert inodes_by_instance(lab) == inodes


def locks_by_instance(lab: NfsLab) -> dict[str, set[str]]:
    """The locks that living databases have on the NAS."""
    return {instance: live_locks(lab, instance) for instance in ("voms", "alvmysql")}


def inodes_by_instance(lab: NfsLab) -> dict[str, dict[str, object]]:
    """The inode of every file of the databases that lock theirs."""
    return {i: {name: found[0] for name, found in lab.fingerprint(i).items()} for i in ("voms", "alvmysql")}


def verdicts(repair: Repair[Site]) -> set[str]:
    """Every verdict that was noted for the incident."""
    rows = repair.store.audit_rows(incident=repair.incident)
    return {
        row.detail["verdict"] for row in rows if row.step == "verdict" and isinstance(row.detail.get("verdict"), str)
    }


def _wait_for_courtesy(lab: NfsLab) -> None:
    """Until the NAS has given up hearing of the guest, which is not the same as the guest being dead."""
    lab.root(
        "nas",
        "for i in $(seq 60); do grep -qs 'status: courtesy' /proc/fs/nfsd/clients/*/info && exit 0; sleep 4; done;"
        "exit 1",
        limit_s=300,
    )
    say("the NAS calls the paused guest courtesy now")


def test_late_writer_stops_the_database_and_both_files_are_kept(
    lab: NfsLab, standby: NfsLab, agent, unlatch: Unlatch
) -> None:
    """It should alarm, stop the database and keep both files when a quarantined original changes after the swap.

    The repair has ended by then: the watch over the quarantine, which looks every three minutes, must see it.
    """
    crash = lab.crash("statelost")
    provision_guest(lab, agent)
    standby.standby("up")
    repair = unlatch(peers=(), policy={"remedies": {"forbid": ["clear", "notify"]}})
    repair.open(reason="a test", instances=["alvmysql"])
    run_lane(repair, "alvmysql", crash)
    wiring.update_ticket(repair.incident, actor="test")
    assert (repair.incident, "alvmysql") in wiring.quarantines()
    look = wiring.look_for_late_writer(repair.incident, "alvmysql", actor="test")
    assert look["looked_at"] == len(repair.results["alvmysql", "recreate_files"]["files"])

    swapped = {f["path"].rsplit("/", 1)[-1]: f for f in repair.results["alvmysql", "recreate_files"]["files"]}
    original = swapped["ibdata1"]["quarantine"]
    assert original.startswith(MOUNTPOINT)
    # The pages that a survivor on another client would flush: it holds the old inode, whatever its name is now.
    lab.root(
        "standby",
        f"runuser -u mysql -- dd if=/dev/urandom of={original} bs=16k seek=3 count=1 conv=notrunc,fsync status=none",
    )
    written_at = datetime.now(UTC)
    with pytest.raises(CheckFailedError, match="LATE WRITER"):
        wiring.look_for_late_writer(repair.incident, "alvmysql", actor="test")
    took_s = (datetime.now(UTC) - written_at).total_seconds()
    say(f"MEASURED late writer: seen and the database stopped within one look of {took_s:.0f} s")
    assert lab.active("alvmysql") in {"inactive", "failed"}, "it must not go on serving unnoticed"
    row = repair.store.incident(repair.incident)
    assert row is not None
    assert row.state is IncidentState.REOPENED
    with pytest.raises(CheckFailedError, match="LATE WRITER"):
        repair.step("restart_database", "alvmysql")
    assert lab.active("alvmysql") in {"inactive", "failed"}
    kept = lab.fingerprint("alvmysql")
    for f in swapped.values():
        name, quarantine = (f[k].removeprefix(f"{MOUNTPOINT}/{DATADIRS['alvmysql']}/") for k in ("path", "quarantine"))
        assert kept[name][0] == f["inode_after"]
        assert kept[quarantine][0] == f["inode_before"]
    assert "LATE WRITER" in repair.ticket
    lab.is_spoiled = True  # alvmysql is down for good
