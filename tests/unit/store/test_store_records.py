"""What the store keeps of incidents, steps, leases, crash events and cursors, on both databases."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy.exc import StatementError

from tests.unit.store.samples import DIED_AT, INCIDENT, event, incident
from unlatch import models
from unlatch.errors import ConfigError
from unlatch.lifecycle import ForbiddenTransitionError, IncidentState
from unlatch.models import canonical_json
from unlatch.store.redaction import redact
from unlatch.store.sql_store import SqlStore

WHO = "airflow:remediate_guest"


def phases(store: SqlStore) -> list[str]:
    return [row.phase for row in store.audit_rows()]


# --- incidents -------------------------------------------------------------------------------------------------------


def test_an_incident_is_opened_once(store: SqlStore) -> None:
    """It should give back the row that is there, whatever the second caller says."""
    assert store.open_incident(incident()) == incident()
    assert store.open_incident(incident(reason="another")) == incident()
    assert store.incident(INCIDENT) == incident()
    assert store.incident("inc-unknown") is None
    assert phases(store) == ["opened"]


def test_an_incident_without_crash_event_is_kept_too(store: SqlStore) -> None:
    """It should keep an incident that a person opened."""
    row = incident(event=None, died_at=None, dry_run=True, reason="caf\u00e9 \x00 \udc80")
    kept = store.open_incident(row)
    assert kept == replace(row, reason="caf\u00e9 \\x00 \\udc80")


def test_states_follow_the_state_machine(store: SqlStore) -> None:
    """It should advance, record each change once, and refuse what cannot follow."""
    store.open_incident(incident())
    store.set_state(INCIDENT, IncidentState.REPAIRING)
    store.set_state(INCIDENT, IncidentState.REPAIRING)
    with pytest.raises(ForbiddenTransitionError):
        store.set_state(INCIDENT, IncidentState.CLOSED)
    found = store.incident(INCIDENT)
    assert found is not None
    assert found.state is IncidentState.REPAIRING
    assert phases(store) == ["opened", "state"]
    assert store.audit_rows()[-1].detail == {"from": "detected", "to": "repairing"}


def test_an_unknown_incident_is_told(store: SqlStore) -> None:
    """It should name the incident and the store, since the likeliest cause is another store."""
    with pytest.raises(ConfigError, match="no incident inc-x in the store at"):
        store.set_state("inc-x", IncidentState.REPAIRING)
    with pytest.raises(ConfigError, match="UNLATCH_STORE_URL"):
        store.set_ticket("inc-x", "GGUS-1")


def test_ticket_and_event_change_with_an_audit_row_each(store: SqlStore) -> None:
    """It should keep what became known later, and not record what did not change."""
    store.open_incident(incident())
    later = event(restarted_at=DIED_AT + timedelta(seconds=6))
    for _ in range(2):
        store.set_ticket(INCIDENT, "GGUS-109455")
        store.update_event(INCIDENT, later)
    assert store.incident(INCIDENT) == incident(ticket="GGUS-109455", event=later)
    assert phases(store) == ["opened", "ticket", "event"]


def test_incidents_are_paged_newest_first(store: SqlStore) -> None:
    """It should show every incident exactly once over the pages, also those opened at the same moment."""
    opened = incident().opened_at
    for number in range(7):
        store.open_incident(incident(incident=f"inc-{number}", opened_at=opened + timedelta(seconds=number // 3)))
    shown: list[str] = []
    while page := store.incidents(limit=2, before=shown[-1] if shown else None):
        shown += [row.incident for row in page]
    assert shown == [f"inc-{number}" for number in reversed(range(7))]
    assert store.incidents(before="inc-unknown") == ()


# --- steps -----------------------------------------------------------------------------------------------------------


def test_begin_and_end_are_in_the_row_and_in_the_audit(store: SqlStore) -> None:
    """It should count attempts, keep the last word in the row and every word in the audit."""
    first = store.begin(INCIDENT, "voms", "check_locks", actor=WHO, detail={"paths": ["/ORA/dbs03/voms"]})
    assert (first.phase, first.attempt, first.ended_at, first.result) == ("intent", 1, None, {})
    failed = store.end(INCIDENT, "voms", "check_locks", phase="retry", actor=WHO, result={"error": "busy"})
    assert (failed.phase, failed.attempt, failed.result) == ("retry", 1, {"error": "busy"})
    again = store.begin(INCIDENT, "voms", "check_locks", actor=WHO, detail={})
    assert (again.phase, again.attempt, again.ended_at, again.result) == ("intent", 2, None, {})
    done = store.end(INCIDENT, "voms", "check_locks", phase="done", actor=WHO, result={"files": []})
    assert store.step(INCIDENT, "voms", "check_locks") == done
    assert done.ended_at is not None
    assert done.ended_at > done.started_at
    told = [(row.instance, row.step, row.phase, row.attempt, row.actor) for row in store.audit_rows()]
    assert told == [
        ("voms", "check_locks", phase, attempt, WHO)
        for phase, attempt in [("intent", 1), ("retry", 1), ("intent", 2), ("done", 2)]
    ]
    assert store.instances(INCIDENT) == ("voms",)


def test_a_result_comes_back_as_it_was(store: SqlStore) -> None:
    """It should keep what the next step works with exactly, strange file names included."""
    strange = {"path": "/ORA/dbs03/voms/\udc80\x00\u00e9", "size": 1.5, "none": None, "deep": [{"a": []}]}
    store.begin(INCIDENT, "voms", "check_locks", actor=WHO, detail={})
    store.end(INCIDENT, "voms", "check_locks", phase="done", actor=WHO, result=strange)
    kept = store.step(INCIDENT, "voms", "check_locks")
    assert kept is not None
    assert kept.result == strange
    assert store.audit_rows()[-1].detail["path"] == "/ORA/dbs03/voms/\\udc80\\x00\u00e9"


def test_no_value_of_the_models_is_taken_for_a_secret() -> None:
    """It should not blank a field that a step reads back: steps pass results through the store."""
    for value in vars(models).values():
        if dataclasses.is_dataclass(value):
            names = {field.name: "x" for field in dataclasses.fields(value)}
            assert redact(names) == names


def test_a_step_that_is_done_may_begin_again(store: SqlStore) -> None:
    """It should leave that decision to the runbook."""
    store.begin(INCIDENT, "", "detect_crash", actor=WHO, detail={})
    store.end(INCIDENT, "", "detect_crash", phase="done", actor=WHO, result={})
    assert store.begin(INCIDENT, "", "detect_crash", actor=WHO, detail={}).attempt == 2
    assert store.instances(INCIDENT) == ()


def test_steps_come_in_the_order_of_their_start(store: SqlStore) -> None:
    """It should order by start, whatever the names, and keep incidents apart."""
    for step in ("verdict", "check_locks", "approve"):
        store.begin(INCIDENT, "voms", step, actor=WHO, detail={})
    store.begin("inc-other", "voms", "verdict", actor=WHO, detail={})
    assert [row.step for row in store.steps(INCIDENT)] == ["verdict", "check_locks", "approve"]
    assert store.step(INCIDENT, "lxr", "verdict") is None


def test_an_end_needs_a_begin_and_a_known_phase(store: SqlStore) -> None:
    """It should treat both as the programming errors that they are, and record nothing."""
    with pytest.raises(ValueError, match="never begun"):
        store.end(INCIDENT, "voms", "verdict", phase="done", actor=WHO, result={})
    with pytest.raises(ValueError, match="cannot end as 'finished'"):
        store.end(INCIDENT, "voms", "verdict", phase="finished", actor=WHO, result={})
    assert phases(store) == []


def test_no_step_without_its_audit_row(store: SqlStore) -> None:
    """It should take the step's row back when the audit row cannot be written."""
    with pytest.raises(TypeError, match="cannot be recorded"):
        store.begin(INCIDENT, "voms", "verdict", actor=WHO, detail={"strange": object()})
    assert store.step(INCIDENT, "voms", "verdict") is None
    assert store.instances(INCIDENT) == ()
    assert store.audit_head() == (0, "")


