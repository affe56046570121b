"""The whole life cycle in a real Airflow: crash lines start runs, lanes repair, people answer, workers die."""

from __future__ import annotations

import os
import signal
import urllib.error
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from lab.inventory import GUEST
from lab.standalone import SCHEDULER, TRIGGERER, USER, VIEWER, Standalone
from tests.integration.airflow_world import World, processes
from tests.integration.day_after import clean_up_on_the_next_working_day, days_off
from tests.integration.repair import fingerprint
from unlatch.lifecycle import IncidentState
from unlatch.models import incident_id
from unlatch.ports import IncidentRow

pytest_plugins = ["tests.lab_fixtures"]
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def world(lab_factory: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One Airflow for all tests of this file: its start takes most of the time."""
    lab = lab_factory()
    lab.up()
    home = tmp_path_factory.mktemp("airflow")
    document = yaml.safe_load(lab.inventory_path.read_text())
    document["policy"]["storm"]["events"] = 1000  # all the crashes of this file together would be a storm
    document["site"] = {"timezone": "Europe/Zurich", "holidays": days_off()}
    inventory = home / "inventory.yaml"
    inventory.write_text(yaml.safe_dump(document, sort_keys=False))
    calendar = home / "calendar"
    more = {"UNLATCH_CALENDAR_FILE": str(calendar)}
    airflow = Standalone(home, inventory=inventory, connections=lab.connections(), var=home / "unlatch", more=more)
    try:
        airflow.start()
        made = World(lab, airflow, calendar)
        made.until("the watch waits", made.watch_waits)
        yield made
    finally:
        airflow.stop()


def test_from_crash_line_to_closed_ticket(world: World) -> None:
    """It should start one run by itself, repair all three in it, and lose nothing that was committed.

    On the next working day, and not before, it should delete the originals, and close ticket and incident.
    """
    incident = world.crash()
    assert world.ended(incident) == "success"
    assert world.result(incident, "", "detect_crash")["instances"] == list(world.lab.instances)
    for name in world.lab.instances:
        assert world.result(incident, name, "confirm_access")["access"] == "ok"
    files = [f for name in world.lab.instances for f in world.result(incident, name, "recreate_files")["files"]]
    crash = world.lab.last_crash
    assert crash is not None
    assert {f["path"] for f in files} == {str(world.lab.guest_path(p)) for p in crash.locked_files}
    assert all(f["content_equal"] and f["old_inode_still_locked"] for f in files)
    assert world.lost_commits() == {}
    assert world.incident(incident).state is IncidentState.AWAITING_PURGE
    assert "accepts logins" in world.ticket(incident)
    assert world.runs(incident) == [incident]

    clean_up_on_the_next_working_day(world, incident, world.calendar)
    assert world.incident(incident).state is IncidentState.CLOSED
    ended = world.result(incident, "", "close_incident")
    assert ended["closed"]
    assert ended["freed_bytes"] > 0
    assert ended["not_freed_bytes"] == 0
    assert list(world.lab.host_path("/ORA/dbs03").rglob(".unlatch-*")) == []
    assert world.phases(incident, "voms", "clean_up") == ["intent", "done"]
    assert "Closed**: every database works" in world.ticket(incident)
    assert world.lost_commits() == {}
    assert world.store.verify_audit().verified


def test_three_crashes_written_at_once_start_three_runs(world: World) -> None:
    """It should miss none, open an incident also for guests that nobody knows, tell people, and not try again."""
    names = [f"99_stranger{n}" for n in range(3)]
    world.until("the watch waits", world.watch_waits)
    at = datetime.now(UTC)
    for name in names:
        world.lab.log(f"WARNING (XendDomainInfo:1907) Domain has crashed: name={name} id=7.", at=at)
    for event in world.strangers(names):
        incident = incident_id(event.at, event.domain)
        assert world.ended(incident) == "failed"
        assert world.incident(incident).state is IncidentState.REFUSED
        assert "inventory" in world.ticket(incident)
        assert world.phases(incident, "", "detect_crash") == ["intent", "refused"]
        assert world.task(incident, "detect_crash")["try_number"] == 1
        assert world.task(incident, "wait_for_guest")["state"] == "upstream_failed"
    assert len(world.runs("_stranger")) == 3


@pytest.mark.parametrize("components", [(TRIGGERER,), (TRIGGERER, SCHEDULER)], ids="+".join)
def test_crash_while_airflow_is_dead(world: World, components: tuple[str, ...]) -> None:
    """It should start exactly one run for a crash that was logged while what waits for it was killed."""
    domain = f"98_unseen{len(components)}"
    world.until("the watch waits", world.watch_waits)
    world.airflow.kill(*components)
    world.lab.log(f"WARNING (XendDomainInfo:1907) Domain has crashed: name={domain} id=8.")
    assert world.runs(domain) == []
    world.airflow.launch(*components)
    (event,) = world.strangers([domain])
    assert world.ended(incident_id(event.at, domain)) == "failed"
    world.until("the watch waits again", world.watch_waits)
    assert world.runs(domain) == [incident_id(event.at, domain)]


def test_a_watch_that_is_killed_while_it_starts_runs(world: World) -> None:
    """It should start every run exactly once, although the worker dies between two of them."""
    names = [f"97_half{n}" for n in range(12)]
    task = world.until("the watch waits", world.waiting_watch)["id"]
    at = datetime.now(UTC)
    for name in names:
        world.lab.log(f"WARNING (XendDomainInfo:1907) Domain has crashed: name={name} id=9.", at=at)
    world.until("the first of them is started", lambda: world.runs("_half"), pause_s=0.01)
    for pid in (workers := processes(str(task).encode())):
        os.kill(pid, signal.SIGKILL)
    started = world.runs("_half")
    assert len(workers) == 2, "the task and its supervisor"
    assert len(started) < len(names), "it was killed too late"
    incidents = [incident_id(event.at, event.domain) for event in world.strangers(names)]
    world.until("all are started", lambda: len(world.runs("_half")) >= len(names))
    assert [world.ended(incident) for incident in incidents] == ["failed"] * len(names)
    assert sorted(world.runs("_half")) == sorted(incidents)
    assert all(world.phases(incident, "", "detect_crash") == ["intent", "refused"] for incident in incidents)


def test_one_failed_instance_fails_the_run_and_spares_the_others(world: World) -> None:
    """It should end as failed, name the instance and the cause, not try again, and have the other two accessible."""
    incident = world.crash()
    system_tables = world.lab.host_path(world.lab.instance("alvmysql").datadir) / "mysql"
    system_tables.rename(system_tables.with_name("elsewhere"))
    assert world.ended(incident) == "failed"
    for name in ("voms", "lxr"):
        assert world.result(incident, name, "confirm_access")["access"] == "ok"
    failed = world.step(incident, "alvmysql", "restart_database")
    assert failed.phase == "failed"
    assert "a file or directory of the database is missing" in failed.result["error"]
    assert "Aborting" in failed.result["error_log"]
    assert world.phases(incident, "alvmysql", "restart_database") == ["intent", "failed"]
    assert world.task(incident, "restart_database", "alvmysql")["try_number"] == 1
    assert world.task(incident, "confirm_access", "alvmysql")["state"] == "upstream_failed"
    assert world.incident(incident).state is IncidentState.FAILED
    assert "alvmysql" in world.step(incident, "", "update_ticket").result["instances"]
    assert "FAILED: restart_database of alvmysql" in world.ticket(incident)


@pytest.fixture(scope="class")
def answered(world: World) -> dict[str, Any]:
    """A crash whose three questions were answered by an administrator: no for voms, yes for the others."""
    command, hidden = "/usr/local/sbin/unlatch-openers", "/usr/local/sbin/hidden"
    found: dict[str, Any] = {}
    try:
        incident = found["incident"] = world.crash(lambda: world.lab.guest(["mv", command, hidden]))
        questions = world.until("three questions", lambda: (q := _questions(world, incident))[2:] and q)
        lane = dict(enumerate(world.lanes(incident)))
        found["subjects"] = {lane[q["task_instance"]["map_index"]]: q["subject"] for q in questions}
        found["before"] = fingerprint(world.lab, "voms")
        with pytest.raises(urllib.error.HTTPError) as caught:
            _answer(world, incident, questions[0], "Approve", user=VIEWER)
        found["viewer"] = caught.value.code
        found["state"] = world.until("the run ends", lambda: _answer_all(world, incident, no="voms"))
        found["after"] = fingerprint(world.lab, "voms")
    finally:
        world.lab.guest(["mv", hidden, command])
    return found


class TestPeople:
    """No lane can be proven dead, because the scan of all processes is not possible: people decide, lane by lane."""

    def test_each_lane_follows_its_own_answer(self, world: World, answered: dict[str, Any]) -> None:
        """It should repair where someone approved, touch nothing where not, and tell the truth as a whole."""
        incident = answered["incident"]
        assert answered["subjects"] == {name: f"Repair {name}?" for name in world.lab.instances}
        for name in ("alvmysql", "lxr"):
            assert world.result(incident, name, "verdict")["verdict"]["kind"] == "unknown"
            assert world.result(incident, name, "confirm_access")["access"] == "ok"
        assert answered["after"] == answered["before"]
        assert answered["state"] == "failed"
        ended = world.step(incident, "", "update_ticket").result["instances"]
        assert f"rejected by {USER}" in ended["voms"]
        assert world.incident(incident).state is IncidentState.REFUSED

    def test_audit_names_who_answered(self, world: World, answered: dict[str, Any]) -> None:
        """It should keep who said what, and that the rejected lane stopped there, without another try."""
        incident = answered["incident"]
        rows = [r for r in world.store.audit_rows(incident=incident, limit=10_000) if r.step == "approve"]
        said = {(r.instance, r.phase, r.actor) for r in rows}
        assert {("voms", "refused", USER), ("alvmysql", "done", USER), ("lxr", "done", USER)} <= said
        assert {actor for _, phase, actor in said if phase != "asked"} == {USER}
        assert world.phases(incident, "voms", "approve") == ["intent", "refused"]
        assert world.task(incident, "approve", "voms")["state"] == "failed"
        assert world.store.step(incident, "voms", "clear_locks") is None
        assert f"**{USER} rejected**" in world.ticket(incident)

    def test_viewer_may_not_answer(self, answered: dict[str, Any]) -> None:
        """It should not take an answer from someone who may only look."""
        assert answered["viewer"] == 403

    def test_dry_run_shows_the_plan_and_touches_nothing(self, world: World, answered: dict[str, Any]) -> None:
        """It should end well as an incident of its own, with evidence and plan, also beside the repair itself."""
        before = fingerprint(world.lab, "voms")
        state = world.incident(answered["incident"]).state
        run = world.airflow.trigger("remediate_guest", {"guest": GUEST, "instances": ["voms"], "dry_run": True})
        assert world.ended(run) == "success"
        assert fingerprint(world.lab, "voms") == before
        incident = next(row.incident for row in world.store.incidents(1))
        assert incident != answered["incident"]
        assert world.incident(incident).dry_run
        plan = world.result(incident, "voms", "verdict")["plan"]
        remedies = {file["remedy"] for file in plan["files"]}
        assert remedies == {"recreate"}
        assert world.result(incident, "voms", "recreate_files")["would_recreate"]
        assert world.servers("voms") == []
        assert world.incident(answered["incident"]).state is state


def _questions(world: World, incident: str) -> list[dict[str, Any]]:
    path = f"/dags/remediate_guest/dagRuns/{incident}/hitlDetails"
    return [q for q in world.airflow.call("GET", path)["hitl_details"] if not q["response_received"]]


def _answer_all(world: World, incident: str, *, no: str) -> str:
    """Answer every open question; the run's state once it has ended.

    Airflow asks again when an answer comes before its scheduler has noticed that the task waits.
    """
    for question in _questions(world, incident):
        rejected = world.lanes(incident)[question["task_instance"]["map_index"]] == no
        _answer(world, incident, question, "Reject" if rejected else "Approve")
    return world.state(incident)


def _answer(world: World, incident: str, question: dict[str, Any], option: str, *, user: str = USER) -> None:
    task = question["task_instance"]
    world.airflow.call(
        "PATCH",
        f"/dags/remediate_guest/dagRuns/{incident}/taskInstances/{task['task_id']}/{task['map_index']}/hitlDetails",
        {"chosen_options": [option], "params_input": {"comment": None}},
        user=user,
    )


def test_lanes_survive_killed_workers_and_a_busy_lease(world: World) -> None:
    """It should finish with one swap per file and one server, although each lane's first try comes to nothing.

    The worker of voms dies while it copies, that of alvmysql while it starts the server; lxr is another incident's.
    """
    other = _other_incident(world)
    incident = world.crash(lambda: _take(world, other))
    voms = world.lab.host_path(world.lab.instance("voms").datadir)
    copying = _kill_worker(world, incident, "recreate_files", "voms", lambda: list(voms.glob(".unlatch-*.new")))
    starting = _kill_worker(world, incident, "restart_database", "alvmysql", lambda: world.servers("alvmysql"))
    world.until("lxr waits", lambda: "waiting" in world.phases(incident, "lxr", "check_locks"))
    world.store.release_lease("instance:lxr", other)
    assert world.ended(incident) == "success"

    assert world.phases(incident, "voms", "recreate_files") == ["intent", "intent", "done"]
    assert world.phases(incident, "alvmysql", "restart_database") == ["intent", "intent", "done"]
    assert world.phases(incident, "lxr", "check_locks") == ["intent", "waiting", "done"]
    assert world.task(incident, "recreate_files", "voms")["try_number"] == 2
    assert world.task(incident, "restart_database", "alvmysql")["try_number"] == 2
    assert copying != starting
    for name in ("voms", "alvmysql"):
        files = world.result(incident, name, "recreate_files")["files"]
        datadir = world.lab.host_path(world.lab.instance(name).datadir)
        assert sorted(str(world.lab.guest_path(p)) for p in datadir.glob(".unlatch-*.orig")) == sorted(
            f["quarantine"] for f in files
        )
        assert list(datadir.glob(".unlatch-*.new")) == []
        assert len(world.servers(name)) == 1
        assert world.result(incident, name, "confirm_access")["access"] == "ok"
    assert world.lost_commits() == {}


def _other_incident(world: World) -> str:
    """Another incident that is being worked on."""
    name = "inc-20200101-000000-elsewhere"
    world.store.open_incident(
        IncidentRow(
            incident=name,
            guest="elsewhere",
            state=IncidentState.REPAIRING,
            opened_at=datetime.now(UTC),
            died_at=None,
            dry_run=False,
            reason="",
            ticket=None,
            event=None,
        )
    )
    return name


def _take(world: World, incident: str) -> None:
    assert world.store.take_lease("instance:lxr", incident) is None


def _kill_worker(world: World, incident: str, step: str, instance: str, midst: Callable[[], Any]) -> str:
    """SIGKILL whatever runs a step, as the kernel would for want of memory, in the midst of it; the task's id."""
    running = lambda: (t := world.task(incident, step, instance)).get("state") == "running" and t["id"]  # noqa: E731
    task = str(world.until(f"{step} of {instance} runs", running))
    world.until(f"{step} of {instance} is in the midst", midst, pause_s=0.01)
    workers = processes(task.encode())  # Airflow puts the task's id into their titles
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    assert len(workers) == 2, "the task and its supervisor"
    assert world.step(incident, instance, step).phase == "intent", "it was killed too late"
    return task


@pytest.mark.parametrize(
    "conf",
    [
        {},
        {"guest": ""},
        {"guest": 4037},
        {"guest": GUEST, "instances": "voms"},
        {"guest": GUEST, "instances": [1]},
        {"guest": GUEST, "dry_run": "yes"},
        {"guest": GUEST, "reason": "x" * 501},
        {"guest": GUEST, "crashed_at": "yesterday"},
        {"guest": GUEST, "crashed_at": "2014-10-18T05:54:52"},  # of which zone?
        {"guest": GUEST, "incident": "../../etc/passwd"},
    ],
    ids=lambda conf: str(conf)[:60],
)
def test_form_refuses_nonsense(world: World, conf: dict[str, Any]) -> None:
    """It should answer 400 and start nothing."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        world.airflow.trigger("remediate_guest", conf, "nonsense")
    assert caught.value.code == 400
    assert world.runs("nonsense") == []
