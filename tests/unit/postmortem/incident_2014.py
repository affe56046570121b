"""The incident of 18 October 2014 as an audit: its public report's events, at their times, in a real store."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from unlatch.lifecycle import IncidentState
from unlatch.models import Certainty, CrashEvent
from unlatch.ports import IncidentRow
from unlatch.store.sql_store import SqlStore

GENEVA = ZoneInfo("Europe/Zurich")
INCIDENT = "inc-20141018-035452-dbvrtg4037"
INSTANCES = ["VOMS", "lxr", "alvmysql"]
_LOG = """\
[2014-10-18 05:54:52 4572] WARNING (image:490) domain 2130_dbvrtg4037: device model failure: pid 1619: died due to \
signal 11; see /var/log/xen/qemu-dm-2130_dbvrtg4037.log
[2014-10-18 05:54:53 4572] WARNING (XendDomainInfo:1907) Domain has crashed: name=2130_dbvrtg4037 id=2."""
LOG = tuple(_LOG.splitlines())


def at(clock: str, day: int = 18) -> datetime:
    hour, minute, *second = map(int, clock.split(":"))
    return datetime(2014, 10, day, hour, minute, *(second or [0]), tzinfo=GENEVA)


DIED_AT = at("5:54:52")
EVENT = CrashEvent(
    "2130_dbvrtg4037", "hv01", DIED_AT, "device model killed by SIGSEGV", LOG, Certainty.CERTAIN, guest="dbvrtg4037",
    signal=11, restarted_at=at("5:54:58"),
)  # fmt: skip


class SetClock:
    """Says what it was set to."""

    moment = DIED_AT

    def now(self) -> datetime:
        return self.moment

    def pause(self, _seconds: float) -> None:
        raise AssertionError("nobody waits in a record of the past")


def recorded(file: Path) -> SqlStore:
    """What the audit would hold, had there been one."""
    clock = SetClock()
    store = SqlStore(f"sqlite:///{file}", clock=clock)
    store.migrate()

    def step(clock_: str, name: str, actor: str, phase: str = "done", *, of: list[str], **result: Any) -> None:
        clock.moment = at(clock_)
        for instance in of:
            store.end(INCIDENT, instance, name, phase=phase, actor=actor, result=result)

    def begin(clock_: str, name: str, actor: str, *, of: list[str]) -> None:
        clock.moment = at(clock_)
        for instance in of:
            store.begin(INCIDENT, instance, name, actor=actor, detail={"objective_s": 900})

    def note(words: str, clock_: str, day: int = 18, kind: str = "event") -> None:
        clock.moment = at(clock_, day)
        store.note(
            INCIDENT, "", "note", "noted", actor="eva", detail={"words": words, "kind": kind, "at": at(clock_, day)}
        )

    clock.moment = at("10:47")
    reason = (
        "DBoD team is notified that there is a problem with the database (SNOW ticket). DBoD service is only covered "
        "during working hours"
    )
    store.open_incident(
        IncidentRow(
            INCIDENT, "dbvrtg4037", IncidentState.DETECTED, at("10:47"), DIED_AT, False, reason, None, EVENT
        )
    )  # fmt: skip
    begin("10:47", "detect_crash", "the users", of=[""])
    step("10:47", "detect_crash", "the users", of=[""], instances=INSTANCES)
    store.set_state(INCIDENT, IncidentState.REPAIRING)
    store.set_state(INCIDENT, IncidentState.WAITING_FOR_PERSON)
    begin("17:30", "approve", "Ignacio", of=INSTANCES)
    note("Ignacio from the DBoD team starts investigating the problem and how could be resolved.", "17:30")
    store.set_state(INCIDENT, IncidentState.REPAIRING)
    step("17:30", "approve", "Ignacio", of=INSTANCES)
    begin("17:30", "clear_locks", "Ignacio", of=INSTANCES)
    clock.moment = at("19:00")
    tried = {
        "remedy": "clear", "outcome": "no_privilege", "words": "the standard workaround did not work",
        "grant": "the privileges for the procedures that remove locks",
    }  # fmt: skip
    store.note(INCIDENT, "VOMS", "clear_locks", "tried", actor="Ignacio", detail=tried)
    step("19:00", "clear_locks", "Ignacio", of=INSTANCES, tried=[tried])
    files = [
        {"path": "/ORA/dbs03/VOMS/ibdata1", "inode_before": 1, "inode_after": 2, "content_equal": True,
         "quarantine": "/ORA/dbs03/VOMS/ibdata1.locked"}
    ]  # fmt: skip
    begin("19:00", "recreate_files", "Ignacio", of=["VOMS"])
    step("19:00", "recreate_files", "Ignacio", of=["VOMS"], files=files)
    begin("19:00", "restart_database", "Eva", of=["VOMS"])
    step("19:06", "restart_database", "Eva", of=["VOMS"], started=True)
    note("Eva updates the GGUS ticket asking someone to check if the database is now accessible.", "19:12")
    begin("19:12", "confirm_access", "the users", of=INSTANCES)
    step("19:25", "confirm_access", "the users", of=INSTANCES, access="ok")
    note("GGUS ticket is updated, everything is fine on the server side.", "20:36")
    note("CERN VOMS server not providing proxy anymore due to the database unavailability", "20:36", kind="impact")
    note("DBoD operations instructions updated with the procedure to fix files locks.", "20:36", kind="follow-up")
    for state in (IncidentState.ACCESSIBLE, IncidentState.CONFIRMED, IncidentState.AWAITING_PURGE):
        store.set_state(INCIDENT, state)
    clock.moment = at("9:00", 20)
    store.begin(INCIDENT, "", "clean_up", actor="Ignacio", detail={})
    words = "Re-check of lock status on all the affected NAS volumes, and cleaning of the temporal files"
    store.end(INCIDENT, "", "clean_up", phase="done", actor="Ignacio", result={"words": words})
    store.set_state(INCIDENT, IncidentState.CLOSED)
    return store
