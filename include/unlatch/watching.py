"""From hypervisor logs to requests for repair: every crash once, none lost.

What was read is kept before the position moves, in one transaction. What must be repaired is then found in the store,
not in what was just read: so a watch that was killed between reading and starting a run starts it next time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from unlatch.alerting import LoggedAlerts
from unlatch.crash_events import DeathFolder, LineSource
from unlatch.deaths import Death, deaths_of, is_unnamed
from unlatch.errors import TransientError, UnlatchError
from unlatch.flapping import openable
from unlatch.lifecycle import WORKING_STATES
from unlatch.models import (
    Certainty,
    CrashEvent,
    DomainFact,
    Hypervisor,
    HypervisorLog,
    Json,
    Policy,
    Sight,
    SourceState,
    incident_id,
)
from unlatch.ports import Alerts, Clock, InventoryView, LogReader, Store
from unlatch.source_health import source_name

OFFER_AGAIN_AFTER = timedelta(seconds=20)
"""A request whose run has not opened its incident by then is made again, later and later; Airflow skips a run that is
there already. Requests do get lost: a worker can die, or be taken for dead, after it has read and before it told."""

LONGEST_WAIT_S = 600.0
"""How long the watch waits for the bell before it looks in any case."""

TELL_FOR = timedelta(days=1)
"""How old a death may be to get a run: one that is too old to be repaired is refused there, and a person is told."""

NAME_WITHIN = timedelta(seconds=30)
"""How long a death without a name waits for another log to name it; it only tells a person, so it may."""

AT_ONE_LOOK = 32
"""Hypervisors whose positions are moved when nothing has happened: those that were read longest ago."""

_OFFERS = "offers"

_READS_AT_ONCE = 1000
"""Reads of one log in one look: each carries a few MB, so a log that grows faster than it is read ends the look too."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WatchPorts:
    """What the watch needs; `at_once` hypervisors are read at the same time."""

    inventory: InventoryView
    sources: Mapping[str, LineSource]
    reader: LogReader
    store: Store
    clock: Clock
    at_once: int = 1
    policy: Policy = field(default_factory=Policy)
    alerts: Alerts = field(default_factory=LoggedAlerts)


@dataclass(frozen=True)
class Wanted:
    """A repair that should run, with the incident's id as its run id."""

    incident: str
    guest: str
    crashed_at: datetime
    reason: str


# --- reading ---------------------------------------------------------------------------------------------------------


def cursor_name(hypervisor: Hypervisor, log: HypervisorLog) -> str:
    """Under which the position in a log is kept: one per format, since each remembers other things."""
    return f"log:{source_name(hypervisor.name, log)}"


def position_of(store: Store, hypervisor: Hypervisor, log: HypervisorLog) -> Json:
    """What was kept after the last reading of a log: `log`, `deaths` and `parser`; nothing of it before the first."""
    kept = store.cursor(cursor_name(hypervisor, log))
    return (
        kept or store.cursor(f"log:{hypervisor.name}:{log.where}") or {}
    )  # as it was called when a file had one format


def read_logs(ports: WatchPorts, names: Collection[str] | None = None) -> dict[str, Sight]:
    """Read everything new of the logs of these hypervisors (None: of all), and keep the deaths that they tell.

    A log that cannot be read is logged and tried again at the next look; it never stops the others.

    Returns:
        By the log's name, how reading it went.
    """
    chosen = [h for h in ports.inventory.hypervisors.values() if names is None or h.name in names]
    if ports.at_once == 1 or len(chosen) <= 1:
        seen = [_read_hypervisor(hypervisor, ports) for hypervisor in chosen]
    else:
        with ThreadPoolExecutor(ports.at_once, thread_name_prefix="unlatch-read") as pool:
            seen = list(pool.map(lambda hypervisor: _read_hypervisor(hypervisor, ports), chosen))
    return {source: sight for found in seen for source, sight in found.items()}


