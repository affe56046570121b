"""The safety rules as properties: what evidence may lead to what, whatever comes together."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.builders import INCIDENT, LAB, NFS, NOW, approval, evidence, instance
from unlatch import decisions
from unlatch.decisions import Gate
from unlatch.models import (
    Answer,
    Evidence,
    Instance,
    Verdict,
    VerdictKind,
    Volume,
    Waiver,
)

CHECKS = decisions.mandatory_checks(instance(), LAB)
ANSWERS = st.sampled_from(list(Answer))
PILES = st.lists(
    st.builds(
        evidence,
        st.sampled_from([*CHECKS, "pid_file", "peers", "nas_locks", "fence", "made_up"]),
        ANSWERS,
        at=st.integers(-300, 0).map(lambda s: NOW + timedelta(seconds=s)),
    ),
    max_size=6,
)


def judge(pile: list[Evidence], **kwargs: object) -> Verdict:
    return decisions.judge(instance(), LAB, pile, incident=INCIDENT, now=NOW, **kwargs)


def proof() -> list[Evidence]:
    """The least that proves death: the hypervisor's word, and every other check clear; no fence was needed."""
    answered = [evidence(c, Answer.DEAD if c in decisions.PROOFS else Answer.CLEAR) for c in CHECKS]
    return [*answered, evidence("fence", Answer.NOT_OBSERVED)]


def test_full_proof_is_dead() -> None:
    """It should say dead when the hypervisor says so and every mandatory check answered without a sign of life."""
    verdict = judge(proof())
    assert verdict.kind is VerdictKind.DEAD
    assert any("hypervisor_log" in reason for reason in verdict.reasons)


@dataclass(frozen=True)
class Site:
    """An instance with its waivers, on some kind of volume."""

    instance: Instance
    volume: Volume

    @property
    def wanted(self) -> tuple[str, ...]:
        """Every check that is asked here."""
        return decisions.wanted_checks(self.instance, self.volume)

    def answers(self, changes: Mapping[str, Answer]) -> list[Evidence]:
        """One answer from each check: that of a clean death, or a changed one."""
        usual = {c: Answer.DEAD if c in decisions.PROOFS else Answer.CLEAR for c in self.wanted}
        return [evidence(c, changes.get(c, answer)) for c, answer in usual.items()]

    def judge(self, pile: Sequence[Evidence]) -> Verdict:
        """The verdict here."""
        return decisions.judge(self.instance, self.volume, pile, incident=INCIDENT, now=NOW)


WAIVERS = st.sets(st.sampled_from(sorted(decisions.ALL_CHECKS)), max_size=3).map(
    lambda names: tuple(Waiver(name, "eva", "her reason") for name in sorted(names))
)
SITES = st.builds(
    lambda engine, waive, volume: Site(instance(engine=engine, waive=waive), volume),
    st.sampled_from(["mariadb", "postgresql", "generic"]),
    WAIVERS,
    st.sampled_from([LAB, NFS]),
)


# What differs from the answers of a clean death: so that many verdicts are dead, and few answers decide.
CHANGES = st.dictionaries(st.sampled_from([*sorted(decisions.ALL_CHECKS), "fence"]), ANSWERS, max_size=4)
NAMES = st.sets(st.sampled_from([*sorted(decisions.ALL_CHECKS), "fence"]), min_size=1, max_size=3)


@given(SITES, PILES, CHANGES)
def test_sign_of_life_is_never_dead(site: Site, pile: list[Evidence], changes: dict[str, Answer]) -> None:
    """It should say alive whenever any check says alive, whatever else is known, waived, and however old it is."""
    for found in (pile, site.answers(changes)):
        if any(e.answer is Answer.ALIVE for e in found):
            assert site.judge(found).kind is VerdictKind.ALIVE


@given(SITES, CHANGES, NAMES)
def test_dropping_evidence_never_improves(site: Site, changes: dict[str, Answer], dropped: set[str]) -> None:
    """It should never reach dead by forgetting checks, whatever those and all others said, also a waived one."""
    said = site.answers(changes)
    kept = [e for e in said if e.check not in dropped]
    if len(kept) < len(said):
        assert site.judge(kept).kind is not VerdictKind.DEAD
    if site.judge(said).kind is VerdictKind.UNKNOWN:
        assert site.judge(kept).kind is VerdictKind.UNKNOWN


@given(SITES, CHANGES, st.sampled_from([0, 119, 120, 121, 300]))
def test_time_never_improves(site: Site, changes: dict[str, Answer], later_s: int) -> None:
    """It should never say dead of answers that have expired meanwhile, when it did not say so while they were fresh."""
    said, later = site.answers(changes), NOW + timedelta(seconds=later_s)
    aged = decisions.judge(site.instance, site.volume, said, incident=INCIDENT, now=later)
    if aged.kind is VerdictKind.DEAD:
        assert site.judge(said).kind is VerdictKind.DEAD
        assert aged.expires_at > later


