"""Names of tables and causes of failed starts: text in, text out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from unlatch.errors import ConfigError
from unlatch.models import Instance

_NAME = re.compile(r"[\w$-]{1,64}")
_PARTS = 2

Cause = tuple[re.Pattern[str], str]
"""A line that names why a server did not start, and what it means; groups of the pattern fill `{0}`, `{1}`."""


def cause(pattern: str, meaning: str) -> Cause:
    """A line of a table of causes."""
    return re.compile(pattern, re.IGNORECASE), meaning


def explain(log_tail: str, causes: Iterable[Cause]) -> str | None:
    """The meaning of the last line that any of the causes knows; of several in that line, the first of the table.

    The last, because the end of a log may still hold an earlier attempt with another cause.
    """
    latest, meaning = -1, None
    for pattern, words in causes:
        for found in pattern.finditer(log_tail):
            line = log_tail.count("\n", 0, found.start())
            if line > latest:
                latest, meaning = line, words.format(*found.groups())
    return meaning


def table_name(instance: Instance) -> Sequence[str]:
    """The one or two parts of `read_table`, exactly as written, for the engine to quote.

    Raises:
        ConfigError: it is no `table` or `schema.table`.
    """
    parts = (instance.read_table or "").split(".")
    if len(parts) > _PARTS or not all(_NAME.fullmatch(part) for part in parts):
        raise ConfigError(
            f"read_table of {instance.name} is {instance.read_table!r}, which is no table name.",
            next_step="write it as schema.table in the inventory, without quotes.",
        )
    return parts
