"""Pieces of logs that are kept: as much as a limit allows around what matters, and without passwords."""

from __future__ import annotations

import re
from collections.abc import Sequence

EXCERPT_BYTES = 64 << 10
"""How much text is kept of one log."""


def trimmed(lines: Sequence[str], centre: int) -> str:
    """As many lines around `centre` as the limit allows, with a remark in place of those that are left out."""
    first, after, size = centre, centre, 0
    room = EXCERPT_BYTES - 100  # for the two remarks
    while first > 0 or after < len(lines):
        wanted = [*([after] if after < len(lines) else []), *([first - 1] if first > 0 else [])]
        grown = False
        for number in wanted:
            cost = len(lines[number].encode()) + 1
            if size + cost <= room:
                size, grown = size + cost, True
                first, after = min(first, number), max(after, number + 1)
        if not grown:
            break
    before, behind = first, len(lines) - after
    return "\n".join(
        [
            *([f"[{before} lines before are left out]"] if before else []),
            *lines[first:after],
            *([f"[{behind} lines behind are left out]"] if behind else []),
        ]
    )


HIDDEN = "***"
"""What stands where a secret was."""

_SECRET = re.compile(
    r"""(\b[\w.-]{0,40}(?:passw(?:or)?d|passphrase|secret|token|credential|api_?key)[\w.-]{0,40}['"]?\s{0,3}[=:,]\s{0,3})"""
    r"""(?:'[^'\n]*'|"[^"\n]*"|[^\s'",;)\]}]+)""",
    re.IGNORECASE,
)


def hide_secrets(text: str) -> str:
    """The text with `***` for what follows a word for a secret: xend logs each domain with its console's password."""
    return _SECRET.sub(rf"\1{HIDDEN}", text)
