"""The real agent on the lab's guest, and every check's answer about living and dead databases there."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath

import pytest

from lab import Lab
from unlatch import decisions, discovery, inventory
from unlatch.errors import ConfigError, TransientError
from unlatch.guest_view import RememberedGuest
from unlatch.inventory import Inventory
from unlatch.models import Answer, Evidence, FileFact, LockKind, Permit, PermitFile
from unlatch.ports import Scene
from unlatch.transport.host_agent import SshHostAgent
from unlatch.transport.hypervisor_log import LogHypervisorWatch
from unlatch.transport.ssh import SshSession
from unlatch.wiring import SystemClock

pytest_plugins = ["tests.lab_fixtures"]

GUEST = "dbvrtg4037"
AGENT = Path(__file__).resolve().parents[2] / "dist" / "unlatch-agent.pyz"
NAMES = ("voms", "alvmysql", "lxr")


@dataclass
class Place:
    """The lab as Unlatch sees it."""

    lab: Lab
    inventory: Inventory
    agent: SshHostAgent
    hypervisor: SshSession
    died_at: datetime

    def scene(self, name: str) -> Scene:
        """What the checks of one instance may look at."""
        instance = self.inventory.instances[name]
        sources = {k: m.PLUGIN for k, m in discovery.load_plugins("unlatch.crash_sources").items()}
        return Scene(
            instance=instance,
            guest=self.inventory.guests[GUEST],
            volume=self.inventory.volumes[instance.volume],
            died_at=self.died_at,
            domain_id=None,
            agent=RememberedGuest(self.agent, SystemClock()),
            engine=discovery.load_plugins("unlatch.engines")[instance.engine].PLUGIN,
            hypervisor=LogHypervisorWatch(self.inventory.hypervisors, lambda *_: self.hypervisor, sources),
            clock=SystemClock(),
            held=True,
        )

    def evidence(self, name: str, *only: str) -> dict[str, Evidence]:
        """The answers of the named checks, or of every mandatory one."""
        scene = self.scene(name)
        checks = discovery.load_plugins("unlatch.evidence")
        wanted = only or decisions.mandatory_checks(scene.instance, scene.volume)
        return {check: checks[check].PLUGIN.collect(scene) for check in wanted}

    def files(self, name: str) -> tuple[FileFact, ...]:
        """Locked files and pid files of one instance."""
        scene = self.scene(name)
        paths, pids = scene.engine.lock_paths(scene.instance), scene.engine.pid_files(scene.instance)
        return self.agent.check_locks(scene.instance, paths, pids)


@pytest.fixture(scope="module")
def place(lab: Lab) -> Iterator[Place]:
    with pytest.MonkeyPatch.context() as patch:
        for conn_id, fields in lab.connections().items():
            patch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))
        with (
            SshSession.through_airflow(f"unlatch_guest_{GUEST}", host=GUEST) as guest,
            SshSession.through_airflow("unlatch_hv_hv01", host="hv01") as hypervisor,
        ):
            agent = SshHostAgent(guest, GUEST, AGENT)
            yield Place(lab, inventory.load(lab.inventory_path), agent, hypervisor, datetime.now(UTC))


@pytest.fixture(scope="class")
def living(place: Place) -> Place:
    """All three databases up; nobody has died."""
    place.lab.reset()
    return dataclasses.replace(place, died_at=datetime.now(UTC))


@pytest.fixture(scope="class")
def dead(place: Place) -> Place:
    """Crashed, booted, and every service held."""
    place.lab.reset()
    crash = place.lab.crash()
    for name in NAMES:
        held = place.agent.service(place.inventory.instances[name], "hold")
        assert held.code == 0, held.output
    return dataclasses.replace(place, died_at=crash.crashed_at.replace(microsecond=0))


def answers(found: dict[str, Evidence]) -> dict[str, str]:
    return {check: evidence.answer.value for check, evidence in found.items()}


class TestLiving:
    """Databases that run show it in many ways."""

    def test_every_sign_of_life_is_seen(self, living: Place) -> None:
        """It should see holder, open files, process and port of a running MariaDB, each by itself."""
        found = living.evidence("voms")
        seen = {check for check, evidence in found.items() if evidence.answer is Answer.ALIVE}
        assert {"lock_holder", "openers", "processes", "port"} <= seen, answers(found)
        assert all(evidence.answer is not Answer.DEAD for evidence in found.values()), answers(found)

    def test_running_postgresql(self, living: Place) -> None:
        """It should know the owner of postmaster.pid for the server that it is."""
        found = living.evidence("lxr")
        seen = {check for check, evidence in found.items() if evidence.answer is Answer.ALIVE}
        assert {"openers", "processes", "port", "pid_file", "samples"} <= seen, answers(found)

    def test_the_instances_user_runs_the_faster_copy(self, living: Place) -> None:
        """It should let the instance's user run the copy with byte code, which belongs to the login user."""
        placed = living.agent._placed()
        assert "-cpython-" in placed.path
        assert placed.login_user != living.inventory.instances["voms"].os_user
        assert any(fact.lock.kind is LockKind.LOCAL for fact in living.files("voms"))

    def test_repair_is_refused(self, living: Place) -> None:
        """It should refuse to copy a file that a running server has locked, with the agent's words."""
        instance = living.inventory.instances["alvmysql"]
        living.agent.prepare("inc-refused", instance, [instance.datadir / "ibdata1"])
        while (status := living.agent.status("inc-refused", instance, [instance.datadir])).running:
            time.sleep(0.1)
        assert status.error is not None
        assert status.error["code"] == "local_holder"


