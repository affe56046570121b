"""Whether sudo would ask for a password, from its own list of rules (`sudo -ll`).

`sudo -n -l COMMAND` says that a command is allowed also when running it would ask for a password, which nobody can give
in a repair (measured, sudo 1.9.13). So the rule that allows it has to be found in the list.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_BEGIN = re.compile(r"^(?:Sudoers entry|LDAP Role|SSSD Role)\b.*:")
_FIELD = re.compile(r"^\s+(RunAsUsers|RunAsGroups|Options|Commands):\s*(.*)$")
_NO_PASSWORD = re.compile(r"(?:^|[\s,])!authenticate(?:$|[\s,])")
_WILD = re.compile(r"(?<!\\)[*?\[]")
_DIGEST = re.compile(r"^(?:sha\d+:\S+,?\s+)+")


@dataclass(frozen=True)
class Rule:
    """One entry of the list: as whom, without a password or not, which commands."""

    run_as: tuple[str, ...]
    asks: bool
    commands: tuple[str, ...]


def asks_for_password(listing: str, argv: Sequence[str], *, run_as: str = "root") -> bool | None:
    """Whether sudo would ask before it runs a command that it allows; None when the list does not tell for sure.

    Args:
        listing: What `sudo -ll` printed, in the C locale.
        argv: The command, with the program's whole path.
        run_as: The user that it would run as.
    """
    rules = tuple(read(listing))
    if not any(rule.asks for rule in rules):
        return False if rules else None
    answer: bool | None = None
    for rule in rules:  # of several rules that match, the last one counts
        matching = max((_matches(command, argv) for command in rule.commands), default=_NO)
        matching = min(matching, _runs_as(rule, run_as))
        if matching == _YES:
            answer = rule.asks
        elif matching == _MAYBE and answer is not rule.asks:
            answer = None
    return answer


_NO, _MAYBE, _YES = 0, 1, 2


def _matches(command: str, argv: Sequence[str]) -> int:
    if command.startswith("!"):
        return _NO  # sudo has said already that the command is allowed
    command = _DIGEST.sub("", command)
    plain = re.sub(r"\\(.)", r"\1", command)
    if plain in {"ALL", " ".join(argv), argv[0]} or (len(argv) == 1 and plain == f'{argv[0]} ""'):
        return _YES
    program, _, arguments = command.partition(" ")
    if command.endswith("/") and not arguments:
        return _YES if plain == argv[0].rpartition("/")[0] + "/" else _NO
    if command.startswith("^"):  # a regular expression, in sudo's own dialect
        return _MAYBE
    alike = bool(_WILD.search(command)) and _program_matches(program, argv[0])
    return _YES if alike and (not arguments or fnmatch.fnmatchcase(" ".join(argv[1:]), arguments)) else _NO


def _program_matches(pattern: str, program: str) -> bool:
    """A star in a program's path stands for no slash; in arguments it stands for anything."""
    wanted, given = pattern.split("/"), program.split("/")
    return len(wanted) == len(given) and all(map(fnmatch.fnmatchcase, given, wanted))


def _runs_as(rule: Rule, user: str) -> int:
    if not rule.run_as or user in rule.run_as or "ALL" in rule.run_as:
        return _YES
    return _MAYBE if any(not name[:1].islower() for name in rule.run_as) else _NO  # a group, a number, an alias


def read(listing: str) -> Iterator[Rule]:
    """The rules in the order in which sudo reads them."""
    head, *entries = _split(listing)
    no_password = bool(_NO_PASSWORD.search(" ".join(head)))
    for lines in entries:
        fields: dict[str, list[str]] = {}
        values: list[str] = []
        for line in lines:
            found = _FIELD.match(line)
            if found:
                values = fields.setdefault(found[1], [])
            word = found[2] if found else line.strip()
            if word:
                values.append(word)
        run_as = tuple(name.strip() for name in ",".join(fields.get("RunAsUsers", [])).split(",") if name.strip())
        asks = not no_password and not _NO_PASSWORD.search(",".join(fields.get("Options", [])))
        yield Rule(run_as, asks, tuple(fields.get("Commands", [])))


def _split(listing: str) -> list[list[str]]:
    """What stands before the first entry (the defaults), then the lines of each."""
    parts: list[list[str]] = [[]]
    for line in listing.splitlines():
        if _BEGIN.match(line):
            parts.append([])
        else:
            parts[-1].append(line)
    defaults = [line for line in parts[0] if not line.lstrip().startswith("Defaults!")]
    return [defaults, *parts[1:]]
