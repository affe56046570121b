"""Drills are kept, and what was there at an earlier one and is not there any more is told, once.

What could not be told at a drill is neither there nor lost: it is compared with the last drill that could tell.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from unlatch.models import Drill, DrillCheck, GuestDrill, Json, Report
from unlatch.ports import Alerts, Store
from unlatch.postmortem.document import Document, Grid, Paragraph
from unlatch.postmortem.markup import html, markdown
from unlatch.recording import fingerprint

KIND = "drill"
_NOBODY_ASKED = "everything"
_Name = tuple[str | None, ...]


@dataclass(frozen=True)
class HistoryPorts:
    """What keeping drills needs."""

    store: Store
    alerts: Alerts


def keep_drill(found: Drill, ports: HistoryPorts, *, run: str) -> tuple[DrillCheck, ...]:
    """Keep the drill of each guest, and tell what was lost since the last one.

    Told before it is kept: who is killed in between tells it again under the same key. Idempotent per `run`.

    Args:
        found: The drill.
        ports: Where it is kept and told.
        run: Names this drill; the same again is kept once.

    Returns:
        What was lost.

    Raises:
        TransientError: nobody could be told.
    """
    lost: list[DrillCheck] = []
    for guest in found.guests:
        alone = Drill(found.at, (guest,), found.site)
        earlier = next(iter(ports.store.reports(KIND, guest.guest, 1)), None)
        name = f"{KIND}-{run}-{guest.guest}"
        if earlier is not None and earlier.report == name:
            continue
        had = {tuple(item) for item in earlier.content["had"]} if earlier else set()
        missing = lost_now(alone, had)
        if missing:
            _alert(guest.guest, missing, ports)
        lost += missing
        ports.store.keep_report(_report(name, alone, guest, missing, still_there(alone, had)))
    return tuple(dict.fromkeys(lost))


def lost_now(now: Drill, had: set[_Name]) -> tuple[DrillCheck, ...]:
    """What was there when it could last be told, and is not any more. Pure.

    Of what is only good to have, such as clones, also what cannot be told any more counts: it is never called missing.
    """
    return tuple(
        dict.fromkeys(
            check for name, check in now.named() if name in had and (check.ok is False or _is_gone(check, now))
        )
    )


def _is_gone(check: DrillCheck, now: Drill) -> bool:
    return not check.needed and check.ok is None and all(guest.reached for guest in now.guests)


def still_there(now: Drill, had: set[_Name]) -> set[_Name]:
    """What is there, or was when it could last be told. Pure."""
    known = dict(now.named())
    silent = any(check.privilege == _NOBODY_ASKED for check in known.values()) or not all(g.reached for g in now.guests)
    there = {name for name, check in known.items() if check.ok}
    untold = {name for name in had if (name in known and known[name].ok is None) or (name not in known and silent)}
    return there | (untold - {name for name, check in known.items() if _is_gone(check, now)})


def _alert(guest: str, lost: Iterable[DrillCheck], ports: HistoryPorts) -> None:
    lines = [f"- {c.privilege}{f' ({c.path})' if c.path else ''}: {c.why}" for c in lost]
    grants = [f"  to grant it: {c.grant}" for c in lost if c.grant]
    words = "\n".join([*lines, *grants])
    title = f"{guest}: {len(lines)} of what a repair needs is not there any more"
    ports.alerts.alert(f"drill:{guest}:{fingerprint(words)}", title, words)


def _report(name: str, now: Drill, guest: GuestDrill, lost: tuple[DrillCheck, ...], there: set[_Name]) -> Report:
    counts = now.as_dict()
    title = f"{guest.guest}: {counts['ok']} ok, {counts['missing']} missing, {counts['unchecked']} not checked"
    rows = tuple((c.privilege, c.path or "", c.why, c.grant or "") for c in (*now.missing, *now.unchecked))
    head = ("privilege", "of", "why", "what grants it")
    blocks = [Paragraph(f"Drilled at {now.at:%Y-%m-%d %H:%M} UTC. Lost since the last drill: {len(lost)}.")]
    page = Document(title, (*blocks, *([Grid(head, rows)] if rows else [])))
    content: Json = {
        "drill": now.as_dict(),
        "had": sorted((list(item) for item in there), key=str),
        "lost": [check.as_dict() for check in lost],
        "markdown": markdown(page),
        "html": html(page),
    }
    return Report(name, KIND, guest.guest, now.at, title, content)
