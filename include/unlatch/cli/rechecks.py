"""`unlatch recheck` and `unlatch report`: the Monday report, made or shown by hand."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import sys
from datetime import UTC, datetime

from rich.table import Table
from rich.text import Text

from unlatch.cli import output
from unlatch.cli.commands import UsageError
from unlatch.errors import CheckFailedError


def recheck(options: argparse.Namespace) -> int:
    """Look at volumes, incidents, audit and guests, and make the report.

    Returns:
        0 when all is well; 4 when there are findings.
    """
    with contextlib.redirect_stdout(sys.stderr):
        from unlatch import wiring_drill, wiring_rechecks  # noqa: PLC0415  # imports Airflow, which logs to stdout

        logging.getLogger("paramiko").setLevel(logging.ERROR)
        wiring_drill.ask_airflows_database()
        run = f"manual-{datetime.now(UTC):%Y%m%dT%H%M%S}"
        looked = {}
        for name in wiring_rechecks.volumes_to_recheck(options.volume):
            print(f"recheck: {name}", file=sys.stderr, flush=True)
            looked[name] = wiring_rechecks.recheck_volume(name)
        drills = {}
        for guest in [] if options.no_drill else wiring_rechecks.guests_to_drill():
            print(f"recheck: drill of {guest}", file=sys.stderr, flush=True)
            drills[guest] = wiring_rechecks.drill_guest(guest, run=run, dry_run=options.dry_run)
        made = wiring_rechecks.report_recheck(
            run, looked, drills, dry_run=options.dry_run, whole_fleet=not options.volume and not options.no_drill
        )
    print(json.dumps(made.as_dict(), ensure_ascii=False) if options.json else output.clean(made.content["markdown"]))
    return CheckFailedError.exit_code if made.content["findings"] else 0


def report(options: argparse.Namespace) -> int:
    """List the reports that are kept, or print one."""
    from unlatch import wiring_rechecks  # noqa: PLC0415  # loaded by the commands that need it

    if options.report is None:
        made = Table()
        for name in ("report", "at (UTC)", "title"):
            made.add_column(name, overflow="fold")
        for kind in ("recheck", "drill"):
            for each in wiring_rechecks.reports(kind, options.limit):
                cells = (each.report, f"{each.at:%Y-%m-%d %H:%M:%S}", each.title)
                made.add_row(*(Text(output.clean(cell)) for cell in cells))
        output.show_table(made)
        return 0
    found = wiring_rechecks.report(options.report)
    if found is None:
        raise UsageError(f"There is no report {options.report!r}.", next_step="`unlatch report` lists them.")
    if options.format == "json":
        print(json.dumps(found.as_dict(), ensure_ascii=False))
    else:
        text = found.content["html" if options.format == "html" else "markdown"]
        print(text if options.format == "html" else output.clean(text))
    return 0
