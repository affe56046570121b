"""Where reading of a journal stands, and how to read on from there. Pure: no IO. The counterpart of `log_position`.

A cursor is JSON: `cursor` is the journal's own `__CURSOR` of the last entry that was read (None: there was no entry at
all yet), `read_at` when everything up to there had been read; `anchor` says that the entry itself was not selected:
it only marks the moment from which on everything counts. Boots, rotations and steps of the clock change nothing about
it. An entry that has been vacuumed is noticed: reading begins AT the cursor, and what comes first must be that entry.

The remote side is POSIX sh and journalctl, of any version: what an old one does not know is left out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

from unlatch.errors import ConfigError, TransientError
from unlatch.models import Json
from unlatch.transport.log_position import LogNews

MAGIC = b"UNLATCH-JOURNAL-1\n"  # whatever a login script prints comes before it

_FIELDS = (
    "MESSAGE,SYSLOG_IDENTIFIER,_COMM,_PID,_TRANSPORT,_HOSTNAME,COREDUMP_SIGNAL,COREDUMP_CMDLINE,COREDUMP_CGROUP,"
    "COREDUMP_UNIT,COREDUMP_PID"
)

# Answers: N no journalctl; P not readable; M no journal at all; else lines of JSON, remarks of journalctl between them,
# and "F code" when it failed.
_BEGIN = rf"""
LC_ALL=C; export LC_ALL
echo UNLATCH-JOURNAL-1
command -v journalctl >/dev/null || {{ echo N; exit 0; }}
case $(journalctl --no-pager -n 1 2>&1 >/dev/null) in
  *"not seeing messages"*|*"insufficient permissions"*) echo P; exit 0 ;;
  *"No journal files were found"*) echo M; exit 0 ;;
esac
fields=
journalctl --output-fields=MESSAGE --version >/dev/null 2>&1 && fields=--output-fields={_FIELDS}
ask() {{ journalctl --no-pager -o json $fields "$@" 2>&1 || echo "F $?"; }}
"""

# $1 cursor (- for a first look, empty: from the beginning), $2 bytes to read at most, then what selects entries.
_POLL = (
    _BEGIN
    + r"""
cursor=$1 left=$2; shift 2
case $cursor in
  -) last=$(ask -n 1 "$@"); [ -n "$last" ] || { echo A; last=$(ask -n 1); }; printf '%s\n' "$last" ;;
  '') ask "$@" | head -c "$left" ;;
  *) ask --cursor="$cursor" "$@" | head -c "$left" ;;
esac
"""
)

# $1 cursor (- for the present end, empty: from the beginning), then what selects entries. Ends with its caller: when
# the connection is lost standard input ends, which an old journalctl would not notice before its next entry.
_FOLLOW = (
    _BEGIN
    + r"""
cursor=$1; shift
exec 3<&0
( cat <&3 >/dev/null; kill "$$" ) >/dev/null 2>&1 &
case $cursor in
  -) set -- -n 0 "$@" ;;
  '') set -- --no-tail "$@" ;;
  *) set -- --no-tail --cursor="$cursor" "$@" ;;
esac
exec journalctl --no-pager -f -o json $fields "$@" </dev/null 3<&- 2>&1
"""
)

# $1 bytes, then what selects entries.
_TAIL = (
    _BEGIN
    + r"""
bytes=$1; shift
ask -n 20000 "$@" | tail -c "$bytes"
"""
)


def poll_command(arguments: Sequence[str], cursor: Json | None, limit_bytes: int) -> list[str]:
    """The argument vector that reads on behind `cursor`; with None it only finds the journal's present end."""
    return ["sh", "-c", _POLL, "unlatch-journal", _start(cursor), str(limit_bytes), *arguments]


def follow_command(arguments: Sequence[str], cursor: Json | None) -> list[str]:
    """The argument vector that prints entries from `cursor` on, itself included, as they come, until stdin ends."""
    return ["sh", "-c", _FOLLOW, "unlatch-journal", _start(cursor), *arguments]


def tail_command(arguments: Sequence[str], each_bytes: int) -> list[str]:
    """The argument vector that prints the newest entries."""
    return ["sh", "-c", _TAIL, "unlatch-journal", str(each_bytes), *arguments]


