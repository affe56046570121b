"""A person is asked where the proof is not complete: what the answer is bound to, and when it falls."""

from __future__ import annotations

import pytest

from tests.unit.fakes import World
from tests.unit.lanes import Run, refused
from unlatch.errors import CheckFailedError, RefusedError
from unlatch.models import Answer
from unlatch.runbook import approve


def test_approval_does_not_open_an_alive_verdict(world: World) -> None:
    """It should refuse although somebody approved, when a later look finds a sign of life."""
    world.answers["port"] = Answer.NOT_OBSERVED
    run = Run(world)
    run.open()
    run.lane(end="verdict")
    run.answer(approved=True)
    world.answers["port"] = Answer.ALIVE
    world.clock.pause(world.evidence_life_s + 1)
    assert "verdict alive" in refused(lambda: run.step("clear_locks")).what
    assert world.touched() == ["agent.service hold"]


def test_after_the_answer_everybody_is_asked_again(world: World) -> None:
    """It should look again before it acts on a yes: who was silent at the question may be back by then."""
    world.answers["port"] = Answer.NOT_OBSERVED
    run = Run(world)
    run.open()
    run.lane(end="verdict")
    world.clock.pause(1)
    run.answer(approved=True)
    world.answers["port"] = Answer.ALIVE
    assert "verdict alive" in refused(lambda: run.step("clear_locks")).what
    assert world.touched() == ["agent.service hold"]


def test_unknown_asks_and_an_approval_opens(world: World) -> None:
    """It should ask when the proof is not complete, and go on once a person has approved that evidence."""
    world.answers["port"] = Answer.NOT_OBSERVED
    run = Run(world)
    run.open()
    run.lane(end="verdict")
    asked = run.question()
    assert asked is not None
    assert "| port | not_observed |" in asked
    assert "splits the database in two" in asked
    assert run.state == "waiting_for_person"
    run.answer(approved=True)
    assert run.state == "repairing"
    run.lane(start="clear_locks")
    run.finish()
    assert run.state == "awaiting_purge"
    assert "eva approved" in world.tickets.text


def test_the_same_answer_is_kept_once(world: World) -> None:
    """It should keep one answer, and tell it once, when Airflow delivers it twice."""
    world.answers["port"] = Answer.NOT_OBSERVED
    run = Run(world)
    run.open()
    run.lane(end="verdict")
    for _ in range(2):
        with pytest.raises(RefusedError, match="rejected by eva"):
            run.answer(approved=False)
    rows = world.store.audit_rows(incident=run.incident, limit=1000)
    assert [r.phase for r in rows if r.step == "approve"] == ["intent", "refused"]
    run.answer(approved=True)
    assert run.row("approve").phase == "done", "another answer is kept"


def test_unknown_without_an_answer_is_not_touched(world: World) -> None:
    """It should refuse every act while nobody has answered."""
    world.answers["port"] = Answer.NOT_OBSERVED
    run = Run(world)
    run.open()
    run.lane(end="verdict")
    assert "needs a person's approval" in refused(lambda: run.step("clear_locks")).what
    assert "clear_locks of voms has no result" in refused(lambda: run.step("recreate_files")).what
    assert world.swaps == {}
    assert world.units["voms"].starts == 0


def test_rejection_ends_the_lane(world: World) -> None:
    """It should refuse after a no, also when the steps behind it are forced to run."""
    world.answers["port"] = Answer.NOT_OBSERVED
    run = Run(world)
    run.open()
    run.lane(end="verdict")
    with pytest.raises(RefusedError, match="rejected by eva"):
        run.answer(approved=False)
    refused(lambda: run.step("clear_locks"))
    with pytest.raises(CheckFailedError):
        run.finish()
    assert run.state == "refused"
    assert world.touched() == ["agent.service hold"]


def test_rejection_falls_with_its_question(world: World) -> None:
    """It should repair after the verdict was cleared and now needs nobody; the old no was about other evidence."""
    world.answers["port"] = Answer.NOT_OBSERVED
    run = Run(world)
    run.open()
    run.lane(end="verdict")
    with pytest.raises(RefusedError):
        run.answer(approved=False)
    with pytest.raises(CheckFailedError):
        run.finish()
    world.answers.clear()
    run.step("verdict")
    assert run.question() is None
    run.lane(start="clear_locks")
    run.finish()
    assert run.state == "awaiting_purge"


def test_changed_evidence_closes_the_gate_again(world: World) -> None:
    """It should not go on with an approval of evidence that is not what a later look finds."""
    world.answers["port"] = Answer.NOT_OBSERVED
    run = Run(world)
    run.open()
    run.lane(end="verdict")
    run.answer(approved=True)
    world.answers["processes"] = Answer.NOT_OBSERVED
    world.clock.pause(world.evidence_life_s + 1)
    assert "evidence as it is now" in refused(lambda: run.step("clear_locks")).what
    assert world.swaps == {}


def test_approval_expires(world: World) -> None:
    """It should ask again when the approval is older than the policy's time."""
    world.answers["port"] = Answer.NOT_OBSERVED
    run = Run(world)
    run.open()
    run.lane(end="verdict")
    run.answer(approved=True)
    world.clock.pause(world.policy.approval_timeout_s + 1)
    assert "needs a person's approval" in refused(lambda: run.step("clear_locks")).what


def test_question_is_in_the_audit(world: World) -> None:
    """It should keep that a person was asked, whom, why and on what; then the answer and the name."""
    world.answers["port"] = Answer.NOT_OBSERVED
    run = Run(world)
    run.open()
    run.lane(end="verdict")
    run.question()
    run.answer(approved=True)
    rows = [r for r in world.store.audit_rows(incident=run.incident, limit=1000) if r.step == "approve"]
    assert [r.phase for r in rows] == ["asked", "intent", "done"]
    digest = run.row("verdict").result["verdict"]["digest"]
    assert rows[0].detail == {
        "digest": digest, "why": "the proof of death is not complete", "of": ["admin"], "answer_within_s": 3600,
    }  # fmt: skip
    assert [r.actor for r in rows[1:]] == ["eva", "eva"]
    answer = rows[2].detail["approval"]
    assert (answer["approved"], answer["by"], answer["comment"], answer["digest"]) == (True, "eva", "seen it", digest)


def test_answer_is_bound_to_the_evidence_that_was_shown(world: World) -> None:
    """It should not take a yes to one table for a yes to another that was made while the person was reading."""
    world.answers["port"] = Answer.NOT_OBSERVED
    run = Run(world)
    run.open()
    run.lane(end="verdict")
    run.question()
    world.answers["processes"] = Answer.NOT_OBSERVED
    run.step("verdict")  # somebody has cleared just that task
    run.answer(approved=True)
    assert "evidence as it is now" in refused(lambda: run.step("clear_locks")).what
    assert world.swaps == {}
    run.question()
    run.answer(approved=True)
    run.lane(start="clear_locks")


def test_time_out_is_a_no_by_nobody(world: World) -> None:
    """It should end the lane as a rejection does, and say that nobody has answered."""
    world.answers["port"] = Answer.NOT_OBSERVED
    run = Run(world)
    run.open()
    run.lane(end="verdict")
    run.question()
    case = world.case(run.incident, "voms")
    with pytest.raises(RefusedError, match="rejected by nobody within 3600 s"):
        approve(case, world.ports, approved=False, by="nobody within 3600 s", comment=None)
    assert run.row("approve").result["error"] == "rejected by nobody within 3600 s"
    refused(lambda: run.step("clear_locks"))
