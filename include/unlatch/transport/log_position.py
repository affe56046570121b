"""Where reading of a log stands, and how to read on from there over rotation and truncation. Pure: no IO.

`poll_command` gives a command for the machine with the log, `read_answer` makes lines and the next cursor of what it
printed; who carries them there and back (paramiko or asyncssh) does not matter. The remote side is POSIX sh, coreutils
and /proc, since hypervisors may be ancient; one poll is one command.

A cursor is JSON: `inode`, `offset` (behind the last whole line), and the length and SHA-256 of the file's first bytes
(`head_bytes`, `head_sha256`), which are what recognises the file: inode numbers are used again, and a truncated log
keeps its own. `read_at` is when everything up to there had been read; `mid_line` says that the rest of an overlong
line is still to be dropped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from unlatch.errors import ConfigError, TransientError
from unlatch.models import Json

READ_LIMIT_BYTES = 4 << 20
"""What one poll carries at most; the next one goes on."""

_MAGIC = b"UNLATCH-LOG-1\n"  # whatever a login script prints comes before it

# $1 path, $2 inode (- for a first look), $3 offset, $4 head bytes, $5 head sum, $6 bytes to read at most.
# Answers: U nothing new; M no such file; P not readable; R files moved meanwhile; else segments, oldest file first:
# "S inode size from bytes head_bytes head_sum", the bytes, "E head_sum" (again, so that a truncation meanwhile shows).
# L before them: the file that was read last is gone.
_POLL = r"""
LC_ALL=C; export LC_ALL
path=$1 inode=$2 offset=$3 head=$4 sum=$5 left=$6
look() { set -- $(stat -L -c '%i %s' /proc/self/fd/3); i=$1 s=$2; }
sum_of() { head -c "$1" /proc/self/fd/3 | sha256sum | cut -d ' ' -f 1; }
known() { [ "$s" -ge "$head" ] && [ "$(sum_of "$head")" = "$sum" ]; }
rotated() { # inode and name, newest first
  ls -1ti -d "$path".[0-9]* "$path"-[0-9]* 2>/dev/null | sed 's/^ *//' | grep -Ev '\.(gz|bz2|xz|zst|lzma)$'
}
segment() {
  n=$((s - $1)); [ "$n" -gt "$left" ] && n=$left; [ "$n" -lt 0 ] && n=0
  k=512; [ "$s" -lt 512 ] && k=$s
  echo "S $i $s $1 $n $k $(sum_of "$k")"
  [ "$n" -gt 0 ] && tail -c "+$(($1 + 1))" /proc/self/fd/3 | head -c "$n"
  printf '\nE %s\n' "$(sum_of "$k")"
  left=$((left - n))
}
same() {
  look
  [ "$inode" = - ] && { segment "$s"; return 0; }
  [ "$i" = "$inode" ] && [ "$s" -ge "$offset" ] || return 1
  [ "$s" -eq "$offset" ] && { echo U; return 0; }
  known && segment "$offset"
}
is_old() {
  look
  [ "$i" = "$inode" ] || { [ "$head" -ge 40 ] && [ "$i" != "$now" ]; } && known
}
old() { # the one that was read last, by its beginning; and all that are newer, oldest first
  found= newer=
  while read -r number name; do
    [ -n "$name" ] && { is_old; } 3<"$name" && { found=$name; break; }
    newer="$number $name
$newer"
  done 2>/dev/null <<EOF
$list
EOF
}
rest() { # that one from the offset on, the newer ones whole
  { look; from=$offset; [ "$s" -lt "$from" ] && from=$s; segment "$from"; } 3<"$found"
  while read -r number name; do
    [ "$left" -gt 0 ] && [ -s "$name" ] && [ "$number" != "$now" ] && { look; segment 0; } 3<"$name"
  done <<EOF
$newer
EOF
}
moved() {
  now=-
  [ -e "$path" ] && { look; now=$i; }
  list=$(rotated)
  old
  if [ -n "$found" ]; then rest; else echo L; fi
  [ "$now" != - ] && [ "$left" -gt 0 ] && { look; [ -z "$found" ] || [ "$s" -gt 0 ]; } && segment 0
  [ "$list" = "$(rotated)" ] || echo R
}
echo UNLATCH-LOG-1
directory=$(dirname "$path")
if [ ! -x "$directory" ] && [ -d "$directory" ]; then echo P
elif [ -e "$path" ] && [ ! -r "$path" ]; then echo P
elif [ -e "$path" ]; then { same || moved; } 3<"$path"
elif [ "$inode" = - ]; then echo M
else { moved; } 3</dev/null
fi
"""

# $1 path, $2 bytes of each: the end of the newest rotated file, an empty line, the end of the log itself.
_TAIL = r"""
LC_ALL=C; export LC_ALL
path=$1 bytes=$2
both() {
  here=$(stat -L -c '%i' /proc/self/fd/3)
  ls -1t -d "$path".[0-9]* "$path"-[0-9]* 2>/dev/null | while IFS= read -r name; do
    case $name in *.gz|*.bz2|*.xz|*.zst|*.lzma) continue ;; esac
    [ "$(stat -L -c '%i' "$name" 2>/dev/null)" = "$here" ] && continue
    tail -c "$bytes" "$name"; break
  done
  echo; tail -c "$bytes" /proc/self/fd/3
}
echo UNLATCH-LOG-1
directory=$(dirname "$path")
if [ ! -x "$directory" ] && [ -d "$directory" ]; then echo P
elif [ -e "$path" ] && [ ! -r "$path" ]; then echo P
elif [ -e "$path" ]; then echo T; { both; } 3<"$path"
else echo T; { both; } 3</dev/null
fi
"""


@dataclass(frozen=True)
class _Segment:
    inode: int
    size: int
    start: int
    data: bytes
    head_bytes: int
    head_sha256: str

    @property
    def is_read_to_its_end(self) -> bool:
        return self.start + len(self.data) >= self.size


@dataclass(frozen=True)
class LogNews:
    """What one poll found: whole lines, where to go on, how many bytes it carried.

    `gap` says that the file which was read last is gone (deleted or compressed), so that lines may be missing;
    `missing` that there is no log under that name now; `seen` how the file looked, for `log_wait`.
    """

    lines: tuple[str, ...]
    cursor: Json
    carried_bytes: int = 0
    gap: bool = False
    missing: bool = False
    seen: str = ""


def poll_command(path: str, cursor: Json | None, limit_bytes: int = READ_LIMIT_BYTES) -> list[str]:
    """The argument vector that reads on behind `cursor`; with None it only finds the log's present end."""
    if cursor is None:
        position = ["-", "0", "0", ""]
    else:
        position = [str(cursor[key]) for key in ("inode", "offset", "head_bytes", "head_sha256")]
    return ["sh", "-c", _POLL, "unlatch-log", path, *position, str(limit_bytes)]


