"""`unlatch clean-up` and `unlatch close`: the day after a repair, by hand."""

from __future__ import annotations

import argparse
import contextlib
import getpass
import json
import sys

from rich.table import Table
from rich.text import Text

from unlatch.cli import output
from unlatch.errors import UnlatchError
from unlatch.models import Json


def clean_up(options: argparse.Namespace) -> int:
    """Clean up instance by instance, then close the incident; each instance's failure is told, the others go on.

    Returns:
        0, or the exit code of the worst failure.
    """
    with contextlib.redirect_stdout(sys.stderr):
        from unlatch import wiring_cleaning, wiring_drill  # noqa: PLC0415  # imports Airflow, which logs to stdout

        wiring_drill.ask_airflows_database()
        conf = {"incident": options.incident, "instances": options.instance, "dry_run": options.dry_run}
        lanes = wiring_cleaning.clean_up_lanes(conf)
        cleaned: dict[str, Json] = {}
        errors: list[UnlatchError] = []
        for lane in lanes:
            try:
                cleaned[lane["instance"]] = wiring_cleaning.clean_up(**lane, actor=actor())
            except UnlatchError as error:
                errors.append(error)
        ended: Json = {"closed": False}
        if cleaned and not options.dry_run:
            incident = lanes[0]["incident"]
            ended = wiring_cleaning.close_incident(incident, list(cleaned), dry_run=False, actor=actor())
    if options.json:
        told = [{"message": e.what, "next": e.next_step, "exit_code": e.exit_code} for e in errors]
        found = {"incident": options.incident, "dry_run": options.dry_run, "instances": cleaned, "errors": told}
        print(json.dumps({**found, "closed": bool(ended.get("closed"))}, ensure_ascii=False))
    else:
        _show(cleaned, ended, dry_run=options.dry_run)
        for e in errors:
            print(f"unlatch: {output.clean(e.what)}\n  next: {output.clean(e.next_step)}", file=sys.stderr)
    return max((e.exit_code for e in errors), default=0)


def close(options: argparse.Namespace) -> int:
    """Close an incident that only a person can end."""
    with contextlib.redirect_stdout(sys.stderr):
        from unlatch import wiring_cleaning, wiring_drill  # noqa: PLC0415

        wiring_drill.ask_airflows_database()
        found = wiring_cleaning.close_by_hand(options.incident, reason=options.reason, actor=actor())
    print(json.dumps(found) if options.json else f"{options.incident} is closed; it was {found['was']}.")
    return 0


def actor() -> str:
    """Who runs this command, for the audit."""
    return f"cli:{getpass.getuser()}"


def _show(cleaned: dict[str, Json], ended: Json, *, dry_run: bool) -> None:
    from unlatch.wording import space  # noqa: PLC0415

    made = Table(title=Text("Would be deleted" if dry_run else "Deleted"), title_justify="left")
    for name in ("instance", "file", "held", "space"):
        made.add_column(name, overflow="fold")
    for name, found in cleaned.items():
        for file in found["files"]:
            why = found["why_not_freed"].get(file["removed"], "")
            words = ("comes back" if dry_run else "came back") if file["freed"] else f"still held: {why}"
            cells = (name, file["removed"], space(file["bytes_held"]), words)
            made.add_row(*(Text(output.clean(cell)) for cell in cells))
            name = ""  # noqa: PLW2901  # once per instance
    if made.row_count:
        output.show_table(made)
    freed, held = (sum(found[key] for found in cleaned.values()) for key in ("freed_bytes", "not_freed_bytes"))
    later = f", {space(held)} only when the last lock on it is dropped" if held else ""
    verb = "would come back" if dry_run else "came back"
    if cleaned:
        closed = " The incident is closed." if ended.get("closed") else ""
        output.show_text(Text(f"{space(freed)} {verb}{later}.{closed}"))
