"""What the scenarios ask again and again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import psycopg2
import pymysql

from tests.integration.repair import LANE, Repair
from tests.nfs.nfs_lab import DATADIRS, EXPORT, UNITS, Crash, NfsLab, say
from tests.nfs.nfs_provision import DATABASE_LOGIN, DATABASE_PASSWORD, PORTS
from tests.nfs.nfs_site import Site
from unlatch.errors import TransientError, UnlatchError
from unlatch.models import Json

Fingerprint = dict[str, list[object]]


def committed(lab: NfsLab, instance: str) -> frozenset[int]:
    """The ids that a client finds in the database now."""
    where: dict[str, Any] = {"host": lab.address("client"), "port": PORTS[instance], "user": DATABASE_LOGIN}
    query = "SELECT id FROM audit"
    if instance == "lxr":
        with psycopg2.connect(**where, password=DATABASE_PASSWORD, dbname="lxr", connect_timeout=20) as pg:
            cursor = pg.cursor()
            cursor.execute(query)
            return frozenset(row[0] for row in cursor.fetchall())
    with pymysql.connect(**where, password=DATABASE_PASSWORD, database="voms", connect_timeout=20) as connection:
        cursor = connection.cursor()
        cursor.execute(query)
        return frozenset(row[0] for row in cursor.fetchall())


def nothing_lost(lab: NfsLab, crash: Crash) -> None:
    """Every commit that a database had acknowledged before the crash is there."""
    assert crash.acknowledged["voms"], "nothing was committed before the crash, so nothing could be lost"
    for instance in UNITS:
        acknowledged = crash.acknowledged[instance]
        lost = acknowledged - committed(lab, instance)
        assert not lost, f"{instance} lost {len(lost)} of {len(acknowledged)} acknowledged commits: {sorted(lost)[:5]}"
    say(f"no acknowledged commit lost: { {i: len(ids) for i, ids in crash.acknowledged.items()} }")


def tried(repair: Repair[Site], instance: str) -> dict[str, Json]:
    """What clear_locks tried, by remedy."""
    return {one["remedy"]: one for one in repair.results[instance, "clear_locks"].get("tried", [])}


def remedy_that_worked(repair: Repair[Site], instance: str) -> str | None:
    """The remedy after which the instance's files were free; None when nothing was needed."""
    freed = [name for name, one in tried(repair, instance).items() if one["outcome"] == "freed"]
    if repair.results[instance, "recreate_files"].get("files"):
        return "recreate"
    return freed[0] if freed else None


TRIES = 11
"""As the tasks have it in Airflow: ten retries."""


def step_with_retries(repair: Repair[Site], step: str, instance: str, *, tries: int = TRIES) -> Json:
    """One step, tried again as Airflow would when it asks for that."""
    while True:
        try:
            return repair.step(step, instance)
        except TransientError as error:
            tries -= 1
            say(f"{step} of {instance} asks to be tried again: {error}")
            if not tries:
                raise


def run_lane(repair: Repair[Site], instance: str, crash: Crash | None = None) -> None:
    """All steps of one instance; says how long after the death its login was accepted, and by which remedy."""
    for step in LANE:
        step_with_retries(repair, step, instance)
    assert repair.results[instance, "confirm_access"]["access"] == "ok"
    if crash is not None:
        after_s = (datetime.now(UTC) - crash.died_at).total_seconds()
        say(
            f"MEASURED {crash.cause}: {instance} by {remedy_that_worked(repair, instance)}, login {after_s:.0f} s after"
        )


ACTS = ("clear_locks", "recreate_files", "restart_database")


def refused_everywhere(repair: Repair[Site], instance: str) -> list[UnlatchError]:
    """Every step that acts must end in an error of Unlatch's own; the errors."""
    errors = []
    for step in ACTS:
        try:
            result = repair.step(step, instance)
        except UnlatchError as error:
            errors.append(error)
        else:
            raise AssertionError(f"{step} of {instance} went on: {result}")
    return errors


def untouched(before: Fingerprint, after: Fingerprint) -> None:
    """Inode, size, mtime and content of every file as before, and no file more or less."""
    changed = {k: (before.get(k), after.get(k)) for k in before.keys() | after.keys() if before.get(k) != after.get(k)}
    assert not changed, f"touched: {changed}"


def traces(lab: NfsLab) -> str:
    """Files of Unlatch's own beside the data: quarantine, temporary copies, journals."""
    return lab.root("nas", f"find {EXPORT} -name '.unlatch-*'").strip()


def live_locks(lab: NfsLab, instance: str) -> set[str]:
    """The locks that the NAS has on the instance's files under their own names, as inodes."""
    return {
        word.removeprefix("ino=")
        for line in lab.locks()
        if f"{EXPORT}/{DATADIRS[instance]}/" in line and ".unlatch-" not in line
        for word in line.split()
        if word.startswith("ino=")
    }
