"""Opening an incident, waiting for its guest, telling how it ended: also for what must not be repaired."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from tests.unit.fakes import World
from tests.unit.lanes import Run, again, refused, tell_the_rest
from tests.unit.world_parts import DIED_AT, GUEST, instance
from unlatch import casebook
from unlatch.casebook import Request
from unlatch.errors import CheckFailedError, ConfigError, RefusedError, TransientError
from unlatch.lifecycle import IncidentState
from unlatch.models import Answer, DomainChange, DomainFact, incident_id

CRASH_LINE = DomainFact("2130_dbvrtg4037", DomainChange.CRASHED, DIED_AT, "Domain has crashed: name=2130_dbvrtg4037")


@pytest.fixture
def three(new_world: Callable[..., World]) -> World:
    """The guest of 2014, with its three instances."""
    return new_world(instance("voms"), instance("lxr"), instance("alvmysql"))


def test_opening(three: World) -> None:
    """It should open one incident and one ticket that says what the hypervisor said, and name all instances."""
    run = Run(three, reason="xend says so")
    assert run.open() == {"incident": run.incident, "instances": ["voms", "lxr", "alvmysql"], "dry_run": False}
    assert run.state == "repairing"
    title, body = three.tickets.opened[run.incident]
    assert title == "dbvrtg4037 crashed: voms, lxr, alvmysql"
    for words in ("SIGSEGV", "Domain has crashed", "xend says so", "2130_dbvrtg4037"):
        assert words in body
    assert three.store.incident(run.incident).ticket == f"TICKET-{run.incident}"


def test_opening_again_finds_the_same(world: World) -> None:
    """It should find the incident, the ticket and the event when it is run a second time."""
    run = Run(world)
    first = run.open()
    assert run.open() == first
    assert len(world.store.incidents()) == 1
    assert len(world.tickets.opened) == 1


def test_only_the_instances_that_were_asked_for(three: World) -> None:
    """It should open the incident for these alone."""
    run = Run(three, instances=("lxr",))
    assert run.open()["instances"] == ["lxr"]


def test_ticket_of_a_person_is_continued(world: World) -> None:
    """It should use the ticket that the form names."""
    run = Run(world, ticket="GGUS-1234")
    run.open()
    assert world.store.incident(run.incident).ticket == "GGUS-1234"


def test_unknown_guest(world: World) -> None:
    """It should open an incident, tell a person what the inventory has, and touch nothing."""
    run = Run(world, guest="77_nobody")
    error = refused(run.open)
    assert "it has: dbvrtg4037" in error.what
    assert run.state == "refused"
    assert "nothing was touched" in world.tickets.text
    assert world.touched() == []


@pytest.mark.parametrize("names", [("vomss",), ("voms", "other")])
def test_unknown_instance(world: World, names: tuple[str, ...]) -> None:
    """It should refuse the whole run when one name is wrong, and say which."""
    run = Run(world, instances=names)
    assert next(n for n in names if n != "voms") in refused(run.open).what
    assert run.state == "refused"


def test_old_event(world: World) -> None:
    """It should refuse a crash that is older than the policy allows, but show it in a dry run."""
    world.clock.pause(world.policy.max_event_age_s + 1)
    run = Run(world)
    assert "max_event_age_s" in refused(run.open).what
    assert run.state == "refused"
    assert world.touched() == []


def test_old_event_in_a_dry_run(world: World) -> None:
    """It should look at an old crash when nothing will be touched."""
    world.clock.pause(world.policy.max_event_age_s + 1)
    run = Run(world, dry_run=True)
    run.all()
    assert run.state == "closed"
    assert world.touched() == []


def test_dry_run_beside_a_repair(world: World) -> None:
    """It should not act in the name of the repair that the watch has opened for the same death, nor hinder it."""
    repair = Run(world)
    repair.open()
    asked = dataclasses.replace(repair.request, incident=None, dry_run=True, run="manual__1")
    dry = casebook.detect_crash(asked, world.incident_ports)
    assert dry["dry_run"]
    assert dry["incident"] != repair.incident
    assert casebook.detect_crash(asked, world.incident_ports) == dry
    assert not repair.open()["dry_run"]


@pytest.mark.parametrize("first_is_dry", [False, True])
def test_request_of_the_other_kind(world: World, *, first_is_dry: bool) -> None:
    """It should not let a dry run join a repair, nor a repair a dry run, when the form names its incident."""
    first = Run(world, dry_run=first_is_dry)
    first.open()
    before = first.state
    assert "was asked for" in refused(Run(world, dry_run=not first_is_dry).open).what
    assert first.state == before
    assert first.open()["dry_run"] == first_is_dry


def test_event_of_the_future(world: World) -> None:
    """It should refuse a crash that has not happened yet: a time zone or a clock is wrong."""
    world.clock.pause(-3600)
    assert "lies in the future" in refused(Run(world).open).what


def test_global_stop_opens_nothing(world: World) -> None:
    """It should not even open an incident while the global stop is set."""
    world.stop = True
    refused(Run(world).open)
    assert world.store.incidents() == ()


def _manual(world: World, **changes: object) -> Request:
    return dataclasses.replace(Request(GUEST.name, run="manual__2026-03-07T05:55:00+00:00"), **changes)


def test_run_of_a_person_finds_the_crash_in_the_log(world: World) -> None:
    """It should take the newest death that the hypervisor still tells, with the id that the watch would give."""
    world.hypervisor_says = [CRASH_LINE]
    found = casebook.detect_crash(_manual(world), world.incident_ports)
    assert found["incident"] == incident_id(DIED_AT, GUEST.name)
    assert world.store.incident(found["incident"]).event.at == DIED_AT


@pytest.mark.parametrize("says", [[], TransientError("hv01 does not answer"), ConfigError("hv01: wrong host key")])
def test_run_of_a_person_without_a_known_crash(world: World, says: object) -> None:
    """It should open an incident all the same; without the hypervisor's word a person will be asked."""
    world.hypervisor_says = says
    found = casebook.detect_crash(_manual(world), world.incident_ports)
    assert world.store.incident(found["incident"]).event is None
    assert "a person will be asked" in world.tickets.opened[found["incident"]][1]


