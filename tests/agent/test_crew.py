"""Many small files: other processes copy and swap them, and only their parent writes the journal."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.agent.agent_runner import Agent, our_files, permit
from tests.agent.test_commit import commit, wait_until
from tests.agent.test_prepare import INCIDENT
from unlatch_agent import batches, comparing, copying, crew, ioguard, prepare, safety
from unlatch_agent.errors import CheckFailedError, Json, TryAgainError

FILES = 11
# So that eleven files are many.
MANY: list[Any] = [["batches", "BATCH_FILES", 2], ["swapping", "_TOGETHER", 3], ["swapping", "ONE_BY_ONE", 4]]

pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < crew.LEAST_ROWS, reason="needs two processors")


@pytest.fixture
def tables(tmp_path: Path) -> dict[Path, bytes]:
    """A directory with many small files; a path sorted last is the one that is to be swapped last."""
    directory = tmp_path / "tables"
    directory.mkdir()
    made = {directory / f"t{number:02}.ibd": b"%d" % number * (number * 3000) for number in range(FILES - 1)}
    made[directory / "z-ibdata1"] = os.urandom(50_000)
    for path, data in made.items():
        path.write_bytes(data)
    return made


def temp_of(path: Path) -> Path:
    """The name of a file's copy."""
    digest = hashlib.sha256(b"inc-1\0" + path.name.encode()).hexdigest()[:16]
    return path.with_name(f".unlatch-{digest}.new")


def check_whole(tables: dict[Path, bytes]) -> None:
    """Each name has its whole content."""
    assert {path: path.read_bytes() for path in tables} == tables


def records(tables: dict[Path, bytes]) -> list[Json]:
    """The journal's records."""
    text = (next(iter(tables)).parent / ".unlatch-inc-1.journal").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_many_files(agent: Agent, tables: dict[Path, bytes]) -> None:
    """It should copy them in several processes and swap them in their order, each announced before it is begun."""
    directory = next(iter(tables)).parent
    copies = agent.run("prepare", *INCIDENT, *tables, faults={"set": MANY}).done()
    assert [entry["path"] for entry in copies.files] == [str(path) for path in tables]
    assert all(entry["verified"] == "content" for entry in copies.files)
    assert agent.run("prepare", *INCIDENT, *tables, faults={"set": MANY}).done().files == copies.files
    commit(agent, permit(copies), faults={"set": MANY}).done()
    check_whole(tables)
    assert agent.run("verify", *INCIDENT, directory).done().document["ok"] is True
    order = {name: [r["name"] for r in records(tables) if r["event"] == name] for name in ("swapping", "committed")}
    assert order == {name: [path.name for path in tables] for name in order}
    agent.run("restore", *INCIDENT, directory).done()
    check_whole(tables)


def test_progress(one_agent: Agent, tables: dict[Path, bytes]) -> None:
    """It should count what other processes have copied, up to all of it."""
    answer = one_agent.run("prepare", *INCIDENT, *tables, faults={"set": [*MANY, ["progress", "EVERY_S", 0]]}).done()
    done = [line["bytes_done"] for line in answer.progress]
    assert done == sorted(done)
    assert len(set(done)) > FILES / 2
    assert answer.progress[-1]["bytes_done"] == sum(map(len, tables.values()))
    assert answer.progress[-1]["files_done"] == FILES


def test_one_file_fails(few_agent: Agent, tables: dict[Path, bytes]) -> None:
    """It should record what is finished when one file fails, and copy no file of that again."""
    stuck = list(tables)[3]
    temp_of(stuck).mkdir()
    few_agent.run("prepare", *INCIDENT, *tables, faults={"set": MANY}).refused("io_error", 6)
    ready = {r["name"]: r["temp"]["inode"] for r in records(tables) if r["event"] == "prepared"}
    assert ready
    assert stuck.name not in ready
    temp_of(stuck).rmdir()
    copies = few_agent.run("prepare", *INCIDENT, *tables, faults={"set": MANY}).done().files
    now = {Path(entry["path"]).name: entry["temp_inode"] for entry in copies}
    assert {name: now[name] for name in ready} == ready


def test_an_error_of_the_program(one_agent: Agent, tables: dict[Path, bytes]) -> None:
    """It should tell of a defect that another process runs into, record nothing as finished, and go on after it."""
    broken = [*MANY, ["comparing", "equal_to", None]]
    one_agent.run("prepare", *INCIDENT, *tables, faults={"set": broken}).refused("internal", 5)
    assert not [r for r in records(tables) if r["event"] == "prepared"]
    one_agent.run("prepare", *INCIDENT, *tables, faults={"set": MANY}).done()
    check_whole(tables)