def longest_unread(ports: WatchPorts) -> list[str]:
    """The hypervisors whose logs were read longest ago, at most `AT_ONE_LOOK`; without those that are out of reach."""
    away = {s.hypervisor for s in ports.store.sources() if s.state in {SourceState.UNREACHABLE, SourceState.WRONG}}
    read_at = {
        h.name: min(str((position_of(ports.store, h, log).get("log") or {}).get("read_at") or "") for log in h.logs)
        for h in ports.inventory.hypervisors.values()
        if h.name not in away
    }
    return sorted(read_at, key=lambda name: (read_at[name], name))[:AT_ONE_LOOK]


def never_read(ports: WatchPorts) -> list[str]:
    """The hypervisors with a log whose present end nobody has noted yet; without those that are out of reach."""
    away = {s.hypervisor for s in ports.store.sources() if s.state is not SourceState.OK}
    return [
        h.name
        for h in ports.inventory.hypervisors.values()
        if h.name not in away and any(not position_of(ports.store, h, log).get("log") for log in h.logs)
    ]


def _read_hypervisor(hypervisor: Hypervisor, ports: WatchPorts) -> dict[str, Sight]:
    seen: dict[str, Sight] = {}
    for log in hypervisor.logs:
        try:
            sight = _read_log(hypervisor, log, ports)
        except UnlatchError as error:
            _log.warning("%s: %s is not read: %s", hypervisor.name, log.where, error)
            is_away = isinstance(error, TransientError)
            sight = Sight(SourceState.UNREACHABLE if is_away else SourceState.WRONG, str(error))
        if sight is not None:
            seen[source_name(hypervisor.name, log)] = sight
    return seen


def _read_log(hypervisor: Hypervisor, log: HypervisorLog, ports: WatchPorts) -> Sight | None:
    name, line_at = cursor_name(hypervisor, log), None
    for _ in range(_READS_AT_ONCE):
        kept = position_of(ports.store, hypervisor, log)
        lines, position = ports.reader.read_new(hypervisor, log, kept.get("log"))
        folder = DeathFolder(hypervisor.name, kept.get("deaths"))
        read_before = (kept.get("log") or {}).get("read_at")
        written_after = datetime.fromisoformat(read_before) if read_before else None
        source = ports.sources[log.format]
        parse = source.line_parser(log.timezone, written_after, path=str(log.path or ""), state=kept.get("parser"))
        everywhere = bool(getattr(source, "tells_of_other_hosts", False))
        certain = [
            replace(_named(event, ports.inventory, everywhere=everywhere), source=f"{log.format}:{log.where}")
            for event in _certain(lines, parse, folder)
        ]
        value: Json = {"log": position, "deaths": folder.state(), "parser": parse.state()}
        if value != kept:
            ports.store.record_events_and_cursor(certain, name, value)
        if not lines:
            break
        line_at = ports.clock.now()
    if position.get("missing"):
        return None  # for a moment, or for good: whoever follows it tells
    return Sight(SourceState.OK, reached_at=ports.clock.now(), line_at=line_at)


def _certain(lines: list[str], parse: Callable[[str], tuple[DomainFact, ...]], folder: DeathFolder) -> list[CrashEvent]:
    """The certain deaths that the lines tell, each as it is known after the last of them."""
    told = {event.dedup_key: event for line in lines for fact in parse(line) for event in folder.feed(fact)}
    return [event for event in told.values() if event.certainty is Certainty.CERTAIN]


def _named(event: CrashEvent, inventory: InventoryView, *, everywhere: bool) -> CrashEvent:
    """With its guest; the log of a cluster tells of guests that are not on the host that wrote it."""
    guest = inventory.guest_of(event.domain, event.hypervisor)
    if guest is None and everywhere:
        guest = inventory.guest_of(event.domain)
    return replace(event, guest=guest.name if guest else None)


# --- what is wanted --------------------------------------------------------------------------------------------------


