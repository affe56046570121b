"""What a single step finds and does: service, copy job, pid file, start, login, owner, tickets."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import timedelta
from pathlib import PurePosixPath

import pytest

from tests.unit.fakes import World
from tests.unit.lanes import Run, refused
from tests.unit.world_parts import Inode, instance
from unlatch.assessment import PERMIT_LIFE_S
from unlatch.errors import CheckFailedError, ConfigError, RefusedError, TransientError, UnlatchError
from unlatch.models import Instance, LockKind, Permit, Probe, SwappedFile
from unlatch.runbook import confirm_by_owner, owner_question
from unlatch.transport.agent_answers import raise_for, repair_status

DATADIR = PurePosixPath("/ORA/dbs03/voms")
LOCKED = {DATADIR / "ibdata1", DATADIR / "aria_log_control"}


def test_start_that_fails_for_another_reason(world: World) -> None:
    """It should say why with the end of the error log, not try again, and need no second repair once corrected."""
    world.units["voms"].fails_with = "exit code 1"
    world.log_lines = ["InnoDB: starting", "[ERROR] disk full (/tmp/#sql), waiting for someone"]
    run = Run(world)
    run.open()
    with pytest.raises(CheckFailedError, match="its disk is full") as failed:
        run.lane()
    assert "waiting for someone" in failed.value.what
    assert "need no second repair" in failed.value.next_step
    assert world.units["voms"].starts == 1
    assert run.finish_fails().what.startswith("1 of 1 instances")
    assert run.state == "failed"

    world.units["voms"].fails_with = None
    run.lane(start="restart_database")
    run.finish()
    assert run.state == "awaiting_purge"
    assert world.units["voms"].starts == 2
    assert set(world.swaps.values()) == {1}


@pytest.mark.parametrize(
    "says", [(4, "Unit x.service could not be found."), (1, "Failed to connect to bus: No such file")]
)
def test_status_that_cannot_be_told_stops_nothing(world: World, says: tuple[int, str]) -> None:
    """It should not take a status command that fails for a stopped database: that would stop one that is up."""
    world.units["voms"].running, world.units["voms"].status_says = True, says
    run = Run(world)
    run.open()
    with pytest.raises(ConfigError, match="Whether voms runs on dbvrtg4037 cannot be told"):
        run.step("check_locks")
    assert world.touched() == []


def test_instance_that_is_up_needs_nothing(world: World) -> None:
    """It should touch nothing when the instance runs and answers, and close the incident."""
    world.units["voms"].running = True
    run = Run(world)
    run.all()
    assert world.touched() == []
    assert run.state == "closed"
    assert "nothing had to be done" in world.tickets.text


def test_unlocked_instance_is_only_started(world: World) -> None:
    """It should copy nothing when no file is locked any more, and start the instance after the proof of death."""
    for inode in world.names.values():
        inode.lock = LockKind.NONE
    del world.names[DATADIR / "server.pid"]
    run = Run(world)
    run.all()
    assert world.touched()[-2:] == ["agent.service release", "agent.service start"]
    assert world.swaps == {}
    assert run.state == "closed"


def test_hold_that_is_not_allowed(world: World) -> None:
    """It should stop before anything else when the service cannot be held, with the command to try by hand."""
    world.units["voms"].hold_code = 1
    run = Run(world)
    run.open()
    with pytest.raises(CheckFailedError, match="a password is required") as failed:
        run.lane()
    assert "sudo -n dbservice hold voms" in failed.value.next_step
    assert world.swaps == {}


def test_instance_that_still_runs_after_the_hold(world: World) -> None:
    """It should stop when the instance was started locally and does not answer: that is not a dead incarnation."""
    world.units["voms"].running = True
    world.login_error = TransientError("127.0.0.1:3306 does not answer.")
    run = Run(world)
    run.open()
    with pytest.raises(CheckFailedError, match="still runs after its service was held"):
        run.lane()
    assert world.swaps == {}


@pytest.mark.parametrize(("exit_code", "kind"), [(3, RefusedError), (5, RefusedError), (6, TransientError)])
def test_copy_job_that_fails(world: World, exit_code: int, kind: type[Exception]) -> None:
    """It should say what the agent says; what only a person can change is not retried."""
    world.copy_error = {"code": "x", "message": "no space left on /ORA", "next": "make room", "exit_code": exit_code}
    run = Run(world)
    run.open()
    with pytest.raises(kind, match="no space left"):
        run.lane()
    assert "agent.commit" not in world.touched()


def test_kind_of_the_copy_jobs_error(world: World) -> None:
    """It should know from the agent's status that the job was refused: a refusal is not tried again."""
    repair = {
        "state": "preparing",
        "job": {"running": False, "pid": 9, "exit_code": 3},
        "error": {"code": "local_holder", "message": "process 77 has it open", "next": "stop it"},
    }
    world.copy_error = repair_status({"repair": repair, "files": []}).error
    run = Run(world)
    run.open()
    assert "process 77 has it open" in refused(run.lane).what


