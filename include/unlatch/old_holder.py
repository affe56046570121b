"""Is whoever still has a quarantined original locked dead? Asked anew before an original under a lock is deleted.

While the database runs again, its processes, port and files say nothing of its previous incarnation. What is left to
ask is what concerns the machine that died: what the hypervisor says, whether the guest has booted since, and, on shared
storage, whether the domain or a server of the instance runs anywhere else (rule 9).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unlatch.decisions import PROOFS
from unlatch.fencing import in_force
from unlatch.looking import Look
from unlatch.models import Answer, Evidence, Instance, Volume, VolumeKind, digest_of
from unlatch.ports import Ports, Scene
from unlatch.recording import Case

_MANDATORY: dict[VolumeKind, tuple[str, ...]] = {
    VolumeKind.LAB: ("guest_boot",),
    VolumeKind.NFS: ("guest_boot", "domain_elsewhere", "peers"),
}


@dataclass(frozen=True)
class OldHolder:
    """The conclusion: `digest` names what it rests on, None when death is not proven; `reasons` say why or why not."""

    digest: str | None
    reasons: tuple[str, ...]


def look_at_old_holder(case: Case, ports: Ports) -> OldHolder:
    """Ask afresh, note the answers in the audit, and conclude."""
    look, event = Look.begin(ports), case.event
    scene = Scene(
        instance=case.instance,
        guest=case.guest,
        volume=case.volume,
        died_at=event.at if event else None,
        domain_id=event.domain_id if event else None,
        agent=look.agent,
        engine=ports.engine,
        hypervisor=look.hypervisor,
        clock=ports.clock,
        held=False,
        peers=look.peers,
        fenced=in_force(ports.store, case.incident),
        guest_hosts=ports.guest_hosts,
        evidence_life_s=ports.policy.evidence_life_s,
    )
    wanted = sorted({*PROOFS, *_MANDATORY[case.volume.kind]})
    evidence = tuple(ports.checks[name].collect(scene) for name in wanted if name in ports.checks)
    found = judge_old_holder(case.instance, case.volume, evidence, incident=case.incident)
    ports.store.note(
        case.incident,
        case.instance.name,
        "clean_up",
        "evidence",
        actor=ports.actor,
        detail={"dead": found.digest is not None, "evidence": [e.as_dict() for e in evidence]},
    )
    return found


def judge_old_holder(instance: Instance, volume: Volume, evidence: Sequence[Evidence], *, incident: str) -> OldHolder:
    """Dead needs a proof of death, no sign of life, and an answer of every mandatory check that is not waived. Pure."""
    answers = {item.check: item for item in evidence}
    waived = {waiver.check for waiver in instance.waive}
    signs = [item for item in evidence if item.answer is Answer.ALIVE]
    if signs:
        return OldHolder(None, tuple(f"{item.check}: {item.summary}" for item in signs))
    silent = [
        f"{name}: {answers[name].summary if name in answers else 'was not asked'}"
        for name in _MANDATORY[volume.kind]
        if name not in waived and (name not in answers or answers[name].answer is Answer.NOT_OBSERVED)
    ]
    proofs = [item for item in evidence if item.check in PROOFS and item.answer is Answer.DEAD]
    if silent or not proofs:
        unproven = [f"{item.check}: {item.summary}" for item in evidence if item.check in PROOFS and not proofs]
        return OldHolder(None, (*silent, *unproven))
    digest = digest_of(tuple(evidence), f"{incident}/{instance.name}/clean_up")
    return OldHolder(digest, tuple(f"{item.check}: {item.summary}" for item in proofs))
