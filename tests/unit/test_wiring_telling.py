"""Telling as the scheduled task does it: settings, inventory, store and file tickets, with nothing faked."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from lab.inventory import inventory
from unlatch import assembly, wiring_telling
from unlatch.deliveries import add_comment, open_ticket
from unlatch.lifecycle import IncidentState
from unlatch.models import Drill, DrillCheck, GuestDrill, Report
from unlatch.ports import IncidentRow
from unlatch.store.sql_store import SqlStore

INCIDENT = "inc-20260307-055452-dbvrtg4037"
_S = IncidentState
TO_CLOSED = (_S.REPAIRING, _S.ACCESSIBLE, _S.CONFIRMED, _S.CLOSED)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SqlStore:
    """The store of a site whose tickets are files and whose log is told everything."""
    file = tmp_path / "inventory.yaml"
    file.write_text(yaml.safe_dump({**inventory({}), "notify": {"dbas": {"by": "log"}}}))
    for name, value in {
        "UNLATCH_INVENTORY": str(file),
        "UNLATCH_STORE_URL": f"sqlite:///{tmp_path}/unlatch.db",
        "UNLATCH_TICKETS": str(tmp_path / "tickets"),
    }.items():
        monkeypatch.setenv(name, value)
    return assembly.store()


@pytest.fixture
def opened(store: SqlStore) -> SqlStore:
    """An incident that was opened after the first look at the audit."""
    wiring_telling.deliver_messages(actor="t")
    now = datetime.now(UTC)
    row = IncidentRow(
        INCIDENT,
        "dbvrtg4037",
        _S.DETECTED,
        now,
        now,
        dry_run=False,
        reason="xend says so",
        ticket=None,
        event=None,
    )
    store.open_incident(row)
    ports = wiring_telling.Telling(store, assembly.ticketing(), "eva")
    open_ticket(INCIDENT, ports, title="t", body="b", reference=None)
    add_comment(INCIDENT, "voms", ports, "verdict", "dead")
    return store


def attached(tmp_path: Path) -> list[str]:
    return sorted(file.name for file in (tmp_path / f"tickets/{INCIDENT}.files").glob("*"))


def test_what_happened_is_told_once(opened: SqlStore, caplog: pytest.LogCaptureFixture) -> None:
    """It should tell the crash to whom the inventory names, in the next run and no other."""
    with caplog.at_level(logging.WARNING):
        assert wiring_telling.deliver_messages(actor="t")["told"] == 1
        assert "dbvrtg4037 crashed: its databases are down" in caplog.text
        caplog.clear()
        assert wiring_telling.deliver_messages(actor="t")["told"] == 0
    assert [row.kind for row in opened.deliveries()] == ["alert"], "the deadline waits for its moment"


def test_the_postmortem_of_a_closed_incident(opened: SqlStore, tmp_path: Path) -> None:
    """It should be attached, in both formats, once, by the run that follows the closing."""
    wiring_telling.attach_postmortem(INCIDENT, actor="eva")
    for state in TO_CLOSED:
        opened.set_state(INCIDENT, state)
    for _ in range(2):
        wiring_telling.deliver_messages(actor="t")
    assert attached(tmp_path) == [
        f"postmortem-{INCIDENT}{ending}.{kind}" for ending in ("-closed", "") for kind in ("html", "pdf")
    ]
    ticket = (tmp_path / f"tickets/{INCIDENT}.md").read_text()
    assert ticket.count("Attached: ") == 4


def test_a_report_that_cannot_be_written_ends_nothing(opened: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It should not raise: a repair does not fail for its report, and people are told all the same."""

    def stumble(*_: object) -> bytes:
        raise KeyError("a row of another version")

    monkeypatch.setattr(wiring_telling, "postmortem", stumble)
    wiring_telling.attach_postmortem(INCIDENT, actor="eva")
    monkeypatch.setattr(wiring_telling, "notice_policy", stumble)
    wiring_telling.tell_people(actor="eva")
    assert opened.cursor(f"postmortem:{INCIDENT}") is None


def test_what_the_drill_misses_is_to_be_followed_up(opened: SqlStore) -> None:
    """It should tell in the report what a later repair would lack too, with what grants it."""
    lacks = DrillCheck("notify", ok=False, why="no sudo", grant="dbod ALL=(root) NOPASSWD: unlatch-notify")
    drilled = Drill(datetime.now(UTC), (GuestDrill("dbvrtg4037", reached=True, checks=(lacks,), instances=()),))
    content = {"drill": drilled.as_dict()}
    opened.keep_report(Report("drill-1", "drill", "dbvrtg4037", drilled.at, "1 missing", content))
    text = wiring_telling.postmortem(INCIDENT, "md").decode()
    assert "misses notify: no sudo: dbod ALL=(root) NOPASSWD: unlatch-notify" in text
