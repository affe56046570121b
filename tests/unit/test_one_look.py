"""How much one look costs: each machine is asked each thing once, side by side, and an act never rests on a memory."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from tests.unit.fakes import World
from tests.unit.lanes import Run
from tests.unit.wide_world import asked, wide_world
from unlatch.errors import ConfigError, TransientError, UnreachableError
from unlatch.in_parallel import in_parallel
from unlatch.models import Answer, LiveLock, Verdict, VerdictKind

PEERS, OTHERS = ("peer1", "peer2", "peer3"), ("hv02", "hv03", "hv04")
TOGETHER_S = 20.0
"""How long a machine waits for the others to be asked too; only a failing test waits that long."""


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Three peers, four hypervisors that list their domains, and a NAS."""
    return wide_world(tmp_path)


def judged(world: World) -> Run:
    """A run whose verdict has just been made; the world's calls are those of that step."""
    run = Run(world)
    run.open()
    run.lane(end="hold_service")
    world.calls.clear()
    run.step("verdict")
    return run


def kind_of(run: Run) -> str:
    """The verdict."""
    return str(run.row("verdict").result["verdict"]["kind"])


def evidence_of(run: Run, check: str) -> dict[str, str]:
    """One check's answer."""
    return next(e for e in run.row("verdict").result["verdict"]["evidence"] if e["check"] == check)


def raising(error: Exception) -> Callable[[], None]:
    """Something that raises when it is called."""

    def fail() -> None:
        raise error

    return fail


def test_each_question_is_asked_once(world: World) -> None:
    """It should ask every machine each thing once for a whole verdict; only what is sampled is looked at twice."""
    run = judged(world)
    assert kind_of(run) == VerdictKind.DEAD
    found = asked(world)
    guest = Counter(facts=1, check_locks=2, samples=2, openers=1, live_locks=1, connects=1, notify=1)
    assert found.pop("agent") == guest
    assert found.pop("nas") == Counter(list=1)
    assert found.pop("hv01") == Counter(log=1, domains=1)
    assert {name: found.pop(name) for name in OTHERS} == {name: Counter(domains=1) for name in OTHERS}
    peer = Counter(facts=1, openers=1, live_locks=1, connects=2)  # its port on loopback, and on its own address
    assert found == dict.fromkeys(PEERS, peer)


def test_logs_are_read_where_no_list_tells(tmp_path: Path) -> None:
    """It should read each hypervisor's log once where it has no command that lists its domains."""
    world = wide_world(tmp_path, listing=False)
    assert kind_of(judged(world)) == VerdictKind.DEAD
    found = asked(world)
    assert [found[name] for name in ("hv01", *OTHERS)] == [Counter(log=1)] * 4


@pytest.mark.parametrize("machine", ["peer2", "hv03"])
def test_silent_machine_is_asked_once(world: World, machine: str) -> None:
    """It should ask a machine that does not answer at all nothing more, ask all others, and never say dead."""
    world.then["peer2.facts" if machine == "peer2" else machine] = raising(UnreachableError(f"{machine} is silent."))
    run = judged(world)
    assert kind_of(run) == VerdictKind.UNKNOWN
    found = asked(world)
    assert found[machine].total() == 1
    assert all(found[name].total() == 5 for name in PEERS if name != machine)
    assert all(found[name].total() == 1 for name in OTHERS)


def test_question_that_failed_is_not_asked_again(world: World) -> None:
    """It should ask a guest that answers on, after one question of it has failed."""
    run = Run(world)
    run.open()
    run.lane(end="hold_service")
    world.calls.clear()
    world.then["agent.openers"] = raising(TransientError("/proc changed all the time."))
    run.step("verdict")
    for check in ("openers", "processes"):
        assert "changed all the time" in evidence_of(run, check)["summary"]
    assert kind_of(run) == VerdictKind.UNKNOWN
    assert asked(world)["agent"] == Counter(
        facts=1, check_locks=2, samples=2, openers=1, live_locks=1, connects=1, notify=1
    )


@pytest.mark.parametrize(
    "names", [[f"{peer}.facts" for peer in PEERS], ["hv01", *OTHERS]], ids=["peers", "hypervisors"]
)
def test_machines_are_asked_side_by_side(world: World, names: list[str]) -> None:
    """It should not let one wait for another: here none answers before all of them have been asked."""
    together = threading.Barrier(len(names), timeout=TOGETHER_S)

    def meet() -> None:
        together.wait()

    world.then.update(dict.fromkeys(names, meet))
    assert kind_of(judged(world)) == VerdictKind.DEAD
    assert not together.broken