class TestDead:
    """Databases whose guest died, and whose locks stayed."""

    @pytest.mark.parametrize("name", NAMES)
    def test_verdict_is_dead(self, dead: Place, name: str) -> None:
        """It should prove the death by the hypervisor's log, and find no sign of life."""
        found = dead.evidence(name)
        others = {check: answer for check, answer in answers(found).items() if check != "hypervisor_log"}
        reasons = {check: evidence.summary for check, evidence in found.items()}
        assert found["hypervisor_log"].answer is Answer.DEAD, reasons
        assert set(others.values()) == {"clear"}, reasons

    def test_locked_files(self, dead: Place) -> None:
        """It should find exactly the files that the dead server had locked, held by nobody here."""
        crash = dead.lab.last_crash
        assert crash is not None
        expected = {str(dead.lab.guest_path(path)) for path in crash.locked_files}
        found = [file for name in ("voms", "alvmysql") for file in dead.files(name)]
        assert {str(file.path) for file in found} == expected
        assert {file.lock.kind for file in found} == {LockKind.REMOTE}

    def test_stale_pid_file(self, dead: Place) -> None:
        """It should show that the recorded pid is an innocent process now."""
        (found,) = dead.files("lxr")
        assert found.lock.kind is LockKind.PIDFILE
        assert found.lock.process is not None
        assert found.lock.process.pid == found.lock.pid
        assert "postgres" not in (found.lock.process.exe or "")
        assert found.lock.started_at is not None
        assert found.lock.started_at < dead.agent.facts().booted_at

    def test_facts(self, dead: Place) -> None:
        """It should see the new boot, on the guest's own boot clock."""
        crash = dead.lab.last_crash
        assert crash is not None
        facts = dead.agent.facts([PurePosixPath("/ORA/dbs03/voms")])
        assert facts.boot_id != crash.old_boot_id
        assert facts.booted_at > crash.crashed_at - timedelta(seconds=2)
        assert facts.uptime_s < 600
        assert facts.paths[0].mountpoint == "/ORA/dbs03"

    def test_local_holder_is_a_sign_of_life(self, dead: Place) -> None:
        """It should be alive when a process of the guest takes a lock on one of the instance's files."""
        log_file = dead.inventory.instances["voms"].datadir / "ib_logfile0"
        holder = dead.lab.start_local_holder(str(log_file))
        try:
            found = dead.evidence("voms", "lock_holder", "openers")
        finally:
            holder.kill()
            holder.wait()
        assert found["lock_holder"].answer is Answer.ALIVE
        assert found["openers"].answer is Answer.ALIVE

    def test_write_after_the_death_is_a_sign_of_life(self, dead: Place) -> None:
        """It should be alive when a locked file was written to after the guest died."""
        ibdata1 = dead.lab.host_path(str(dead.inventory.instances["voms"].datadir / "ibdata1"))
        before = ibdata1.stat()
        try:
            late = int((dead.died_at.timestamp() + 60) * 1e9)
            os.utime(ibdata1, ns=(before.st_atime_ns, late))
            found = dead.evidence("voms", "samples")["samples"]
        finally:
            os.utime(ibdata1, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert found.answer is Answer.ALIVE
        assert "ibdata1 was written after the death" in found.summary

    def test_missing_root_right(self, dead: Place) -> None:
        """It should say how to grant the opener scan when sudo does not allow it, and see nothing as clear."""
        path = "/usr/local/sbin/unlatch-openers"
        dead.lab.guest(["mv", path, path + ".away"])
        try:
            found = dead.evidence("voms", "openers", "processes")
        finally:
            dead.lab.guest(["mv", path + ".away", path])
        assert found["openers"].answer is found["processes"].answer is Answer.NOT_OBSERVED
        assert "dbod ALL=(root) NOPASSWD: /usr/local/sbin/unlatch-openers" in found["openers"].summary

    def test_command_that_sudo_does_not_name(self, dead: Place) -> None:
        """It should be refused by the guest, with the line that would allow it."""
        with pytest.raises(ConfigError) as caught:
            dead.agent.command(["sudo", "-n", "/usr/bin/id"])
        assert "dbod ALL=(root) NOPASSWD: /usr/bin/id" in caught.value.next_step


class TestRepair:
    """The verbs that act, one after the other."""

    def test_files_get_new_inodes_and_the_pid_file_goes_aside(self, dead: Place) -> None:
        """It should copy, swap and verify, give the same answer twice, and refuse an expired permit first."""
        incident, engine = "inc-lab-1", dead.scene("alvmysql").engine
        instance = dead.inventory.instances["alvmysql"]
        before = {file.path: file for file in dead.files("alvmysql")}
        order = engine.commit_order(before)
        assert dead.agent.status(incident, instance, [instance.datadir]).state == "none"
        dead.agent.prepare(incident, instance, order)
        _wait_for_job(dead, "alvmysql", incident)

        permit = _permit(dead, "alvmysql", incident, [before[path] for path in order])
        with pytest.raises(TransientError, match="permit_expired"):
            dead.agent.commit(instance, dataclasses.replace(permit, expires_boottime_s=1.0))
        swapped = dead.agent.commit(instance, permit)
        assert [s.path for s in swapped] == list(order)
        assert all(s.content_equal and s.old_inode_still_locked for s in swapped)
        assert all(s.inode_before == before[s.path].inode != s.inode_after for s in swapped)
        assert dead.agent.commit(instance, permit) == swapped
        assert dead.files("alvmysql") == ()
        assert dead.agent.verify(incident, instance, [instance.datadir]) == ()
        original = dead.lab.host_path(str(swapped[0].quarantine))
        with original.open("r+b") as late:
            late.write(b"x")
        assert str(swapped[0].quarantine) in dead.agent.verify(incident, instance, [instance.datadir])[0]

        lxr = dead.inventory.instances["lxr"]
        (quarantine,) = dead.agent.set_aside(lxr, _permit(dead, "lxr", incident, list(dead.files("lxr"))))
        assert dead.lab.host_path(str(quarantine)).exists()
        assert dead.files("lxr") == ()


def _permit(place: Place, name: str, incident: str, files: list[FileFact]) -> Permit:
    facts = place.agent.facts()
    named = tuple(
        PermitFile(f.path, f.inode, f.dev, f.size_bytes, f.sample.mtime_ns, f.lock.content_sha256) for f in files
    )
    return Permit(incident, name, facts.boot_id, facts.uptime_s + 60, "0" * 64, named)


def _wait_for_job(place: Place, name: str, incident: str) -> None:
    instance = place.inventory.instances[name]
    while (status := place.agent.status(incident, instance, [instance.datadir])).running:
        time.sleep(0.1)
    assert status.state == "prepared", status
