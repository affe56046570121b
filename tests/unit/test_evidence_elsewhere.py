"""Other hypervisors, a fence, and the port as others see it: every branch of these checks."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.evidence_scene import BOOTED, DIED, NOW, SERVER, FakeAgent, fact, scene
from unlatch.errors import ConfigError, TransientError
from unlatch.evidence import domain_elsewhere, fence, port
from unlatch.models import Answer, DomainChange, DomainFact, Evidence, Guest, OpenerScan
from unlatch.ports import Peer

C = DomainChange
HOST = FakeAgent().host


@dataclass
class Watch:
    """Hypervisors: what each lists, what the others' logs and the own log say; errors as the real one raises them."""

    listed: Mapping[str, bool | None] = field(default_factory=lambda: {"hv01": None})
    logs: Mapping[str, tuple[DomainFact, ...]] = field(default_factory=dict)
    own: tuple[DomainFact, ...] = ()
    list_error: Exception | None = None
    log_error: Exception | None = None
    own_error: Exception | None = None

    def running_on(self, _: Guest) -> Mapping[str, bool | None]:
        if self.list_error:
            raise self.list_error
        return self.listed

    def facts_elsewhere(
        self, _: Guest, since: datetime, _besides: object, back_to: datetime | None
    ) -> Mapping[str, tuple[DomainFact, ...]]:
        assert back_to in {DIED, None}
        assert since < DIED - timedelta(days=1000), "a domain may run there for long"
        if self.log_error:
            raise self.log_error
        return self.logs

    def domain_facts(self, *_: Any) -> tuple[DomainFact, ...]:
        if self.own_error:
            raise self.own_error
        return self.own


def look(watch: Watch, agent: FakeAgent | None = None, **changes: Any) -> Evidence:
    return domain_elsewhere.PLUGIN.collect(scene(hypervisor=watch, agent=agent or FakeAgent(), **changes))


NEVER_DOWN = FakeAgent(replace(HOST, booted_at=DIED - timedelta(days=3)))
WRONG_CLOCK = FakeAgent(replace(HOST, now=NOW + timedelta(hours=1), booted_at=BOOTED + timedelta(hours=1)))
GONE = FakeAgent(broken=TransientError("guest is gone"))
CREATED_NOW, CREATED_BEFORE = (fact(C.CREATED, 6),), (fact(C.CREATED, -86400),)


class TestLists:
    """What hypervisors list decides."""

    @pytest.mark.parametrize(
        ("listed", "expected"),
        [
            ({"hv01": True}, "clear"),
            ({"hv01": True, "hv02": False}, "clear"),
            ({"hv01": True, "hv02": True}, "alive"),
            ({"hv01": True, "hv02": False, "hv03": True}, "alive"),
            ({"hv01": False, "hv02": True}, "clear"),
            ({"hv01": False, "hv02": True, "hv03": True}, "alive"),
            ({"hv01": None, "hv02": True}, "alive"),
            ({"hv01": None, "hv02": False}, "clear"),
            ({"hv01": False, "hv02": False}, "not_observed"),
            ({"hv01": False, "hv02": None}, "not_observed"),
        ],
    )
    def test_answers(self, listed: dict[str, bool | None], expected: str) -> None:
        """It should expect the guest where it belongs or, restarted, at one other place, and nowhere twice."""
        found = look(Watch(listed, logs={name: () for name in listed if name != "hv01"}))
        assert found.answer == expected, found.summary

    @pytest.mark.parametrize("agent", [NEVER_DOWN, WRONG_CLOCK, GONE], ids=["never down", "wrong clock", "gone"])
    def test_only_a_guest_that_booted_since_was_restarted_elsewhere(self, agent: FakeAgent) -> None:
        """It should believe a restart elsewhere only of a guest that says when it booted."""
        found = look(Watch({"hv01": False, "hv02": True}), agent)
        assert found.answer is Answer.ALIVE
        assert "hv02 runs the domain of g" in found.summary

    def test_a_restart_elsewhere_needs_a_time_of_death(self) -> None:
        """It should compare the boot with nothing."""
        assert look(Watch({"hv01": False, "hv02": True}), died_at=None).answer is Answer.ALIVE

    def test_a_restart_elsewhere_is_said(self) -> None:
        """It should name the hypervisor and the boot."""
        found = look(Watch({"hv01": False, "hv02": True}))
        assert "restarted there, and booted at 05:55:01 UTC, after the death" in found.summary

    def test_an_own_list_that_cannot_be_right(self) -> None:
        """It should doubt patterns that find no domain although the guest answers, and not when it does not."""
        found = look(Watch({"hv01": False}))
        assert (found.answer, "guests.g.names" in found.summary) == (Answer.NOT_OBSERVED, True)
        assert look(Watch({"hv01": False}), GONE).answer is Answer.CLEAR

    def test_the_own_log_stands_in_for_a_list(self) -> None:
        """It should take the newest line of the guest's own hypervisor where that has no list."""
        died = (fact(C.CREATED, -900), fact(C.CRASHED, 0), fact(C.DESTROYED, 0))
        assert look(Watch({"hv01": None, "hv02": True}, own=died)).answer is Answer.CLEAR
        assert look(Watch({"hv01": None, "hv02": True}, own=(*died, fact(C.CREATED, 6)))).answer is Answer.ALIVE
        assert look(Watch({"hv01": None, "hv02": True}, own=(fact(C.REBOOTED, 2),))).answer is Answer.ALIVE


