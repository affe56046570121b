"""The repair of one instance, step by step, as the operations manual would tell it.

Every function is one task of the DAG `remediate_guest` and one step of the audit, in this order. Each can be killed at
any moment and run again: what has been done is seen on the host (locks, journal, service) and not done twice.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import PurePosixPath
from typing import Any

from unlatch.actions import (
    application_probe,
    copy_files,
    hold,
    log_in,
    main_process_on_new_files,
    set_aside_files,
    start_service,
    swap_files,
)
from unlatch.assessment import (
    PERMIT_LIFE_S,
    approval_given,
    collect_evidence,
    is_healthy,
    is_running,
    lease_name,
    look_at_files,
    make_plan,
    needs_nothing,
    pass_the_gate,
    planned,
    refuse_local_locks,
    refuse_where_nothing_died,
    take_lease,
)
from unlatch.deliveries import set_ticket_state
from unlatch.errors import CheckFailedError, RefusedError
from unlatch.freeing import free_without_copy
from unlatch.late_writers import no_late_writer
from unlatch.lifecycle import IncidentState
from unlatch.looking import Look
from unlatch.models import Approval, Json, Plan, Remedy, Verdict, VerdictKind
from unlatch.ports import Ports
from unlatch.recording import Case, fingerprint, honour_stop, recorded, result_of, tell
from unlatch.slots import repair_slot
from unlatch.start_right import give_back_start_rights, start_right
from unlatch.sweeping import pending_notification
from unlatch.wording import access_words, evidence_table, remedies_tried, swap_list


@recorded
def check_locks(case: Case, ports: Ports) -> Json:
    """Look at the locks; an instance that is up and answers needs nothing, whatever its locks say."""
    take_lease(case, ports)
    files = look_at_files(case, ports)
    healthy = is_healthy(case, ports)
    return {"healthy": healthy, "files": [f.as_dict() for f in files]}


@recorded
def hold_service(case: Case, ports: Ports) -> Json:
    """Stop a start attempt that is retrying and forbid new ones, so that nothing starts on an inode we replace."""
    if needs_nothing(case, ports):
        return {"held": False, "why": "the instance is up: nothing to hold"}
    if case.dry_run:
        return {"held": False, "would": list(case.instance.service.hold)}
    refuse_where_nothing_died(case, ports)
    hold(case, ports)
    return {"held": True, "boot_id": ports.agent.facts().boot_id}


@recorded
def verdict(case: Case, ports: Ports) -> Json:
    """Prove that the previous incarnation is dead, or find that it lives, or that it cannot be told; make the plan."""
    earlier = _done_before(case, ports)
    if needs_nothing(case, ports):
        return {"needed": False, "earlier": earlier}
    look = Look.begin(ports)
    refuse_local_locks(case, look)
    files = look.files(case, ports)
    conclusion = collect_evidence(case, ports, look)
    repair = make_plan(case, ports, look, files, conclusion)
    result: Json = {"needed": True, "verdict": conclusion.as_dict(), "plan": repair.as_dict(), "earlier": earlier}
    if conclusion.kind is VerdictKind.ALIVE:
        raise RefusedError(
            f"The previous incarnation of {case.instance.name} shows signs of life: {'; '.join(conclusion.reasons)}. "
            "No file was touched.",
            next_step="find out who runs it and stop that, or leave it where it is; no approval can override this."
            + ("" if case.dry_run else _how_to_release(case)),
            detail=result,
        )
    tell(case, ports, f"verdict/{conclusion.digest[:12]}", evidence_table(case.instance.name, conclusion, repair))
    return result


def _how_to_release(case: Case) -> str:
    words = " ".join(case.instance.service.release)
    return f" The service stays held; to release it on {case.guest.name}: {words}"


def _done_before(case: Case, ports: Ports) -> Json:
    """What this incident has in quarantine already, for a verdict that is made again: its new plan knows it not."""
    rows = {row.step: row.result for row in ports.store.steps(case.incident) if row.instance == case.instance.name}
    return {
        "files": rows.get("recreate_files", {}).get("files", []),
        "set_aside": rows.get("clear_locks", {}).get("quarantine", []),
    }


def question(case: Case, ports: Ports) -> str | None:
    """What `approve` has to ask a person (Markdown), or None when no person is needed."""
    honour_stop(case, ports, "approve")
    found = result_of(ports.store, case, "verdict")
    if not found["needed"] or case.dry_run:
        return None
    conclusion, repair = Verdict.from_dict(found["verdict"]), Plan.from_dict(found["plan"])
    if repair.needs_person is None:
        return None
    _wait_for_person(case, ports)
    asked: Json = {
        "digest": conclusion.digest,
        "why": repair.needs_person,
        "of": list(case.guest.approvers),
        "answer_within_s": ports.policy.approval_timeout_s,
    }
    ports.store.note(case.incident, case.instance.name, "approve", "asked", actor=ports.actor, detail=asked)
    ports.store.set_cursor(_question(case), {"digest": conclusion.digest})
    return evidence_table(case.instance.name, conclusion, repair)


def _question(case: Case) -> str:
    return f"question:{case.incident}/{case.instance.name}"


def _wait_for_person(case: Case, ports: Ports) -> None:
    """Say that nothing goes on by itself."""
    row = ports.store.incident(case.incident)
    if row is None or row.state is not IncidentState.REPAIRING:
        return  # another lane of the incident waits already
    ports.store.set_state(case.incident, IncidentState.WAITING_FOR_PERSON)
    set_ticket_state(case.incident, ports, "waiting")


def approve(case: Case, ports: Ports, *, approved: bool, by: str, comment: str | None) -> Json:
    """Keep a person's answer, bound to the evidence that was shown; the same answer again is not kept twice.

    A verdict that was made again while the person was looking is another one: then the gate asks for a new answer.

    Raises:
        RefusedError: the answer was no (also when nobody answered in time); or it was yes while the global stop is set.
    """
    if approved:  # a no is kept in any case
        honour_stop(case, ports, "approve")
    found = Verdict.from_dict(result_of(ports.store, case, "verdict")["verdict"])
    now = ports.clock.now()
    life = timedelta(seconds=ports.policy.approval_timeout_s)
    shown = (ports.store.cursor(_question(case)) or {}).get("digest", found.digest)
    answer = Approval(approved=approved, by=by, at=now, expires_at=now + life, digest=shown, comment=comment)
    given = approval_given(case, ports)
    same = given is not None and (given.approved, given.by, given.digest) == (approved, by, shown)
    if given is None or not same or given.expires_at <= now:
        _keep_answer(case, ports, answer)
    ports.store.set_state(case.incident, IncidentState.REPAIRING)
    if not approved:
        raise RefusedError(
            f"The repair of {case.instance.name} was rejected by {by}; no file was touched.",
            next_step="repair it by hand, or clear the task verdict of this run to collect the evidence again.",
        )
    return answer.as_dict()


def _keep_answer(case: Case, ports: Ports, answer: Approval) -> None:
    by, approved = answer.by, answer.approved
    ports.store.begin(case.incident, case.instance.name, "approve", actor=by, detail=answer.as_dict())
    phase = "done" if approved else "refused"
    result: Json = {"approval": answer.as_dict()} | ({} if approved else {"error": f"rejected by {by}"})
    ports.store.end(case.incident, case.instance.name, "approve", phase=phase, actor=by, result=result)
    words = f"**{by} {'approved' if approved else 'rejected'}** {answer.comment or ''}"
    tell(case, ports, f"approve/{answer.digest[:12]}", words)


@recorded
def clear_locks(case: Case, ports: Ports) -> Json:
    """The remedies that copy nothing: free locks, set stale pid files aside. Only a file that is free then counts."""
    repair = planned(case, ports)
    earlier = result_of(ports.store, case, "verdict")["earlier"]["set_aside"]
    if repair is None:
        return {"tried": [], "freed": [], "set_aside": [], "quarantine": earlier}
    targets = repair.paths(Remedy.SET_ASIDE)
    if case.dry_run:
        would = [o.remedy.value for o in repair.options if o.allowed]
        return {"would_try": would, "would_set_aside": [str(p) for p in targets]}
    cure = free_without_copy(case, ports, repair)
    moved = _set_aside(case, ports, targets) if targets else ()
    if cure.tried:
        tell(case, ports, f"clear_locks/{fingerprint(str(cure.tried))}", remedies_tried(case.instance.name, cure.tried))
    return {
        "tried": list(cure.tried),
        "freed": [str(p) for p in cure.freed],
        "set_aside": [str(p) for p in targets],
        "quarantine": _joined(earlier, [str(p) for p in moved]),
    }


def _set_aside(case: Case, ports: Ports, targets: tuple[PurePosixPath, ...]) -> tuple[PurePosixPath, ...]:
    conclusion = pass_the_gate(case, ports, lasting_s=PERMIT_LIFE_S)
    hold(case, ports)  # see recreate_files
    moved = set_aside_files(case, ports, targets, conclusion)
    found_again = [str(f.path) for f in look_at_files(case, ports) if f.path in targets]
    if found_again:
        raise CheckFailedError(
            f"{', '.join(found_again)} is there again after it was set aside: something starts {case.instance.name}.",
            next_step=f"find out what starts it on {case.guest.name}, stop that, then clear this task.",
        )
    return moved


def _joined(earlier: list[Any], new: list[Any]) -> list[Any]:
    return [*earlier, *(item for item in new if item not in earlier)]


@recorded
def recreate_files(case: Case, ports: Ports) -> Json:
    """Give every stale file a new inode: copy and verify beside it, look at everything again, swap all in one batch."""
    repair = planned(case, ports)
    targets = repair.paths(Remedy.RECREATE) if repair else ()
    earlier = result_of(ports.store, case, "verdict")["earlier"]["files"]
    if case.dry_run and repair is not None and targets:
        return {"would_recreate": [str(p) for p in targets], "estimate_s": repair.estimate_s}
    freed = result_of(ports.store, case, "clear_locks").get("freed", [])
    targets = tuple(path for path in targets if str(path) not in freed)
    if not targets:
        return {"files": earlier}
    hold(case, ports)  # a guest that was booted again meanwhile has forgotten the hold
    pass_the_gate(case, ports)  # no copy for a repair that may not go on
    with repair_slot(case, ports):
        copy_files(case, ports, targets)
        conclusion = pass_the_gate(case, ports, lasting_s=PERMIT_LIFE_S)  # a long copy has outlived its evidence
        swapped = swap_files(case, ports, targets, conclusion)
    no_late_writer(case, ports)
    tell(case, ports, "recreate_files", swap_list(swapped))
    return {"files": _joined(earlier, [s.as_dict() for s in swapped])}


@recorded
def restart_database(case: Case, ports: Ports) -> Json:
    """Look at the originals once more, let go of the service, start it, see that it runs on the new files."""
    found = result_of(ports.store, case, "verdict")
    if not found["needed"]:
        return {"started": False, "why": "it was up already"}
    if case.dry_run:
        return {"would": list(case.instance.service.start)}
    if not is_running(case, ports):
        hold(case, ports)  # ends a start that an earlier, killed try began
        with start_right(case, ports):
            pass_the_gate(case, ports, is_begun=True)  # behind the wait for that right, which may be long
            no_late_writer(case, ports)
            start_service(case, ports)
    give_back_start_rights(case, ports)
    main = main_process_on_new_files(case, ports)
    no_late_writer(case, ports)
    warning = pending_notification(case, ports)
    if warning is not None:
        tell(case, ports, "restart_database/pending_notification", f"**WARNING for {case.instance.name}**: {warning}")
    return {"started": True, "pid": main} | ({"warning": warning} if warning else {})


@recorded
def confirm_access(case: Case, ports: Ports) -> Json:
    """Log in from here as a client would, read, and ask the application's own probe."""
    if case.dry_run:
        return {"would": f"log in to {case.instance.host}:{case.instance.port}"}
    proof = log_in(case, ports)
    probed = application_probe(case, ports)
    no_late_writer(case, ports)
    ports.store.release_lease(lease_name(case), case.incident)
    tell(case, ports, "confirm_access", access_words(case.instance, proof, probed))
    return {"access": "ok", "proof": proof, "probe": probed}


