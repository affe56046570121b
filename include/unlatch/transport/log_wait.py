"""Waiting on the machine with the logs until one of them has changed, so that nobody has to ask again and again.

With hundreds of hypervisors it is this that keeps the event loop free: a log that says nothing costs one command in
`wait_s` seconds. The remote side is POSIX sh and coreutils; the waiting ends with its caller (standard input).
"""

from __future__ import annotations

from collections.abc import Mapping

# $1 looks, $2 seconds between them, then path and what it was when it was last looked at ("INODE SIZE" or "gone").
_WAIT = r"""
LC_ALL=C; export LC_ALL
looks=$1 pause=$2; shift 2
exec 3<&0
( cat <&3 >/dev/null; kill "$$" ) >/dev/null 2>&1 &
same() {
  while [ $# -gt 0 ]; do
    now=$(stat -L -c '%i %s' -- "$1" 2>/dev/null) || now=gone
    [ "$now" = "$2" ] || return 1
    shift 2
  done
}
while [ "$looks" -gt 0 ] && same "$@"; do
  sleep "$pause" 2>/dev/null || sleep 1
  looks=$((looks - 1))
done
"""

GONE = "gone"
"""How a log looks that is not there."""


def wait_command(seen: Mapping[str, str], *, wait_s: float, poll_s: float) -> list[str]:
    """The argument vector that ends when one of the files is not as it was seen, or after about `wait_s` seconds."""
    looks = max(1, round(wait_s / poll_s))
    pairs = [word for pair in seen.items() for word in pair]
    return ["sh", "-c", _WAIT, "unlatch-wait", str(looks), f"{poll_s:g}", *pairs]
