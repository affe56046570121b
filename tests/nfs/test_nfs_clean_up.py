"""The day after on real NFS: what the NAS still has locked is deleted, and its space is not counted as freed."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.integration.repair import ACTOR, Repair
from tests.nfs.nfs_checks import committed, live_locks, run_lane, traces
from tests.nfs.nfs_lab import EXPORT, UNITS, NfsLab, say
from tests.nfs.nfs_provision import provision_guest, provision_nas
from tests.nfs.nfs_site import Site
from unlatch import wiring, wiring_cleaning
from unlatch.lifecycle import IncidentState

Unlatch = Callable[..., Repair[Site]]
ONLY_COPY = {"remedies": {"forbid": ["clear", "notify", "wait_lease"]}}


def _used_bytes(lab: NfsLab) -> int:
    lab.root("nas", "sync")
    return int(lab.root("nas", f"df -B1 --output=used {EXPORT} | tail -1"))


def test_space_under_a_lock_of_the_nas_is_not_counted_as_freed(
    lab: NfsLab, agent: Path, unlatch: Unlatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It should delete the originals, say that their space is still held, and be right: df on the NAS agrees.

    The guest was restored from its image, so nobody tells the NAS of its restart: it keeps the locks on the originals.
    """
    provision_nas(lab, agent)
    crash = lab.crash("statelost")
    provision_guest(lab, agent)
    repair = unlatch(peers=(), policy=ONLY_COPY)
    repair.open(reason="a test", instances=["alvmysql"])
    run_lane(repair, "alvmysql", crash)
    wiring.update_ticket(repair.incident, actor=ACTOR)
    swapped = repair.results["alvmysql", "recreate_files"]["files"]
    assert all(file["old_inode_still_locked"] for file in swapped)

    next_week = datetime.now(UTC) + timedelta(days=8)
    monkeypatch.setattr(wiring_cleaning, "calendar_now", lambda: next_week)
    (due,) = wiring_cleaning.due_clean_ups()
    assert due["trigger_run_id"] == f"cleanup-{repair.incident}"
    before = _used_bytes(lab)
    result = wiring_cleaning.clean_up(repair.incident, "alvmysql", dry_run=False, actor=ACTOR)
    locked = [file for file in result["files"] if not file["freed"]]
    held = sum(file["bytes_held"] for file in locked)
    say(f"deleted {len(result['files'])} files; {result['freed_bytes']} bytes came back, {held} are still held")
    assert {file["removed"] for file in locked} == {file["quarantine"] for file in swapped}
    assert result["not_freed_bytes"] == held > 0
    assert set(result["why_not_freed"].values()) == {"nas lists a lock"}
    assert traces(lab) == ""
    assert before - _used_bytes(lab) < held, "the NAS has given the space back in spite of the lock"

    names = ["alvmysql"]
    assert wiring_cleaning.close_incident(repair.incident, names, dry_run=False, actor=ACTOR)["closed"]
    row = repair.store.incident(repair.incident)
    assert row is not None
    assert row.state is IncidentState.CLOSED
    assert "did NOT come back" in repair.ticket
    assert live_locks(lab, "alvmysql"), "the running database keeps its own locks"
    assert not crash.acknowledged["alvmysql"] - committed(lab, "alvmysql")

    lab.root("client", f"systemctl stop {UNITS['alvmysql']}")
    lab.root("nas", "/usr/local/sbin/unlatch-nas-clear --json " + EXPORT)
    deadline = time.monotonic() + 120  # the file system gives blocks back in its own time
    while before - _used_bytes(lab) < held and time.monotonic() < deadline:
        time.sleep(2)
    assert before - _used_bytes(lab) >= held, "once the lock was dropped, its space had to come back"
