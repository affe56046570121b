"""The runbook on real databases whose files a dead guest has left locked."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from lab import Lab
from tests.integration.repair import LANE, Repair, configure, fingerprint
from unlatch import wiring
from unlatch.errors import CheckFailedError, ConfigError, RefusedError
from unlatch.lifecycle import IncidentState

pytest_plugins = ["tests.lab_fixtures"]


@pytest.fixture
def repair(crashed_lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repair:
    """A crashed lab, and an Unlatch that knows it."""
    configure(crashed_lab, tmp_path, monkeypatch)
    return Repair(crashed_lab)


def _hide_scan(lab: Lab) -> None:
    """Take the root command of the opener scan away from the guest."""
    lab.guest(["mv", "/usr/local/sbin/unlatch-openers", "/usr/local/sbin/hidden"])


def _show_scan(lab: Lab) -> None:
    lab.guest(["mv", "/usr/local/sbin/hidden", "/usr/local/sbin/unlatch-openers"])


def test_three_databases_come_back(repair: Repair) -> None:
    """It should bring all three back on new inodes, lose no acknowledged commit, and leave the old locks behind."""
    opened = repair.open(reason="a test")
    assert opened["instances"] == ["voms", "alvmysql", "lxr"]
    for instance in opened["instances"]:
        repair.lane(instance)
    wiring.update_ticket(repair.incident, actor="test")

    crash = repair.lab.last_crash
    assert crash is not None
    recreated = [f for i in opened["instances"] for f in repair.results[i, "recreate_files"]["files"]]
    assert {f["path"] for f in recreated} == {str(repair.lab.guest_path(p)) for p in crash.locked_files}
    for f in recreated:
        assert f["inode_before"] != f["inode_after"]
        assert f["content_equal"]
        assert f["old_inode_still_locked"]
        assert repair.lab.host_path(f["path"]).stat().st_ino == f["inode_after"]
        assert repair.lab.host_path(f["quarantine"]).stat().st_ino == f["inode_before"]
    assert [Path(f["path"]).name for f in repair.results["voms", "recreate_files"]["files"]][-1] == "ibdata1"
    assert repair.results["lxr", "recreate_files"]["files"] == []
    assert repair.results["lxr", "clear_locks"]["set_aside"] == [f"{repair.lab.instance('lxr').datadir}/postmaster.pid"]

    assert {name: rows for name, rows in repair.lab.writer().missing_after().items() if rows} == {}
    row = repair.store.incident(repair.incident)
    assert row is not None
    assert row.state is IncidentState.AWAITING_PURGE
    assert repair.store.verify_audit().verified
    assert "accepts logins" in repair.ticket


def test_every_step_can_run_twice(repair: Repair) -> None:
    """It should finish with the same inodes when each step is run again right after itself."""
    repair.open()
    for name in LANE:
        first = repair.step(name, "alvmysql")
        second = repair.step(name, "alvmysql")
        if name in {"clear_locks", "recreate_files"}:
            assert first == second
    files = repair.results["alvmysql", "recreate_files"]["files"]
    datadir = repair.lab.host_path(repair.lab.instance("alvmysql").datadir)
    assert len(list(datadir.glob(".unlatch-*.orig"))) == len(files) == 2
    assert list(datadir.glob(".unlatch-*.new")) == []


def test_live_local_holder_is_refused(repair: Repair) -> None:
    """It should refuse while a process of the guest holds a lock, and leave every inode and time as it was."""
    ibdata1 = Path(repair.lab.instance("voms").datadir) / "ibdata1"
    repair.open()
    repair.lane("voms", until="hold_service")  # or the database itself would take the free lock
    repair.lab.release_ghost()
    holder = repair.lab.start_local_holder(ibdata1)
    try:
        before = fingerprint(repair.lab, "voms")
        with pytest.raises(RefusedError, match="signs of life"):
            repair.step("verdict", "voms")
        for name in ("clear_locks", "recreate_files", "restart_database"):
            with pytest.raises(RefusedError):
                repair.step(name, "voms")
        assert fingerprint(repair.lab, "voms") == before
        assert "REFUSED" in repair.ticket
    finally:
        holder.kill()


def test_holder_that_comes_after_the_verdict_stops_the_swap(repair: Repair) -> None:
    """It should see at the swap what the verdict could not: no name is touched."""
    repair.open()
    repair.lane("alvmysql", until="clear_locks")
    datadir = repair.lab.instance("alvmysql").datadir
    repair.lab.release_ghost()
    holder = repair.lab.start_local_holder(Path(datadir) / "ibdata1")
    try:
        before = fingerprint(repair.lab, "alvmysql")
        with pytest.raises(RefusedError):
            repair.step("recreate_files", "alvmysql")
        after = fingerprint(repair.lab, "alvmysql")
        assert {k: v for k, v in after.items() if ".unlatch-" not in k} == before
    finally:
        holder.kill()


def test_service_cannot_start_in_the_middle(repair: Repair) -> None:
    """It should hold off every start of the database between the verdict and the end of the swap."""
    repair.open()
    repair.lane("voms", until="clear_locks")
    started = repair.lab.service("start", "voms", check=False)
    assert started.returncode != 0
    assert "held" in (started.stdout + started.stderr)
    repair.lane("voms", start="recreate_files")
    assert repair.results["voms", "confirm_access"]["access"] == "ok"


def test_start_that_fails_for_another_reason_is_not_repeated(repair: Repair) -> None:
    """It should show the end of the error log once, say what it means, and not go round again."""
    repair.open()
    repair.lane("alvmysql", until="recreate_files")
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of the dead linger on the port
        squatter.bind(("127.0.0.1", repair.lab.instance("alvmysql").port))
        squatter.listen()
        with pytest.raises(CheckFailedError) as caught:
            repair.step("restart_database", "alvmysql")
    assert "port" in caught.value.what.lower()
    starts = [r for r in repair.store.audit_rows(incident=repair.incident, limit=1000) if r.step == "restart_database"]
    assert [r.phase for r in starts if r.phase in {"intent", "failed"}] == ["intent", "failed"]
    repair.lane("alvmysql", start="restart_database")
    assert repair.results["alvmysql", "confirm_access"]["access"] == "ok"


def test_dry_run_touches_nothing(repair: Repair) -> None:
    """It should collect the same evidence and plan, and leave files, services and journals alone."""
    repair.open(dry_run=True)
    before = {name: _what_a_repair_would_touch(repair.lab, name) for name in repair.lab.instances}
    for name in repair.lab.instances:
        repair.lane(name)
        assert "plan" in repair.results[name, "verdict"]
    after = {name: _what_a_repair_would_touch(repair.lab, name) for name in repair.lab.instances}
    assert after == before
    planned = [f["path"] for f in repair.results["voms", "verdict"]["plan"]["files"]]
    assert repair.results["voms", "recreate_files"]["would_recreate"] == planned
    assert repair.lab.service("status", "voms", check=False).returncode != 0  # not cured: the locks still stand


def _what_a_repair_would_touch(lab: Lab, instance: str) -> dict[str, tuple[int, int, int]]:
    """Locked files, the pid file and Unlatch's own: what the guest's start attempts make and remove is theirs."""
    named = {"ibdata1", "aria_log_control", "postmaster.pid"}
    files = fingerprint(lab, instance)
    return {name: seen for name, seen in files.items() if Path(name).name in named or ".unlatch-" in name}


def test_missing_scan_privilege_asks_a_person(repair: Repair) -> None:
    """It should not take an impossible scan for an empty one: a person is asked, with the line that would grant it."""
    _hide_scan(repair.lab)
    try:
        repair.open()
        repair.lane("alvmysql", until="verdict")
        asked = wiring.question(repair.incident, "alvmysql", actor="test")
        assert asked is not None
        assert "unlatch-openers" in asked
        repair.step("clear_locks", "alvmysql")  # has nothing to do before the copy, and does nothing
        with pytest.raises(RefusedError, match="approval"):
            repair.step("recreate_files", "alvmysql")
        wiring.approve(repair.incident, "alvmysql", approved=True, by="eva", comment="looked myself")
        repair.lane("alvmysql", start="clear_locks", until="recreate_files")
        assert len(repair.results["alvmysql", "recreate_files"]["files"]) == 2
    finally:
        _show_scan(repair.lab)


def test_rejection_stops_the_lane(repair: Repair) -> None:
    """It should touch nothing after a no, whoever says it."""
    _hide_scan(repair.lab)
    try:
        repair.open()
        repair.lane("alvmysql", until="verdict")
        before = fingerprint(repair.lab, "alvmysql")
        with pytest.raises(RefusedError, match="rejected by eva"):
            wiring.approve(repair.incident, "alvmysql", approved=False, by="eva", comment=None)
        for name in ("recreate_files", "restart_database"):
            with pytest.raises(RefusedError):
                repair.step(name, "alvmysql")
        assert fingerprint(repair.lab, "alvmysql") == before
    finally:
        _show_scan(repair.lab)


def test_healthy_instance_is_left_alone(healthy_lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It should see that a guest healed by itself, touch nothing, and confirm access."""
    healthy_lab.crash(locks=False)
    configure(healthy_lab, tmp_path, monkeypatch)
    repair = Repair(healthy_lab)
    healthy_lab.service("start", "voms")
    repair.open()
    inode = healthy_lab.host_path(f"{healthy_lab.instance('voms').datadir}/ibdata1").stat().st_ino
    repair.lane("voms")
    assert repair.results["voms", "check_locks"]["healthy"]
    assert repair.results["voms", "restart_database"] == {"started": False, "why": "it was up already"}
    assert healthy_lab.host_path(f"{healthy_lab.instance('voms').datadir}/ibdata1").stat().st_ino == inode


