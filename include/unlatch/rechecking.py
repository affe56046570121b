"""The Monday re-check: what repairs have left on volumes, what is stuck, and whether the audit holds. Touches nothing.

Whatever cannot be looked at is a finding of its own: silence is never taken for all well.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath

from unlatch.errors import UnlatchError
from unlatch.incident_pages import every_incident
from unlatch.late_writers import quarantine_of, quarantines
from unlatch.lifecycle import WORKING_STATES, IncidentState, stuck_for
from unlatch.models import Finding, Instance, LockKind, OurFile, Policy, Volume, VolumeKind
from unlatch.ports import Engine, HostAgent, IncidentRow, Store
from unlatch.purge_days import purge_day
from unlatch.working_days import WorkCalendar, in_words

_JOURNAL, _PREFIX = ".journal", ".unlatch-"
_LATELY = timedelta(hours=1)


@dataclass(frozen=True)
class RecheckPorts:
    """What a re-check may use; `agent` opens a session to an instance's guest."""

    store: Store
    agent: Callable[[Instance], AbstractContextManager[HostAgent]]
    engine: Callable[[Instance], Engine]


def touched_volumes(store: Store, instances: Iterable[Instance], since: datetime | None) -> tuple[str, ...]:
    """The volumes on which an incident worked since the last re-check, or has left something."""
    touched = set()
    for row in every_incident(store):
        if row.dry_run:
            continue
        for step in store.steps(row.incident):
            is_new = since is None or step.started_at > since
            if step.instance and (is_new or row.state is not IncidentState.CLOSED):
                touched.add(step.instance)
    return tuple(dict.fromkeys(i.volume for i in instances if i.name in touched))


def look_at_volume(volume: Volume, instances: Sequence[Instance], ports: RecheckPorts, now: datetime) -> list[Finding]:
    """Every instance on a volume: locks that no process of its guest has, and files that only Unlatch makes."""
    found: list[Finding] = []
    for instance in instances:
        try:
            with ports.agent(instance) as agent:
                found += _not_mounted(volume, instance, agent) or [
                    *_stale_locks(instance, agent, ports.engine(instance)),
                    *_leftovers(instance, agent, ports.store, now),
                ]
        except (UnlatchError, OSError) as error:
            words, command = (error.what, error.next_step) if isinstance(error, UnlatchError) else (str(error), "")
            found.append(Finding("not looked at", instance.name, words, command or "unlatch drill"))
    return found


def _not_mounted(volume: Volume, instance: Instance, agent: HostAgent) -> list[Finding]:
    if volume.kind is not VolumeKind.NFS:
        return []
    mounts = agent.facts([instance.datadir]).paths
    if mounts and mounts[0].nfs_version is not None:
        return []
    where = f"{instance.datadir} on {instance.guest} is not on a mounted NFS volume"
    return [Finding("not mounted", instance.name, where, f"mount {volume.path}    # on {instance.guest}")]


def _stale_locks(instance: Instance, agent: HostAgent, engine: Engine) -> Iterator[Finding]:
    """What the next start of the database would trip over."""
    files = agent.check_locks(instance, engine.lock_paths(instance), ())
    locked = [str(file.path) for file in files if file.lock.kind is LockKind.REMOTE]
    if locked:
        words = f"locked by no process of {instance.guest}: {', '.join(locked)}"
        yield Finding("stale lock", instance.name, words, _dry_run_of(instance))


def _dry_run_of(instance: Instance) -> str:
    conf = f'{{"guest": "{instance.guest}", "instances": ["{instance.name}"], "dry_run": true, "reason": "re-check"}}'
    return f"airflow dags trigger remediate_guest --conf '{conf}'"