@pytest.mark.parametrize("known", [True, False])
def test_run_of_a_person_killed_anywhere_opens_one_incident(new_world: Callable[..., World], known: bool) -> None:
    """It should open one incident and one ticket although its first try died and time has passed since."""
    counting = new_world()
    counting.hypervisor_says = [CRASH_LINE] if known else []
    casebook.detect_crash(_manual(counting), counting.incident_ports)
    for index, call in enumerate(counting.calls):
        world = new_world()
        world.hypervisor_says = [CRASH_LINE] if known else []
        world.dies_at = index

        def open_it(world: World = world) -> dict[str, object]:
            world.clock.pause(7)
            return casebook.detect_crash(_manual(world), world.incident_ports)

        again(world, open_it)
        tell_the_rest(world)
        assert len(world.store.incidents()) == 1, f"killed before call {index}: {call.name}"
        assert len(world.tickets.opened) == 1


def test_guest_is_back(world: World) -> None:
    """It should record the boot that it found."""
    run = Run(world)
    run.open()
    assert casebook.guest_is_back(run.whole, world.incident_ports)
    found = casebook.wait_for_guest(run.whole, world.incident_ports)
    assert found["boot_id"] == "boot-2"


def test_guest_is_not_back_yet(world: World) -> None:
    """It should ask to be run again while the policy's time is not over."""
    run = Run(world)
    run.open()
    world.guest_answers = False
    assert not casebook.guest_is_back(run.whole, world.incident_ports)
    with pytest.raises(TransientError):
        casebook.wait_for_guest(run.whole, world.incident_ports)
    assert "FAILED" not in world.tickets.text