def tail_command(path: str, each_bytes: int) -> list[str]:
    """The argument vector that prints the end of the log, after the end of the newest rotated one."""
    return ["sh", "-c", _TAIL, "unlatch-log", path, str(each_bytes)]


def read_answer(output: bytes, cursor: Json | None, *, host: str, path: str, asked_at: datetime) -> LogNews:
    """Lines and the next cursor from what `poll_command` printed.

    Args:
        output: Its standard output.
        cursor: The one that it was made with.
        host: For messages.
        path: For messages.
        asked_at: When it was started (aware): whatever is not in the answer was written later.

    Raises:
        TransientError: the files were rotated while they were read: nothing is consumed, ask again.
        ConfigError: the log may not be read, or the command did not run.
    """
    body = _body(output, host=host, path=path)
    if body.startswith(b"U\n") and cursor is not None:
        return LogNews((), {**cursor, "read_at": asked_at.isoformat()}, seen=f"{cursor['inode']} {cursor['offset']}")
    if body.startswith(b"M\n"):  # it will be read from its beginning when it appears
        return LogNews((), cursor or _cursor_at(None, 0, asked_at), missing=True, seen="gone")
    gap = body.startswith(b"L\n") and bool(cursor and cursor["inode"])
    segments, ending = _segments(body.removeprefix(b"L\n"))
    if segments is None or ending != b"":
        raise TransientError(f"{path} on {host} was rotated while it was read.", next_step="it is read again.")
    if not segments:  # the log is away for the moment
        return LogNews((), cursor or _cursor_at(None, 0, asked_at), missing=True, seen="gone")
    return _consume(segments, cursor, gap=gap, asked_at=asked_at)


