"""What all formats but xend's share: a format says what one line means, the rest (stamps, state, limits) is here."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import PurePosixPath
from typing import NamedTuple

from unlatch.crash_sources._lines import DATED, Line, LineReader, facts_of
from unlatch.models import UNNAMED, DomainChange, DomainFact, Json

LONGEST_LINE_CHARS = 64 << 10
"""What is longer than this says nothing of a crash."""

KEPT_CHARS = 2000
"""How much of a line is kept as evidence."""

_STAMP_CHARS = 80

CONTINUED_LINES = 20
"""How many lines a message may have where only the first has the stamp."""

REMEMBERED = 256
"""Entries of each kind that a parser keeps between two lines, so that its state stays small."""


class Said(NamedTuple):
    """What one line says of one domain; `at` where that is another moment than the line's own."""

    change: DomainChange
    domain: str
    domain_id: int | None = None
    signal: int | None = None
    cause: str | None = None
    at: datetime | None = None


class Memory:
    """What earlier lines of the same log said, as JSON: it outlives the parser."""

    def __init__(self, state: Json | None) -> None:
        """Start afresh, or from what `as_json` gave."""
        self._kept: dict[str, dict[str, str]] = {kind: dict(found) for kind, found in (state or {}).items()}

    def keep(self, kind: str, key: object, value: str = "") -> None:
        """Remember; of each kind the oldest entry is forgotten first."""
        entries = self._kept.setdefault(kind, {})
        entries.pop(str(key), None)
        entries[str(key)] = value
        while len(entries) > REMEMBERED:
            entries.pop(next(iter(entries)))

    def get(self, kind: str, key: object = "") -> str | None:
        """What was kept under that key."""
        return self._kept.get(kind, {}).get(str(key))

    def drop(self, kind: str, key: object = "") -> str | None:
        """Forget, and what it was."""
        return self._kept.get(kind, {}).pop(str(key), None)

    def as_json(self) -> Json:
        """Everything, for the next parser of this log."""
        return {kind: dict(found) for kind, found in self._kept.items() if found}


Meaning = Callable[[Line, Memory, PurePosixPath], Iterable[Said]]
"""What a format's module knows: what one line says. The path is the log's, which names the domain in some formats."""


class LineFormat:
    """A log format; its modules' `PLUGIN`."""

    def __init__(
        self,
        name: str,
        meaning: Meaning,
        hints: tuple[str, ...],
        *,
        continues: bool = False,
        tells_of_other_hosts: bool = False,
    ) -> None:
        """Take what is particular to it.

        Args:
            name: As inventories write it.
            meaning: What a line says.
            hints: Every line that says anything, or must be remembered, contains one of them.
            continues: A line without a stamp belongs to the one before it, `CONTINUED_LINES` of them at most.
            tells_of_other_hosts: It is a cluster's log: its guests run anywhere.
        """
        self.name = name
        self.hints = hints
        self.meaning = meaning
        self.continues = continues
        self.tells_of_other_hosts = tells_of_other_hosts

    def line_parser(
        self,
        timezone: str,
        written_after: datetime | None = None,
        *,
        path: str = "",
        undated_at: datetime | None = None,
        state: Json | None = None,
    ) -> FormatParser:
        """What to call with each line of one log, in their order.

        Args:
            timezone: IANA name of the zone of stamps that carry none.
            written_after: The lines are known to be younger, which settles the hour that the end of summer time
                repeats.
            path: The log's path; some formats name the domain nowhere else.
            undated_at: The moment of lines without a stamp; None leaves them out, so that an old line is never taken
                for a new death.
            state: What `FormatParser.state` gave after the line before.

        Raises:
            ConfigError: there is no such zone.
        """
        reader = LineReader(timezone, written_after, undated_at)
        return FormatParser(self, reader, PurePosixPath(path), undated_at, Memory(state))

    def facts(self, lines: Iterable[str], timezone: str, path: str = "") -> Iterator[DomainFact]:
        """What the lines that have a stamp say of domains, one by one, in constant memory; junk is skipped.

        Raises:
            ConfigError: there is no such zone.
        """
        return facts_of(self.line_parser(timezone, path=path), lines)

    def line_clock(self, timezone: str) -> Callable[[str], datetime | None]:
        """What to call with each line of one stream, in their order, for its moment; None for a line without a stamp.

        Raises:
            ConfigError: there is no such zone.
        """
        return LineReader(timezone, None, None).moment


