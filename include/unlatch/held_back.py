"""Why a repair waits for a person although nobody doubts the death: what the store knows, held against the limits."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta

from unlatch import limits, service_hours
from unlatch.deaths import deaths_of
from unlatch.incident_pages import every_incident
from unlatch.ports import Ports, StepRow, Store
from unlatch.recording import Case
from unlatch.together import group_of


def held_back(case: Case, ports: Ports) -> str | None:
    """Every reason in words, or None. Reads only; the answer is of this moment."""
    now = ports.clock.now()
    reasons = limits.holds(
        ports.policy,
        guest=case.guest,
        volume=case.volume,
        deaths_in_window=_deaths_in_window(ports, now),
        together=_together(case, ports.store),
        repairs_before=repairs_before(case, ports.store, now=now),
        now=now,
    )
    return "; ".join(filter(None, [reasons, service_hours.hold(ports.policy, now=now)])) or None


def storm(case: Case, ports: Ports) -> str | None:
    """The storm that there is at this moment, in words, or None: it may have come up since the plan was made."""
    return limits.storm_hold(_deaths_in_window(ports, ports.clock.now()), ports.policy, _together(case, ports.store))


def _deaths_in_window(ports: Ports, now: datetime) -> int:
    window = timedelta(seconds=ports.policy.storm.window_s)
    return len(deaths_of(ports.store.events(now - window)))


def _together(case: Case, store: Store) -> str | None:
    """Who died with it on the same hypervisor: then one person may decide for all of them."""
    group = group_of(case.event, case.guest.name, store)
    if group is None:
        return None
    return f"{len(group.deaths)} of them on {group.hypervisor}, one soon after the other (group {group.name})"


def repairs_before(case: Case, store: Store, *, now: datetime) -> int:
    """How many other incidents of the guest acted on it within `limits.GUEST_DAY`."""
    mine = [
        row
        for row in itertools.takewhile(lambda row: row.opened_at >= now - limits.GUEST_DAY, every_incident(store))
        if row.guest == case.guest.name and row.incident != case.incident and not row.dry_run
    ]
    return sum(any(map(_acted, store.steps(row.incident))) for row in mine)


def _acted(row: StepRow) -> bool:
    """Whether a step touched the guest: it held a service, changed files, or started a server.

    A run that found its databases up, and one that was refused before it began, is no repair.
    """
    result = row.result
    return bool(result.get("held") or result.get("files") or result.get("set_aside") or result.get("started")) and (
        row.step in {"hold_service", "clear_locks", "recreate_files", "restart_database"}
    )