def longest_wait_s(ports: WatchPorts, silent_at: Iterable[datetime] = ()) -> float:
    """How long the watch may wait for the bell.

    Until the first request without an incident is due again, the first death must go without a name, or the first log
    has been silent for too long. Many hypervisors are looked at in turns, each once in `LONGEST_WAIT_S`.
    """
    offered: Json = ports.store.cursor(_OFFERS) or {}
    now = ports.clock.now()
    unopened = _unopened(ports.store, now)
    due = [_due(offered[wanted.incident]) for wanted, _ in unopened if wanted.incident in offered]
    due += [death.leading.at + NAME_WITHIN for wanted, death in unopened if not _is_ripe(death, now)]
    turns = max(1.0, len(ports.inventory.hypervisors) / AT_ONE_LOOK)
    return min(
        [max(30.0, LONGEST_WAIT_S / turns), *(max(1.0, (at - now).total_seconds()) for at in (*due, *silent_at))]
    )


def wanted_now(ports: WatchPorts) -> list[Wanted]:
    """The repairs that should start now, oldest first; they are noted as asked for."""
    now = ports.clock.now()
    offered: Json = ports.store.cursor(_OFFERS) or {}
    unopened = _unopened(ports.store, now)
    allowed = openable([wanted for wanted, _ in unopened], ports.store, ports.policy, ports.alerts, now=now)
    wanted = [
        wanted
        for wanted, death in unopened
        if wanted.incident in allowed
        and _is_ripe(death, now)
        and (wanted.incident not in offered or now > _due(offered[wanted.incident]))
    ]
    if wanted:
        recent = {k: v for k, v in offered.items() if now - datetime.fromisoformat(v["last"]) < TELL_FOR}
        said = now.isoformat()
        new = {w.incident: {"first": recent.get(w.incident, {}).get("first", said), "last": said} for w in wanted}
        ports.store.set_cursor(_OFFERS, {**recent, **new})
    return wanted


def read_new_crashes(ports: WatchPorts, names: Collection[str] | None = None) -> list[Wanted]:
    """Read everything new of these hypervisors (None: of all); the repairs that should start now, oldest first."""
    read_logs(ports, names)
    return wanted_now(ports)


def _due(offer: Json) -> datetime:
    first, last = datetime.fromisoformat(offer["first"]), datetime.fromisoformat(offer["last"])
    return last + max(OFFER_AGAIN_AFTER, last - first)


def _is_ripe(death: Death, now: datetime) -> bool:
    return not is_unnamed(death.leading) or not timedelta(0) <= now - death.leading.at < NAME_WITHIN


def _unopened(store: Store, now: datetime) -> list[tuple[Wanted, Death]]:
    """The recent deaths without an incident, and the request for each; incidents learn what has become known since."""
    rows = store.incidents(200)
    offered: Json = store.cursor(_OFFERS) or {}
    open_still = {r.incident: (r.guest, r.event) for r in rows if r.state in WORKING_STATES and r.event is not None}
    found: list[tuple[Wanted, Death]] = []
    for death in deaths_of(store.events(now - TELL_FOR)):
        names: dict[str, CrashEvent] = {}
        # An earlier word of it may come later than the incident was opened, or asked for: that one it is then.
        for event in (death.leading, *death.events):
            names.setdefault(incident_id(event.at, death.subject), event)
        row = next((row for name in names if (row := store.incident(name)) is not None), None)
        if row is not None:
            told = death.told_by(names[row.incident])
            if row.event != told:
                store.update_event(row.incident, told)
                open_still.update({row.incident: (row.guest, told)} if row.incident in open_still else {})
            continue
        event = death.told_by(death.leading)
        others = [*((w.guest, other.told_by(other.leading)) for w, other in found), *open_still.values()]
        if any(guest == death.subject and _without_restart(event, other) for guest, other in others):
            continue
        incident = next((name for name in names if name in offered), incident_id(event.at, death.subject))
        reason = f"{event.domain} on {event.hypervisor}: {event.cause}"
        found.append((Wanted(incident, death.subject, names[incident].at, reason), death))
    return found


def _without_restart(event: CrashEvent, other: CrashEvent) -> bool:
    """Whether the guest was not started again between two of its deaths: then they are one incident."""
    first, second = sorted((event, other), key=lambda e: e.at)
    return first.restarted_at is None or first.restarted_at > second.at
