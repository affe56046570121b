"""Tables for people. Log lines and error texts come from other machines: nothing in them may steer a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from unlatch.models import Instance, Json, Volume

_WIDTH_WITHOUT_TERMINAL = 160

_STYLES = {
    "done": "green",
    "dead": "green",
    "clear": "green",
    "closed": "green",
    "awaiting_purge": "green",
    "failed": "bold red",
    "refused": "bold red",
    "alive": "bold red",
    "retry": "yellow",
    "intent": "yellow",
    "unknown": "yellow",
    "not_observed": "yellow",
    "waiting_for_person": "yellow",
    "waiting": "yellow",
    "given_up": "bold red",
    "delivered": "green",
}


def clean(text: object) -> str:
    """The text without control characters (escape sequences, carriage returns), line breaks and tabs kept."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in str(text))


def show_instances(instances: Iterable[Instance], volumes: Mapping[str, Volume]) -> None:
    """One row per instance."""
    rows = [
        (i.name, i.guest, i.engine, f"{i.volume} ({volumes[i.volume].kind})", f"{i.host}:{i.port}", i.datadir)
        for i in instances
    ]
    _print(_table(("instance", "guest", "engine", "volume", "access", "data directory"), rows))


def show_incidents(found: Sequence[Json]) -> None:
    """One row per incident."""
    if not found:
        print("No incidents.")
        return
    rows = [
        (
            i["incident"],
            i["guest"],
            i["state"],
            _clock(i["died_at"]),
            _clock(i["opened_at"]),
            _yes(i["dry_run"]),
            i["ticket"],
        )
        for i in found
    ]
    _print(_table(("incident", "guest", "state", "died (UTC)", "opened (UTC)", "dry run", "ticket"), rows))


def show_deliveries(found: Sequence[Json]) -> None:
    """One row per message."""
    if not found:
        print("Nothing waits to be told.")
        return
    times = ("queued_at", "next_at")
    rows = [
        (*(d[name] for name in ("incident", "channel", "kind", "state", "attempts")), *(_clock(d[t]) for t in times),
         d["error"])
        for d in found
    ]  # fmt: skip
    head = ("incident", "to", "what", "state", "tries", "since (UTC)", "not before", "why not")
    _print(_table(head, rows))


def show_incident(found: Json) -> None:
    """Everything about one incident."""
    event = found["event"] or {}
    facts = [
        ("guest", found["guest"]),
        ("state", found["state"]),
        ("died (UTC)", _clock(found["died_at"])),
        ("restarted (UTC)", _clock(event.get("restarted_at"))),
        ("opened (UTC)", _clock(found["opened_at"])),
        ("cause", event.get("cause")),
        ("hypervisor", event.get("hypervisor")),
        ("ticket", found["ticket"]),
        ("reason", found["reason"]),
        ("dry run", _yes(found["dry_run"])),
    ]
    _print(Text(found["incident"], style="bold"))
    _print(_table(("", ""), [(name, value) for name, value in facts if value], header=False))
    if event.get("lines"):
        _print(Text(clean("\n".join(event["lines"])), style="dim"))
    rows = [
        (s["step"], s["instance"], s["phase"], s["attempt"], _clock(s["started_at"]), _seconds(s["seconds"]), _said(s))
        for s in found["steps"]
    ]
    _print(_table(("step", "instance", "outcome", "try", "started (UTC)", "took", "said"), rows, title="Steps"))
    for instance in found["instances"]:
        _show_instance(instance)
    if found["waiting_messages"]:
        count = found["waiting_messages"]
        _print(Text(f"{count} messages could not be told yet: unlatch deliveries {found['incident']}", style="yellow"))
    kept = [fact for s in found["steps"] if s["step"] == "keep_crash_facts" for fact in s["result"].get("facts", [])]
    if kept:
        facts_of_crash = [(fact["host"], fact["what"], _kept(fact["found"]), fact["words"]) for fact in kept]
        title = "What is known of the crash (its texts: unlatch show --json)"
        _print(_table(("host", "what", "found", "said"), facts_of_crash, title=title))


def _kept(found: bool | None) -> str:
    return {True: "kept", False: "nothing", None: "not readable"}[found]


def _show_instance(found: Json) -> None:
    name = found["instance"]
    if found["verdict"]:
        rows = [(e["check"], e["answer"], _clock(e["at"]), e["summary"]) for e in found["evidence"]]
        title = f"{name}: previous incarnation {found['verdict']}"
        _print(_table(("check", "answer", "at (UTC)", "what it saw"), rows, title=title))
        _print(Text(clean("\n".join(f"- {reason}" for reason in found["reasons"]))))
    if found["needs_person"]:
        _print(Text(clean(f"A person must decide: {found['needs_person']}"), style="yellow"))
    if found["approval"]:
        answer = found["approval"]
        said = "approved" if answer["approved"] else "rejected"
        _print(Text(clean(f"{said} by {answer['by']} at {_clock(answer['at'])} UTC: {answer['comment'] or ''}")))
    if found["files"]:
        files = [
            (f["path"], f["state"], f["remedy"], _yes(f["done"]), _inodes(f), f["quarantine"] or f["why"])
            for f in found["files"]
        ]
        head = ("file", "lock", "remedy", "done", "inode", "original, or why")
        _print(_table(head, files, title=f"{name}: files"))
    if found["access"]:
        login = found["login"] or {}
        words = f"{name} accepts logins ({login.get('server_version', 'version not known')}, {login.get('user', '?')})"
        _print(Text(clean(words), style="green"))


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str = "", header: bool = True) -> Table:
    made = Table(title=Text(clean(title)) if title else None, title_justify="left", show_header=header)
    for name in head:
        made.add_column(name, overflow="fold")
    for row in rows:
        cells = ["" if cell is None else clean(cell) for cell in row]
        made.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in cells))
    return made


def show_table(made: Table) -> None:
    """A table that was made elsewhere."""
    _print(made)


def show_text(text: Text) -> None:
    """Text, unbroken."""
    _console().print(text, soft_wrap=True)


def _print(what: Table | Text) -> None:
    """Print to the present standard output; a pipe gets wide lines, so that no value is cut in two."""
    _console().print(what)


def _console() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH_WITHOUT_TERMINAL
    return console


def _said(step: Json) -> str:
    result = step["result"]
    if "error" in result:
        return str(result["error"])
    return "dry run" if any(key.startswith("would") for key in result) else ""


def _inodes(file: Json) -> str:
    return f"{file['inode_before']} → {file['inode_after']}" if file["inode_after"] else ""


def _clock(moment: str | None) -> str:
    return f"{datetime.fromisoformat(moment):%Y-%m-%d %H:%M:%S}" if moment else ""


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.1f} s"


def _yes(value: object) -> str:
    return "yes" if value else ""
