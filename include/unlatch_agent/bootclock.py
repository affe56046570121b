"""Clocks: when this machine booted, which boot this is, and times as text.

A permit expires on CLOCK_BOOTTIME, since that clock cannot be set back and stands for one boot only.
"""

import time
from datetime import datetime, timezone

# time.CLOCK_BOOTTIME exists from Python 3.7 on.
CLOCK_BOOTTIME = 7
BOOT_ID_FILE = "/proc/sys/kernel/random/boot_id"


def boottime_s() -> float:
    """Return the seconds since this boot, suspended time included."""
    return time.clock_gettime(CLOCK_BOOTTIME)


def booted_at_s() -> float:
    """Return the wall-clock time of this boot, in seconds since the epoch."""
    return time.time() - boottime_s()


def boot_id() -> str:
    """Return the kernel's random identifier of this boot."""
    with open(BOOT_ID_FILE) as source:
        return source.read().strip()


def iso(epoch_s: float) -> str:
    """Return a wall-clock time in UTC as ISO 8601 with a Z."""
    return datetime.fromtimestamp(epoch_s, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def now_iso() -> str:
    """Return the present wall-clock time in UTC as ISO 8601."""
    return iso(time.time())
