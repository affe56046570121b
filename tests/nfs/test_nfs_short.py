"""The short part: one repair that is right, and one that must be refused. `make test-nfs-short` and CI run it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.repair import Repair
from tests.nfs.nfs_checks import live_locks, nothing_lost, refused_everywhere, run_lane, traces, tried, untouched
from tests.nfs.nfs_lab import UNITS, NfsLab, say
from tests.nfs.nfs_provision import provision_guest, provision_nas
from tests.nfs.nfs_site import STANDBY, Site
from unlatch import wiring
from unlatch.errors import RefusedError
from unlatch.lifecycle import IncidentState

pytestmark = pytest.mark.nfs_short

Unlatch = Callable[..., Repair[Site]]


def test_guest_from_its_image_is_repaired_by_a_notification(lab: NfsLab, agent: Path, unlatch: Unlatch) -> None:
    """It should bring all three databases back by `notify`, the right remedy where the storage team grants nothing.

    The guest was restored from its image, so it has forgotten whom to tell of its restart: the NAS keeps its locks.
    """
    provision_nas(lab, agent, without={"unlatch-nas-clear"})
    crash = lab.crash("statelost")
    provision_guest(lab, agent)
    repair = unlatch(peers=())
    opened = repair.open(reason="a test")
    assert opened["instances"] == list(UNITS)
    assert not opened["dry_run"]
    for instance in opened["instances"]:
        run_lane(repair, instance, crash)
    wiring.update_ticket(repair.incident, actor="test")

    attempts = tried(repair, "voms")
    assert attempts["clear"]["outcome"] == "no_privilege"
    assert "unlatch-nas-clear" in attempts["clear"]["grant"]
    assert attempts["notify"]["outcome"] == "freed"
    for instance in opened["instances"]:
        assert repair.results[instance, "recreate_files"]["files"] == []
    assert traces(lab) == "", "nothing had to be copied"
    nothing_lost(lab, crash)
    for instance in ("voms", "alvmysql"):
        assert live_locks(lab, instance), f"{instance} runs without its locks"
    row = repair.store.incident(repair.incident)
    assert row is not None
    assert row.state is IncidentState.CLOSED
    assert repair.store.verify_audit().verified
    assert "notify" in repair.ticket


def test_living_server_on_another_host_is_refused(lab: NfsLab, standby: NfsLab, agent: Path, unlatch: Unlatch) -> None:
    """It should refuse while another host serves alvmysql, whose locks look exactly like those of the dead guest."""
    crash = lab.last_crash or lab.crash("none", settle=True)
    say(f"the death at {crash.died_at:%H:%M:%S} is proven; its instance is served by {STANDBY} now")
    standby.standby("up")
    provision_guest(lab, agent, machine="standby")
    lab.root("client", f"systemctl stop {UNITS['alvmysql']}")
    standby.standby("start", "alvmysql")
    try:
        before = lab.quiet_fingerprint("alvmysql")
        repair = unlatch(peers=(STANDBY,))
        repair.open(reason="a test", instances=["alvmysql"])
        repair.lane("alvmysql", until="hold_service")
        with pytest.raises(RefusedError, match=STANDBY):
            repair.step("verdict", "alvmysql")
        refused_everywhere(repair, "alvmysql")
        untouched(before, lab.quiet_fingerprint("alvmysql"))

        row = repair.store.step(repair.incident, "alvmysql", "verdict")
        assert row is not None
        assert row.result["verdict"]["kind"] == "alive"
        states = {f["path"].rsplit("/", 1)[-1]: f["state"] for f in row.result["plan"]["files"]}
        assert states["ibdata1"] == "held"
        assert "REFUSED" in repair.ticket
        assert STANDBY in repair.ticket
        assert lab.root("standby", "mariadb-admin -S /run/dbod/alvmysql.sock ping").strip() == "mysqld is alive"
    finally:
        standby.standby("stop", "alvmysql")
        unit = UNITS["alvmysql"]
        lab.root("client", f"systemctl unmask --runtime {unit}; systemctl reset-failed {unit}; systemctl start {unit}")