def owner_question(case: Case, ports: Ports) -> str | None:
    """What the owner is asked once logins work, or None when the inventory does not want an owner's word."""
    honour_stop(case, ports, "confirm_by_owner")
    if not case.instance.owner_confirms or case.dry_run:
        return None
    proof = result_of(ports.store, case, "confirm_access")["proof"]
    return (
        f"Unlatch has logged in to **{case.instance.name}** ({case.instance.host}:{case.instance.port}, "
        f"{proof['server_version']}). Please use it as you normally do and say whether it works."
    )


def confirm_by_owner(case: Case, ports: Ports, *, approved: bool, by: str, comment: str | None) -> Json:
    """Keep the owner's word.

    Raises:
        CheckFailedError: the owner says that it does not work, or nobody answered in time.
        RefusedError: the global stop is set; a no is kept all the same.
    """
    if approved:
        honour_stop(case, ports, "confirm_by_owner")
    answer: Json = {"confirmed": approved, "by": by, "comment": comment}
    ports.store.begin(case.incident, case.instance.name, "confirm_by_owner", actor=by, detail=answer)
    phase = "done" if approved else "failed"
    result = answer | ({} if approved else {"error": f"not confirmed by {by}"})
    ports.store.end(case.incident, case.instance.name, "confirm_by_owner", phase=phase, actor=by, result=result)
    tell(case, ports, "confirm_by_owner", f"**{by}: {'accessible' if approved else 'NOT accessible'}** {comment or ''}")
    if not approved:
        raise CheckFailedError(
            f"{case.instance.name} accepts logins, but its owner does not confirm that it is usable ({by}).",
            next_step="ask the owner what fails, correct that, then clear this task.",
        )
    return answer
