"""The end of an incident: by itself when everything is cleaned up, or because a person says so."""

from __future__ import annotations

from dataclasses import dataclass

from unlatch.casebook import Incident
from unlatch.deliveries import set_ticket_state
from unlatch.errors import CheckFailedError, RefusedError
from unlatch.lifecycle import GIVEN_UP_STATES, IncidentState
from unlatch.models import Json
from unlatch.ports import IncidentPorts
from unlatch.purge_days import STEP, is_cleaned_up
from unlatch.recording import fingerprint, recorded, refuse_while_stopped, tell
from unlatch.wording import closed_comment


@dataclass(frozen=True)
class Ending(Incident):
    """An incident that is to be closed; `asked`: the instances that the present run was about."""

    asked: tuple[str, ...] = ()


@recorded
def close_incident(ending: Ending, ports: IncidentPorts) -> Json:
    """Close incident and ticket once every instance is cleaned up, and say what space came back.

    A ticket system that is down does not keep it open: its ticket is closed as soon as it answers.

    Raises:
        CheckFailedError: an instance that this run was about is not cleaned up.
    """
    if ending.dry_run:
        return {"would": "close the incident and its ticket"}
    steps = ports.store.steps(ending.incident)
    results = {row.instance: row.result for row in steps if row.step == STEP}
    cleaned = {name: results[name] for name in ending.instances if is_cleaned_up(steps, name)}
    bad = [name for name in ending.asked if name not in cleaned]
    if bad:
        raise CheckFailedError(
            f"What {ending.incident} has left of {', '.join(bad)} is not deleted, so the incident stays open.",
            next_step="each failed task says what to do; clear it, and this one runs again after it.",
        )
    left = [name for name in ending.instances if name not in cleaned]
    totals = {key: sum(found[key] for found in cleaned.values()) for key in ("freed_bytes", "not_freed_bytes")}
    row = ports.store.incident(ending.incident)
    if left or row is None or row.state not in {IncidentState.AWAITING_PURGE, IncidentState.CLOSED}:
        return {**totals, "closed": False, "left": left, "state": str(row.state) if row else None}
    tell(ending, ports, f"close_incident/{fingerprint(str(totals))}", closed_comment(cleaned))
    set_ticket_state(ending.incident, ports, "closed")
    ports.store.set_state(ending.incident, IncidentState.CLOSED)
    return {**totals, "closed": True}


def close_by_hand(incident: Incident, ports: IncidentPorts, *, reason: str) -> Json:
    """Close an incident that only a person can end; whatever it has left on the volume stays there.

    Raises:
        RefusedError: it is not one of these, or the global stop is set.
    """
    refuse_while_stopped(ports)
    row = ports.store.incident(incident.incident)
    ended = GIVEN_UP_STATES | {IncidentState.AWAITING_PURGE, IncidentState.CLOSED}
    if row is None or row.state not in ended:
        raise RefusedError(
            f"{incident.incident} is {row.state if row else 'not known'}: it is being worked on.",
            next_step=f"only what is {', '.join(sorted(ended - {IncidentState.CLOSED}))} is closed by hand.",
        )
    if row.state is IncidentState.CLOSED:
        return {"closed": True, "was": "closed"}
    subject = (incident.incident, "", "close_incident")
    ports.store.begin(*subject, actor=ports.actor, detail={"reason": reason})
    words = f"**Closed by {ports.actor}** ({row.state}): {reason}"
    tell(incident, ports, f"close_incident/{fingerprint(words)}", words)
    set_ticket_state(incident.incident, ports, "closed")
    ports.store.set_state(incident.incident, IncidentState.CLOSED)
    result: Json = {"closed": True, "was": row.state.value, "reason": reason}
    ports.store.end(*subject, phase="done", actor=ports.actor, result=result)
    return result