@pytest.mark.parametrize("check", ["hypervisor_log", "port"])
def test_several_answers_count_as_the_worst(check: str) -> None:
    """It should take a check that has answered twice for what its worse answer says, in either order."""
    rest = [e for e in proof() if e.check != check]
    by_severity = [Answer.DEAD, Answer.CLEAR, Answer.NOT_OBSERVED, Answer.ALIVE]
    for better, worse in itertools.combinations(by_severity, 2):
        both, alone = [evidence(check, better), evidence(check, worse)], [evidence(check, worse)]
        for pile in (both, both[::-1]):
            assert judge([*rest, *pile]).kind is judge([*rest, *alone]).kind, (better, worse)


def test_verdict_is_as_short_lived_as_its_shortest_answer() -> None:
    """It should expire with the first of its answers, since without that one it might be another verdict."""
    lives = [replace(e, expires_at=NOW + timedelta(seconds=20 + n)) for n, e in enumerate(proof())]
    for pile in (lives, lives[::-1]):
        assert judge(pile).expires_at == NOW + timedelta(seconds=20)


@given(SITES, CHANGES, st.dictionaries(st.sampled_from(sorted(decisions.ALL_CHECKS)), ANSWERS, max_size=3))
def test_worse_answers_never_make_dead(site: Site, changes: dict[str, Answer], again: dict[str, Answer]) -> None:
    """It should not come to dead because checks have answered a second time, when it was not dead before."""
    said = site.answers(changes)
    more = [*said, *(evidence(check, answer) for check, answer in again.items())]
    if site.judge(more).kind is VerdictKind.DEAD:
        assert site.judge(said).kind is VerdictKind.DEAD


@given(SITES, PILES, st.randoms())
def test_order_does_not_matter(site: Site, pile: list[Evidence], random: Random) -> None:
    """It should give the same verdict and the same digest in any order."""
    shuffled = list(pile)
    random.shuffle(shuffled)
    assert site.judge(pile) == site.judge(shuffled)


@given(SITES, CHANGES, st.sampled_from([*sorted(decisions.ALL_CHECKS), "fence"]), st.none() | st.just("a storm"))
def test_approval_never_beats_a_later_sign_of_life(
    site: Site, changes: dict[str, Answer], check: str, hold: str | None
) -> None:
    """It should refuse once a check says alive, also to a person who has agreed to all that was known before."""
    said = site.answers(changes)
    agreed, sign = approval(site.judge(said).digest), evidence(check, Answer.ALIVE)
    assert decisions.gate(site.judge([*said, sign]), hold, agreed, now=NOW) is Gate.REFUSED
    assert decisions.gate(site.judge([*said, sign]), hold, None, now=NOW) is Gate.REFUSED


@given(SITES, CHANGES, CHANGES)
def test_approval_falls_with_any_other_answer(site: Site, before: dict[str, Answer], after: dict[str, Answer]) -> None:
    """It should ask again when any check answers otherwise than it did when the person agreed."""
    said = site.answers(before)
    agreed, changed = approval(site.judge(said).digest), site.judge(site.answers(after))
    if changed.digest != agreed.digest:
        assert decisions.gate(changed, "a storm", agreed, now=NOW) in {Gate.ASK, Gate.REFUSED}
    counted = {e.check: e.answer for e in changed.evidence}, {e.check: e.answer for e in site.judge(said).evidence}
    assert (counted[0] == counted[1]) is (changed.digest == agreed.digest)


@pytest.mark.parametrize("check", CHECKS)
def test_each_mandatory_check_counts(check: str) -> None:
    """It should be unknown when any single mandatory check was not observed, is expired or is missing."""
    for pile in (
        [replace(e, answer=Answer.NOT_OBSERVED) if e.check == check else e for e in proof()],
        [replace(e, expires_at=NOW) if e.check == check else e for e in proof()],
        [e for e in proof() if e.check != check],
    ):
        verdict = judge(pile)
        assert verdict.kind is VerdictKind.UNKNOWN
        assert check in verdict.reasons[0]


def test_no_sign_of_life_is_no_proof() -> None:
    """It should stay unknown when all checks are clear but nothing proves the death: silence is no proof."""
    pile = [evidence(c, Answer.CLEAR) for c in decisions.wanted_checks(instance(), LAB)]
    verdict = judge(pile)
    assert verdict.kind is VerdictKind.UNKNOWN
    assert "silence" in verdict.reasons[0] or "no sign of life" in verdict.reasons[0]


