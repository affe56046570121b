"""Killed at every durable call: the name always has a whole file, and resume and restore both end well."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.agent.agent_runner import NOBODY, Agent, Answer, our_files, permit
from tests.agent.test_prepare import INCIDENT
from tests.agent.test_set_aside import BOOTED_S, content, leave_for

FILES = ("aria_log_control", "ibdata1")
Run = Callable[..., Answer]


class Scene:
    """A volume in a known state that can be brought back, and the commands of a repair."""

    def __init__(self, agent: Agent, base: Path) -> None:
        self.agent = agent
        self.volume = base / "volume"
        self.volume.mkdir()
        for number, name in enumerate(FILES):
            (self.volume / name).write_bytes(hashlib.sha256(name.encode()).digest() * (40 + 3000 * number))
        self.paths = [self.volume / name for name in FILES]
        self.contents = {path: path.read_bytes() for path in self.paths}

    def prepare(self, **faults: object) -> Answer:
        """Run prepare."""
        return self.agent.run("prepare", *INCIDENT, *self.paths, faults=faults or None)

    def commit(self, **faults: object) -> Answer:
        """Run commit with a permit for the originals, as a controller that remembers would make it."""
        leave = permit({"files": [self.originals[path] for path in self.paths]})
        return self.agent.run("commit", *INCIDENT, "--permit", "-", stdin=leave, faults=faults or None)

    def restore(self, **faults: object) -> Answer:
        """Run restore."""
        return self.agent.run("restore", *INCIDENT, self.volume, faults=faults or None)

    def purge(self, **faults: object) -> Answer:
        """Run purge."""
        return self.agent.run("purge", *INCIDENT, self.volume, faults=faults or None)

    def remember(self) -> None:
        """Note what the originals are now."""
        self.originals = {
            path: {
                "path": str(path),
                "inode": path.stat().st_ino,
                "dev": path.stat().st_dev,
                "size_bytes": path.stat().st_size,
                "mtime_ns": path.stat().st_mtime_ns,
            }
            for path in self.paths
        }

    def clean(self) -> None:
        """Leave nothing of a repair, and fresh originals."""
        for name in our_files(self.volume):
            (self.volume / name).unlink()
        for path, data in self.contents.items():
            path.unlink()
            path.write_bytes(data)
        self.remember()

    def check_whole(self) -> None:
        """Each name stands for a whole file, and status tells of each file of ours."""
        for path, data in self.contents.items():
            assert path.read_bytes() == data
        status = self.agent.run("status", *INCIDENT, self.volume).done().document
        told = set(status["journals"])
        for entry in status["files"]:
            told |= {entry["temp"], entry["quarantine"]} - {None}
        assert {str(self.volume / name) for name in our_files(self.volume)} <= told

    def check_committed(self) -> None:
        """Each name has a new inode, each original is in quarantine."""
        files = self.agent.run("verify", *INCIDENT, self.volume).done().files
        assert [entry["path"] for entry in files] == [str(path) for path in self.paths]
        for path, entry in zip(self.paths, files, strict=True):
            assert path.stat().st_ino == entry["inode_after"] != self.originals[path]["inode"]
            assert entry["quarantine_inode"] == self.originals[path]["inode"]
        self.check_whole()

    def check_restored(self) -> None:
        """Each name has its original, nothing is in quarantine."""
        for path in self.paths:
            assert path.stat().st_ino == self.originals[path]["inode"]
            assert path.stat().st_nlink == 1
        assert not [name for name in our_files(self.volume) if name.endswith(".orig")]
        self.check_whole()


@pytest.fixture
def scene(one_far_agent: Agent) -> Iterator[Scene]:
    """A volume with two files, under a modern Python."""
    yield from _scene(one_far_agent)


@pytest.fixture
def few_scene(far_agent: Agent) -> Iterator[Scene]:
    """The same under the oldest and a modern Python."""
    yield from _scene(far_agent)


def _scene(far_agent: Agent) -> Iterator[Scene]:
    """Use a memory file system where there is one: hundreds of runs, and no disk to wait for.

    The agent runs in a PID namespace of its own, where it has few processes to look at.
    """
    memory = Path("/dev/shm")
    base = (memory if memory.is_dir() and os.access(memory, os.W_OK) else far_agent.scratch) / f"unlatch-{os.getpid()}"
    base.mkdir()
    try:
        yield Scene(far_agent, base)
    finally:
        shutil.rmtree(base)


def points(run: Run, log: Path) -> list[tuple[int, str]]:
    """Run once to the end, and return every point at which such a run can be cut."""
    log.unlink(missing_ok=True)
    answer = run(log=str(log))
    assert answer.code == 0, answer
    calls = log.read_text().split()
    found = []
    for number, call in enumerate(calls, 1):
        found.append((number, "before"))
        if call == "append":
            found.append((number, "torn"))
    return [*found, (len(calls), "after")]


def killed(run: Run, at: tuple[int, str]) -> None:
    """Run and be killed at a point."""
    answer = run(kill=list(at))
    assert answer.code == -9, (at, answer)


def test_killed_in_prepare(scene: Scene, tmp_path: Path) -> None:
    """It should go on to whole copies, whatever call prepare was killed at, and be able to forget it all."""
    scene.clean()
    for at in points(scene.prepare, tmp_path / "log"):
        scene.clean()
        killed(scene.prepare, at)
        scene.check_whole()
        scene.prepare().done()
        scene.check_whole()
        scene.purge().done()
        assert our_files(scene.volume) == set()


def test_killed_in_commit(few_scene: Scene, tmp_path: Path) -> None:
    """It should finish the batch under a new permit, whatever call commit was killed at."""
    scene = few_scene
    scene.clean()
    scene.prepare().done()
    for at in points(scene.commit, tmp_path / "log"):
        scene.clean()
        scene.prepare().done()
        killed(scene.commit, at)
        scene.check_whole()
        scene.commit().done()
        scene.check_committed()


def test_killed_in_commit_and_restored(scene: Scene, tmp_path: Path) -> None:
    """It should bring the originals back, whatever call commit was killed at, and then start over."""
    scene.clean()
    scene.prepare().done()
    cuts = points(scene.commit, tmp_path / "log")
    for at in cuts:
        scene.clean()
        scene.prepare().done()
        killed(scene.commit, at)
        scene.restore().done()
        scene.check_restored()
    scene.prepare().done()
    scene.remember()
    scene.commit().done()
    scene.check_committed()


def test_killed_in_restore(scene: Scene, tmp_path: Path) -> None:
    """It should finish the restore, whatever call it was killed at."""
    scene.clean()
    scene.prepare().done()
    scene.commit().done()
    for at in points(scene.restore, tmp_path / "log"):
        scene.clean()
        scene.prepare().done()
        scene.commit().done()
        killed(scene.restore, at)
        scene.check_whole()
        scene.restore().done()
        scene.check_restored()
        scene.purge().done()
        assert our_files(scene.volume) == set()


def test_killed_in_purge(scene: Scene, tmp_path: Path) -> None:
    """It should finish the purge, whatever call it was killed at."""
    scene.clean()
    scene.prepare().done()
    scene.commit().done()
    for at in points(scene.purge, tmp_path / "log"):
        scene.clean()
        scene.prepare().done()
        scene.commit().done()
        killed(scene.purge, at)
        scene.check_whole()
        scene.purge().done()
        assert our_files(scene.volume) == set()


def test_killed_twice(scene: Scene) -> None:
    """It should also survive a kill in the run that goes on after a kill."""
    for first in ((5, "before"), (6, "torn"), (9, "before")):
        for second in ((1, "before"), (2, "before"), (3, "before"), (4, "before")):
            scene.clean()
            scene.prepare().done()
            killed(scene.commit, first)
            killed(scene.commit, second)
            scene.check_whole()
            scene.commit().done()
            scene.check_committed()


def test_killed_in_set_aside(few_scene: Scene, tmp_path: Path) -> None:
    """It should finish, or put back, whatever call set-aside was killed at; the file is never lost."""
    scene = few_scene
    if os.geteuid() != 0:
        pytest.skip("needs root: the data directory belongs to another user")
    os.chown(scene.volume, NOBODY, NOBODY)
    pidfile = scene.volume / "postmaster.pid"
    text = content(scene.volume, os.getpid(), BOOTED_S - 1000)
    leave: list[str] = []

    def fresh() -> None:
        scene.clean()
        pidfile.write_text(text)
        os.utime(pidfile, (BOOTED_S - 900, BOOTED_S - 900))
        leave[:] = [leave_for(pidfile)]

    def set_aside(**faults: object) -> Answer:
        return scene.agent.run("set-aside", *INCIDENT, "--permit", "-", pidfile, stdin=leave[0], faults=faults or None)

    fresh()
    cuts = points(set_aside, tmp_path / "log")
    for end in ("again", "restore"):
        for at in cuts:
            fresh()
            killed(set_aside, at)
            texts = [path.read_text() for path in scene.volume.iterdir() if path.name.endswith((".orig", ".pid"))]
            assert texts == [text]
            if end == "again":
                set_aside().done()
                assert not pidfile.exists()
                scene.agent.run("verify", *INCIDENT, scene.volume).done()
            else:
                scene.restore().done()
                assert pidfile.read_text() == text


def test_a_writer_between_kill_and_resume(scene: Scene) -> None:
    """It should compare every copy again after a kill: what changed meanwhile is not swapped."""
    scene.clean()
    scene.prepare().done()
    killed(scene.commit, (7, "before"))
    with scene.paths[1].open("r+b") as writer:
        writer.write(b"late")
    scene.commit().refused("source_changed")
    assert scene.paths[1].read_bytes()[:4] == b"late"
