"""Deaths out of log lines: several lines of one death are one crash event. Pure: no IO, no clock.

How lines become deaths, per domain:

- a dead device model, or a sign that goes with other things too (`suspected`), is an *ambiguous* event: the domain may
  live on;
- `crashed` and `down`, or `destroyed` within `SAME_DEATH` after the device model died, make it a *certain* one, with
  the time of its first line that is more than a mere sign;
- a destruction after a mere sign is what a person ordered: the sign goes with every end of a qemu;
- more lines of the same death are added to it; `created` closes it and says when the domain was restarted;
- shutdown, reboot, migration and a plain destruction are nobody's crash; a crash line of a domain that was just sent
  away elsewhere is ambiguous.
"""

from __future__ import annotations

import dataclasses
import signal
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from unlatch.models import Certainty, CrashEvent, DomainChange, DomainFact, Json

SAME_DEATH = timedelta(seconds=120)
"""Lines of one death follow each other within seconds; xend may dump the core in between."""

OUT_OF_ORDER = timedelta(seconds=60)
"""A domain that was created longer than this before its death is no restart: several logs were put together."""

KNOWN_DOMAINS = 1024
"""Domains whose last death is remembered: the longest untold are forgotten first."""

_KEPT_LINES = 20

_NO_CRASH = {DomainChange.SHUT_DOWN, DomainChange.REBOOTED}


class LineParser(Protocol):
    """Called with each line of one log, in their order.

    Where `continues` is False, lines that contain none of the words need not even be passed over.
    """

    @property
    def continues(self) -> bool:
        """Whether a line may belong to one before it that contains none of the words."""

    def __call__(self, text: str, /) -> tuple[DomainFact, ...]:
        """What the line says of domains."""

    def words(self) -> tuple[str, ...]:
        """One of these is in every line that it must be called with; the others can be passed over."""

    def skips(self, text: str, /) -> bool:
        """Whether these next lines, whole ones, say nothing; then they are passed over."""

    def pass_over(self, text: str, /) -> None:
        """Take note of the next lines, whole ones that contain none of the words, as calling with each would."""

    def state(self) -> Json:
        """What a later parser of the same log needs to go on, as JSON."""


class LineSource(Protocol):
    """A log format that can be read line by line.

    Every line that says anything, or must be remembered, contains one of its `hints`.
    """

    name: str
    hints: tuple[str, ...]

    def line_parser(
        self,
        timezone: str,
        written_after: datetime | None = None,
        *,
        path: str = "",
        undated_at: datetime | None = None,
        state: Json | None = None,
    ) -> LineParser:
        """What to call with each line of one log.

        Args:
            timezone: IANA name of the zone of stamps that carry none.
            written_after: The lines are known to be younger.
            path: The log's path, which names the domain in some formats.
            undated_at: The moment of lines without a stamp; None leaves them out.
            state: What the parser before gave.

        Raises:
            ConfigError: there is no such time zone.
        """


@dataclass
class _Domain:
    """What is known of one domain; `event` is its last death while nothing has ended it."""

    event: CrashEvent | None = None
    last_line_at: datetime | None = None
    number: int | None = None
    sent_away: bool = False
    suspected: bool = False