class FormatParser:
    """Half way through one log."""

    def __init__(
        self,
        its_format: LineFormat,
        reader: LineReader,
        path: PurePosixPath,
        undated_at: datetime | None,
        memory: Memory,
    ) -> None:
        """See `LineFormat.line_parser`."""
        self.continues = its_format.continues
        self._format = its_format
        self._reader = reader
        self._path = path
        self._undated_at = undated_at
        self._memory = memory
        self._dated_line = memory.get("dated line") or ""
        self._behind = int(memory.get("behind") or 0)
        self._passed: deque[str] = deque(maxlen=CONTINUED_LINES)  # each has a line at least

    def __call__(self, text: str) -> tuple[DomainFact, ...]:
        """The statements of one line; never raises."""
        if len(text) > LONGEST_LINE_CHARS:
            self.pass_over(text)
            return ()
        wanted = any(hint in text for hint in self._format.hints)
        if not wanted and not self._reader.may_repeat(text[:_STAMP_CHARS]):
            self.pass_over(text)
            return ()
        line = self._reader.read(text)
        at, dated = self._at(line, text)
        if not wanted:
            return ()
        evidence = text.strip()[:KEPT_CHARS]
        facts = []
        # All of it, also where nothing can be told for want of a moment: what is remembered counts.
        for s in list(self._format.meaning(line, self._memory, self._path)):
            moment = s.at or at
            if moment is not None:
                known = dated or s.at is not None
                facts.append(
                    DomainFact(s.domain, s.change, moment, evidence, s.domain_id, s.signal, s.cause, dated=known)
                )
        return tuple(facts)

    def words(self) -> tuple[str, ...]:
        """One of these is in every line that must be read; the others can be passed over."""
        return (*self._format.hints, *self._reader.repeated_hours())

    def skips(self, text: str) -> bool:
        """Whether nothing in these whole lines has to be read; then they are passed over."""
        if any(hint in text for hint in self._format.hints) or self._reader.may_repeat(text):
            return False
        self.pass_over(text)
        return True

    def pass_over(self, text: str) -> None:
        """Go on behind these whole lines, which contain none of the words: the next may belong to one of them."""
        if self.continues:
            self._passed.append(text)

    def _look_back(self) -> None:
        """Find the last line with a stamp in what was passed over, and how many lines ago it was."""
        behind = 0
        for text in reversed(self._passed):
            end = len(text)
            while end >= 0 and behind < CONTINUED_LINES:
                begin = text.rfind("\n", 0, end) + 1
                head = text[begin : min(end, begin + _STAMP_CHARS)].strip()
                if DATED.match(head):
                    self._dated_line, self._behind = head, behind
                    self._passed.clear()
                    return
                behind, end = behind + 1, begin - 1
        self._behind += behind
        self._passed.clear()

    def _at(self, line: Line, text: str) -> tuple[datetime | None, bool]:
        if not self.continues:
            return (line.at, True) if line.at is not None else (self._undated_at, False)
        self.pass_over(text)
        self._look_back()
        if line.at is not None:
            return line.at, True
        at = self._reader.moment(self._dated_line) if self._behind < CONTINUED_LINES else None
        return (at, True) if at is not None else (self._undated_at, False)

    def state(self) -> Json:
        """What must be kept to go on with the next line later, as JSON."""
        if self.continues:
            self._look_back()
            self._memory.keep("dated line", "", self._dated_line)
            self._memory.keep("behind", "", str(self._behind))
        return self._memory.as_json()


def unnamed(what: str) -> str:
    """The name of a domain that the line does not name, from what it does say (a process, a number)."""
    return f"{UNNAMED}{what}"