@pytest.mark.parametrize("with_event", [True, False])
def test_guest_does_not_come_back(world: World, with_event: bool) -> None:
    """It should tell people once the policy's time since the opening is over, also when no crash event is known."""
    run = Run(world)
    run.open()
    world.guest_answers = False
    world.clock.pause(world.policy.guest_return_s + 1)
    whole = run.whole if with_event else dataclasses.replace(run.whole, event=None)
    with pytest.raises(CheckFailedError, match="is not back 900 s"):
        casebook.wait_for_guest(whole, world.incident_ports)
    assert "start the guest on its hypervisor" in world.tickets.text
    run.finish_fails()
    assert run.state == "failed"


def test_guest_that_answers_as_another(world: World) -> None:
    """It should not wait for a guest that answers with another host key."""
    run = Run(world)
    run.open()

    def other_key(_: object = ()) -> None:
        raise ConfigError("the host key of dbvrtg4037 is not the pinned one.")

    world.agent.facts = other_key
    with pytest.raises(ConfigError, match="pinned"):
        casebook.guest_is_back(run.whole, world.incident_ports)


def test_three_repaired(three: World) -> None:
    """It should end with all three accessible, and say of each what was done and where its originals are."""
    run = Run(three)
    assert run.attempt() is None
    assert run.state == "awaiting_purge"
    closing = list(three.tickets.comments.values())[-1]
    for name in ("voms", "lxr", "alvmysql"):
        assert f"| {name} | ok | accepts logins (2 files recreated, 1 pid file set aside) |" in closing
        assert f"/ORA/dbs03/{name}/.unlatch-ibdata1.orig" in closing
        assert three.store.lease_owner(f"instance:{name}") is None
    assert three.tickets.states == ["in progress"]


def test_one_of_three_failed_and_is_repaired_later(three: World) -> None:
    """It should fail with the name of the one, give all leases back, and tell the better end after it was cleared."""
    three.units["lxr"].fails_with = "exit code 1"
    run = Run(three)
    error = run.attempt()
    assert isinstance(error, CheckFailedError)
    assert error.what.startswith("1 of 3 instances of dbvrtg4037 are not accessible: lxr: restart_database failed")
    assert run.state == "failed"
    assert three.units["voms"].running
    assert "| lxr | NOT accessible |" in three.tickets.text
    assert all(three.store.lease_owner(f"instance:{n}") is None for n in three.instances)

    three.units["lxr"].fails_with = None
    run.lane("lxr", start="restart_database")
    run.finish()
    assert run.state == "awaiting_purge"
    assert "| lxr | ok |" in three.tickets.text
    assert set(three.swaps.values()) == {1}


def test_one_of_three_refused(three: World) -> None:
    """It should end refused when one instance lives, with the two others repaired."""
    three.checks["port"] = _AliveFor("lxr", three.checks["port"])
    run = Run(three)
    error = run.attempt()
    assert error is not None
    assert run.state == "refused"
    assert [three.units[n].running for n in ("voms", "lxr", "alvmysql")] == [True, False, True]


class _AliveFor:
    """A check that sees one instance alive."""

    def __init__(self, name: str, usual: object) -> None:
        self.name, self._of, self._usual = "port", name, usual

    def collect(self, scene: object) -> object:
        """Alive for that one."""
        found = self._usual.collect(scene)
        return dataclasses.replace(found, answer=Answer.ALIVE) if scene.instance.name == self._of else found


def test_lane_that_never_ran(three: World) -> None:
    """It should not call an instance accessible whose steps did not run."""
    run = Run(three)
    run.open()
    run.lane("voms")
    error = run.finish_fails()
    assert "2 of 3" in error.what
    assert "did not run to the end" in error.what


def test_lane_that_was_killed(world: World) -> None:
    """It should not call an instance accessible that has a step whose end nobody knows."""
    run = Run(world)
    run.open()
    run.lane(end="recreate_files")
    world.store.begin(run.incident, "voms", "restart_database", actor="eva", detail={})
    assert "restart_database intent: did not finish" in run.finish_fails().what


def test_second_round_that_did_not_end_is_not_hidden_by_the_first(world: World) -> None:
    """It should not go by the login of an earlier round when a later one has only begun."""
    run = Run(world)
    run.all()
    run.step("check_locks")
    assert "did not run to the end" in run.finish_fails().what
    assert run.state == "failed"


