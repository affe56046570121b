"""What all commands share: how a command is declared, with its help and example, and its common options."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable
from typing import TypeAlias

EXIT_CODES = """exit codes:
  0 done   2 usage, also a name that does not exist   3 refused by a safety rule
  4 a check failed: a damaged audit, or a privilege that is missing
  5 something here is wrong (inventory, privilege, tool, file)   6 out of reach or busy: try again
  0 also when the reader of the output closes it early; 130 when interrupted"""

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001  # typing knows no other name
Run: TypeAlias = Callable[[argparse.Namespace], int]


def group_of(verbs: Verbs, name: str, what: str, example: str) -> Verbs:
    """A command of commands."""
    return parser_of(verbs, name, what, example).add_subparsers(dest="verb", metavar="COMMAND", required=True)


def command(verbs: Verbs, name: str, what: str, example: str, run: Run, *, more: str = "") -> argparse.ArgumentParser:
    """A command that runs something."""
    made = parser_of(verbs, name, what, example, more)
    made.set_defaults(run=run)
    return made


def parser_of(verbs: Verbs, name: str, what: str, example: str, more: str = "") -> argparse.ArgumentParser:
    """A parser with its help and an example."""
    described = f"{what[0].upper()}{what[1:]}. {more}".strip()
    made: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=what,
        description=textwrap.fill(described, 100),
        epilog=f"example:\n  {example}\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    return made


def inventory_option(to: argparse.ArgumentParser, *names: str) -> None:
    """Which inventory."""
    to.add_argument(*names, dest="inventory", metavar="FILE", help="the inventory (default: $UNLATCH_INVENTORY)")


def store_option(to: argparse.ArgumentParser) -> None:
    """Which store."""
    to.add_argument("--store-url", metavar="URL", help="where incidents are kept (default: $UNLATCH_STORE_URL)")


def json_option(to: argparse.ArgumentParser) -> None:
    """For programs."""
    to.add_argument("--json", action="store_true", help="print one JSON document, for programs")


def positive(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)


def witness(text: str) -> tuple[int, str]:
    """The head of an audit."""
    row, _, digest = text.partition(":")
    if not row.isdecimal() or not digest:
        raise argparse.ArgumentTypeError(f"{text!r} is not ROW:HASH, as in 118:9f86d0…")
    return int(row), digest.strip().lower()
