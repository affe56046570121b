"""Hyper-V's events about virtual machines (provider Microsoft-Windows-Hyper-V-Worker), as XML or JSON lines.

18590: the guest itself reported a fatal error. 18560: a triple fault reset it. Both are crashes of the guest; its
machine stays, so they prove no death. An XML event may stand in one line, or in many as the event viewer shows it;
JSON lines are those of winlogbeat.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from unlatch.crash_sources._format import LineFormat, Memory, Said
from unlatch.crash_sources._lines import Line, compiled
from unlatch.models import DomainChange

_PROVIDER = "Microsoft-Windows-Hyper-V-Worker"
_PART = compiled(
    r"(?P<provider><Provider Name=['\"](?P<which>[^'\"]{1,100})['\"])"
    r"|<EventID(?: [^>]{0,80})?>(?P<id>\d{1,6})</EventID>"
    r"|(?P<time><TimeCreated )"
    r"|<(?:VmName|Data Name=['\"]VmName['\"])>(?P<name>[^<]{1,255})</"
)
_EVENTS = {
    "18590": (DomainChange.DOWN, "the guest reported a fatal error"),
    "18560": (DomainChange.DOWN, "a triple fault reset the guest"),
    "18500": (DomainChange.CREATED, None),
    "18502": (DomainChange.SHUT_DOWN, None),
    "18504": (DomainChange.SHUT_DOWN, None),
    "18508": (DomainChange.SHUT_DOWN, None),
    "18514": (DomainChange.REBOOTED, None),
}


def _meaning(line: Line, memory: Memory, _path: PurePosixPath) -> Iterator[Said]:
    if line.fields:
        yield from _from_json(line.fields)
        return
    for part in _PART.finditer(line.message):
        if part["provider"]:
            for kind in ("provider", "id", "time"):
                memory.drop(kind)
            if part["which"] == _PROVIDER:
                memory.keep("provider", "")
        elif part["id"]:
            memory.keep("id", "", part["id"])
        elif part["time"]:
            memory.keep("time", "", line.at.isoformat() if line.at else "")
        elif part["name"] and memory.drop("provider") is not None:
            number, time = memory.drop("id"), memory.drop("time")
            yield from _said(number, part["name"].strip(), datetime.fromisoformat(time) if time else None)


def _said(number: object, name: str, at: datetime | None) -> Iterator[Said]:
    change, cause = _EVENTS.get(str(number), (None, None))
    if change is not None and name:
        yield Said(change, name, cause=cause, at=at)


def _from_json(fields: Any) -> Iterator[Said]:
    event = fields.get("winlog")
    if not isinstance(event, dict) or event.get("provider_name") != _PROVIDER:
        return
    for place in ("user_data", "event_data"):
        data = event.get(place)
        name = data.get("VmName") if isinstance(data, dict) else None
        if isinstance(name, str):
            yield from _said(event.get("event_id"), name, None)
            return


PLUGIN = LineFormat("hyperv", _meaning, ("Hyper-V-Worker", "<EventID", "<TimeCreated", "VmName", "<Provider"))