def test_mistake_in_a_check_is_not_lost(world: World) -> None:
    """It should end the step with a check's own mistake, whichever thread it was made in."""
    world.then["peer3.live_locks"] = raising(ZeroDivisionError("a mistake"))
    run = Run(world)
    run.open()
    run.lane(end="hold_service")
    with pytest.raises(ZeroDivisionError):
        run.step("verdict")
    assert "a mistake" in run.row("verdict").result["error"]


def test_act_rests_on_a_new_look(world: World) -> None:
    """It should ask the NAS, the guest and every peer anew before it clears, though the verdict has just asked them."""
    run = judged(world)
    world.calls.clear()
    run.step("clear_locks")
    names = [call.name for call in world.calls]
    before = names[: names.index("nas.clear")]
    assert before.count("nas.list") == 2, "for the reach, and once more behind the wait for the rights"
    assert {"agent.check_locks", "agent.live_locks", *(f"{peer}.live_locks" for peer in PEERS)} <= set(before)
    assert Counter(names[: names.index("agent.set_aside")])["agent.check_locks"] == 4, (
        "before, behind the wait for the rights, after, and the pid file before it is set aside"
    )


def test_lock_taken_since_the_verdict_is_seen(world: World) -> None:
    """It should not clear a volume on which a process has locked something after the plan was made."""
    world.notify_error = ConfigError("sudo says no.", next_step="grant it.")
    run = judged(world)
    world.live_locks = (LiveLock(77, "mariadbd", 900, "/ORA/dbs03"),)
    run.step("clear_locks")
    (cleared,) = [t for t in run.row("clear_locks").result["tried"] if t["remedy"] == "clear"]
    assert cleared["outcome"] == "refused"
    assert not any(call.name == "nas.clear" for call in world.calls)


def test_evidence_that_expired_is_collected_anew(world: World) -> None:
    """It should ask all machines again when what the verdict rests on is too old, and see what has changed."""
    run = judged(world)
    world.clock.pause(world.policy.evidence_life_s + 1)
    world.calls.clear()
    run.step("clear_locks")
    found = asked(world)
    rounds = 3  # before the remedy, behind the wait for the rights to start, and before the pid file is set aside
    assert all(found[name]["openers"] == rounds for name in PEERS)
    assert found["hv01"] == Counter(log=rounds, domains=rounds)
    assert found["agent"]["samples"] == 2 * rounds


def test_evidence_is_as_old_as_the_look(world: World) -> None:
    """It should date every answer to the moment in which the look began, since it may rest on its first question."""
    run = Run(world)
    run.open()
    run.lane(end="hold_service")
    began = world.clock.now()
    world.after("agent.facts", lambda: world.clock.pause(7))
    run.step("verdict")
    verdict = Verdict.from_dict(run.row("verdict").result["verdict"])
    assert {e.at for e in verdict.evidence} == {began}
    assert verdict.expires_at == began + timedelta(seconds=world.policy.evidence_life_s)


def test_threads_are_bounded_and_answers_in_order() -> None:
    """It should use no more threads than allowed, keep the questions' order, and start none for a single question."""
    running, most, lock = 0, 0, threading.Lock()

    def ask(number: int) -> tuple[int, str]:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        with lock:
            running -= 1
        return number, threading.current_thread().name

    found = in_parallel({n: lambda n=n: ask(n) for n in range(50)}, at_once=3)  # type: ignore[misc]  # bound per turn
    assert [number for number, _ in found.values()] == list(range(50))
    assert most <= 3
    assert in_parallel({"one": lambda: ask(1)})["one"][1] == threading.current_thread().name
    assert in_parallel({}) == {}


def test_first_error_is_raised_after_all_have_ended() -> None:
    """It should wait for all, then raise what the first question raised, whatever it is."""

    class Stopped(BaseException):
        pass

    ended = threading.Event()

    def slow() -> str:
        ended.set()
        return "done"

    with pytest.raises(Stopped):
        in_parallel({"a": raising(Stopped()), "b": raising(ValueError()), "c": slow})  # type: ignore[arg-type]
    assert ended.is_set()


def test_answers_are_the_same_as_one_by_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It should come to the same evidence as when one check is asked after the other."""
    side_by_side = judged(world).row("verdict").result["verdict"]
    monkeypatch.setattr("unlatch.assessment.in_parallel", lambda questions: {n: ask() for n, ask in questions.items()})
    again = Run(world)
    again.open()
    again.step("verdict")
    one_by_one = again.row("verdict").result["verdict"]
    assert [(e["check"], e["answer"], e["summary"]) for e in one_by_one["evidence"]] == [
        (e["check"], e["answer"], e["summary"]) for e in side_by_side["evidence"]
    ]
    assert {Answer(e["answer"]) for e in one_by_one["evidence"]} == {Answer.DEAD, Answer.CLEAR, Answer.NOT_OBSERVED}