class TestLogs:
    """Logs tell where no list does."""

    @pytest.mark.parametrize(
        ("facts", "own", "expected"),
        [
            ((), (), "clear"),
            (CREATED_BEFORE, (), "alive"),
            (CREATED_NOW, (), "alive"),
            (CREATED_NOW, (fact(C.CRASHED, 0),), "clear"),
            (CREATED_BEFORE, (fact(C.CREATED, -900), fact(C.CRASHED, 0)), "not_observed"),
            ((*CREATED_BEFORE, fact(C.DESTROYED, -900)), (), "clear"),
            ((*CREATED_BEFORE, fact(C.SHUT_DOWN, -900)), (), "clear"),
            ((*CREATED_BEFORE, fact(C.MIGRATED, -900)), (), "clear"),
            ((*CREATED_BEFORE, fact(C.MIGRATED, 5)), (), "not_observed"),
            ((*CREATED_BEFORE, fact(C.DEVICE_MODEL_DIED, -9)), (), "not_observed"),
            ((*CREATED_BEFORE, fact(C.DESTROY_FAILED, -9)), (), "not_observed"),
            ((fact(C.DESTROYED, 6), fact(C.CREATED, 6)), (), "alive"),
        ],
    )
    def test_answers(self, facts: tuple[DomainFact, ...], own: tuple[DomainFact, ...], expected: str) -> None:
        """It should take the newest line, and doubt what can mean either."""
        found = look(Watch({"hv01": None, "hv02": None}, {"hv02": facts}, own))
        assert found.answer == expected, found.summary

    def test_a_list_goes_before_the_log(self) -> None:
        """It should not believe an old start of a domain that the hypervisor does not list, nor its broken log."""
        assert look(Watch({"hv01": True, "hv02": False}, {"hv02": CREATED_BEFORE})).answer is Answer.CLEAR
        unread = ConfigError("no log", detail={"answers": {}, "unanswered": {"hv02": "no log"}})
        assert look(Watch({"hv01": True, "hv02": False}, log_error=unread)).answer is Answer.CLEAR
        assert look(Watch({"hv01": True, "hv02": None}, log_error=unread)).answer is Answer.NOT_OBSERVED

    def test_the_only_hypervisor(self) -> None:
        """It should say that there is no other."""
        assert look(Watch()).summary == "the inventory has no other hypervisor than hv01"


def _partly(answers: dict[str, Any]) -> TransientError:
    return TransientError("hv09 is gone.", detail={"answers": answers, "unanswered": {"hv09": "hv09 is gone."}})


class TestUnreachable:
    """One that does not answer hides no other."""

    def test_it_is_named(self) -> None:
        """It should be not observed, naming the hypervisor."""
        found = look(Watch(list_error=_partly({"hv01": True, "hv02": False})))
        assert found.answer is Answer.NOT_OBSERVED
        assert "hv09 could not be asked: hv09 is gone." in found.summary
        found = look(Watch(log_error=_partly({"hv02": []})))
        assert (found.answer, "hv09" in found.summary) == (Answer.NOT_OBSERVED, True)

    def test_a_veto_beside_it(self) -> None:
        """It should be alive by what the others say."""
        assert look(Watch(list_error=_partly({"hv01": True, "hv02": True}))).answer is Answer.ALIVE
        told = _partly({"hv02": [f.as_dict() for f in CREATED_BEFORE]})
        assert look(Watch(log_error=told)).answer is Answer.ALIVE

    def test_a_restart_elsewhere_is_not_sure_then(self) -> None:
        """It should not be clear while a third hypervisor may run it as well."""
        assert look(Watch(list_error=_partly({"hv01": False, "hv02": True}))).answer is Answer.NOT_OBSERVED

    @pytest.mark.parametrize("error", [TransientError("gone"), ConfigError("no"), OSError("broken")])
    def test_errors_without_answers(self, error: Exception) -> None:
        """It should be not observed with the reason."""
        for watch in (Watch(list_error=error), Watch(log_error=error)):
            found = look(watch)
            assert (found.answer, str(error.args[0]) in found.summary) == (Answer.NOT_OBSERVED, True)
        assert look(Watch({"hv01": None, "hv02": True}, own_error=error)).answer is Answer.ALIVE


