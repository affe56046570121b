"""Incidents that belong together: guests of one hypervisor that died one soon after the other.

Each keeps its own run, evidence, questions and ticket, since each guest may live on in its own way. What they share is
told in all of their tickets: the group's id, and where the others are. Nothing of a group is kept: it follows from the
crash events alone, so it is the same whoever asks, and grows while more deaths are told.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from unlatch.deaths import Death, Group, deaths_of, groups_of
from unlatch.models import CrashEvent, incident_id
from unlatch.ports import IncidentRow, Store
from unlatch.recording import RecordingPorts, Subject, fingerprint, tell

LOOK_BACK = timedelta(hours=1)
"""How long before a death the group that it belongs to may have begun."""


def group_of(event: CrashEvent | None, guest: str, store: Store) -> Group | None:
    """The group that a guest's death belongs to; None while it is the only one."""
    if event is None:
        return None
    for group in groups_of(deaths_of(store.events(event.at - LOOK_BACK))):
        for death in group.deaths:
            if death.subject == guest and event.at in {told.at for told in death.events}:
                return group
    return None


def tell_of_group(case: Subject, guest: str, event: CrashEvent | None, ports: RecordingPorts) -> None:
    """Name the others of the group in this incident's ticket; once for each state of the group, and nothing if none."""
    group = group_of(event, guest, ports.store)
    if group is None:
        return
    words = group_words(group, ports.store)
    tell(case, ports, f"group/{group.name}/{fingerprint(words)}", words)


def group_words(group: Group, store: Store) -> str:
    """The comment: who died with it, when, and under which incident and ticket."""
    first, last = group.deaths[0].leading.at, group.deaths[-1].leading.at
    rows = [(death, _row_of(death, store)) for death in group.deaths]
    table = "\n".join(
        f"| {death.subject} | {_clock(death.leading.at)} | {row.incident if row else 'not opened yet'} "
        f"| {row.ticket or '' if row else ''} |"
        for death, row in rows
    )
    leader = next((row for _, row in rows if row is not None and row.ticket), None)
    leads = f"\n\nThe ticket of the group is that of its first incident: {leader.ticket}." if leader else ""
    return (
        f"**{len({death.subject for death in group.deaths})} guests of {group.hypervisor} died within "
        f"{(last - first).total_seconds():.0f} s** (group {group.name}): the hypervisor itself may have failed. See "
        f"whether it is well before you let repairs go on.\n\n"
        f"| guest | died (UTC) | incident | ticket |\n|---|---|---|---|\n{table}{leads}"
    )


def _row_of(death: Death, store: Store) -> IncidentRow | None:
    return next(_rows_of(death, store), None)


def _rows_of(death: Death, store: Store) -> Iterator[IncidentRow]:
    for event in (death.leading, *death.events):
        row = store.incident(incident_id(event.at, death.subject))
        if row is not None:
            yield row


def _clock(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"