class DeathFolder:
    """Folds a stream of facts about one hypervisor's domains into deaths.

    `feed` answers at once, when the line comes that says it, and again with the same `dedup_key` when more becomes
    known (certainty, further lines, restart). So take the newest answer for a key, and act on `Certainty.CERTAIN` only.
    The state survives between two readings as JSON: `DeathFolder(name, folder.state())` goes on where it was.
    """

    def __init__(self, hypervisor: str, state: Json | None = None) -> None:
        """Start afresh, or from what `state` gave."""
        self.hypervisor = hypervisor
        self._domains: OrderedDict[str, _Domain] = OrderedDict()
        for name, kept in (state or {}).get("domains", {}).items():
            self._domains[name] = _Domain(
                event=CrashEvent.from_dict(kept["event"]) if kept["event"] else None,
                last_line_at=datetime.fromisoformat(kept["last_line_at"]) if kept["last_line_at"] else None,
                number=kept["number"],
                sent_away=kept["sent_away"],
                suspected=kept.get("suspected", False),
            )

    def state(self) -> Json:
        """What must be kept to go on later, as JSON."""
        return {
            "domains": {
                name: {
                    "event": d.event.as_dict() if d.event else None,
                    "last_line_at": d.last_line_at.isoformat() if d.last_line_at else None,
                    "number": d.number,
                    "sent_away": d.sent_away,
                    "suspected": d.suspected,
                }
                for name, d in self._domains.items()
            }
        }

    def certain_keys(self) -> Iterator[str]:
        """The keys of the deaths that have been told as certain and are not over."""
        for domain in self._domains.values():
            if domain.event is not None and domain.event.certainty is Certainty.CERTAIN:
                yield domain.event.dedup_key

    def feed(self, fact: DomainFact) -> list[CrashEvent]:
        """Take the next fact; the death that it begins or completes, if any."""
        domain = self._domains.pop(fact.domain, _Domain())
        known = domain.event
        match fact.change:
            case DomainChange.CRASHED | DomainChange.DOWN:
                self._crashed(domain, fact)
            case DomainChange.DEVICE_MODEL_DIED | DomainChange.SUSPECTED:
                self._may_have_died(domain, fact)
            case DomainChange.DESTROYED:
                self._destroyed(domain, fact)
            case _:
                pass  # below: these end the domain's story instead of adding to it
        told = [domain.event] if domain.event is not None and domain.event is not known else []
        if fact.change is DomainChange.CREATED and not (known and fact.at < known.at - OUT_OF_ORDER and known.dated):
            told = [dataclasses.replace(known, restarted_at=fact.at)] if known else []
            domain = _Domain()
        elif fact.change is DomainChange.MIGRATED:
            domain = _Domain(number=fact.domain_id, sent_away=True)
        elif fact.change in _NO_CRASH:
            domain = _Domain()
        self._remember(fact.domain, domain)
        return told

    def _crashed(self, domain: _Domain, fact: DomainFact) -> None:
        if self._is_same_death(domain, fact):
            self._add(domain, fact, certain=True)
        else:
            elsewhere = domain.sent_away and domain.number == fact.domain_id
            self._begin(domain, fact, Certainty.AMBIGUOUS if elsewhere else Certainty.CERTAIN)
            domain.sent_away = elsewhere

    def _may_have_died(self, domain: _Domain, fact: DomainFact) -> None:
        if self._is_same_death(domain, fact):
            self._add(domain, fact, certain=False)
        else:
            self._begin(domain, fact, Certainty.AMBIGUOUS)
            domain.suspected = fact.change is DomainChange.SUSPECTED

    def _destroyed(self, domain: _Domain, fact: DomainFact) -> None:
        if domain.suspected:
            domain.event, domain.suspected = None, False
        elif self._is_same_death(domain, fact) or (domain.number is not None and domain.number == fact.domain_id):
            self._add(domain, fact, certain=True)

    def _is_same_death(self, domain: _Domain, fact: DomainFact) -> bool:
        if domain.event is None or domain.last_line_at is None:
            return False
        if domain.number is not None and fact.domain_id is not None and domain.number != fact.domain_id:
            return False
        if not (fact.dated and domain.event.dated):
            return True  # no time tells them apart
        return abs(fact.at - domain.last_line_at) <= SAME_DEATH

    def _begin(self, domain: _Domain, fact: DomainFact, certainty: Certainty) -> None:
        domain.event = CrashEvent(
            domain=fact.domain,
            hypervisor=self.hypervisor,
            at=fact.at,
            cause=_cause(fact),
            lines=(fact.line,),
            certainty=certainty,
            signal=fact.signal,
            domain_id=fact.domain_id,
            dated=fact.dated,
        )
        domain.last_line_at, domain.number, domain.sent_away = fact.at, fact.domain_id, False
        domain.suspected = False

    def _add(self, domain: _Domain, fact: DomainFact, *, certain: bool) -> None:
        event = domain.event
        if event is None:
            return
        if fact.dated or not event.dated:
            domain.last_line_at = fact.at
        domain.number = domain.number if fact.domain_id is None else fact.domain_id
        is_first = certain and domain.suspected and fact.dated  # a mere sign comes when it comes
        domain.suspected = domain.suspected and not certain
        is_why = certain and event.certainty is Certainty.AMBIGUOUS and event.signal is None and fact.cause is not None
        is_kept = len(event.lines) < _KEPT_LINES and fact.line != event.lines[-1]
        domain.event = dataclasses.replace(
            event,
            at=fact.at if is_first or (fact.dated and not event.dated) else event.at,
            dated=event.dated or fact.dated,
            cause=_cause(fact) if is_why else event.cause,
            lines=(*event.lines, fact.line) if is_kept else event.lines,
            certainty=Certainty.CERTAIN if certain and not domain.sent_away else event.certainty,
            signal=event.signal or fact.signal,
            domain_id=fact.domain_id if event.domain_id is None else event.domain_id,
        )

    def _remember(self, name: str, domain: _Domain) -> None:
        if domain.event is None and not domain.sent_away:
            return
        self._domains[name] = domain
        while len(self._domains) > KNOWN_DOMAINS:
            self._domains.popitem(last=False)