def test_a_copy_that_differs(tables: dict[Path, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """It should never rely on a copy that another process found to differ, and keep the good ones."""
    monkeypatch.setattr(batches, "BATCH_FILES", 2)
    wrong = list(tables)[4]
    equal_to = comparing.equal_to
    same = [copying.Asked("stream"), 10.0, lambda _: None]
    targets = safety.targets([str(path) for path in tables])
    with monkeypatch.context() as spoilt:
        spoilt.setattr(comparing, "equal_to", lambda data, *rest: data != tables[wrong] and equal_to(data, *rest))
        with pytest.raises(CheckFailedError) as raised:
            prepare.run("inc-1", targets, *same)
    assert (raised.value.code, str(wrong) in raised.value.message) == ("copy_differs", True)
    last = {r["name"]: r for r in records(tables) if r["event"] != "begin"}
    assert "temp_inode" not in last[wrong.name]
    assert {r["event"] for r in last.values()} == {"copying", "prepared"}
    files = prepare.run("inc-1", targets, *same)["files"]
    assert [entry["path"] for entry in files] == [str(path) for path in tables]


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_while_copying(one_agent: Agent, tables: dict[Path, bytes], when: str) -> None:
    """It should go on to whole copies wherever one of its processes was killed with its parent, and forget them all."""
    directory = next(iter(tables)).parent
    cut = 0
    for number in range(1, 60):
        answer = one_agent.run("prepare", *INCIDENT, *tables, faults={"set": MANY, "kill": [number, when]})
        if answer.code == 0:
            break
        assert answer.code == -signal.SIGKILL or answer.error_code == "worker_died"
        cut += 1
        check_whole(tables)
        one_agent.run("prepare", *INCIDENT, *tables, faults={"set": MANY}).done()
        check_whole(tables)
        one_agent.run("purge", *INCIDENT, directory).done()
        assert our_files(directory) == set()
    assert cut > FILES


@pytest.mark.parametrize("end", ["commit", "restore"])
def test_killed_while_swapping(one_far_agent: Agent, tables: dict[Path, bytes], end: str) -> None:
    """It should finish or undo the batch wherever the process that swaps was killed with its parent."""
    agent, directory = one_far_agent, next(iter(tables)).parent
    cut = 0
    for number in range(1, 60):
        copies = agent.run("prepare", *INCIDENT, *tables).done()
        leave = permit(copies)
        answer = commit(agent, leave, faults={"set": MANY, "kill": [number, "after"]})
        check_whole(tables)
        if answer.code:
            assert answer.code == -signal.SIGKILL or answer.error_code == "worker_died"
            cut += 1
        if end == "commit":
            commit(agent, leave, faults={"set": MANY}).done()
            assert agent.run("verify", *INCIDENT, directory).done().document["ok"] is True
            check_whole(tables)
        agent.run("restore", *INCIDENT, directory).done()
        check_whole(tables)
        agent.run("purge", *INCIDENT, directory).done()
        for name in our_files(directory):
            (directory / name).unlink()
        if not answer.code:
            break
    assert cut > FILES


def test_a_process_that_hangs(one_agent: Agent, tables: dict[Path, bytes]) -> None:
    """It should give up when one of its processes hangs, end that too, and go on in the next run."""
    stuck = temp_of(list(tables)[5])
    run = ("prepare", "--stall-timeout", "1.5", *INCIDENT, *tables)
    one_agent.run(*run, faults={"set": MANY, "stop": [stuck.name, "durable", "create_anew"]}).refused("io_timeout", 6)
    wait_until(lambda: one_agent.run(*run).error_code != "busy")
    one_agent.run(*run).done()
    check_whole(tables)


# The crew itself.


def test_rows_begin_before_they_are_done(tmp_path: Path) -> None:
    """It should begin each row here before a process works on it, and not all of them at once."""
    log = tmp_path / "log"

    def act(number: int, _: ioguard.Beat) -> Json:
        return {"begun": log.read_text().split()}

    def begin(row: str) -> None:
        with log.open("a") as out:
            out.write(row + "\n")

    rows = [f"row{number}" for number in range(20)]
    done = list(crew.work(rows, begin, act, lambda: None, 2))
    assert sorted(row for row, _ in done) == sorted(rows)
    for count, (row, told) in enumerate(done):
        assert row in told["begun"]
        assert len(told["begun"]) <= count + 6


def test_an_error_of_a_process() -> None:
    """It should hand over what the row came to, and then raise what went wrong with it, as it was."""

    def act(number: int, _: ioguard.Beat) -> Json:
        wrong = ioguard.as_message(CheckFailedError("late", "it changed", "look", [{"path": "x"}]))
        return {"wrong": wrong if number == 1 else None, "came": number}

    rows = crew.work([10, 11, 12], lambda _: None, act, lambda: None, 1)
    assert [next(rows)[1]["came"], next(rows)[1]["came"]] == [0, 1]
    with pytest.raises(CheckFailedError) as raised:
        next(rows)
    assert (raised.value.code, raised.value.files) == ("late", [{"path": "x"}])


def test_a_process_that_is_killed() -> None:
    """It should say that a process died, and not wait for it."""

    def act(number: int, _: ioguard.Beat) -> Json:
        if number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return {}

    with pytest.raises(TryAgainError) as raised:
        list(crew.work([0, 1, 2, 3], lambda _: None, act, lambda: None, 2))
    assert raised.value.code == "worker_died"


def test_processes_end_with_the_work() -> None:
    """It should leave no process when the caller stops in the middle, or is killed."""

    def act(number: int, _: ioguard.Beat) -> Json:
        if number:
            time.sleep(60)
        return {"pid": os.getpid(), "parent": os.getppid()}

    with contextlib.closing(crew.work([0, 1, 2, 3], lambda _: None, act, lambda: None, 1)) as rows:
        _, told = next(rows)
    with pytest.raises(ProcessLookupError):
        os.kill(told["pid"], 0)

    reader, writer = os.pipe()
    parent = os.fork()
    if not parent:
        for _, told in crew.work([0, 1, 2, 3], lambda _: None, act, lambda: None, 1):
            os.write(writer, b"%d" % told["pid"])
    pid = int(os.read(reader, 100))
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    wait_until(lambda: not Path(f"/proc/{pid}/cwd").exists())
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize(
    ("usable", "rows", "most", "wanted"), [(1, 9, 4, 0), (2, 1, 4, 0), (2, 2, 4, 2), (2, 9, 4, 3), (8, 9, 4, 4)]
)
def test_how_many_processes(monkeypatch: pytest.MonkeyPatch, usable: int, rows: int, most: int, wanted: int) -> None:
    """It should use the processors that it may run on and one more, and none for what one process does as fast."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(usable)))
    assert crew.size(rows, most) == wanted