def test_every_end_can_follow_every_end(world: World) -> None:
    """It should tell each new end of a run that is cleared again and again: well, failed, refused, well."""
    run = Run(world)
    run.all()
    world.login_error = CheckFailedError("Access denied")
    with pytest.raises(CheckFailedError):
        run.step("confirm_access")
    run.finish_fails()
    assert run.state == "failed"
    world.login_error = None
    world.units["voms"].running = False
    world.answers["port"] = Answer.ALIVE
    with pytest.raises(RefusedError):
        run.lane()
    run.finish_fails()
    assert run.state == "refused"
    world.answers.clear()
    run.lane()
    run.finish()
    assert run.state == "awaiting_purge"
    assert world.store.verify_audit().verified


def test_update_ticket_again_changes_nothing(world: World) -> None:
    """It should say the same once, however often it runs."""
    run = Run(world)
    run.all()
    comments, state = dict(world.tickets.comments), run.state
    run.finish()
    assert (world.tickets.comments, run.state) == (comments, state)


def test_comments_carry_the_audit_head(world: World) -> None:
    """It should put a head of the audit into every comment, each of which the chain still has."""
    Run(world).all()
    heads = {row.sequence: row.hash for row in world.store.audit_rows()}
    for text in world.tickets.comments.values():
        _, _, witness = text.rpartition("_Audit head: row ")
        sequence, _, digest = witness.rstrip("_").partition(", ")
        assert heads[int(sequence)] == digest


def _asks(world: World, run: str, **changes: object) -> dict[str, object]:
    asked = Request(GUEST.name, incident=incident_id(DIED_AT, GUEST.name), crashed_at=DIED_AT, run=run)
    return casebook.detect_crash(dataclasses.replace(asked, **changes), world.incident_ports)


@pytest.mark.parametrize("late_s", [0, 90_000])
def test_refused_request_leaves_a_present_incident_as_it_is(three: World, late_s: int) -> None:
    """It should neither end nor forget a repair because a later request has a wrong name, or comes too late."""
    repair = Run(three)
    repair.all()
    opened, state = three.store.step(repair.incident, "", "detect_crash"), repair.state
    three.clock.pause(late_s)
    refused(lambda: _asks(three, "manual__2", instances=() if late_s else ("vomss",)))
    assert repair.state == state == "awaiting_purge"
    assert three.store.step(repair.incident, "", "detect_crash") == opened
    assert "REFUSED" not in three.tickets.text


def test_second_run_does_not_join_a_repair_that_goes_on(world: World) -> None:
    """It should refuse a run of a person while another run repairs the same death, and let each of them try again."""
    world.store.real.record_event(world.event, GUEST.name)
    first = _asks(world, "inc-1")
    error = refused(lambda: _asks(world, "manual__2"))
    assert "is being repaired by the run inc-1" in error.what
    assert _asks(world, "inc-1") == first, "its own retry is no other run"
    assert world.store.incident(first["incident"]).state == "repairing"


def test_run_that_is_gone_stands_in_nobodys_way(world: World) -> None:
    """It should let another run go on when the incident has ended, or is stuck by the policy's limits."""
    world.policy = dataclasses.replace(world.policy, max_event_age_s=30_000)
    world.store.real.record_event(world.event, GUEST.name)
    _asks(world, "deleted")
    world.clock.pause(7_201)
    _asks(world, "manual__2")
    refused(lambda: _asks(world, "manual__3"))
    world.store.set_state(incident_id(DIED_AT, GUEST.name), IncidentState.FAILED)
    _asks(world, "manual__3")


def test_later_request_for_one_instance_forgets_no_other(three: World) -> None:
    """It should work on what was asked for now, and go on owing what an earlier run has repaired."""
    repair = Run(three)
    repair.all()
    assert _asks(three, "manual__2", instances=("lxr",))["instances"] == ["lxr"]
    kept = three.store.step(repair.incident, "", "detect_crash").result["instances"]
    assert sorted(kept) == ["alvmysql", "lxr", "voms"]