def test_changed_host_key_stops_everything(repair: Repair, monkeypatch: pytest.MonkeyPatch) -> None:
    """It should not talk to a machine that only pretends to be the guest."""
    repair.open()
    name = "AIRFLOW_CONN_UNLATCH_GUEST_DBVRTG4037"
    fields = json.loads(os.environ[name])
    fields["extra"]["host_key"] = repair.lab.connections()["unlatch_hv_hv01"]["extra"]["host_key"]
    monkeypatch.setenv(name, json.dumps(fields))
    with pytest.raises(ConfigError, match="host key"):
        repair.step("check_locks", "voms")


def test_guest_that_nobody_knows(repair: Repair) -> None:
    """It should open an incident, tell a person, and touch nothing."""
    with pytest.raises(RefusedError, match="no-such-guest"):
        repair.open(guest="no-such-guest")
    (row,) = repair.store.incidents()
    assert row.state is IncidentState.REFUSED
    assert row.ticket is not None
    assert "no-such-guest" in Path(row.ticket).read_text()


def test_global_stop_is_honoured_by_every_step(repair: Repair, monkeypatch: pytest.MonkeyPatch) -> None:
    """It should do nothing at all while a person has set the stop."""
    repair.open()
    monkeypatch.setenv("AIRFLOW_VAR_UNLATCH_STOP", "true")
    for name in LANE:
        with pytest.raises(RefusedError, match="global stop"):
            repair.step(name, "voms")