def _start(cursor: Json | None) -> str:
    return "-" if cursor is None else str(cursor["cursor"] or "")


def read_answer(
    output: bytes, cursor: Json | None, *, host: str, where: str, asked_at: datetime, limit_bytes: int
) -> LogNews:
    """Entries, one line of JSON each, and the next cursor, from what `poll_command` printed.

    Args:
        output: Its standard output.
        cursor: The one that it was made with.
        host: For messages.
        where: For messages.
        asked_at: When it was started (aware).
        limit_bytes: The one that it was made with.

    Raises:
        TransientError: journalctl failed: nothing is consumed, ask again.
        ConfigError: the journal may not be read, or the command did not run.
    """
    body = answer_body(output, host=host, where=where)
    if body.startswith(b"M\n"):
        return LogNews((), cursor or _cursor_at(None, asked_at), missing=True)
    anchor = body.startswith(b"A\n")
    entries = _entries(body.removeprefix(b"A\n"), host=host, where=where)
    if cursor is None:
        last = entries[-1][0] if entries else None
        return LogNews((), {**_cursor_at(last, asked_at), **({"anchor": True} if anchor and last else {})})
    new, gap = unread(entries, cursor)
    read_at = asked_at.isoformat() if len(body) < limit_bytes else cursor.get("read_at")
    following = {**cursor, "read_at": read_at}
    if new:
        following = {"cursor": new[-1][0], "read_at": read_at}
    return LogNews(tuple(line for _, line in new), following, len(body) if new else 0, gap)


def unread(entries: Sequence[tuple[str, str]], cursor: Json) -> tuple[Sequence[tuple[str, str]], bool]:
    """What comes behind the cursor, and whether entries between may be missing.

    Args:
        entries: `(cursor, line)` from the cursor on, oldest first.
        cursor: Where they were to begin.
    """
    if entries and entries[0][0] == cursor["cursor"]:
        return entries[1:], False
    return entries, bool(entries and cursor["cursor"] and not cursor.get("anchor"))


def entry_of(line: bytes) -> tuple[str, str] | None:
    """The cursor and the text of one line; None for a remark, or a line that is not whole."""
    if not line.startswith(b"{"):
        return None
    text = line.decode("utf-8", "replace")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    place = found.get("__CURSOR") if isinstance(found, dict) else None
    return (place, text) if isinstance(place, str) else None


def tail_lines(output: bytes, *, host: str, where: str) -> list[str]:
    """The entries that `tail_command` printed, oldest first.

    Raises:
        ConfigError: the journal may not be read, or the command did not run.
    """
    body = answer_body(output, host=host, where=where)
    return [entry[1] for line in body.split(b"\n") if (entry := entry_of(line)) is not None]


def answer_body(output: bytes, *, host: str, where: str) -> bytes:
    """What comes behind the magic word.

    Raises:
        ConfigError: the journal may not be read, or the command did not run.
    """
    _, magic, body = output.partition(MAGIC)
    if not magic:
        raise ConfigError(
            f"{host} did not run the command that reads its {where}.",
            next_step="see whether its login user has a POSIX shell, and no forced command.",
        )
    if body.startswith(b"N\n"):
        raise ConfigError(
            f"{host} has no journalctl, so its {where} cannot be read.", next_step="name a log file in the inventory."
        )
    if body.startswith(b"P\n"):
        raise ConfigError(
            f"The {where} of {host} may not be read by the login user.",
            next_step="as root there: usermod -aG systemd-journal USER, for that user.",
        )
    return body


def _entries(body: bytes, *, host: str, where: str) -> list[tuple[str, str]]:
    entries: list[tuple[str, str]] = []
    remarks: list[str] = []
    for line in body.split(b"\n"):
        found = entry_of(line)
        if found is not None:
            entries.append(found)
        elif line.startswith(b"F "):
            words = " ".join(remarks) or line.decode("ascii", "replace")
            raise TransientError(
                f"journalctl on {host} could not read its {where}: {words}", next_step="see what it says there."
            )
        elif line and not line.startswith(b"{"):
            remarks.append(line.decode("utf-8", "replace"))
    return entries


def _cursor_at(place: str | None, asked_at: datetime) -> Json:
    return {"cursor": place, "read_at": asked_at.isoformat()}
