"""Several writers at once, and writers that are killed: the chain must never fork, stop or lose a promise."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.unit.store.conftest import TickingClock
from tests.unit.store.samples import INCIDENT, event, incident
from unlatch.lifecycle import IncidentState
from unlatch.store.sql_store import SqlStore

ROOT = Path(__file__).resolve().parents[3]


def writer(url: str, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.unit.store.writer", url, name, str(count)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_processes_append_to_one_chain(url: str, clock: TickingClock) -> None:
    """It should give every process's rows a place in one gapless chain, from an empty database on.

    The processes also create the tables, all at once.
    """
    running = [writer(url, f"w{number}", 15) for number in range(3)]
    for process in running:
        process.communicate()
    assert [process.returncode for process in running] == [0, 0, 0]
    store = SqlStore(url, clock=clock)
    report = store.verify_audit()
    assert (report.verified, report.rows, report.problem) == (True, 90, None)
    assert [row.sequence for row in store.audit_rows()] == list(range(1, 91))
    assert Counter(row.instance for row in store.audit_rows()) == {f"w{number}": 30 for number in range(3)}
    assert len(store.steps("inc-1")) == 45


def test_threads_append_to_one_chain(store: SqlStore) -> None:
    """It should serve several threads of one process, as the triggerer's and the console's."""

    def work(name: str) -> None:
        for number in range(10):
            store.note("inc-1", name, "", "noted", actor=name, detail={"number": number})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, ["a", "b", "c", "d"]))
    report = store.verify_audit()
    assert (report.verified, report.rows) == (True, 40)


@pytest.mark.parametrize("acknowledged", [1, 6])
def test_a_killed_writer_leaves_a_whole_chain(store: SqlStore, url: str, acknowledged: int) -> None:
    """It should keep what had been acknowledged, and let others go on at once."""
    doomed, other = writer(url, "doomed", 100_000), writer(url, "other", 15)
    assert doomed.stdout is not None
    said = [doomed.stdout.readline() for _ in range(acknowledged)]
    doomed.kill()
    said += doomed.communicate()[0].splitlines()
    other.communicate()
    assert other.returncode == 0

    store.note("inc-1", "", "", "after", actor="test", detail={})
    report = store.verify_audit()
    assert report.verified, report.problem
    ended = sum(step.phase == "done" and step.instance == "doomed" for step in store.steps("inc-1"))
    assert ended >= len([line for line in said if line.startswith("doomed")]) >= acknowledged
    # Each step's row and its audit rows were written together or not at all.
    rows = Counter((row.instance, row.phase) for row in store.audit_rows(limit=100_000))
    assert rows["doomed", "done"] == ended
    assert rows["doomed", "intent"] == sum(step.instance == "doomed" for step in store.steps("inc-1"))


def test_one_of_many_gets_the_lease(store: SqlStore) -> None:
    """It should give a lease to exactly one of those who ask at once."""
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda n: store.take_lease("instance:voms", f"inc-{n}"), range(6)))
    assert answers.count(None) == 1
    winner = f"inc-{answers.index(None)}"
    assert {answer for answer in answers if answer} == {winner}


def test_as_many_get_a_slot_as_there_are(store: SqlStore) -> None:
    """It should give slots to exactly as many as there are, whoever asks at once and however often they come and go."""
    inside, most, guard = 0, 0, threading.Lock()

    def work(owner: str) -> int:
        nonlocal inside, most
        got = 0
        for _ in range(4):
            if store.take_slot("volume:dbs03", 2, owner) == ():
                with guard:
                    inside += 1
                    most = max(most, inside)
                got += 1
                assert list(store.slots("volume:dbs03").values()).count(owner) == 1
                with guard:
                    inside -= 1
                store.release_slot("volume:dbs03", owner)
        return got

    with ThreadPoolExecutor(6) as pool:
        got = list(pool.map(work, [f"inc-{n}/voms" for n in range(6)]))
    assert most <= 2
    assert sum(got) >= 2
    assert store.slots("volume:dbs03") == {}


def test_slots_of_the_dead_are_taken_over_by_so_many(store: SqlStore) -> None:
    """It should give the slots of an incident that ended to as many as there are, when all ask at once."""
    store.open_incident(incident())
    assert [store.take_slot("repairs", 2, f"{INCIDENT}/{name}") for name in ("voms", "lxr")] == [(), ()]
    store.set_state(INCIDENT, IncidentState.FAILED)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda n: store.take_slot("repairs", 2, f"inc-{n}/voms"), range(6)))
    assert answers.count(()) == 2
    winners = {f"inc-{n}/voms" for n, answer in enumerate(answers) if answer == ()}
    assert set(store.slots("repairs").values()) == winners
    report = store.verify_audit()
    assert report.verified
    assert sum(row.phase == "lease_taken_over" for row in store.audit_rows()) == 2


def test_one_of_many_records_the_event(store: SqlStore) -> None:
    """It should call a death new for exactly one of those who read it at once."""
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: store.record_event(event(), None), range(6)))
    assert answers.count(True) == 1
