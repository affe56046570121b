"""Many things side by side: order is kept, the first error ends them, and a swap still ends with its last file."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.agent.agent_runner import Agent, permit
from tests.agent.test_commit import commit
from tests.agent.test_prepare import INCIDENT
from unlatch_agent import abreast, durable, identity, mounts, positions, recreate, safety
from unlatch_agent.copying import Asked
from unlatch_agent.errors import Json, RefusedError
from unlatch_agent.journal import Journal

calm = settings(deadline=None)  # a loaded machine is no defect
FILES = 40  # more than are swapped one by one


def untold(_: Json | None) -> None:
    """Tell nobody."""


def on_nfs(directory: Path) -> str:
    """A mount table in which a directory is on NFS."""
    return f"999 1 0:99 / {directory} rw - nfs nas:/x rw,vers=3,local_lock=none\n"


@pytest.fixture
def tables(tmp_path: Path) -> list[Path]:
    """Many files of an instance, in the order in which they are to be swapped."""
    directory = tmp_path / "tables"
    directory.mkdir()
    paths = [directory / f"t{number:02}.ibd" for number in range(FILES - 1)] + [directory / "z-ibdata1"]
    for path in paths:
        path.write_bytes(path.name.encode() * 500)
    return paths


@calm
@given(st.integers(0, 300), st.booleans())
def test_order(count: int, is_on_nfs: bool) -> None:
    """It should tell what came of each thing in the things' order, by threads or without."""
    beats: list[None] = []
    made = abreast.here(
        range(count), lambda number: (number, number**2), lambda _: beats.append(None), on_nfs=is_on_nfs
    )
    assert list(made) == [(number, number**2) for number in range(count)]
    assert bool(beats) == (count > 0)


def test_by_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """It should look in other processes when there is much to look at, tell it in order, and pass on a refusal."""
    monkeypatch.setattr(abreast, "_CHUNK", 3)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    seen = list(abreast.each(range(40), lambda number: [number, os.getpid()], untold, on_nfs=False))
    assert [number for number, _ in seen] == list(range(40))
    assert os.getpid() not in {pid for _, pid in seen}
    assert len({pid for _, pid in seen}) > 1
    for few, is_on_nfs in (range(3), False), (range(40), True):
        assert {pid for _, pid in abreast.each(few, lambda n: [n, os.getpid()], untold, on_nfs=is_on_nfs)} == {
            os.getpid()
        }

    def refuse(number: int) -> int:
        if number == 31:
            raise RefusedError("source_changed", "t31 has changed", "find out who writes to it")
        return number

    with pytest.raises(RefusedError, match="t31 has changed"):
        list(abreast.each(range(40), refuse, untold, on_nfs=False))


def test_many_files_on_nfs(agent: Agent, tables: list[Path]) -> None:
    """It should prepare, swap, verify and purge many files with many calls under way, and swap none of them twice."""
    directory = tables[0].parent
    before = {path: (path.stat().st_ino, path.read_bytes()) for path in tables}
    far = {"mounts": on_nfs(directory)}
    copies = agent.run("prepare", *INCIDENT, *tables, faults=far).done()
    swapped = commit(agent, permit(copies), faults=far).done()
    assert [entry["path"] for entry in swapped.files] == [str(path) for path in tables]
    assert {path: path.read_bytes() for path in tables} == {path: data for path, (_, data) in before.items()}
    assert not {path.stat().st_ino for path in tables} & {inode for inode, _ in before.values()}
    assert [(e["inode_before"], e["inode_after"]) for e in swapped.files] == [
        (before[path][0], path.stat().st_ino) for path in tables
    ]
    assert commit(agent, permit(copies), faults=far).done().files == swapped.files
    assert agent.run("verify", *INCIDENT, directory, faults=far).done().document["ok"] is True
    agent.run("purge", *INCIDENT, directory, faults=far).done()
    assert sorted(directory.iterdir()) == sorted(tables)


def test_the_last_file_waits(tables: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """It should put the last file under its name when all others are: a server that wants its lock waits, too."""
    monkeypatch.setattr(mounts, "read_mounts", lambda: mounts.parse_mountinfo(on_nfs(tables[0].parent)))
    real, last_began, done = durable.rename, threading.Event(), []

    def rename(source: str, target: str) -> None:
        if target == str(tables[-1]):
            last_began.set()
        if target == str(tables[-2]):
            last_began.wait(0.2)  # what must not come
        real(source, target)
        done.append(target)

    monkeypatch.setattr(durable, "rename", rename)
    targets = safety.targets([str(path) for path in tables])
    answer = recreate.run("inc-1", targets, Asked(), 10.0, untold)
    assert len(list(answer["files"])) == FILES
    assert sorted(done) == [str(path) for path in tables]
    assert done[-1] == str(tables[-1])


def test_a_copy_with_a_second_name(tables: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """It should look for the copy under its own name when it has two, though nobody asked; only then."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    path = tables[0]
    list(recreate.run("inc-1", safety.targets([str(path)]), Asked(), 10.0, untold)["files"])
    owner = Journal(str(path.parent), "inc-1")
    entry = owner.entry(path.name)
    assert entry is not None
    looked: list[str] = []
    real = identity.of_name
    monkeypatch.setattr(identity, "of_name", lambda name: (looked.append(name), real(name))[1])
    assert positions.look(owner, entry, with_temp=False).kind == positions.SWAPPED
    assert owner.temp(path.name) not in looked
    Path(owner.temp(path.name)).hardlink_to(path)
    assert positions.look(owner, entry, with_temp=False).kind == positions.BACK_LINKED
    assert positions.look(owner, entry).kind == positions.BACK_LINKED


def test_signs_of_life(tables: list[Path]) -> None:
    """It should beat while it asks for the locks of many files: on a slow NAS that takes longer than the limit."""
    beats: list[None] = []
    safety.refuse_local_users(map(str, tables), 10.0, lambda _: beats.append(None), on_nfs=False)
    assert len(beats) == FILES


def test_a_look_on_tmpfs(monkeypatch: pytest.MonkeyPatch) -> None:
    """It should open a file only where an NFS client would answer from its cache: tmpfs is asked what it is once."""
    path = Path(f"/dev/shm/unlatch-test-{os.getpid()}")
    path.write_bytes(b"x")
    try:
        if os.major(path.stat().st_dev):
            pytest.skip("/dev/shm is no tmpfs")
        first = identity.of_name(str(path))
        monkeypatch.setattr(identity, "open_to_read", lambda _: pytest.fail("it was opened"))
        assert identity.of_name(str(path)) == first
    finally:
        path.unlink()