@pytest.mark.parametrize("check", sorted(set(CHECKS) - decisions.PROOFS))
def test_only_proofs_can_say_dead(check: str) -> None:
    """It should take `dead` from a check that proves nothing, such as a new boot, for no more than clear."""
    pile = [evidence(c, Answer.DEAD if c == check else Answer.CLEAR) for c in CHECKS]
    verdict = judge(pile)
    assert verdict.kind is VerdictKind.UNKNOWN
    assert {e.answer for e in verdict.evidence} == {Answer.CLEAR}


def test_shared_storage_wants_more() -> None:
    """It should not say dead on NFS from what suffices on a volume that only this guest can mount."""
    verdict = decisions.judge(instance(), NFS, proof(), incident=INCIDENT, now=NOW)
    assert verdict.kind is VerdictKind.UNKNOWN
    assert {r.split(":")[0] for r in verdict.reasons} == {"peers", "nas_locks", "domain_elsewhere"}


def on_nfs(**answers: Answer) -> Verdict:
    """The verdict on NFS from a full proof and these answers."""
    said = {"peers": Answer.NOT_OBSERVED, "nas_locks": Answer.NOT_OBSERVED, **answers}
    pile = [*proof(), evidence("domain_elsewhere", Answer.CLEAR), *(evidence(c, a) for c, a in said.items())]
    return decisions.judge(instance(), NFS, pile, incident=INCIDENT, now=NOW)


@pytest.mark.parametrize("answering", ["peers", "nas_locks"])
def test_either_the_nas_or_all_peers_attribute_the_locks(answering: str) -> None:
    """It should be satisfied by the NAS naming the dead client, or by every other client having been looked at."""
    other = {"peers": "nas_locks", "nas_locks": "peers"}[answering]
    assert on_nfs(**{answering: Answer.CLEAR}).kind is VerdictKind.DEAD
    assert on_nfs(**{answering: Answer.CLEAR, other: Answer.NOT_OBSERVED}).kind is VerdictKind.DEAD
    assert on_nfs(**{answering: Answer.NOT_OBSERVED}).kind is VerdictKind.UNKNOWN
    assert on_nfs(**{answering: Answer.CLEAR, other: Answer.ALIVE}).kind is VerdictKind.ALIVE


def test_nothing_attributes_unless_asked() -> None:
    """It should name both ways out when neither the NAS nor the peers could tell."""
    verdict = on_nfs(peers=Answer.NOT_OBSERVED, nas_locks=Answer.NOT_OBSERVED)
    assert verdict.kind is VerdictKind.UNKNOWN
    assert {r.split(":")[0] for r in verdict.reasons} == {"peers", "nas_locks"}


def test_peers_must_be_asked_even_when_the_nas_has_answered() -> None:
    """It should not say dead while a check that may be a veto was not even asked."""
    pile = [*proof(), evidence("domain_elsewhere", Answer.CLEAR), evidence("nas_locks", Answer.CLEAR)]
    verdict = decisions.judge(instance(), NFS, pile, incident=INCIDENT, now=NOW)
    assert verdict.kind is VerdictKind.UNKNOWN
    assert verdict.reasons == ("peers: was not asked",)


def test_a_fence_stands_in_for_the_hypervisors_word() -> None:
    """It should take a fence that holds for a proof when no log says anything, and one that failed for a veto."""
    silent = [
        replace(e, answer=Answer.NOT_OBSERVED) if e.check == "hypervisor_log" else e
        for e in proof()
        if e.check != "fence"
    ]
    assert judge([*silent, evidence("fence", Answer.DEAD)]).kind is VerdictKind.DEAD
    assert judge([*silent, evidence("fence", Answer.CLEAR)]).kind is VerdictKind.UNKNOWN
    assert judge([*proof(), evidence("fence", Answer.ALIVE)]).kind is VerdictKind.ALIVE


def test_postgresql_wants_its_pid_file_explained() -> None:
    """It should demand the pid file check for PostgreSQL, which takes no locks."""
    assert "pid_file" in decisions.mandatory_checks(instance("lxr", "postgresql"), LAB)


def test_who_is_asked_where() -> None:
    """It should ask exactly these: a check that drops out of the list would be missed by no verdict."""
    everywhere = {"hypervisor_log", "guest_boot", "mount", "lock_holder", "openers", "processes", "port", "samples"}
    assert set(decisions.wanted_checks(instance(), LAB)) == {*everywhere, "fence"}
    shared = {*everywhere, "domain_elsewhere", "peers", "nas_locks", "fence"}
    assert set(decisions.wanted_checks(instance(), NFS)) == shared
    assert set(decisions.wanted_checks(instance(engine="postgresql"), NFS)) == {*shared, "pid_file"}
    assert set(decisions.mandatory_checks(instance(), NFS)) == {*everywhere, "domain_elsewhere"}