def test_a_note_leaves_the_step_alone(store: SqlStore) -> None:
    """It should add an audit row with the attempt that the step is in."""
    begun = store.begin(INCIDENT, "voms", "recreate_files", actor=WHO, detail={})
    store.note(INCIDENT, "voms", "recreate_files", "copied", actor=WHO, detail={"bytes": 1})
    store.note(INCIDENT, "", "approve", "answered", actor="eva", detail={"approved": True})
    assert store.step(INCIDENT, "voms", "recreate_files") == begun
    assert [(row.phase, row.attempt, row.actor) for row in store.audit_rows(after=1)] == [
        ("copied", 1, WHO),
        ("answered", 0, "eva"),
    ]


# --- leases ----------------------------------------------------------------------------------------------------------


def test_a_lease_has_one_owner(store: SqlStore) -> None:
    """It should be kept by its owner, shown to others, and given back by its owner only."""
    assert store.take_lease("instance:voms", "inc-1") is None
    assert store.take_lease("instance:voms", "inc-1") is None
    assert store.take_lease("instance:voms", "inc-2") == "inc-1"
    store.release_lease("instance:voms", "inc-2")
    assert store.lease_owner("instance:voms") == "inc-1"
    store.release_lease("instance:voms", "inc-1")
    assert store.lease_owner("instance:voms") is None
    assert store.take_lease("instance:voms", "inc-2") is None


