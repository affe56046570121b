"""`unlatch drill`: runs the drill and shows what is there, what is missing, and what to paste where."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import re
import sys
from collections.abc import Iterable, Iterator

from rich.table import Table
from rich.text import Text

from unlatch.cli import output
from unlatch.cli.commands import UsageError
from unlatch.errors import CheckFailedError, TransientError
from unlatch.models import Drill, DrillCheck, GuestDrill

_WORDS = {True: ("ok", "green"), False: ("missing", "bold red"), None: ("not checked", "yellow")}
_DO_WITHOUT = ("not there", "dim")
_NO_ADVICE = "nothing to do"
_SUDOERS = re.compile(r"^\S+ ALL=\(")
_WORKER = "the worker"


def drill(options: argparse.Namespace) -> int:
    """Run the drill; progress goes to standard error, and so does what libraries log."""
    from unlatch import wiring  # noqa: PLC0415  # takes a while, which --help need not

    known = wiring.load_inventory().guests
    unknown = [name for name in options.guest if name not in known]
    if unknown:
        raise UsageError(
            f"There is no guest {unknown[0]!r} in the inventory.",
            next_step=f"choose from: {', '.join(sorted(known)) or 'none'}.",
        )
    with contextlib.redirect_stdout(sys.stderr):
        from unlatch import wiring_drill  # noqa: PLC0415  # imports Airflow, which begins to log where it finds stdout

        logging.getLogger("paramiko").setLevel(logging.ERROR)
        wiring_drill.ask_airflows_database()
        found = wiring_drill.run_drill(options.guest, tell=_tell)
    if options.json:
        print(json.dumps(found.as_dict(), ensure_ascii=False))
    else:
        show(found)
    return exit_code(found)


def _tell(line: str) -> None:
    print(f"drill: {output.clean(line)}", file=sys.stderr, flush=True)


def exit_code(found: Drill) -> int:
    """0: all is there; 4: something is missing; 6: a machine or volume did not answer, so that not all is known."""
    reached = [guest.reached for guest in found.guests]
    if found.guests and not any(reached) and not any(_is_refused(guest) for guest in found.guests):
        return TransientError.exit_code
    if found.missing:
        return CheckFailedError.exit_code
    return TransientError.exit_code if found.is_partial else 0


def _is_refused(guest: GuestDrill) -> bool:
    """Not silence but a no: a wrong key or login."""
    return any(check.ok is False and check.host == guest.guest for check in guest.checks)


def show(found: Drill) -> None:
    """One table per guest, the sum, and what would grant what is missing, by host."""
    shown: set[DrillCheck] = set()
    for guest in found.guests:
        table = _table(guest.guest)
        _rows(table, guest.guest, "", (c for c in guest.checks if c not in shown or not c.ok))
        shown.update(guest.checks)
        for instance in guest.instances:
            table.add_section()
            _rows(table, guest.guest, instance.instance, instance.checks)
        output.show_table(table)
    if found.site:
        table = _table("all guests")
        _rows(table, None, "", found.site)
        output.show_table(table)
    counts = found.as_dict()
    style = "bold red" if counts["missing"] else "yellow" if counts["unchecked"] else "bold green"
    words = f"{counts['ok']} ok, {counts['missing']} missing, {counts['unchecked']} could not be checked"
    output.show_text(Text(words, style=style))
    for line in (*grants(found.missing), *to_be_told(found), *good_to_have(found)):
        output.show_text(Text(output.clean(line)))


def _table(title: str) -> Table:
    made = Table(title=Text(output.clean(title), style="bold"), title_justify="left")
    for name in ("instance", "privilege", "state", "why"):
        made.add_column(name, overflow="fold", no_wrap=name == "state")
    return made


def _rows(table: Table, guest: str | None, subject: str, checks: Iterable[DrillCheck]) -> None:
    for check in checks:
        word, style = _WORDS[check.ok] if check.ok or check.needed else _DO_WITHOUT
        table.add_row(
            *(Text(output.clean(cell)) for cell in (subject, _named(check, guest))),
            Text(word, style=style),
            Text(output.clean(check.why)),
        )
        subject = ""


def _named(check: DrillCheck, guest: str | None) -> str:
    """The privilege; where, when that is another machine; and what it is about, unless all is well with it."""
    place = f" ({check.host})" if check.host not in {None, guest} else ""
    about = f"\n{check.path}" if check.path and check.needed and not check.ok else ""
    return f"{check.privilege}{place}{about}"


def grants(missing: Iterable[DrillCheck]) -> Iterator[str]:
    """What to paste, grouped by host: sudoers lines together, everything else below with what it is for."""
    by_host: dict[str, list[DrillCheck]] = {}
    for check in missing:
        by_host.setdefault(check.host or _WORKER, []).append(check)
    for host, checks in by_host.items():
        lines = [(check, line) for check in checks for line in (check.grant or "").splitlines()]
        rules = list(dict.fromkeys(line for _, line in lines if _SUDOERS.match(line)))
        others = dict.fromkeys((check.privilege, line) for check, line in lines if not _SUDOERS.match(line))
        if rules:
            yield f"\non {host}, with visudo -f /etc/sudoers.d/unlatch:"
            yield from rules
        if others:
            yield f"\non {host}:" if host != _WORKER else f"\non {host}, in Airflow, or in the inventory:"
            yield from (f"{line}    # {privilege}" for privilege, line in others)


def to_be_told(found: Drill) -> Iterator[str]:
    """What would let the next drill tell what this one could not check."""
    return _advice("to have it checked, on", found.unchecked)


def good_to_have(found: Drill) -> Iterator[str]:
    """What no repair needs, but whoever looks for the cause of a crash afterwards."""
    return _advice("good to have on", (check for check in found.checks() if not check.needed and not check.ok))


def _advice(title: str, checks: Iterable[DrillCheck]) -> Iterator[str]:
    by_host: dict[str, dict[str, None]] = {}
    for check in checks:
        if check.grant and not check.grant.startswith(_NO_ADVICE):
            lines = by_host.setdefault(check.host or _WORKER, {})
            lines |= dict.fromkeys(f"{line}    # {check.privilege}" for line in check.grant.splitlines())
    for host, lines in by_host.items():
        yield f"\n{title} {host}:"
        yield from lines