def test_declared_pid_files_are_explained_too() -> None:
    """It should demand the pid file check once for every instance that names pid files, whatever its engine."""
    for engine in ("generic", "postgresql"):
        named = replace(instance(engine=engine), pid_files=("server.pid",))
        assert decisions.mandatory_checks(named, LAB).count("pid_file") == 1
    assert "pid_file" not in decisions.mandatory_checks(instance(engine="generic"), LAB)


def test_waiver_stands_in_for_a_missing_answer_only() -> None:
    """It should name who waived a check, and never let a waiver outweigh a sign of life or replace the proof."""
    waived = instance(waive=(Waiver("port", "eva", "firewalled"), Waiver("hypervisor_log", "eva", "no log")))
    pile = [replace(e, answer=Answer.NOT_OBSERVED) if e.check == "port" else e for e in proof()]
    verdict = decisions.judge(waived, LAB, pile, incident=INCIDENT, now=NOW)
    assert verdict.kind is VerdictKind.DEAD
    assert any("waived by eva: firewalled" in r for r in verdict.reasons)
    alive = [*pile, evidence("port", Answer.ALIVE)]
    assert decisions.judge(waived, LAB, alive, incident=INCIDENT, now=NOW).kind is VerdictKind.ALIVE
    unasked = [e for e in pile if e.check != "port"]
    asked_too = decisions.judge(waived, LAB, unasked, incident=INCIDENT, now=NOW)
    assert (asked_too.kind, asked_too.reasons[0]) == (VerdictKind.UNKNOWN, "port: was not asked")
    without_proof = [replace(e, answer=Answer.NOT_OBSERVED) if e.check == "hypervisor_log" else e for e in pile]
    assert decisions.judge(waived, LAB, without_proof, incident=INCIDENT, now=NOW).kind is VerdictKind.UNKNOWN


def test_digest_survives_collecting_the_same_answers_again() -> None:
    """It should keep the digest over time, and change it with any answer, instance or incident."""
    digest = judge(proof()).digest
    later = [replace(e, at=NOW + timedelta(5), expires_at=NOW + timedelta(6), summary="again") for e in proof()]
    assert judge(later).digest == digest
    assert judge([*proof()[:-1], evidence(CHECKS[-1], Answer.NOT_OBSERVED)]).digest != digest
    assert decisions.judge(instance("lxr"), LAB, proof(), incident=INCIDENT, now=NOW).digest != digest
    assert decisions.judge(instance(), LAB, proof(), incident="inc-2", now=NOW).digest != digest


VERDICTS = st.builds(
    Verdict,
    kind=st.sampled_from(list(VerdictKind)),
    reasons=st.just(()),
    evidence=st.just(()),
    digest=st.sampled_from(["a", "b"]),
    expires_at=st.integers(-2, 2).map(lambda s: NOW + timedelta(seconds=s)),
)
APPROVALS = st.none() | st.builds(
    approval, st.sampled_from(["a", "b"]), approved=st.booleans(), life_s=st.integers(-2, 2)
)


@given(VERDICTS, st.none() | st.just("a storm"), APPROVALS)
def test_gate_opens_only_for_the_dead_or_the_approved(verdict: Verdict, hold: str | None, answer: object) -> None:
    """It should never open for the living, on stale evidence, or on an approval of other evidence."""
    result = decisions.gate(verdict, hold, answer, now=NOW)  # type: ignore[arg-type]  # a strategy's value
    if result is Gate.OPEN:
        assert verdict.kind is not VerdictKind.ALIVE
        assert verdict.expires_at > NOW
        if verdict.kind is VerdictKind.UNKNOWN or hold:
            assert answer is not None
            assert (answer.approved, answer.digest) == (True, verdict.digest)
            assert answer.expires_at > NOW
    if verdict.kind is VerdictKind.ALIVE:
        assert result is Gate.REFUSED


@given(SITES, CHANGES, st.integers(-2, 2))
def test_approval_opens_only_for_what_was_collected_after_it(
    site: Site, changes: dict[str, Answer], later_s: int
) -> None:
    """It should collect again when the evidence is older than the person's answer to it."""
    verdict = site.judge(site.answers(changes))
    agreed = approval(verdict.digest, at=min(e.at for e in verdict.evidence) + timedelta(seconds=later_s))
    opened = decisions.gate(verdict, "a storm", agreed, now=NOW) is Gate.OPEN
    assert opened is (verdict.kind is not VerdictKind.ALIVE and later_s <= 0)


def test_rejection_refuses_even_a_dead_verdict() -> None:
    """It should honour a person's no."""
    verdict = judge(proof())
    assert decisions.gate(verdict, None, approval(verdict.digest, approved=False), now=NOW) is Gate.REFUSED
