"""The commands of `unlatch`, with their options and help."""

from __future__ import annotations

import argparse

from unlatch.cli import commands
from unlatch.cli.cleaning import clean_up, close
from unlatch.cli.deliveries import deliveries
from unlatch.cli.drill import drill
from unlatch.cli.options import (
    EXIT_CODES,
    Verbs,
    command,
    group_of,
    inventory_option,
    json_option,
    positive,
    store_option,
    witness,
)
from unlatch.cli.postmortem import moment, note, postmortem
from unlatch.cli.rechecks import recheck, report
from unlatch.cli.sources import sources

ENVIRONMENT = """environment:
  UNLATCH_INVENTORY, else ./inventory.yaml
  UNLATCH_STORE_URL, or UNLATCH_STORE_URL_FILE: a file that holds the URL, for one with a password; else the SQLite
  file var/unlatch.db
  UNLATCH_AUDIT_KEYS_FILE: a file with keys that sign the audit"""


def parser() -> argparse.ArgumentParser:
    """The parser of all commands; each has an example in its help."""
    root = argparse.ArgumentParser(
        prog="unlatch",
        description="Looks at incidents, the audit, the inventory and hypervisor logs. Repairs run in Airflow.",
        epilog=f"example:\n  unlatch incidents --limit 5\n\n{ENVIRONMENT}\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    root.set_defaults(inventory=None, store_url=None)
    verbs = root.add_subparsers(dest="command", metavar="COMMAND", required=True)

    group = group_of(
        verbs, "inventory", "the file that declares hypervisors, guests, instances, volumes", "unlatch inventory check"
    )
    check = command(
        group,
        "check",
        "say whether the inventory is right, every problem with its line and key",
        "unlatch inventory check --file inventory.yaml",
        commands.inventory_check,
    )
    inventory_option(check, "--file", "--inventory")
    json_option(check)

    _parse_log(verbs)
    _drill(verbs)
    _sources(verbs)
    _incident_commands(verbs)
    _day_after_commands(verbs)
    _report_commands(verbs)
    _audit_commands(verbs)
    return root


def _parse_log(verbs: Verbs) -> None:
    parse = command(
        verbs,
        "parse-log",
        "print the crashes that a hypervisor's log tells, one JSON object per line",
        "unlatch parse-log --tz Europe/Zurich --hypervisor hv01 /var/log/xen/xend.log",
        commands.parse_log,
        more="Only crashes that are certain are printed: not shutdowns, reboots, migrations, nor signs that are "
        "ambiguous alone (--ambiguous adds those). No inventory is needed: `guest` is null without one.",
    )
    parse.add_argument("file", nargs="?", default="-", metavar="FILE", help="the log; - is standard input (default)")
    parse.add_argument("--format", default="auto", metavar="NAME", help="log format, such as xend (default auto: all)")
    parse.add_argument(
        "--tz",
        metavar="ZONE",
        help="zone of stamps without one, such as Europe/Zurich (default: what the inventory says of the hypervisor's "
        "log, else UTC)",
    )
    parse.add_argument("--ambiguous", action="store_true", help="print what is only a sign of a crash too")
    parse.add_argument("--hypervisor", metavar="NAME", help="whose log it is; null in the output when not given")
    inventory_option(parse, "--inventory")


def _drill(verbs: Verbs) -> None:
    made = command(
        verbs,
        "drill",
        "prove that every privilege that a repair would need is there; nothing is changed",
        "unlatch drill --guest dbvrtg4037",
        drill,
        more="For what is missing it prints the sudoers line, the role or the command that grants it. Exit code 4: "
        "something is missing; 6: a guest was out of reach.",
    )
    made.add_argument(
        "--guest", nargs="+", action="extend", default=[], metavar="NAME", help="only these guests (default: all)"
    )
    inventory_option(made, "--inventory")
    json_option(made)


def _sources(verbs: Verbs) -> None:
    listed = command(
        verbs,
        "sources",
        "list the hypervisors' logs: is each one read, and does it say anything",
        "unlatch sources --json",
        sources,
        more="Exit code 4: a log is out of reach, missing, unreadable, or silent for longer than its silent_after_s; "
        "or the watch itself has not looked for a while.",
    )
    inventory_option(listed, "--inventory")
    store_option(listed)
    json_option(listed)


def _incident_commands(verbs: Verbs) -> None:
    listed = command(
        verbs, "incidents", "list incidents, newest first", "unlatch incidents --limit 10", commands.incidents
    )
    listed.add_argument("--limit", type=positive, default=50, metavar="N", help="at most so many (default 50)")
    store_option(listed)
    json_option(listed)

    show = command(
        verbs,
        "show",
        "show one incident: steps, verdicts with their evidence, files, times",
        "unlatch show inc-20141018-035452-dbvrtg4037",
        commands.show,
    )
    show.add_argument("incident", metavar="INCIDENT", help="the incident's id, which is also its run id in Airflow")
    store_option(show)
    json_option(show)

    waiting = command(
        verbs,
        "deliveries",
        "list what could not be told yet to the ticket system or to people, and why",
        "unlatch deliveries --now",
        deliveries,
        more="It is told by itself later, in order and once: --now only shortens the wait.",
    )
    waiting.add_argument("incident", nargs="?", metavar="INCIDENT", help="only of this incident (default: of all)")
    waiting.add_argument("--all", action="store_true", help="also what was told")
    waiting.add_argument("--now", action="store_true", help="let everything that waits be tried at the next occasion")
    store_option(waiting)
    json_option(waiting)


def _day_after_commands(verbs: Verbs) -> None:
    made = command(
        verbs,
        "clean-up",
        "delete what a repair has left, after a last look at everything, and close the incident",
        "unlatch clean-up inc-20141018-035452-dbvrtg4037 --dry-run",
        clean_up,
        more="What Airflow does by itself on the next working day. Refused before that day, and while anything may "
        "still need the originals; --dry-run looks on any day and deletes nothing.",
    )
    made.add_argument("incident", metavar="INCIDENT", help="the incident's id")
    made.add_argument(
        "--instance", nargs="+", action="extend", default=[], metavar="NAME", help="only these (default: all)"
    )
    made.add_argument("--dry-run", action="store_true", help="tell what would be deleted")
    inventory_option(made, "--inventory")
    store_option(made)
    json_option(made)

    looked = command(
        verbs,
        "recheck",
        "look for what repairs have left, what is stuck, whether the audit holds; and drill every guest",
        "unlatch recheck dbs03",
        recheck,
        more="What Airflow does by itself on Mondays; nothing is touched. The report is kept and sent, unless this is "
        "a dry run. Exit code 4: there are findings.",
    )
    looked.add_argument(
        "volume", nargs="*", metavar="VOLUME", help="only these (default: all that incidents have touched since)"
    )
    looked.add_argument("--no-drill", action="store_true", help="leave out the drill of the guests")
    looked.add_argument("--dry-run", action="store_true", help="keep and send no report")
    inventory_option(looked, "--inventory")
    store_option(looked)
    json_option(looked)

    shown = command(
        verbs, "report", "list the reports of re-checks and drills, or print one", "unlatch report --limit 5", report
    )
    shown.add_argument("report", nargs="?", metavar="REPORT", help="a report's id; none: list them")
    shown.add_argument("--format", choices=["md", "html", "json"], default="md", help="how to print it (default md)")
    shown.add_argument("--limit", type=positive, default=10, metavar="N", help="list at most so many of a kind")
    store_option(shown)

    ended = command(
        verbs,
        "close",
        "close an incident that was refused, has failed or was reopened, and that nobody will repair",
        'unlatch close inc-20141018-035452-dbvrtg4037 --reason "compared with the owner, the copy is right"',
        close,
        more="Nothing on the volume is touched: what the repair has left there stays.",
    )
    ended.add_argument("incident", metavar="INCIDENT", help="the incident's id")
    ended.add_argument("--reason", required=True, metavar="TEXT", help="for the audit and the ticket")
    inventory_option(ended, "--inventory")
    store_option(ended)
    json_option(ended)


def _report_commands(verbs: Verbs) -> None:
    written = command(
        verbs,
        "postmortem",
        "write the report of an incident: time line, where the time went, analysis, follow up",
        "unlatch postmortem inc-20141018-035452-dbvrtg4037 --output report.html",
        postmortem,
        more="It is written from the audit alone. Times are those of the inventory's site.timezone, else UTC.",
    )
    written.add_argument("incident", metavar="INCIDENT", help="the incident's id")
    written.add_argument(
        "--format", choices=["md", "html", "pdf", "twiki"], help="default: what FILE ends with, else md (Markdown)"
    )
    written.add_argument("--output", metavar="FILE", help="where to write it (default: standard output)")
    inventory_option(written, "--inventory")
    store_option(written)

    noted = command(
        verbs,
        "note",
        "add your own words to an incident's audit, and so to its report",
        'unlatch note inc-20141018-035452-dbvrtg4037 "GGUS ticket opened by CMS" --at 2014-10-18T10:47:00+02:00',
        note,
        more="They are kept for ever, with your name.",
    )
    noted.add_argument("incident", metavar="INCIDENT", help="the incident's id")
    noted.add_argument("words", metavar="WORDS", help="what happened, in a sentence")
    noted.add_argument(
        "--at", type=moment, metavar="MOMENT", help="when, as in 2014-10-18T10:47:00+02:00 (default: now)"
    )
    noted.add_argument(
        "--kind",
        choices=["event", "impact", "follow-up"],
        default="event",
        help="where the report has it (default: in the time line)",
    )
    store_option(noted)


def _audit_commands(verbs: Verbs) -> None:
    group = group_of(
        verbs, "audit", "the hash-chained record of everything that was intended and done", "unlatch audit verify"
    )
    verify = command(
        group,
        "verify",
        "walk the whole chain and name every row that is not as it was written",
        "unlatch audit verify --witness 118:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        commands.audit_verify,
        more="Rows cut off at the end leave a chain that holds. A witness shows them: an audit head as the comments "
        "of tickets have it.",
    )
    verify.add_argument(
        "--witness", type=witness, metavar="ROW:HASH", help="an audit head that was kept elsewhere, as in a ticket"
    )
    store_option(verify)
    json_option(verify)

    export = command(
        group,
        "export",
        "print the audit, one row per line; a line without its hash is exactly what was hashed",
        "unlatch audit export > audit.jsonl",
        commands.audit_export,
    )
    export.add_argument("--format", choices=["jsonl", "csv"], default="jsonl", help="JSON lines (default), or CSV")
    store_option(export)
