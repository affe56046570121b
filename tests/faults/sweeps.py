"""What is stopped where, and how it must end: every case of a sweep, in an order that is always the same."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.agent.agent_runner import our_files
from tests.faults import ptrace
from tests.faults.calls import Boundary
from tests.faults.scene import LATE, Scene, check_answer
from tests.faults.stoppable import Ran, Stop

CHANGING_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EINTR, errno.EROFS)
# A full or read-only volume stays so for the rest of the run.
_LASTING = (errno.ENOSPC, errno.EROFS)
# What a call is answered that an NFS client had to repeat: the first one was done.
REPEATED = {"linkat": errno.EEXIST, "rename": errno.ENOENT, "unlink": errno.ENOENT}
READING_ERRORS = (errno.EIO, errno.ESTALE)

Ending = Callable[[Scene], None]


class Procedure(NamedTuple):
    """A verb that is stopped.

    Attributes:
        setup: brings a clean scene to the point where the verb is run.
        run: runs the verb.
        check: what must hold right after the stop.
        endings: the ways to go on, each of which must end well.
        is_wide: whether the volume has many files.
        is_huge: whether it has one that takes long to copy.
    """

    setup: Callable[[Scene], None]
    run: Callable[..., Ran]
    check: Callable[[Scene], None]
    endings: tuple[Ending, ...]
    is_wide: bool = False
    is_huge: bool = False

    def furnish(self, scene: Scene) -> None:
        """Give the scene the files that it takes."""
        if self.is_wide:
            scene.widen()
        if self.is_huge:
            scene.enlarge()


class Case(NamedTuple):
    """One stop and the way to go on after it."""

    stop: Stop
    ending: Ending

    def __str__(self) -> str:
        """Say it for people."""
        return f"{self.stop}, then {self.ending.__name__.strip('_')}"


@dataclass
class Result:
    """What a sweep covered, and what went wrong."""

    boundaries: set[Boundary] = field(default_factory=set)
    stops: int = 0
    failures: list[str] = field(default_factory=list)


def _nothing(_: Scene) -> None:
    pass


def _prepared(scene: Scene) -> None:
    scene.prepare().answer.done()


def _committed(scene: Scene) -> None:
    _prepared(scene)
    scene.commit().answer.done()


def _prepare_again(scene: Scene) -> None:
    scene.prepare().answer.done()
    _commit_again(scene)


def _forget(scene: Scene) -> None:
    scene.purge().answer.done()
    scene.check_clean()
    scene.check_restored()


def _commit_again(scene: Scene) -> None:
    scene.check_committed(scene.commit().answer.done())
    scene.check_late_writer(scene.paths[0])


def _recreate_again(scene: Scene) -> None:
    scene.check_committed(scene.recreate().answer.done())
    scene.check_late_writer(scene.paths[1])


def _restore_instead(scene: Scene) -> None:
    scene.restore().answer.done()
    scene.check_restored()
    scene.purge().answer.done()
    scene.check_clean()


def _late(scene: Scene, run: Callable[[], Ran]) -> None:
    """Write into an original between the stop and the next run: that write is copied, or an alarm is raised."""
    path = scene.paths[0]
    scene.write_late(path)
    resumed = run().answer
    if resumed.code:
        assert resumed.error_code in ("source_changed", "late_writer"), resumed
        assert scene.verify().answer.code or not scene.quarantined(path), "verify says nothing of it"
    elif not path.read_bytes().endswith(LATE):
        scene.verify().answer.refused("late_writer", 4)
        scene.purge().answer.refused("late_writer")
    assert os.fstat(scene.old[path]).st_nlink > 0


def _commit_after_a_late_write(scene: Scene) -> None:
    _late(scene, scene.commit)


def _recreate_after_a_late_write(scene: Scene) -> None:
    _late(scene, scene.recreate)


def _restore_again(scene: Scene) -> None:
    _restore_instead(scene)
    scene.recreate().answer.done()


def _purge_again(scene: Scene) -> None:
    scene.purge().answer.done()
    scene.check_clean()
    for path in scene.paths:
        assert path.stat().st_ino != scene.originals[path]["inode"]
        assert path.read_bytes() == scene.contents[path]


def _check_purging(scene: Scene) -> None:
    for path, data in scene.contents.items():
        assert path.read_bytes() == data
    scene.check_nothing_unreported()
    scene.verify().answer.done()  # no late writer: the watch over originals would stop the database


def _set_aside_again(scene: Scene) -> None:
    scene.set_aside().answer.done()
    assert not scene.pidfile.exists()
    scene.verify().answer.done()
    scene.purge().answer.done()
    scene.check_clean()


def _put_back(scene: Scene) -> None:
    scene.restore().answer.done()
    assert scene.pidfile.read_text() == scene.pid_text
    assert scene.pidfile.stat().st_nlink == 1


def _check_pidfile(scene: Scene) -> None:
    kept = [scene.volume / name for name in our_files(scene.volume) if name.endswith(".orig")]
    assert [path.read_text() for path in [*kept, scene.pidfile] if path.exists()] == [scene.pid_text]
    scene.check_nothing_unreported()


PROCEDURES = {
    "prepare": Procedure(_nothing, Scene.prepare, Scene.check_whole, (_prepare_again, _forget)),
    "commit": Procedure(
        _prepared, Scene.commit, Scene.check_whole, (_commit_again, _restore_instead, _commit_after_a_late_write)
    ),
    "recreate": Procedure(
        _nothing, Scene.recreate, Scene.check_whole, (_recreate_again, _restore_instead, _recreate_after_a_late_write)
    ),
    "restore": Procedure(_committed, Scene.restore, Scene.check_whole, (_restore_again,)),
    "purge": Procedure(_committed, Scene.purge, _check_purging, (_purge_again,)),
    "set-aside": Procedure(Scene.add_pidfile, Scene.set_aside, _check_pidfile, (_set_aside_again, _put_back)),
}

for _verb in ("commit", "recreate"):
    PROCEDURES[f"{_verb}-many"] = PROCEDURES[_verb]._replace(is_wide=True)
PROCEDURES["prepare-huge"] = PROCEDURES["prepare"]._replace(is_huge=True)


def boundaries(scene: Scene, procedure: Procedure) -> list[Boundary]:
    """Run once to the end, and return every boundary that the run passed, sorted: files are copied side by side.

    Of many files the first, one in the middle and the last stand for all, and of many pieces the first and the last:
    what is between them passes through the same calls.
    """
    scene.clean()
    procedure.setup(scene)
    ran = procedure.run(scene, deep=True)
    ran.answer.done()
    found = sorted(ran.calls)
    if procedure.is_wide:
        shown = [scene.paths[0], scene.paths[len(scene.paths) // 2], scene.paths[-1]]
        names = {path.name for path in shown} | {name for path in shown for name in scene.own_names(path)}
        others = {path.name for path in scene.paths} | {name for path in scene.paths for name in scene.own_names(path)}
        hidden = others - names
        found = [at for at in found if at.subject.rpartition("/")[2] not in hidden]
    if procedure.is_huge:
        last = {(at.call, at.subject, at.changes): at.nth for at in found}  # sorted: the highest number stays
        found = [at for at in found if at.nth in (1, 2, last[at.call, at.subject, at.changes])]
    return found


def cases(found: Sequence[Boundary], endings: Sequence[Ending]) -> list[Case]:
    """Return every case: each kill with each way to go on, errors with one of them in turn.

    Before a call that changes nothing a kill leaves the same on disk as before the next that does, so only
    errors are put there.
    """
    made: list[Case] = []
    for number, at in enumerate(found):
        if at.changes:
            made += [Case(Stop(at, ptrace.KILL_ALL), ending) for ending in endings]
            made.append(Case(Stop(at, ptrace.KILL_THIS), endings[number % len(endings)]))
            for turn, answer in enumerate(CHANGING_ERRORS, number):
                made.append(Case(Stop(at, answer, answer in _LASTING), endings[turn % len(endings)]))
            if at.call in REPEATED and at.subject.startswith("volume"):
                stop = Stop(at, ptrace.DONE_BUT + REPEATED[at.call])
                made += [Case(stop, ending) for ending in endings]
        elif at.subject.startswith("volume"):
            answer = READING_ERRORS[number % len(READING_ERRORS)]
            made.append(Case(Stop(at, answer), endings[number % len(endings)]))
    return made


def sample(seed: str, made: Sequence[Case], count: int) -> list[Case]:
    """Return some of the cases, the same ones for the same seed: kills and errors at calls that change things."""
    of_weight = [case for case in made if case.stop.at.changes]
    return random.Random(seed).sample(of_weight, min(count, len(of_weight)))


def sweep(scene: Scene, procedure: Procedure, chosen: Sequence[Case]) -> Result:
    """Make every case, and go on after one that fails."""
    result = Result()
    for case in chosen:
        scene.clean()
        scene.is_thorough = case.stop.is_kill
        procedure.setup(scene)
        ran = procedure.run(scene, stop=case.stop, deep=not case.stop.at.changes)
        if not ran.was_hit and case.stop.at.subject.startswith("state/"):
            continue  # how often the record of a job is written depends on time
        try:
            check_answer(ran, case.stop)
            procedure.check(scene)
            case.ending(scene)
        except (AssertionError, OSError, KeyError) as error:
            told = ran.answer.text.strip()[:300]
            result.failures.append(f"{case}: {type(error).__name__} {str(error)[:600]}\n    it answered: {told}")
        result.boundaries.add(case.stop.at)
        result.stops += 1
    return result


def sweep_looks(scene: Scene, look: Callable[..., Ran], every: int) -> Result:
    """Let every n-th call of a verb that only looks fail: it may not take a failed look for nothing there."""
    result = Result()
    scene.clean()
    _committed(scene)
    clean = look(scene, deep=True)
    clean.answer.done()
    for number, at in enumerate(clean.calls):
        if number % every or not at.subject.startswith("volume"):
            continue
        ran = look(scene, deep=True, stop=Stop(at, READING_ERRORS[number // every % len(READING_ERRORS)]))
        if ran.answer.code == 0 and ran.answer.document != clean.answer.document:
            result.failures.append(f"{at} failed and it answered: {ran.answer.text.strip()[:300]}")
        result.boundaries.add(at)
        result.stops += 1
    return result
