"""What is concluded and done: evidence, verdicts, plans, approvals, permits, swapped files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import PurePosixPath

from unlatch.models.base import Json, Value, canonical_json


class Answer(StrEnum):
    """One check's answer on whether the previous incarnation lives."""

    ALIVE = "alive"
    DEAD = "dead"
    CLEAR = "clear"
    NOT_OBSERVED = "not_observed"


@dataclass(frozen=True)
class Evidence(Value):
    """One check's answer, in words that a DBA understands, with its time and when it is too old to act on."""

    check: str
    answer: Answer
    summary: str
    at: datetime
    expires_at: datetime
    detail: Json = field(default_factory=dict)


class VerdictKind(StrEnum):
    """Was the previous incarnation of the instance: dead, alive, or can it not be told."""

    DEAD = "dead"
    ALIVE = "alive"
    UNKNOWN = "unknown"


class FileState(StrEnum):
    """`free`: recreating is not needed. `stale`: locked by the dead. `held`: by the living. `unknown`: who can tell."""

    FREE = "free"
    STALE = "stale"
    HELD = "held"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Verdict(Value):
    """The conclusion on one instance. `digest` names what it rests on; an approval is bound to it."""

    kind: VerdictKind
    reasons: tuple[str, ...]
    evidence: tuple[Evidence, ...]
    digest: str
    expires_at: datetime


class Remedy(StrEnum):
    """A way to get rid of a stale lock.

    `wait_lease`: an NFSv4 server forgets a dead client. `notify`: the guest tells its servers that it has restarted,
    which frees all its NFSv3 locks. `clear`: the NAS is told to drop them. `set_aside`: for pid files.
    `recreate`: the file gets a new inode.
    """

    WAIT_LEASE = "wait_lease"
    NOTIFY = "notify"
    CLEAR = "clear"
    SET_ASIDE = "set_aside"
    RECREATE = "recreate"


LOCK_REMEDIES = (Remedy.WAIT_LEASE, Remedy.NOTIFY, Remedy.CLEAR, Remedy.RECREATE)
"""The remedies among which there is a choice: a pid file can only be set aside."""


@dataclass(frozen=True)
class FilePlan(Value):
    """What will be done to one file, why, and how long it should take."""

    path: PurePosixPath
    state: FileState
    remedy: Remedy | None
    why: str
    size_bytes: int
    estimate_s: float


@dataclass(frozen=True)
class RemedyOption(Value):
    """One remedy for the instance's stale locks: may it be tried, why or why not, and how long should it take.

    `grant` is what would give a privilege that it lacks; None when it lacks none.
    """

    remedy: Remedy
    allowed: bool
    estimate_s: float
    why: str
    grant: str | None = None


@dataclass(frozen=True)
class Plan(Value):
    """What will be done for one instance.

    Attributes:
        files: File by file; the remedy there is the one that surely works, should all before it fail.
        estimate_s: For the first allowed remedy, with the pid files.
        needs_person: Why someone must agree first; None when nobody must.
        options: The remedies for the stale locks, in the order in which they are tried; not allowed ones last.
    """

    files: tuple[FilePlan, ...]
    estimate_s: float
    needs_person: str | None = None
    options: tuple[RemedyOption, ...] = ()

    def paths(self, remedy: Remedy) -> tuple[PurePosixPath, ...]:
        """The files that get this remedy, in the order of the plan, which is the order of the swap."""
        return tuple(f.path for f in self.files if f.remedy is remedy)


@dataclass(frozen=True)
class Approval(Value):
    """A person's answer to a question; it is good for exactly the evidence it was given on, until it expires."""

    approved: bool
    by: str
    at: datetime
    expires_at: datetime
    digest: str
    comment: str | None = None


@dataclass(frozen=True)
class PermitFile(Value):
    """A file as it was when the permit was written; the agent refuses when it is not like that any more."""

    path: PurePosixPath
    inode: int
    dev: int
    size_bytes: int
    mtime_ns: int
    content_sha256: str | None = None


@dataclass(frozen=True)
class Permit(Value):
    """The controller's short-lived leave to commit. It expires on the guest's boot clock, in seconds since boot."""

    incident: str
    instance: str
    boot_id: str
    expires_boottime_s: float
    evidence_digest: str
    files: tuple[PermitFile, ...]
    schema: int = 1


@dataclass(frozen=True)
class SwappedFile(Value):
    """A file after the swap: the old inode is in quarantine, the new one has the name."""

    path: PurePosixPath
    inode_before: int
    inode_after: int
    quarantine: PurePosixPath
    content_equal: bool
    old_inode_still_locked: bool


@dataclass(frozen=True)
class FileProgress(Value):
    """One file in the agent's journal: `state` is copying, prepared, swapping, committed or set_aside."""

    path: PurePosixPath
    state: str


@dataclass(frozen=True)
class RepairStatus(Value):
    """How far the agent is with an incident in some directories; `error` is the last job's, as the agent words it."""

    state: str
    running: bool
    bytes_done: int
    bytes_total: int
    rate_bytes_s: float | None = None
    eta_s: float | None = None
    error: Json | None = None
    files: tuple[FileProgress, ...] = ()


@dataclass(frozen=True)
class AccessProof(Value):
    """A client login that worked."""

    server_version: str
    user: str
    seconds: float
    table_rows_seen: int | None = None
    wrote: bool = False


def digest_of(evidence: tuple[Evidence, ...], subject: str) -> str:
    """SHA-256 over who answered what about whom, without times: collecting the same answers again keeps it."""
    answers = sorted((e.check, e.answer.value) for e in evidence)
    return hashlib.sha256(canonical_json([subject, answers]).encode()).hexdigest()