FACTS = st.lists(st.builds(fact, st.sampled_from(list(C)), st.sampled_from([-9000, -90, -5, 0, 5, 20])), max_size=4)
ANSWER = st.sampled_from([True, False, None])


@given(st.tuples(ANSWER, ANSWER, ANSWER), FACTS, FACTS, st.sampled_from([FakeAgent(), NEVER_DOWN, GONE]))
def test_two_that_run_it_are_never_clear(
    answers: tuple[bool | None, ...], facts: list[Any], own_log: list[Any], agent: FakeAgent
) -> None:
    """It should be alive whenever two list it, or another one does while the guest cannot have been restarted there."""
    own, *elsewhere = answers
    listed = dict(zip(("hv01", "hv02", "hv03"), answers, strict=True))
    by_time = tuple(sorted(facts, key=lambda f: f.at))
    watch = Watch(listed, {"hv02": by_time, "hv03": ()}, tuple(sorted(own_log, key=lambda f: f.at)))
    found = look(watch, agent).answer
    others = sum(answer is True for answer in elsewhere)
    if others and (others > 1 or own is True or agent in (NEVER_DOWN, GONE)):
        assert found is Answer.ALIVE
    unlisted = replace(watch, list_error=_partly(dict(listed)))  # one more that does not answer
    assert look(unlisted, agent).answer in {found, Answer.NOT_OBSERVED}
    assert look(unlisted, agent).answer is not Answer.CLEAR


class TestFence:
    """A fence that the incident has applied."""

    @pytest.mark.parametrize(("fenced", "expected"), [(True, "dead"), (False, "alive"), (None, "not_observed")])
    def test_answers(self, fenced: bool | None, expected: str) -> None:
        """It should be a proof when it was verified, a veto when it failed, and nothing when none was needed."""
        found = fence.PLUGIN.collect(scene(fenced=fenced))
        assert found.answer == expected
        assert (found.summary == "no fence was needed") is (fenced is None)


class TestPortFromElsewhere:
    """The same address, asked from several places."""

    @pytest.fixture
    def refused(self) -> Iterator[int]:
        """A port of this machine that refuses connections: somebody has it, and does not listen."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            yield taken.getsockname()[1]

    def _look(self, port_number: int, host: str = "127.0.0.1", **changes: Any) -> Evidence:
        base = scene(**changes)
        return port.PLUGIN.collect(replace(base, instance=replace(base.instance, host=host, port=port_number)))

    def test_the_guest_sees_it(self, refused: int) -> None:
        """It should see a server that the worker cannot reach."""
        agent = FakeAgent(ports={("127.0.0.1", refused): "open"})
        found = self._look(refused, agent=agent)
        assert (found.answer, "asked from g" in found.summary) == (Answer.ALIVE, True)

    def test_the_guests_own_start_attempt(self, refused: int) -> None:
        """It should not take a start attempt of a dry run for the server of before."""
        agent = FakeAgent(ports={("127.0.0.1", refused): "open"}, scan=OpenerScan((SERVER,), ()))
        assert self._look(refused, agent=agent, held=False).answer is Answer.NOT_OBSERVED
        assert self._look(refused, agent=agent, held=True).answer is Answer.ALIVE

    def test_a_peer_sees_it(self, refused: int) -> None:
        """It should ask peers for an address that they share with the worker, and for none on loopback."""
        sees = Peer("dbvrtg4038", FakeAgent(ports={("127.0.0.1", refused): "open", ("localhost.", refused): "open"}))
        found = self._look(refused, host="localhost.", peers=(sees,))
        assert (found.answer, "asked from dbvrtg4038" in found.summary) == (Answer.ALIVE, True)
        assert self._look(refused, peers=(sees,)).answer is Answer.CLEAR

    def test_who_cannot_be_asked_decides_nothing(self, refused: int) -> None:
        """It should rest on the worker's own look then."""
        gone = FakeAgent(broken=TransientError("gone"))
        assert self._look(refused, agent=gone).answer is Answer.CLEAR
        silent = FakeAgent(ports={("127.0.0.1", refused): "silent"})
        assert self._look(refused, agent=silent).answer is Answer.CLEAR
