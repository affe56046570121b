"""What begins a line whatever its format: a stamp, a host, a program. One line in, its parts out.

Understood: ISO 8601 with or without zone, syslog (`Dec  5 13:17:39 host program[pid]:`), `dmesg -T`, the kernel's
seconds since boot (no date), the audit's `msg=audit(1772440000.891:6471):`, `journalctl -o json`, other one-line JSON
with a `timestamp`, and logfmt.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from unlatch.crash_sources._clock import WallClock
from unlatch.models import DomainFact

# Every pattern is anchored and without nested repetition: linear time on any input. ASCII: \d is a digit of a clock.
compiled = functools.partial(re.compile, flags=re.ASCII)

_HEAD_CHARS = 700
_MONTHS = {name: f"{n:02d}" for n, name in enumerate("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)}  # noqa: SIM905  # reads better
_MONTH = r"(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_CLOCK = r"(\d\d:\d\d:\d\d)"
_ISO = compiled(rf"(\d{{4}}-\d\d-\d\d)([T ]){_CLOCK}(?:[.,](\d{{1,9}}))? ?(Z|[+-]\d\d(?::?\d\d)?(?!\d))?")
_SYSLOG = compiled(rf"(?:<\d{{1,3}}>)?{_MONTH} {{1,2}}(\d{{1,2}}) {_CLOCK}(?:\.(\d{{1,9}}))?(?=\s)")
_LONG = compiled(rf"\[[A-Z][a-z]{{2}} {_MONTH} {{1,2}}(\d{{1,2}}) {_CLOCK} (\d{{4}})\]")
_TIME_ONLY = compiled(r"\d\d:\d\d:\d\d(?=\s)")
_UPTIME = compiled(r"\s*\[\s{0,9}\d{1,10}\.\d{3,9}s?\]\s?")
_PROGRAM = compiled(r"\s*(?:[\w.:@/-]{1,255} )?([A-Za-z][\w./@()-]{0,63})(?:\[(\d{1,10})\])?: ")
_LOGFMT = compiled(r'(?:^|\s)(level|timestamp|time|component|name|namespace|msg)=("[^"]{0,4000}"|\S{1,4000})')
_AUDIT = compiled(r"(?:node=\S{1,255} )?type=\w{1,40} msg=audit\((\d{1,12})\.(\d{1,9}):\d{1,12}\)\s{0,3}:")
_SYSTEM_TIME = compiled(r"<TimeCreated SystemTime=['\"]([^'\"]{1,40})['\"]")
DATED = compiled("|".join(f"(?:{stamp.pattern})" for stamp in (_ISO, _SYSLOG, _LONG)))
"""Begins a line that begins with a date."""

_JSON_STAMPS = ("timestamp", "@timestamp", "createdTime", "time", "ts")
_JSON_TEXTS = ("MESSAGE", "msg", "message", "fullFormattedMessage")


def facts_of(parse: Callable[[str], Iterable[DomainFact]], lines: Iterable[str]) -> Iterator[DomainFact]:
    """What a parser finds in lines, one by one, in constant memory."""
    return itertools.chain.from_iterable(map(parse, lines))


@dataclass(frozen=True, slots=True)
class Line:
    """One line: when, who, what. `at` is None without a stamp; `program` is empty when the line names none."""

    at: datetime | None
    program: str
    message: str
    fields: Mapping[str, Any] = field(default_factory=dict)


class LineReader:
    """Takes lines apart, for one stream."""

    def __init__(self, timezone: str, written_after: datetime | None, read_at: datetime | None) -> None:
        """Take what stamps leave out.

        Args:
            timezone: IANA name of the zone of stamps without one.
            written_after: See `WallClock`.
            read_at: Not later than this are stamps without a year; None: now.

        Raises:
            ConfigError: there is no such zone.
        """
        self._clock = WallClock(timezone, written_after)
        self._read_at = read_at
        self.may_repeat = self._clock.may_repeat
        self.repeated_hours = self._clock.repeated_hours

    def read(self, text: str) -> Line:
        """The line's parts; never raises."""
        text = text.strip()
        if text.startswith("{"):
            found = _json_object(text)
            if found is not None:
                return self._from_json(found)
        if text.startswith("<") and (found_time := _SYSTEM_TIME.search(text)):
            return Line(self.stamp(found_time[1]), "", text)
        if text.startswith(("level=", "time=", "timestamp=")):
            return self._from_logfmt(text)
        head = text[:_HEAD_CHARS]
        at, end = self._stamp(head)
        if at is None and end == 0:
            bare = _UPTIME.match(head)
            return Line(None, "", text[bare.end() if bare else 0 :])
        program = _PROGRAM.match(head, end) if end else None
        message = text[program.end() if program else end :]
        uptime = _UPTIME.match(message[:80])
        message = message[uptime.end() :] if uptime else message
        return Line(at, program[1] if program else "", message.lstrip(": \t"))

    def moment(self, text: str) -> datetime | None:
        """When the line was written."""
        return self.read(text).at

    def stamp(self, text: str) -> datetime | None:
        """The moment of an ISO 8601 stamp."""
        found = _ISO.match(text)
        return self._iso(found) if found else None

    def _stamp(self, head: str) -> tuple[datetime | None, int]:
        """The moment, and where the rest begins: 0 for a line without a stamp."""
        if found := _ISO.match(head):
            return self._iso(found), found.end()
        if found := _AUDIT.match(head):
            try:
                return _plus(datetime.fromtimestamp(int(found[1]), UTC), found[2]), 0
            except (ValueError, OverflowError, OSError):
                return None, 0
        if found := _SYSLOG.match(head):
            day = f"-{_MONTHS[found[1]]}-{int(found[2]):02d} {found[3]}"
            return _plus(self._clock.moment_of_year(day, self._read_at or datetime.now(UTC)), found[4]), found.end()
        if found := _LONG.match(head):
            return self._clock.moment(f"{found[4]}-{_MONTHS[found[1]]}-{int(found[2]):02d} {found[3]}"), found.end()
        found = _TIME_ONLY.match(head)
        return None, found.end() if found else 0

    def _iso(self, found: re.Match[str]) -> datetime | None:
        stamp, zone = f"{found[1]} {found[3]}", found[5]
        if zone is None:
            return _plus(self._clock.moment(stamp), found[4])
        try:
            return _plus(datetime.fromisoformat(stamp + ("+00:00" if zone == "Z" else _full(zone))), found[4])
        except (ValueError, OverflowError):
            return None

    def _from_json(self, found: Mapping[str, Any]) -> Line:
        message = next((_text(found[key]) for key in _JSON_TEXTS if found.get(key)), "")
        return Line(self._json_moment(found), _json_program(found), message, found)

    def _json_moment(self, found: Mapping[str, Any]) -> datetime | None:
        micros = str(found.get("__REALTIME_TIMESTAMP") or found.get("_SOURCE_REALTIME_TIMESTAMP") or "")
        if compiled(r"\d{1,18}").fullmatch(micros):
            try:
                return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(micros))
            except OverflowError:
                return None
        stamp = next((found[key] for key in _JSON_STAMPS if isinstance(found.get(key), str)), "")
        return self.stamp(stamp)

    def _from_logfmt(self, text: str) -> Line:
        fields = {found[1]: found[2].strip('"') for found in _LOGFMT.finditer(text)}
        at = self.stamp(fields.get("timestamp") or fields.get("time") or "")
        return Line(at, fields.get("component", ""), text, fields)


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _json_program(found: Mapping[str, Any]) -> str:
    name = _text(found.get("SYSLOG_IDENTIFIER") or found.get("_COMM") or found.get("component") or "")
    if "_TRANSPORT" not in found:
        return name
    if found["_TRANSPORT"] == "kernel":
        return "kernel"
    return name if name != "kernel" else "logger"  # any user may call itself so; the transport cannot be forged


def _text(value: Any) -> str:
    """A journal's field: text, or bytes as a list of numbers where they were no UTF-8."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, int) and 0 <= item < 256 for item in value):  # noqa: PLR2004  # bytes
        return bytes(value).decode("utf-8", "replace")
    return ""


def _full(zone: str) -> str:
    digits = zone[1:].replace(":", "").ljust(4, "0")
    return f"{zone[0]}{digits[:2]}:{digits[2:]}"


def _plus(moment: datetime | None, fraction: str | None) -> datetime | None:
    if moment is None:
        return None
    return moment.astimezone(UTC) + timedelta(microseconds=int((fraction or "0")[:6].ljust(6, "0")))