def _leftovers(instance: Instance, agent: HostAgent, store: Store, now: datetime) -> Iterator[Finding]:
    """Files of Unlatch that no open incident accounts for."""
    ours = agent.our_files(instance, [instance.datadir])
    owners = {row.incident: row for row in every_incident(store) if not row.dry_run}
    journals = [f for f in ours if f.kind == "journal"]
    beside: dict[PurePosixPath, list[IncidentRow | None]] = {}
    for journal in journals:
        beside.setdefault(journal.path.parent, []).append(owners.get(_incident_of(journal.path)))
    for journal in journals:
        name = _incident_of(journal.path)
        row = owners.get(name)
        if row is None or row.state is IncidentState.CLOSED:
            whose = f"the incident {name}, which is closed" if row else f"{name}, an incident that nobody knows"
            command = shlex.join(
                ["python3", "unlatch-agent.pyz", "status", "--incident", name, str(journal.path.parent)]
            )
            yield Finding("leftover", instance.name, f"{_aged(journal, now)}: of {whose}", command)
    expected = {path for row in owners.values() for path in _expected(store, row, instance)}
    for file in ours:
        if file.kind == "journal" or file.path in expected:
            continue
        rows = beside.get(file.path.parent, [])
        if any(row is not None and row.state in WORKING_STATES for row in rows):
            continue  # a repair is at work there
        if rows and None not in rows and any(row and row.state is not IncidentState.CLOSED for row in rows):
            continue  # a copy that was never swapped: its incident's purge takes it
        words = f"{_aged(file, now)}: no open incident accounts for it"
        listing = shlex.join(["ls", "-li", str(file.path)])
        command = f"{listing}    # on {instance.guest}; compare with {instance.datadir}, then decide"
        yield Finding("leftover", instance.name, words, command)


def _expected(store: Store, row: IncidentRow, instance: Instance) -> tuple[PurePosixPath, ...]:
    closed = row.state is IncidentState.CLOSED
    return () if closed else quarantine_of(store, row.incident, instance.name)


def _incident_of(journal: PurePosixPath) -> str:
    return journal.name.removeprefix(_PREFIX).removesuffix(_JOURNAL)


def _aged(file: OurFile, now: datetime) -> str:
    age = now - datetime.fromtimestamp(file.mtime_ns / 1e9, UTC)
    old = f"{age.days} days" if age.days else f"{age.total_seconds() / 3600:.0f} hours" if age > _LATELY else "new"
    locked = ", locked" if file.lock is not LockKind.NONE else ""
    return f"{file.path} ({old}{locked})"


def stuck_incidents(store: Store, calendar: WorkCalendar, policy: Policy, now: datetime) -> list[Finding]:
    """Incidents that are in a state for longer than they may, and purges that are overdue."""
    found = []
    for row in every_incident(store):
        if row.dry_run or row.state is IncidentState.CLOSED:
            continue
        is_waiting = row.state is IncidentState.AWAITING_PURGE
        day = purge_day(store, row.incident, calendar) if is_waiting else None
        since = day or store.state_since(row.incident) or row.opened_at
        if stuck_for(row.state, since, now, policy.stuck_after_s) is None:
            continue
        when = in_words(since, calendar.timezone)
        if day is not None:
            words = f"what it has left was to be deleted on {when}"
            found.append(Finding("overdue purge", row.incident, words, f"unlatch clean-up {row.incident} --dry-run"))
        else:
            found.append(Finding("stuck", row.incident, f"{row.state} since {when}", _way_on(row)))
    return found


def unwatched(store: Store, instances: Iterable[Instance]) -> list[Finding]:
    """Originals of instances that have left the inventory or their guest since: nobody can look at them any more."""
    guests = {instance.name: instance.guest for instance in instances}
    return [
        Finding(
            "not watched",
            name,
            f"{incident} keeps originals of it on {row.guest}, where the inventory does not have it any more",
            f"unlatch show {incident}    # then restore its entry, or: unlatch close {incident} --reason …",
        )
        for incident, name in quarantines(store)
        if (row := store.incident(incident)) is not None and guests.get(name) != row.guest
    ]


def _way_on(row: IncidentRow) -> str:
    show = f"unlatch show {row.incident}"
    if row.state is IncidentState.WAITING_FOR_PERSON:
        return f"{show}    # then answer the question in Airflow (Required Actions)"
    if row.state in {IncidentState.REFUSED, IncidentState.FAILED, IncidentState.REOPENED}:
        return f"{show}    # then clear its failed task, or: unlatch close {row.incident} --reason …"
    return f"{show}    # then look at its run in Airflow"