def test_pid_file_that_comes_back(world: World) -> None:
    """It should stop when the pid file is there again after it was set aside: something starts the instance."""
    run = Run(world)
    run.open()
    run.lane(end="verdict")
    world.after("agent.set_aside", lambda: world.names.update(
        {DATADIR / "server.pid": Inode(999, "322", LockKind.PIDFILE, pid=322)}
    ))  # fmt: skip
    with pytest.raises(CheckFailedError, match="something starts voms"):
        run.step("clear_locks")


def test_pid_file_that_went_by_itself(world: World) -> None:
    """It should go on without an act when the pid file has gone before it could be set aside."""
    run = Run(world)
    run.open()
    run.lane(end="verdict")
    del world.names[DATADIR / "server.pid"]
    run.lane(start="clear_locks")
    run.finish()
    assert "agent.set_aside" not in world.touched()
    assert run.state == "awaiting_purge"


def test_start_of_an_earlier_try_is_not_repeated(world: World) -> None:
    """It should find the server that a killed try has started, and only look at it."""
    run = Run(world)
    run.open()
    run.lane(end="recreate_files")
    run.step("restart_database")
    run.step("restart_database")
    assert world.touched().count("agent.service start") == 1


def test_server_that_runs_on_other_files(world: World) -> None:
    """It should fail when nothing has the recreated files open after the start."""
    run = Run(world)
    run.open()
    run.lane(end="recreate_files")
    for path in LOCKED:
        world.names[path] = dataclasses.replace(world.names[path], number=world.names[path].number + 5000)
    with pytest.raises(CheckFailedError, match="no process of dbvrtg4037 has its recreated files open"):
        run.step("restart_database")


def test_server_that_has_an_original_open(world: World) -> None:
    """It should fail with the pid that has a quarantined original open."""
    run = Run(world)
    run.open()
    run.lane(end="recreate_files")
    world.names[DATADIR / "ibdata1"] = next(e.source for (_, p), e in world.journal.items() if p.name == "ibdata1")
    world.names[DATADIR / "ibdata1"].lock = LockKind.NONE
    with pytest.raises(CheckFailedError, match="has the quarantined original"):
        run.step("restart_database")


def test_login_waits_for_the_recovery(world: World) -> None:
    """It should try again while the server recovers, and give up with its words after the limit."""
    run = Run(world)
    run.open()
    run.lane(end="restart_database")
    world.login_error = TransientError("the database system is starting up")
    before = world.clock.now()
    with pytest.raises(CheckFailedError, match="starting up"):
        run.step("confirm_access")
    assert world.clock.now() - before >= timedelta(seconds=180)


def test_login_that_is_refused_is_not_tried_again(world: World) -> None:
    """It should fail at once when the server answers and refuses."""
    run = Run(world)
    run.open()
    run.lane(end="restart_database")
    world.login_error = CheckFailedError("Access denied for user 'unlatch'")
    with pytest.raises(CheckFailedError, match="Access denied"):
        run.step("confirm_access")
    assert [c.name for c in world.calls].count("engine.login") == 1


