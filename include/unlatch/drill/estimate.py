"""How long a recovery should take, from the crash's line in the log to a confirmed login. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from unlatch.models import FileFact, Json, LockKind, Policy, Remedy, Volume, VolumeKind
from unlatch.remedies import CLEAR_S, COPY_RATE_BYTES_S, LEASE_S, LEASE_SLACK_S, NOTIFY_S

DETECTION_S = 10.0
"""From the line in the log to the first task: the log is followed, then Airflow starts a run."""

EVIDENCE_S = 30.0
"""Files, hold, all checks with their two samples, verdict; and the second look before the swap."""

START_S = 30.0
"""The server's start with its crash recovery, which depends on its redo log."""

LOGIN_S = 5.0
_PER_FILE_S = 1.0
_MEASURED = "time to recover"


@dataclass(frozen=True)
class Copying:
    """What a copy would have to move, and how fast.

    Attributes:
        files: How many files.
        size_bytes: All of them.
        rate_bytes_s: Of a copy that is compared afterwards.
    """

    files: int
    size_bytes: int
    rate_bytes_s: float = COPY_RATE_BYTES_S

    @property
    def seconds(self) -> float:
        """How long it takes."""
        return round(self.size_bytes / self.rate_bytes_s + _PER_FILE_S * self.files, 1)


def copying(files: Sequence[FileFact], rows: Iterable[Json], *, takes_locks: bool) -> Copying | None:
    """The locked files; every file of the instance where one that takes locks has none now, as it is stopped.

    None: that size is not known.

    Args:
        files: What is locked now, and pid files.
        rows: The agent's `preflight`, of which `time to recover` has measured how fast this host reads the volume.
        takes_locks: Whether the engine locks its files at all.
    """
    locked = [f for f in files if f.lock.kind not in {LockKind.NONE, LockKind.PIDFILE}]
    measured = next((row for row in rows if row.get("privilege") == _MEASURED and row.get("bytes")), {})
    total_bytes, seconds = int(measured.get("bytes") or 0), float(measured.get("estimate_s") or 0)
    rate_bytes_s = total_bytes / seconds if total_bytes and seconds else COPY_RATE_BYTES_S
    if takes_locks and not locked:
        return Copying(1, total_bytes, rate_bytes_s) if total_bytes else None
    return Copying(len(locked), sum(f.size_bytes for f in locked), rate_bytes_s)


def parts_of(copy: Copying, volume: Volume, policy: Policy, *, nfs_version: str | None) -> dict[str, float]:
    """Seconds by part when everything has to be tried: each gentler remedy in vain, then the copy.

    Args:
        copy: What would be copied.
        volume: Where the files are.
        policy: Which remedies it forbids.
        nfs_version: Of the volume's mount; None when it is not known.
    """
    parts = {"detection": DETECTION_S, "evidence": EVIDENCE_S}
    if volume.kind is VolumeKind.NFS:
        parts["gentler remedies"] = _gentler_s(volume, policy, nfs_version or "3")
    if Remedy.RECREATE not in policy.remedies.forbid:
        parts["copy"] = copy.seconds
    return {**parts, "start": START_S, "login": LOGIN_S}


def _gentler_s(volume: Volume, policy: Policy, nfs_version: str) -> float:
    by_lease = nfs_version.startswith("4")
    seconds = {
        Remedy.WAIT_LEASE: LEASE_S + LEASE_SLACK_S if by_lease else 0.0,
        Remedy.NOTIFY: 0.0 if by_lease else NOTIFY_S,
        Remedy.CLEAR: CLEAR_S if volume.clearer else 0.0,
    }
    return sum(each_s for remedy, each_s in seconds.items() if remedy not in policy.remedies.forbid)


def in_words(parts: dict[str, float], objective_s: float) -> str:
    """The sum, the objective, and the parts."""
    named = ", ".join(f"{name} {seconds:g}" for name, seconds in parts.items())
    return f"about {sum(parts.values()):.0f} s of {objective_s:g} s after the guest is back ({named})"