def test_the_lease_of_an_incident_that_ended_is_taken_over(store: SqlStore) -> None:
    """It should stay while the incident works, and pass on, audited, once it does not."""
    store.open_incident(incident())
    assert store.take_lease("instance:voms", INCIDENT) is None
    assert store.take_lease("instance:voms", "inc-next") == INCIDENT
    store.set_state(INCIDENT, IncidentState.FAILED)
    assert store.take_lease("instance:voms", "inc-next") is None
    assert store.lease_owner("instance:voms") == "inc-next"
    last = store.audit_rows()[-1]
    assert (last.incident, last.phase) == ("inc-next", "lease_taken_over")
    assert last.detail == {"lease": "instance:voms", "from": INCIDENT, "its_state": "failed"}


def test_a_pool_has_so_many_slots(store: SqlStore) -> None:
    """It should give each owner one slot however often it asks, and tell the next one who has them all."""
    assert store.take_slot("volume:dbs03", 2, "inc-1/voms") == ()
    assert store.take_slot("volume:dbs03", 2, "inc-1/voms") == ()
    assert store.take_slot("volume:dbs03", 2, "inc-1/lxr") == ()
    assert store.take_slot("volume:dbs03", 2, "inc-2/web") == ("inc-1/voms", "inc-1/lxr")
    assert store.take_slot("volume:DBS03", 1, "inc-2/web") == ()
    assert store.take_slot("volume:dbs0", 1, "inc-2/web") == ()
    store.release_slot("volume:dbs03", "inc-2/web")
    store.release_slot("volume:dbs03", "inc-1/voms")
    assert store.slots("volume:dbs03") == {"volume:dbs03:2": "inc-1/lxr"}
    assert store.slots("volume:DBS03") == {"volume:DBS03:1": "inc-2/web"}
    assert store.take_slot("volume:dbs03", 2, "inc-2/web") == ()
    assert store.lease_owner("volume:dbs03:1") == "inc-2/web"


def test_a_pool_that_was_made_smaller(store: SqlStore) -> None:
    """It should let those go on who have a slot, and nobody else in before one of the smaller pool is free."""
    for number in range(3):
        assert store.take_slot("repairs", 3, f"inc-{number}/voms") == ()
    assert store.take_slot("repairs", 1, "inc-2/voms") == ()
    store.release_slot("repairs", "inc-1/voms")
    assert store.take_slot("repairs", 1, "inc-9/voms") == ("inc-0/voms",)


