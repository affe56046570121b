"""How the logs do is noted after every look, and told to people once per change: a sensor never dies silently."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from unlatch.errors import UnlatchError
from unlatch.models import Hypervisor, HypervisorLog, Json, Sight, SourceHealth, SourceState
from unlatch.ports import Alerts, Clock, InventoryView, Store
from unlatch.source_health import judged, silent_at, source_name, told_words

NOTED_EVERY = timedelta(seconds=60)
"""How often a log that does well is noted anew; its changes are noted at once."""

OVERDUE = timedelta(seconds=1500)
"""After so long without a look the watch itself is not running: it looks every 600 s at the latest."""

_HEARTBEAT = "watch"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SourcePorts:
    """What noting needs."""

    inventory: InventoryView
    store: Store
    clock: Clock
    alerts: Alerts


def note_sights(ports: SourcePorts, sights: Mapping[str, Sight]) -> Counter[SourceState]:
    """Note what was seen of the logs, and tell people of each that changed; how many do well, and how many how badly.

    What was not seen is left as it is. Killed anywhere, the next look tells what this one did not.
    """
    now = ports.clock.now()
    known = {health.source: health for health in ports.store.sources()}
    doing: Counter[SourceState] = Counter()
    names: set[str] = set()
    for hypervisor, log in every_log(ports.inventory):
        name = source_name(hypervisor.name, log)
        names.add(name)
        before, sight = known.get(name), sights.get(name)
        health = judged(hypervisor.name, log, before, sight, now=now) if sight is not None else before
        if health is None:
            continue
        doing[health.state] += 1
        if before is None or _is_news(before, health, noted_every=NOTED_EVERY if log.silent_after_s is None else None):
            ports.store.keep_source(health)
        if health.told_at is None:
            _tell(ports, health)
    if set(known) - names:
        ports.store.forget_sources(names)
    ports.store.set_cursor(_HEARTBEAT, {"at": now.isoformat()})
    return doing


def every_log(inventory: InventoryView) -> Iterator[tuple[Hypervisor, HypervisorLog]]:
    """Every log of the inventory, with its hypervisor."""
    for hypervisor in inventory.hypervisors.values():
        for log in hypervisor.logs:
            yield hypervisor, log


def silences(inventory: InventoryView, store: Store) -> list[datetime]:
    """When each log that does well will have been silent for too long."""
    known = {health.source: health for health in store.sources()}
    moments = (
        silent_at(known[name], log)
        for hypervisor, log in every_log(inventory)
        if (name := source_name(hypervisor.name, log)) in known
    )
    return [moment for moment in moments if moment is not None]


def sources_now(inventory: InventoryView, store: Store, clock: Clock) -> Json:
    """What people and programs see: when the watch last looked, whether it is overdue, and every log."""
    known = {health.source: health for health in store.sources()}
    looked = (store.cursor(_HEARTBEAT) or {}).get("at")
    rows = []
    for hypervisor, log in every_log(inventory):
        name = source_name(hypervisor.name, log)
        health = known.get(name)
        row: Json = {"source": name, "hypervisor": hypervisor.name, "silent_after_s": log.silent_after_s}
        if health is None:
            row |= {"state": "unknown", "words": "the watch has not seen it yet", "since": None}
            row |= {"reached_at": None, "line_at": None, "told_at": None}
        rows.append(row | (health.as_dict() if health else {}))
    overdue = looked is None or clock.now() - datetime.fromisoformat(looked) > OVERDUE
    ok = not overdue and all(row["state"] == SourceState.OK for row in rows)
    return {"ok": ok, "looked_at": looked, "watch_is_overdue": overdue, "sources": rows}


def _is_news(before: SourceHealth, now: SourceHealth, *, noted_every: timedelta | None) -> bool:
    """Whether it is worth a write: hundreds of logs that do well are looked at after every bell."""
    if noted_every is None or (before.state, before.words) != (now.state, now.words):
        return before != now
    moments = [(before.reached_at, now.reached_at), (before.line_at, now.line_at)]
    return any(new is not None and (old is None or new - old >= noted_every) for old, new in moments)


def _tell(ports: SourcePorts, health: SourceHealth) -> None:
    title, words = told_words(health)
    try:
        ports.alerts.alert(f"source:{health.source}", title, words)
    except (UnlatchError, OSError) as error:
        _log.warning("%s could not be told, and will be told at the next look: %s", title, error)
        return
    ports.store.source_told(health.source, health.state, ports.clock.now())
