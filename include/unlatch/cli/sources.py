"""`unlatch sources`: is every log read, and does it say anything?"""

from __future__ import annotations

import argparse
import json
from datetime import datetime

from rich.table import Table
from rich.text import Text

from unlatch.cli import output
from unlatch.errors import CheckFailedError
from unlatch.models import Json

_STYLES = {"ok": "green", "unknown": "yellow", "silent": "bold red"}


def sources(options: argparse.Namespace) -> int:
    """Print the health of every log; 4 when one does badly, or the watch itself does not look."""
    from unlatch import wiring_watch  # noqa: PLC0415  # takes a while, which --help need not

    found = wiring_watch.sources_now()
    if options.json:
        print(json.dumps(found, ensure_ascii=False))
    else:
        show(found)
    return 0 if found["ok"] else CheckFailedError.exit_code


def show(found: Json) -> None:
    """One row per log, and below it whether anybody looks at all."""
    table = Table()
    for name in ("log", "state", "since (UTC)", "reached (UTC)", "last line (UTC)", "why"):
        table.add_column(name, overflow="fold", no_wrap=name not in {"log", "why"})
    for row in found["sources"]:
        table.add_row(
            Text(output.clean(row["source"])),
            Text(row["state"], style=_STYLES.get(row["state"], "bold red")),
            *(Text(_clock(row[key])) for key in ("since", "reached_at", "line_at")),
            Text(output.clean(row["words"])),
        )
    output.show_table(table)
    if found["watch_is_overdue"]:
        looked = f"not since {_clock(found['looked_at'])} UTC" if found["looked_at"] else "never"
        words = f"The watch has looked {looked}: see whether watch_hypervisors is unpaused and the triggerer runs."
        output.show_text(Text(words, style="bold red"))
    else:
        output.show_text(Text(f"The watch looked last at {_clock(found['looked_at'])} UTC."))


def _clock(text: str | None) -> str:
    return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M:%S}" if text else ""
