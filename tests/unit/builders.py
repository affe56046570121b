"""Short ways to make the values that tests talk about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath

from unlatch.models import (
    Answer,
    Approval,
    Evidence,
    FileFact,
    Instance,
    Lock,
    LockKind,
    ProcessFact,
    Sample,
    Service,
    Volume,
    VolumeKind,
    Waiver,
)

NOW = datetime(2026, 3, 7, 5, 54, 52, tzinfo=UTC)
INCIDENT = "inc-20260307-055452-dbvrtg4037"
LAB = Volume("dbs03", VolumeKind.LAB, PurePosixPath("/ORA/dbs03"))
NFS = Volume("dbs03", VolumeKind.NFS, PurePosixPath("/ORA/dbs03"), server="nas")


def instance(name: str = "voms", engine: str = "mariadb", waive: tuple[Waiver, ...] = ()) -> Instance:
    words = ("sudo", "-n", "dbservice")
    return Instance(
        name=name,
        guest="dbvrtg4037",
        engine=engine,
        volume="dbs03",
        os_user="mysql",
        datadir=PurePosixPath(f"/ORA/dbs03/{name}"),
        host="127.0.0.1",
        port=3306,
        service=Service(*((*words, action, name) for action in ("start", "stop", "status", "hold", "release"))),
        waive=waive,
    )


def evidence(check: str, answer: Answer, *, at: datetime = NOW, life_s: int = 120) -> Evidence:
    return Evidence(check, answer, f"{check} says {answer}", at, at + timedelta(seconds=life_s))


def locked(name: str, kind: LockKind = LockKind.REMOTE, *, size_bytes: int = 1000) -> FileFact:
    holder = ProcessFact(pid=321, exe="/usr/bin/sleep") if kind is LockKind.PIDFILE else None
    return FileFact(
        path=PurePosixPath(f"/ORA/dbs03/voms/{name}"),
        inode=abs(hash(name)) % 10_000,
        dev=1,
        size_bytes=size_bytes,
        lock=Lock(kind, type="write", pid=321 if holder else None, process=holder),
        sample=Sample(size_bytes, 1_000_000_000),
    )


def approval(digest: str, *, approved: bool = True, at: datetime = NOW, life_s: int = 3600) -> Approval:
    return Approval(approved, "eva", at, at + timedelta(seconds=life_s), digest)
