"""One death is often told by several logs: what belongs together. Pure: no IO, no clock.

The answer depends on what was told, not on the order in which it was heard:

- words about the same guest (or, where no inventory knows it, the same domain of a hypervisor) within `SAME_DEATH` of
  each other are one death, unless the guest was started again in between;
- a log that does not name the domain (`?qemu-kvm[1385]`, `?domain 24`) tells the death of a named one of the same
  hypervisor: the one with that number, or that process, or else the nearest in time. Each named death explains at most
  one such event of each log; what is left over is a death of its own.

Deaths of several guests of one hypervisor within `TOGETHER` are a group: the hypervisor itself may have failed.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from unlatch.models import UNNAMED, CrashEvent, utc

SAME_DEATH = timedelta(seconds=120)
"""How far apart several logs' words about one death may lie: a fence takes a while."""

NEAREST = timedelta(seconds=30)
"""The same where only the time says that they belong together."""

CLOCKS_DIFFER = timedelta(seconds=10)
"""Another log's word may bear a stamp so long after the restart that one log has told already."""

TOGETHER = timedelta(seconds=300)
"""Deaths on one hypervisor that follow each other faster than this are one matter."""

_KEPT_LINES = 20
_PROCESS = re.compile(r"\[(\d+)\]$")


@dataclass(frozen=True)
class Death:
    """One death, as all logs together tell it; the first event that names its domain leads."""

    events: tuple[CrashEvent, ...]

    @property
    def leading(self) -> CrashEvent:
        """The event that gives the death its time and its name."""
        return next((e for e in self.events if not is_unnamed(e)), self.events[0])

    @property
    def subject(self) -> str:
        """Who died: the guest, or the domain as its log calls it."""
        return self.leading.guest or self.leading.domain

    @property
    def restarted_at(self) -> datetime | None:
        """When it was started again, as the first log says that knows it."""
        return min((e.restarted_at for e in self.events if e.restarted_at is not None), default=None)

    def told_by(self, first: CrashEvent) -> CrashEvent:
        """Everything that is known of it, under the time and name of one of its events."""
        lines = dict.fromkeys(line for e in (first, *self.events) for line in e.lines)
        return dataclasses.replace(
            first,
            lines=tuple(lines)[: max(_KEPT_LINES, len(first.lines))],
            signal=next((e.signal for e in (first, *self.events) if e.signal is not None), None),
            restarted_at=self.restarted_at,
        )


def is_unnamed(event: CrashEvent) -> bool:
    """Whether its log does not say which domain it was."""
    return event.domain.startswith(UNNAMED)


def deaths_of(events: Iterable[CrashEvent]) -> list[Death]:
    """The deaths behind these events, oldest first; each event belongs to exactly one."""
    every = sorted({e.dedup_key: e for e in events}.values(), key=lambda e: (utc(e.at), e.dedup_key))
    named = [*_clusters(e for e in every if not is_unnamed(e))]
    unnamed = [e for e in every if is_unnamed(e)]
    explained = _explained(named, unnamed)
    found = [
        Death(tuple(sorted([*cluster, *explained.get(n, ())], key=lambda e: (utc(e.at), e.dedup_key))))
        for n, cluster in enumerate(named)
    ]
    taken = {e.dedup_key for extra in explained.values() for e in extra}
    found += [Death(tuple(cluster)) for cluster in _clusters(e for e in unnamed if e.dedup_key not in taken)]
    return sorted(found, key=lambda death: (utc(death.leading.at), death.leading.dedup_key))


def _clusters(events: Iterable[CrashEvent]) -> Iterator[list[CrashEvent]]:
    by_subject: dict[str, list[CrashEvent]] = {}
    for event in events:
        by_subject.setdefault(event.guest or f"{event.hypervisor}/{event.domain}", []).append(event)
    for told in by_subject.values():
        cluster: list[CrashEvent] = []
        for event in told:
            if cluster and not _is_same(cluster, event):
                yield cluster
                cluster = []
            cluster.append(event)
        yield cluster


def _is_same(cluster: Sequence[CrashEvent], event: CrashEvent) -> bool:
    if event.at - cluster[-1].at > SAME_DEATH:
        return False
    return not any(
        earlier.restarted_at is not None
        and earlier.restarted_at < event.at - (timedelta(0) if earlier.source == event.source else CLOCKS_DIFFER)
        for earlier in cluster
    )


def _explained(named: Sequence[Sequence[CrashEvent]], unnamed: Sequence[CrashEvent]) -> dict[int, list[CrashEvent]]:
    """Which named death each unnamed event tells, the best matches first."""
    pairs = (
        sorted(
            (*match, number, event.dedup_key, event)
            for number, cluster in enumerate(named)
            for event in unnamed
            if (match := _match(cluster, event)) is not None
        )
        if named and unnamed
        else []
    )
    found: dict[int, list[CrashEvent]] = {}
    taken: set[str] = set()
    for *_, number, key, event in pairs:
        told = found.setdefault(number, [])
        if key not in taken and all((e.hypervisor, e.source) != (event.hypervisor, event.source) for e in told):
            taken.add(key)
            told.append(event)
    return found


def _match(cluster: Sequence[CrashEvent], event: CrashEvent) -> tuple[int, float] | None:
    """How well an unnamed event fits a named death: the smaller the better; None: it does not."""
    here = [e for e in cluster if e.hypervisor == event.hypervisor]
    if not here:
        return None
    apart = min(abs(e.at - event.at) for e in here)
    if apart > SAME_DEATH:
        return None
    numbers = {e.domain_id for e in here if e.domain_id is not None}
    if event.domain_id is not None and numbers:
        return (0, apart.total_seconds()) if event.domain_id in numbers else None
    process = _PROCESS.search(event.domain)
    if process and any(re.search(rf"\b{process[1]}\b", line) for e in here for line in e.lines):
        return 1, apart.total_seconds()
    return (2, apart.total_seconds()) if apart <= NEAREST else None


# --- groups ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Group:
    """Deaths of several guests of one hypervisor, one soon after the other."""

    hypervisor: str
    deaths: tuple[Death, ...]

    @property
    def name(self) -> str:
        """Its id: the same events give the same."""
        return f"grp-{utc(self.deaths[0].leading.at):%Y%m%d-%H%M%S}-{self.hypervisor}"


def groups_of(deaths: Iterable[Death]) -> list[Group]:
    """Every group of at least two guests that died together, oldest first."""
    by_hypervisor: dict[str, list[Death]] = {}
    for death in sorted(deaths, key=lambda d: (utc(d.leading.at), d.leading.dedup_key)):
        by_hypervisor.setdefault(death.leading.hypervisor, []).append(death)
    found: list[Group] = []
    for hypervisor, told in by_hypervisor.items():
        chain: list[Death] = []
        for death in told:
            if chain and death.leading.at - chain[-1].leading.at > TOGETHER:
                found += _group(hypervisor, chain)
                chain = []
            chain.append(death)
        found += _group(hypervisor, chain)
    return sorted(found, key=lambda group: (utc(group.deaths[0].leading.at), group.hypervisor))


def _group(hypervisor: str, chain: Sequence[Death]) -> list[Group]:
    return [Group(hypervisor, tuple(chain))] if len({death.subject for death in chain}) > 1 else []
