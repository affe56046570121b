"""The values that the inventory takes: names, paths, moments, hours; each checked by itself."""

from __future__ import annotations

import posixpath
import re
import zoneinfo
from datetime import datetime, time
from pathlib import PurePosixPath
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from unlatch import limits


def _text(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise ValueError("must be readable text, not empty")
    return value


def _matching(pattern: str, message: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(message)
        return value

    return AfterValidator(check)


def _absolute(value: str) -> str:
    if not value.startswith("/") or value.startswith("//"):
        raise ValueError("must be an absolute path")
    return _plain_path(value)


def _plain_path(value: str) -> str:
    if not value.isprintable() or ".." in PurePosixPath(value).parts:
        raise ValueError("must be a plain path, without '..' and control characters")
    return posixpath.normpath(value)


def _zone(value: str) -> str:
    try:
        zoneinfo.ZoneInfo(value)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"{value!r} is no time zone; write an IANA name such as Europe/Zurich") from error
    return value


def _regex(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from error
    return value


def _address(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:  # noqa: PLR2004  # TCP's own limit
        raise ValueError("must be host:port")
    return value


def _web_address(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be an http:// or https:// address")
    if parts.username or parts.password:
        raise ValueError("must not hold a login: use an address that needs none")
    return value


def _moment(value: str) -> str:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:  # a time without its offset is two moments in one night of the year
        raise ValueError("must be a moment with its offset, as in 2026-11-22T02:00:00+01:00")
    return value


def _free_day(value: str) -> str:
    try:
        datetime.strptime(value if len(value) > len("12-24") else f"2024-{value}", "%Y-%m-%d")  # noqa: DTZ007  # a day
    except ValueError as error:
        raise ValueError("must be a day, as in 2026-12-24, or 12-24 for every year") from error
    return value


def _hour(value: str) -> str:
    try:
        time.fromisoformat(value)
    except ValueError as error:
        raise ValueError("must be a time of the day, as in 09:00") from error
    return value


def _weekly(value: str) -> str:
    limits.weekly_hours(value)
    return value


NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}"
"""Names become parts of run ids, lease names and file names."""

Text = Annotated[str, AfterValidator(_text)]
Name = Annotated[str, _matching(NAME, "must be letters, digits, '.', '_', '-', at most 60, the first no sign")]
ConnId = Annotated[str, _matching(r"[A-Za-z0-9_.\-]{1,200}", "must be letters, digits, '.', '_', '-'")]
Host = Annotated[str, _matching(r"[A-Za-z0-9][A-Za-z0-9._:-]*|::1", "must be a host name or an IP address")]
User = Annotated[str, _matching(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}", "must be the name of an operating system user")]
Table = Annotated[
    str, _matching(r"[A-Za-z_][\w$]*(\.[A-Za-z_][\w$]*){0,2}", "must be a table's name, as in app.t, without quotes")
]
Match = Annotated[
    str, _matching(r"[A-Z_][A-Z0-9_]*=[^\x00-\x1f]+|\+", "must be a journal's field, as in _TRANSPORT=kernel, or '+'")
]
Unit = Annotated[str, _matching(r"[A-Za-z0-9][A-Za-z0-9:_.@\\-]*", "must be the name of a systemd unit")]
Absolute = Annotated[str, AfterValidator(_absolute)]
Address = Annotated[str, AfterValidator(_address)]
WebAddress = Annotated[str, AfterValidator(_web_address)]
Regex = Annotated[str, AfterValidator(_text), AfterValidator(_regex)]
Country = Annotated[str, _matching(r"[A-Z]{2}", "must be two capital letters, as in CH")]
Pattern = Annotated[str, AfterValidator(_text), AfterValidator(_plain_path)]
Program = Annotated[str, _matching(r"[^/\s]+", "must be a program's base name, without its directory")]
Zone = Annotated[str, AfterValidator(_zone)]
Moment = Annotated[str, AfterValidator(_moment)]
Weekly = Annotated[str, AfterValidator(_weekly)]
FreeDay = Annotated[
    str, _matching(r"(\d{4}-)?\d{2}-\d{2}", "must be a day, as in 2026-12-24, or 12-24"), AfterValidator(_free_day)
]
Hour = Annotated[str, _matching(r"\d{2}:\d{2}", "must be a time of the day, as in 09:00"), AfterValidator(_hour)]
Port = Annotated[int, Field(ge=1, le=65535)]
Positive = Annotated[int, Field(ge=1)]
Argv = Annotated[list[Text], Field(min_length=1)]
LockRemedy = Literal["wait_lease", "notify", "clear", "recreate"]
StuckState = Literal[
    "detected",
    "repairing",
    "waiting_for_person",
    "accessible",
    "confirmed",
    "awaiting_purge",
    "refused",
    "failed",
    "reopened",
]


class Entry(BaseModel):
    """An entry: unknown keys are errors, and nothing is converted silently (`"3306"` is no number)."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
