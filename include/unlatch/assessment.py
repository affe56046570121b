"""Looking before acting: files, processes, evidence, the plan, and the one gate that every act has to pass."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from unlatch import decisions, remedies
from unlatch.decisions import Gate
from unlatch.errors import ConfigError, RefusedError, TransientError
from unlatch.fencing import in_force
from unlatch.held_back import held_back, storm
from unlatch.in_parallel import in_parallel
from unlatch.lifecycle import WORKING_STATES, IncidentState
from unlatch.looking import Look
from unlatch.models import (
    Answer,
    Approval,
    Evidence,
    FileFact,
    LockKind,
    OpenerScan,
    Permit,
    PermitFile,
    Plan,
    Verdict,
)
from unlatch.ports import Ports, Scene
from unlatch.recording import Case, refuse_while_stopped, result_of
from unlatch.slots import wait_for_turn
from unlatch.sweeping import look_around

PERMIT_LIFE_S = 60.0
"""How long the agent may take from the controller's last look to the swap, on the guest's boot clock, at most."""

_RUNNING = 0
_STOPPED = frozenset({1, 2, 3})  # as an LSB init script answers: dead with a pid file, dead with a lock file, stopped
_COULD_NOT_ASK = ("Failed to connect to bus", "System has not been booted with systemd")


def lease_name(case: Case) -> str:
    """The name of the instance's lease in the store."""
    return f"instance:{case.instance.name}"


def take_lease(case: Case, ports: Ports) -> None:
    """One repair at a time per instance (rule 10); a dry run takes nothing and waits for nobody.

    Every act takes it anew: a person may clear a single task long after its run has ended and given the lease back.
    Such an incident is reopened, since anyone may take the lease of one that has ended.

    Raises:
        TransientError: another incident repairs this instance, and did for longer than a lane waits.
        RefusedError: the global stop was set while it waited.
    """
    if case.dry_run:
        return
    _take(case, ports)
    row = ports.store.incident(case.incident)
    if row is not None and row.state not in WORKING_STATES:
        ports.store.set_state(case.incident, IncidentState.REPAIRING)
        _take(case, ports)  # it may have been taken over a moment before that


def _take(case: Case, ports: Ports) -> None:
    def take() -> tuple[str, ...]:
        other = ports.store.take_lease(lease_name(case), case.incident)
        return () if other is None else (other,)

    wait_for_turn(case, ports, what="its turn to be repaired", take=take)


def refuse_local_locks(case: Case, look: Look) -> None:
    """Refuse mounts whose locks no other machine sees: there a free file proves nothing (rule 12).

    Raises:
        RefusedError: the volume is mounted with `nolock` or `local_lock`.
    """
    for mount in look.agent.facts([case.instance.datadir]).paths:
        if mount.local_lock not in {None, "", "none"}:
            raise RefusedError(
                f"{mount.mountpoint} on {case.guest.name} is mounted with local locks ({mount.local_lock}): nothing "
                f"would keep a second server of {case.instance.name} off its files.",
                next_step="mount it without nolock and local_lock, then clear this task.",
            )


def look_at_files(case: Case, ports: Ports) -> tuple[FileFact, ...]:
    """The instance's locked files and its pid files, as the guest sees them now."""
    engine, instance = ports.engine, case.instance
    return ports.agent.check_locks(instance, engine.lock_paths(instance), engine.pid_files(instance))


def scan_processes(case: Case, ports: Ports) -> OpenerScan:
    """Processes of the instance on its guest."""
    return ports.agent.openers(case.instance, ports.engine.executables(case.instance))


def is_running(case: Case, ports: Ports) -> bool:
    """Whether the service says that it runs.

    Raises:
        ConfigError: it does not say: taking that for "stopped" would stop a database that is up.
    """
    answer = ports.agent.service(case.instance, "status")
    if answer.code == _RUNNING:
        return True
    if answer.code in _STOPPED and not any(words in answer.output for words in _COULD_NOT_ASK):
        return False
    raise ConfigError(
        f"Whether {case.instance.name} runs on {case.guest.name} cannot be told: its status command ended with "
        f"{answer.code}: {answer.output.strip()[:300]}",
        next_step=f"try it there as the connection's user, it must end with 0 (running) or 3 (stopped): "
        f"{' '.join(case.instance.service.status)}",
    )


