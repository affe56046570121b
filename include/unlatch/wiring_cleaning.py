"""The clean-up with real machines: what `clean_up`, `watch_quarantine` and `unlatch clean-up` call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from unlatch import cleaning, closing
from unlatch.assembly import SystemClock, incident_ports, load_inventory, store
from unlatch.cleaning import Leftovers
from unlatch.closing import Ending
from unlatch.errors import ConfigError, RefusedError
from unlatch.models import Json, VolumeKind
from unlatch.purge_days import due_incidents, purge_day, run_of
from unlatch.settings import settings
from unlatch.site_calendar import calendar_of
from unlatch.wiring import case_of, incident_of


def calendar_now() -> datetime:
    """The present moment by which working days are counted. A lab may set its calendar ahead of its clock.

    Raises:
        ConfigError: a calendar is set ahead where a volume is not a lab's.
    """
    now, ahead = SystemClock().now(), settings().calendar_file
    if ahead is None:
        return now
    if any(volume.kind is not VolumeKind.LAB for volume in load_inventory().volumes.values()):
        raise ConfigError(
            "UNLATCH_CALENDAR_FILE is set, and the inventory has volumes that are no lab's.",
            next_step="take it out of the environment: it would delete originals before their day.",
        )
    return now + timedelta(seconds=float(ahead.read_text() or 0)) if ahead.exists() else now


def due_clean_ups() -> list[Json]:
    """One run of `clean_up` per incident whose purge is due, as arguments of TriggerDagRunOperator."""
    due = due_incidents(store(), calendar_of(load_inventory().site), calendar_now())
    return [{"trigger_run_id": run_of(store(), incident, day), "conf": {"incident": incident}} for incident, day in due]


def clean_up_lanes(conf: Mapping[str, Any]) -> list[Json]:
    """The instances that a run is about: `{"incident", "instance", "dry_run"}` each.

    Raises:
        RefusedError: there is no such incident, or it has no such instance.
    """
    whole = incident_of(conf["incident"])
    wanted = list(conf.get("instances") or whole.instances)
    unknown = sorted(set(wanted) - set(whole.instances))
    if unknown:
        raise RefusedError(
            f"{whole.incident} has no instance {', '.join(unknown)}; it has: {', '.join(whole.instances)}.",
            next_step="start a new run with the right names, or with none for all.",
        )
    dry_run = bool(conf.get("dry_run"))
    return [{"incident": whole.incident, "instance": name, "dry_run": dry_run} for name in wanted]


def nothing_found() -> RefusedError:
    """The error of a step whose run found nothing to work on."""
    return RefusedError(
        "This run has no instances.", next_step="see the log of find_leftovers, correct that, clear it."
    )


def clean_up(incident: str, instance: str, *, dry_run: bool, actor: str) -> Json:
    """Delete what the incident's repair has left of one instance, or tell what would be deleted."""
    site = load_inventory().site
    with case_of(incident, instance, actor) as (case, ports):
        values = {**vars(case), "dry_run": case.dry_run or dry_run}
        day = purge_day(store(), incident, calendar_of(site), instance)
        subject = Leftovers(**values, day=day, now=calendar_now(), timezone=site.timezone)
        return cleaning.plan_clean_up(subject, ports) if dry_run else cleaning.clean_up(subject, ports)


def close_incident(incident: str, instances: Sequence[str], *, dry_run: bool, actor: str) -> Json:
    """Close an incident when all of it is cleaned up."""
    whole = incident_of(incident)
    if dry_run:
        return {"would": "close the incident and its ticket"}
    with incident_ports(actor) as ports:
        return closing.close_incident(Ending(**vars(whole), asked=tuple(instances)), ports)


def close_by_hand(incident: str, *, reason: str, actor: str) -> Json:
    """Close an incident that only a person can end."""
    with incident_ports(actor) as ports:
        return closing.close_by_hand(incident_of(incident), ports, reason=reason)
