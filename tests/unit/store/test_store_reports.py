"""Reports are kept once, newest first; and the audit knows since when an incident is in its state."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.unit.store.samples import incident
from unlatch.lifecycle import IncidentState
from unlatch.models import Report
from unlatch.store.sql_store import SqlStore

AT = datetime(2026, 3, 9, 8, 0, tzinfo=UTC)


def test_reports(store: SqlStore) -> None:
    """It should keep each once, tell the newest first, by kind and subject, and audit that there is one."""
    made = [
        Report(f"drill-{n}", "drill", guest, AT + timedelta(days=n), f"title {n}", {"had": [["a", None]]})
        for n, guest in enumerate(("one", "two", "one"))
    ]
    assert [store.keep_report(report) for report in made] == [True, True, True]
    assert not store.keep_report(made[0])
    assert store.reports("drill") == (made[2], made[1], made[0])
    assert store.reports("drill", "one") == (made[2], made[0])
    assert store.reports("drill", "one", 1) == (made[2],)
    assert store.reports("recheck") == ()
    assert store.report("drill-1") == made[1]
    assert store.report("drill-9") is None
    assert [row.phase for row in store.audit_rows()] == ["report"] * 3


def test_since_when_in_a_state(store: SqlStore) -> None:
    """It should be the moment of the last change, and of the opening before there was one."""
    row = store.open_incident(incident())
    opened = store.state_since(row.incident)
    assert opened is not None
    store.begin(row.incident, "", "detect_crash", actor="eva", detail={})
    store.set_state(row.incident, IncidentState.REPAIRING)
    changed = store.state_since(row.incident)
    assert changed is not None
    assert changed > opened
    store.set_state(row.incident, IncidentState.REPAIRING)
    store.set_ticket(row.incident, "T-1")
    assert store.state_since(row.incident) == changed
    assert store.state_since("inc-unknown") is None