def is_healthy(case: Case, ports: Ports) -> bool:
    """Running here, under its service, and open to clients: the crash left nothing to repair."""
    if not is_running(case, ports) or not any(o.fds for o in scan_processes(case, ports).openers):
        return False
    try:
        ports.engine.login(case.instance, write_probe=False)
    except TransientError:
        return False
    return True


def needs_nothing(case: Case, ports: Ports) -> bool:
    """Whether check_locks found the instance up and answering."""
    return bool(result_of(ports.store, case, "check_locks")["healthy"])


def collect_evidence(case: Case, ports: Ports, look: Look) -> Verdict:
    """Ask every mandatory check, all of them side by side; one that is not installed is not observed.

    What `look` knows already is not asked again; the evidence is as old as that look.
    """
    scene = _scene(case, ports, look)
    wanted = [name for name in decisions.wanted_checks(case.instance, case.volume) if name in ports.checks]
    answers = in_parallel({name: functools.partial(ports.checks[name].collect, scene) for name in wanted})
    evidence = [_dated(answer, look.began) for answer in answers.values()]
    conclusion = decisions.judge(case.instance, case.volume, evidence, incident=case.incident, now=ports.clock.now())
    ports.store.note(
        case.incident,
        case.instance.name,
        "verdict",
        "evidence",
        actor=ports.actor,
        detail={"verdict": conclusion.kind.value, "evidence": [e.as_dict() for e in conclusion.evidence]},
    )
    return conclusion


def refuse_where_nothing_died(case: Case, ports: Ports) -> None:
    """Refuse a guest that has not booted since its reported death: what is stopped there would be alive.

    Raises:
        RefusedError: it was never down.
    """
    boot = ports.checks["guest_boot"].collect(_scene(case, ports, Look.begin(ports)))
    if boot.answer is Answer.ALIVE:
        raise RefusedError(
            f"{case.guest.name} was never down, so {case.instance.name} was not stopped there: {boot.summary}.",
            next_step="see why its death was reported, and why the database lets nobody in.",
        )


def _scene(case: Case, ports: Ports, look: Look) -> Scene:
    event, fenced = case.event, in_force(ports.store, case.incident)
    return Scene(
        instance=case.instance,
        guest=case.guest,
        volume=case.volume,
        died_at=event.at if event else _said_death(case, ports) if fenced else None,
        domain_id=event.domain_id if event else None,
        agent=look.agent,
        engine=ports.engine,
        hypervisor=look.hypervisor,
        clock=ports.clock,
        held=not case.dry_run,
        peers=look.peers,
        nas=functools.partial(look.nas_locks, case, ports) if look.nas else None,
        fenced=fenced,
        guest_hosts=ports.guest_hosts,
        evidence_life_s=ports.policy.evidence_life_s,
    )


def _said_death(case: Case, ports: Ports) -> datetime | None:
    """When a person has said that the guest died. It proves nothing, but a fence does, and boots need a comparison.

    Whoever was wrong by hours gets a veto: a guest that has not booted since, or a locked file that was written since.
    """
    row = ports.store.incident(case.incident)
    return row.died_at if row is not None else None


def _dated(answer: Evidence, began: datetime) -> Evidence:
    """The answer as of the look's beginning: it may rest on what another check has asked."""
    return replace(answer, at=began, expires_at=answer.expires_at - (answer.at - began))


def make_plan(case: Case, ports: Ports, look: Look, files: tuple[FileFact, ...], conclusion: Verdict) -> Plan:
    """What will be done to `files`, and whether a person must agree first."""
    order = ports.engine.commit_order(f.path for f in files)
    locked = [f.path for f in files if f.lock.kind is LockKind.REMOTE]
    return remedies.plan(
        files,
        conclusion,
        order=order,
        circumstances=look_around(case, ports, look, locked),
        policy=ports.policy.remedies,
        hold_for_person=held_back(case, ports),
    )