def tail_lines(output: bytes, *, host: str, path: str) -> list[str]:
    """The lines that `tail_command` printed; the first ones may be torn.

    Raises:
        ConfigError: the log may not be read, or the command did not run.
    """
    return _body(output, host=host, path=path).removeprefix(b"T\n").decode("utf-8", "replace").split("\n")


def _body(output: bytes, *, host: str, path: str) -> bytes:
    _, magic, body = output.partition(_MAGIC)
    if not magic:
        raise ConfigError(
            f"{host} did not run the command that reads {path}.",
            next_step="see whether its login user has a POSIX shell, and no forced command.",
        )
    if body.startswith(b"P\n"):
        raise ConfigError(
            f"{path} on {host} may not be read by the login user.",
            next_step="give it read permission there (and x on the directory), for example through the file's group.",
        )
    return body


def _segments(body: bytes) -> tuple[list[_Segment] | None, bytes]:
    """The segments and what follows them; None when one of them is not whole."""
    segments: list[_Segment] = []
    while body.startswith(b"S "):
        header, _, rest = body.partition(b"\n")
        try:
            inode, size, start, count, head_bytes = map(int, header.split()[1:6])
            head_sum = header.split()[6].decode("ascii")
        except (ValueError, IndexError):
            return None, b""
        data, rest = rest[:count], rest[count:]
        ending = b"\nE " + head_sum.encode() + b"\n"
        if len(data) < count or not rest.startswith(ending):
            return None, b""
        segments.append(_Segment(inode, size, start, data, head_bytes, head_sum))
        body = rest[len(ending) :]
    return segments, body


def _consume(segments: Sequence[_Segment], cursor: Json | None, *, gap: bool, asked_at: datetime) -> LogNews:
    lines: list[bytes] = []
    skip = bool(cursor and cursor.get("mid_line"))
    for position, segment in enumerate(segments):
        data, is_last = segment.data, position == len(segments) - 1
        whole, newline, partial = data.rpartition(b"\n")
        if newline:
            found = whole.split(b"\n")
            lines += found[1:] if skip else found
            skip = False
        if not is_last:
            # Nobody will write the end of this line any more: the log has been going on in another file.
            lines += [partial] if partial and not skip else []
            skip = False
    last = segments[-1]
    used = len(last.data) - len(partial)
    if not newline and partial and not last.is_read_to_its_end and len(segments) == 1:
        used, skip = len(last.data), True  # as much as one poll carries, and still the same line
    read_to_the_end = last.is_read_to_its_end
    read_at = asked_at.isoformat() if read_to_the_end else (cursor or {}).get("read_at")
    following = _cursor_at(last, last.start + used, read_at)
    if skip:
        following["mid_line"] = True
    text = tuple(line.decode("utf-8", "replace").rstrip("\r") for line in lines)
    seen = f"{last.inode} {last.start + len(last.data)}"
    return LogNews(text, following, sum(len(s.data) for s in segments), gap, seen=seen)


def _cursor_at(segment: _Segment | None, offset: int, read_at: datetime | str | None) -> Json:
    return {
        "inode": segment.inode if segment else 0,
        "offset": offset,
        "head_bytes": segment.head_bytes if segment else 0,
        "head_sha256": segment.head_sha256 if segment else hashlib.sha256(b"").hexdigest(),
        "read_at": read_at.isoformat() if isinstance(read_at, datetime) else read_at,
    }