def test_the_slot_of_an_incident_that_ended_is_taken_over(store: SqlStore) -> None:
    """It should know the incident of an owner that is an instance, and audit the take-over for the new one."""
    store.open_incident(incident())
    assert store.take_slot("repairs", 2, "inc-living/voms") == ()
    assert store.take_slot("repairs", 2, f"{INCIDENT}/voms") == ()
    assert store.take_slot("repairs", 2, "inc-next/lxr") == ("inc-living/voms", f"{INCIDENT}/voms")
    store.set_state(INCIDENT, IncidentState.REFUSED)
    assert store.take_slot("repairs", 2, "inc-next/lxr") == ()
    assert store.slots("repairs") == {"repairs:1": "inc-living/voms", "repairs:2": "inc-next/lxr"}
    last = store.audit_rows()[-1]
    assert (last.incident, last.instance, last.phase) == ("inc-next", "lxr", "lease_taken_over")
    assert last.detail == {"lease": "repairs:2", "from": f"{INCIDENT}/voms", "its_state": "refused"}
    assert store.verify_audit().verified


# --- crash events and cursors ----------------------------------------------------------------------------------------


def test_a_crash_event_is_kept_once(store: SqlStore) -> None:
    """It should know the same death again, however often it is read, and count deaths by the log's time."""
    next_death = event(at=DIED_AT + timedelta(seconds=60))
    assert store.record_event(event(guest=None), "dbvrtg4037") is True
    assert store.record_event(event(), "dbvrtg4037") is False
    assert store.record_event(next_death, None) is True
    assert len(store.events(DIED_AT)) == 2
    assert len(store.events(DIED_AT + timedelta(seconds=1))) == 1
    assert store.events(DIED_AT) == (event(), replace(next_death, guest=None))


def test_events_and_cursor_move_together(store: SqlStore) -> None:
    """It should give back the new events only, and leave both as they were when one cannot be kept."""
    other = event(domain="2131_dbvrtg4038", guest=None)
    assert store.cursor("hv01:/var/log/xen/xend.log") is None
    assert store.record_events_and_cursor([event()], "hv01:x", {"offset": 10}) == (event(),)
    assert store.record_events_and_cursor([event(), other], "hv01:x", {"offset": 20}) == (other,)
    assert store.cursor("hv01:x") == {"offset": 20}
    third = event(domain="third")
    with pytest.raises(StatementError, match="not JSON serializable"):
        store.record_events_and_cursor([third], "hv01:x", {"offset": object()})
    assert store.cursor("hv01:x") == {"offset": 20}
    assert store.record_event(third, None) is True
    store.set_cursor("hv01:x", {"offset": 30, "name": "\udc80"})
    assert store.cursor("hv01:x") == {"offset": 30, "name": "\udc80"}


# --- secrets ---------------------------------------------------------------------------------------------------------


def test_no_secret_reaches_the_store(store: SqlStore) -> None:
    """It should put *** in place of passwords, tokens, keys and passwords in URLs, in details and results."""
    detail = {
        "login": {"user": "monitor", "password": "hunter2"},
        "tries": [{"api_token": "t0ken"}, "mysql://monitor:hunter2@db/x"],
        "key_file": "-----BEGIN hunter2",
        "password_set": True,
        "secret_key": None,
    }
    store.begin(INCIDENT, "voms", "confirm_access", actor=WHO, detail=detail)
    row = store.end(INCIDENT, "voms", "confirm_access", phase="done", actor=WHO, result=detail)
    everything = canonical_json([list(store.export()), row.result])
    assert "hunter2" not in everything
    assert "t0ken" not in everything
    assert row.result["login"] == {"user": "monitor", "password": "***"}
    assert row.result["tries"] == [{"api_token": "***"}, "mysql://monitor:***@db/x"]
    assert (row.result["password_set"], row.result["secret_key"]) == (True, None)