def planned(case: Case, ports: Ports) -> Plan | None:
    """The plan of the verdict step; None when nothing was needed."""
    found = result_of(ports.store, case, "verdict")
    return Plan.from_dict(found["plan"]) if found["needed"] else None


def pass_the_gate(case: Case, ports: Ports, *, lasting_s: float = 0.0, is_begun: bool = False) -> Verdict:
    """The verdict that allows acting now, collected again when it is too old.

    A storm that has come up since the plan was made holds the repair as well.

    Args:
        case: The instance.
        ports: The ports.
        lasting_s: What was collected before must be good for so long still: a permit lives no longer than that.
        is_begun: The files are done: a storm that comes up only now must not leave the database down.

    Raises:
        RefusedError: it is not `dead`, or a person is needed who has not agreed to exactly this evidence, or the global
            stop is set.
        TransientError: another incident repairs this instance.
    """
    refuse_while_stopped(ports)  # also one that was set while files were copied
    take_lease(case, ports)
    found = result_of(ports.store, case, "verdict")
    needs_person = Plan.from_dict(found["plan"]).needs_person or (None if is_begun else storm(case, ports))
    approval = approval_given(case, ports)
    conclusion = Verdict.from_dict(found["verdict"])
    now = ports.clock.now()
    answer = decisions.gate(conclusion, needs_person, approval, now=now)
    if answer is Gate.OPEN and conclusion.expires_at <= now + timedelta(seconds=lasting_s):
        answer = Gate.COLLECT_AGAIN
    if answer is Gate.COLLECT_AGAIN:
        conclusion = collect_evidence(case, ports, Look.begin(ports))
        answer = decisions.gate(conclusion, needs_person, approval, now=ports.clock.now())
    if answer is Gate.OPEN:
        return conclusion
    if answer is Gate.COLLECT_AGAIN:
        raise TransientError(
            f"Collecting the evidence on {case.instance.name} takes longer than evidence may be acted on.",
            next_step="the retry asks again; if it stays so, find the host that answers slowly, or raise "
            f"policy.evidence_life_s ({ports.policy.evidence_life_s}).",
        )
    if answer is Gate.ASK:
        raise RefusedError(
            f"Going on with {case.instance.name} needs a person's approval of the evidence as it is now "
            f"({'; '.join(filter(None, [needs_person, f'verdict {conclusion.kind}', *conclusion.reasons]))}).",
            next_step="clear the task verdict of this run with its downstream tasks, then answer approve.",
        )
    raise RefusedError(
        f"{case.instance.name} must not be touched (verdict {conclusion.kind}: {'; '.join(conclusion.reasons)}).",
        next_step="find out who holds it; an approval cannot override a sign of life.",
    )


def approval_given(case: Case, ports: Ports) -> Approval | None:
    """The answer to the question that the present verdict asked; a no to an earlier one falls with its evidence."""
    mine = [row for row in ports.store.steps(case.incident) if row.instance == case.instance.name]
    since = next((n for n, row in enumerate(mine) if row.step == "verdict"), 0)
    answers = [row.result["approval"] for row in mine[since:] if row.step == "approve" and "approval" in row.result]
    return Approval.from_dict(answers[-1]) if answers else None


def write_permit(case: Case, ports: Ports, conclusion: Verdict, files: Sequence[FileFact]) -> Permit:
    """The leave to commit `files` as they were just seen, on this boot of the guest, as long as the evidence holds."""
    good_for_s = (conclusion.expires_at - ports.clock.now()).total_seconds()  # before the guest tells its clock
    facts = ports.agent.facts()
    return Permit(
        incident=case.incident,
        instance=case.instance.name,
        boot_id=facts.boot_id,
        expires_boottime_s=facts.uptime_s + min(PERMIT_LIFE_S, good_for_s),
        evidence_digest=conclusion.digest,
        files=tuple(
            PermitFile(
                path=f.path,
                inode=f.inode,
                dev=f.dev,
                size_bytes=f.size_bytes,
                mtime_ns=f.sample.mtime_ns,
                content_sha256=f.lock.content_sha256,
            )
            for f in files
        ),
    )
