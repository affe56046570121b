"""Who is told what and when: from the audit, once, in their hours, and only while it still matters."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.unit.fakes import World
from tests.unit.lanes import Run
from tests.unit.world_parts import DIED_AT
from unlatch import notices, service_hours
from unlatch.deliveries import deliver
from unlatch.errors import ConfigError, TransientError
from unlatch.models import Answer, Policy, Receiver
from unlatch.notifications import Sender
from unlatch.ports import TICKET

TOLD = list[tuple[str, str]]


class People:
    """Receivers, and what each was told."""

    def __init__(self, world: World, **receivers: Mapping[str, Any]) -> None:
        self.world = world
        self.receivers = {
            name: Receiver.from_dict({"name": name, "by": "fake", **given}) for name, given in receivers.items()
        }
        self.told: TOLD = []
        self.error: Exception | None = None
        self.senders: dict[str, Sender] = {"fake": self._send}
        notices.queue_new(world.store, world.store, self.policy, world.clock.now())  # from now on

    @property
    def policy(self) -> notices.Policy:
        return notices.Policy(self.receivers, 900, "Europe/Zurich")

    def _send(self, receiver: Receiver, title: str, words: str, marker: str) -> None:
        if self.error is not None:
            raise self.error
        assert words
        assert marker
        self.told.append((receiver.name, title))

    def tell(self, later_s: float = 0) -> TOLD:
        """What the scheduled task tells, so much later."""
        world = self.world
        world.clock.pause(later_s)
        before = len(self.told)
        notices.queue_new(world.store, world.store, self.policy, world.clock.now())
        for channel, incident in world.store.lanes_due():
            if channel != TICKET:
                post = notices.post_of(channel, world.store, self.receivers, self.senders)
                deliver(channel, incident, world.incident_ports, post)
        return self.told[before:]


def test_a_repair_is_told_from_end_to_end(world: World) -> None:
    """It should tell the crash and the access, in this order and once, and no step that went well."""
    people = People(world, dbas={})
    run = Run(world)
    run.all()
    assert people.tell() == [("dbas", "dbvrtg4037: its databases accept logins again")], (
        "the crash was made good before anybody could be told"
    )
    assert people.tell(3600) == []


def test_each_phase_is_told_when_it_happens(world: World) -> None:
    """It should tell the crash at once, a question when it is put, and the access when it is proven."""
    people = People(world, dbas={})
    world.answers["port"] = Answer.NOT_OBSERVED
    run = Run(world)
    run.open()
    assert people.tell() == [("dbas", "dbvrtg4037 crashed: its databases are down")]
    run.lane(end="verdict")
    run.question()
    assert people.tell() == [("dbas", "dbvrtg4037: the repair waits for your answer")]
    run.answer(approved=True)
    run.lane(start="clear_locks")
    run.finish()
    assert people.tell() == [("dbas", "dbvrtg4037: its databases accept logins again")]


def test_a_refusal_names_the_step_and_the_next_one(world: World) -> None:
    """It should tell what was refused."""
    people = People(world, dbas={"on": ["failed"]})
    world.answers["processes"] = Answer.ALIVE
    Run(world).attempt()
    assert people.tell() == [("dbas", "dbvrtg4037: verdict of voms refused")]


def test_severity_chooses(world: World) -> None:
    """It should tell each what it wants: who is called at night hears of nothing that waits till morning."""
    people = People(world, all={}, on_call={"severity": "critical"}, chief={"on": ["ended"]})
    run = Run(world)
    run.open()
    assert people.tell() == [("all", "dbvrtg4037 crashed: its databases are down")]
    run.lane()
    run.finish()
    assert [name for name, _ in people.tell()] == ["all", "chief"]


def test_an_answer_in_time_is_not_escalated(world: World) -> None:
    """It should tell the next one only after the minutes without an answer, and nobody when it was answered."""
    people = People(world, dbas={"on": ["waiting"]}, chief={"on": ["waiting"], "after_s": 1200})
    world.answers["port"] = Answer.NOT_OBSERVED
    run = Run(world)
    run.open()
    run.lane(end="verdict")
    run.question()
    assert [name for name, _ in people.tell()] == ["dbas"]
    assert people.tell(1199) == []
    assert [name for name, _ in people.tell(1)] == ["chief"]
    run.answer(approved=True)


def test_escalation_is_dropped_by_an_answer(world: World) -> None:
    """It should not wake anybody for what somebody else has answered."""
    people = People(world, chief={"on": ["waiting"], "after_s": 1200})
    world.answers["port"] = Answer.NOT_OBSERVED
    run = Run(world)
    run.open()
    run.lane(end="verdict")
    run.question()
    people.tell()
    run.answer(approved=True)
    assert people.tell(1300) == []
    assert world.store.deliveries() == []


def test_a_missed_objective_is_told_when_it_is_missed(world: World) -> None:
    """It should tell it at the promised moment after the crash, not before."""
    people = People(world, dbas={"on": ["deadline"]})
    Run(world).open()
    already = (world.clock.now() - DIED_AT).total_seconds()
    assert people.tell(899 - already) == []
    assert people.tell(1) == [("dbas", "dbvrtg4037: not accessible 15 minutes after the crash")]


def test_a_kept_objective_is_not_told(world: World) -> None:
    """It should say nothing when access came in time."""
    people = People(world, dbas={"on": ["deadline"]})
    Run(world).all()
    assert people.tell(2000) == []


def test_hours_of_a_receiver(world: World) -> None:
    """It should keep what happens on Saturday morning for Monday, when it still matters then."""
    people = People(world, office={"on": ["waiting"], "hours": ["Mon-Fri 08:00-18:00"]})
    world.answers["port"] = Answer.NOT_OBSERVED
    run = Run(world)
    run.open()
    run.lane(end="verdict")
    run.question()
    assert people.tell() == []
    monday = datetime(2026, 3, 9, 7, 0, tzinfo=UTC)  # 08:00 in Geneva
    assert people.tell((monday - world.clock.now()).total_seconds() - 1) == []
    assert [name for name, _ in people.tell(1)] == ["office"]


def test_dry_runs_wake_nobody(world: World) -> None:
    """It should tell of repairs only."""
    people = People(world, dbas={})
    Run(world, dry_run=True).all()
    assert people.tell(2000) == []


@pytest.mark.parametrize("error", [TransientError("no route"), ConfigError("wrong password"), OSError("refused")])
def test_who_cannot_be_told_is_told_later_and_holds_up_nobody(world: World, error: Exception) -> None:
    """It should keep the message, go on with others, and tell it once the way is free."""
    people = People(world, dbas={})
    people.error = error
    run = Run(world)
    run.open()
    assert people.tell() == []
    assert world.store.deliveries(run.incident)[0].error is not None
    people.error = None
    assert ("dbas", "dbvrtg4037 crashed: its databases are down") in people.tell(300)


def test_two_readers_queue_a_row_once(world: World) -> None:
    """It should be safe that every task reads the audit."""
    people = People(world, dbas={})
    Run(world).open()
    before = world.store.cursor(notices.CURSOR)
    assert people.tell()
    world.store.set_cursor(notices.CURSOR, before)
    assert people.tell() == []


def test_alerts_without_an_incident(world: World) -> None:
    """It should queue them for who wants them, else leave them to the log."""
    people = People(world, dbas={"on": ["alert"]})
    logged: list[str] = []

    class Logged:
        def alert(self, _key: str, title: str, _words: str) -> None:
            logged.append(title)

    for policy in (people.policy, notices.Policy({}, 900, "UTC")):
        alerts = notices.QueuedAlerts(world.store, lambda policy=policy: policy, world.clock.now, Logged())
        alerts.alert("source:hv01:/x.log", "the log is silent", "since Monday")
    assert people.tell() == [("dbas", "the log is silent")]
    assert logged == ["the log is silent"]


# --- the service's hours ---------------------------------------------------------------------------------------------

OFFICE = Policy(service_hours=("Mon-Fri 08:00-18:00",), timezone="Europe/Zurich")
SATURDAY = datetime(2014, 10, 18, 3, 54, 52, tzinfo=UTC)


def test_the_ticket_says_that_nobody_is_there(world: World) -> None:
    """It should say so when it is opened, as it was in 2014, and repair all the same."""
    world.policy = OFFICE
    run = Run(world)
    run.all()
    body = world.tickets.opened[run.incident][1]
    assert "covered Mon-Fri 08:00-18:00 (Europe/Zurich) only" in body
    assert "goes on all the same" in body
    assert run.state == "awaiting_purge"


def test_a_site_may_want_a_person_outside_of_its_hours(world: World) -> None:
    """It should wait for an answer when the policy does not let it act alone."""
    world.policy = Policy(service_hours=OFFICE.service_hours, timezone="UTC", act_outside_hours=False)
    run = Run(world)
    run.open()
    run.lane(end="verdict")
    assert "policy.act_outside_hours is false" in str(run.question())
    assert "waits for a person" in world.tickets.opened[run.incident][1]


@pytest.mark.parametrize(
    ("now", "covered"),
    [
        (SATURDAY, datetime(2014, 10, 20, 6, 0, tzinfo=UTC)),
        (datetime(2014, 10, 17, 6, 0, tzinfo=UTC), datetime(2014, 10, 17, 6, 0, tzinfo=UTC)),
        (datetime(2014, 10, 17, 15, 59, 59, tzinfo=UTC), datetime(2014, 10, 17, 15, 59, 59, tzinfo=UTC)),
        (datetime(2014, 10, 17, 16, 0, tzinfo=UTC), datetime(2014, 10, 20, 6, 0, tzinfo=UTC)),
        (datetime(2014, 10, 25, 12, 0, tzinfo=UTC), datetime(2014, 10, 27, 7, 0, tzinfo=UTC)),  # the clocks changed
    ],
)
def test_when_somebody_is_there_next(now: datetime, covered: datetime) -> None:
    """It should be the present moment within the hours, else when they begin, whatever the clocks do."""
    assert service_hours.next_covered(OFFICE.service_hours, OFFICE.timezone, now=now) == covered
    assert service_hours.is_covered(OFFICE, now=now) is (now == covered)
    assert service_hours.next_covered((), "UTC", now=now + timedelta(seconds=1)) == now + timedelta(seconds=1)