@pytest.mark.parametrize(
    ("probe", "argv0"),
    [
        (Probe(command=("check-voms",)), "check-voms"),
        (Probe(http="http://localhost/voms"), "curl"),
        (Probe(tcp="localhost:15000"), "curl"),
    ],
)
def test_application_probe(new_world: Callable[..., World], probe: Probe, argv0: str) -> None:
    """It should ask the application's own probe on the guest after the login."""
    world = new_world(instance(probe=probe))
    run = Run(world)
    run.all()
    assert [c.arguments[0][0] for c in world.calls if c.name == "agent.command"] == [argv0]
    assert "Application probe passed" in world.tickets.text


def test_application_probe_that_fails(new_world: Callable[..., World]) -> None:
    """It should fail the lane although the database accepts logins, and say so."""
    world = new_world(instance(probe=Probe(command=("false",))))
    run = Run(world)
    run.open()
    with pytest.raises(CheckFailedError, match="no such page"):
        run.lane()


@pytest.mark.parametrize("confirmed", [True, False])
def test_owner_confirms(new_world: Callable[..., World], confirmed: bool) -> None:
    """It should ask the owner when the inventory wants it; a no makes the run fail although logins work."""
    world = new_world(instance(owner_confirms=True))
    run = Run(world)
    run.open()
    run.lane()
    case = world.case(run.incident, "voms")
    assert "127.0.0.1:3306" in (owner_question(case, world.ports) or "")
    if confirmed:
        confirm_by_owner(case, world.ports, approved=True, by="eva", comment=None)
        run.finish()
        assert run.state == "awaiting_purge"
    else:
        with pytest.raises(CheckFailedError, match="does not confirm"):
            confirm_by_owner(case, world.ports, approved=False, by="eva", comment="wrong data")
        run.finish_fails()
        assert run.state == "failed"
        assert "wrong data" in world.tickets.text


def test_ticket_system_down_never_stops_a_repair(world: World) -> None:
    """It should repair although no ticket can be opened, and keep in the audit what could not be told."""
    world.tickets.down = ConnectionError("tickets.example.org refuses the connection")
    run = Run(world)
    run.all()
    assert world.units["voms"].running
    assert run.state == "awaiting_purge"
    notes = [r for r in world.store.audit_rows(incident=run.incident) if r.step == "update_ticket"]
    assert any("refuses the connection" in str(r.detail) for r in notes)


def test_ticket_system_that_goes_down_on_the_way(new_world: Callable[..., World]) -> None:
    """It should repair and end the incident although every later call of the ticket system fails."""
    world = new_world()
    run = Run(world)
    run.open()
    world.tickets.down = TransientError("the ticket system is out of reach")
    run.lane()
    run.finish()
    assert run.state == "awaiting_purge"
    assert world.store.lease_owner("instance:voms") is None


def test_swap_that_outlives_its_permit_is_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It should look at everything anew and swap when the volume kept the agent waiting until the permit was over."""
    run = Run(world)
    run.open()
    run.lane(end="clear_locks")
    commit, permits = world.agent.commit, []

    def slow(of: Instance, permit: Permit) -> tuple[SwappedFile, ...]:
        permits.append(permit)
        world.clock.pause(PERMIT_LIFE_S + 1 if len(permits) == 1 else 0)
        return commit(of, permit)

    monkeypatch.setattr(world.agent, "commit", slow)
    with pytest.raises(TransientError, match="permit_expired"):
        run.step("recreate_files")
    assert all(world.names[path].lock is not LockKind.NONE for path in LOCKED), "nothing was swapped"
    assert {f["path"] for f in run.step("recreate_files")["files"]} == {str(path) for path in LOCKED}
    assert permits[0].expires_boottime_s < permits[1].expires_boottime_s
    run.lane(start="restart_database")


@pytest.mark.parametrize(("code", "kind"), [("permit_expired", TransientError), ("permit_mismatch", RefusedError)])
def test_only_an_expired_permit_is_worth_another_try(code: str, kind: type[UnlatchError]) -> None:
    """It should take the refusal of a permit for a passing trouble only when nothing but time was in its way."""
    document = {"ok": False, "error": {"code": code, "message": "no", "next": "ask again"}}
    with pytest.raises(kind, match=code):
        raise_for(document, 3, host="dbvrtg4037")