def fold(facts: Iterable[DomainFact], hypervisor: str) -> Iterator[CrashEvent]:
    """Each death once, as completely as the stream tells it, ambiguous ones too; oldest first.

    A death is held back until its restart is seen or the stream ends, and later deaths behind it; at most
    `KNOWN_DOMAINS` of them, then the oldest is given as it is.
    """
    folder = DeathFolder(hypervisor)
    waiting: OrderedDict[tuple[str, str], CrashEvent] = OrderedDict()
    for fact in facts:
        for event in folder.feed(fact):
            waiting[event.domain, event.lines[0]] = event  # what stays when a later line gives it its time
        while waiting and (
            len(waiting) > KNOWN_DOMAINS or next(iter(waiting.values())).restarted_at is not None
        ):  # fmt: skip
            yield waiting.popitem(last=False)[1]
    yield from waiting.values()


class CrashSpotter:
    """Hears new lines of a log: does one say that a domain died?

    For exactly the lines that make `DeathFolder` tell a death that it had not told as certain.
    """

    def __init__(
        self,
        source: LineSource,
        timezone: str,
        hypervisor: str,
        path: str = "",
        *,
        deaths: Json | None = None,
        parser: Json | None = None,
    ) -> None:
        """Start afresh, or where a folder's (`deaths`) and a parser's state were kept.

        Raises:
            ConfigError: there is no such time zone.
        """
        self._parse = source.line_parser(timezone, path=path, state=parser)
        self._folder = DeathFolder(hypervisor, deaths)
        self._told = OrderedDict.fromkeys(self._folder.certain_keys())

    def __call__(self, line: str) -> bool:
        """Take the next line."""
        events = [event for fact in self._parse(line) for event in self._folder.feed(fact)]
        new = [e.dedup_key for e in events if e.certainty is Certainty.CERTAIN and e.dedup_key not in self._told]
        self._told.update(dict.fromkeys(new))
        while len(self._told) > KNOWN_DOMAINS:
            self._told.popitem(last=False)
        return bool(new)

    def hears(self, lines: Sequence[str]) -> bool:
        """Take the next lines, quickly where they say nothing; every one of them counts, also behind the first."""
        if self._parse.skips("\n".join(lines)):
            return False
        return sum([self(line) for line in lines]) > 0


def _cause(fact: DomainFact) -> str:
    if fact.cause is not None:
        return fact.cause
    if fact.change is not DomainChange.DEVICE_MODEL_DIED:
        return "domain crashed"
    if fact.signal is None:
        return "device model died"
    try:
        return f"device model killed by {signal.Signals(fact.signal).name}"
    except ValueError:
        return f"device model killed by signal {fact.signal}"
