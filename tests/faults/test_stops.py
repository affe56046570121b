"""The agent is stopped at its system calls: the name always has a whole file, and every way to go on ends well.

`make test` makes a sample that is the same in every run; `make test-faults` (FAULTS=full) makes every case,
FAULTS=50 that many of each kind.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.faults import ptrace, sweeps
from tests.faults.calls import Boundary
from tests.faults.loop_volumes import FILE_SYSTEMS
from tests.faults.scene import Scene
from tests.faults.stoppable import Stop
from tests.faults.sweeps import PROCEDURES, Result

WANTED = os.environ.get("FAULTS", "4")
IS_FULL = WANTED == "full"
# Many files take long; the sample makes them on one file system.
MADE = [
    (kind, verb)
    for kind in FILE_SYSTEMS
    for verb, procedure in sorted(PROCEDURES.items())
    if not procedure.is_wide or kind == "ext4" or "FAULTS" in os.environ
]
Report = Callable[[str, str, Result], None]
MakeScene = Callable[[str], Scene]

pytestmark = pytest.mark.timeout(300 if "FAULTS" not in os.environ else 7200)


@pytest.mark.parametrize(("kind", "verb"), MADE)
def test_stopped(kind: str, verb: str, make_scene: MakeScene, report: Report) -> None:
    """It should leave whole files, tell of all that is its own, and finish or undo, wherever it was stopped."""
    scene, procedure = make_scene(kind), PROCEDURES[verb]
    procedure.furnish(scene)
    made = sweeps.cases(sweeps.boundaries(scene, procedure), procedure.endings)
    chosen = made if IS_FULL else sweeps.sample(f"{kind}/{verb}", made, int(WANTED) // (4 if procedure.is_wide else 1))
    report(kind, verb, sweeps.sweep(scene, procedure, chosen))


@pytest.mark.parametrize("kind", FILE_SYSTEMS)
def test_a_late_write_before_the_record(kind: str, make_scene: MakeScene) -> None:
    """It should not take an original for unchanged that was written to after the rename and before the record."""
    scene = make_scene(kind)
    scene.clean()
    scene.prepare().answer.done()
    after_rename = Boundary("fsync", "volume", 2, changes=True)
    assert scene.commit(stop=Stop(after_rename, ptrace.KILL_ALL)).was_hit
    assert scene.quarantined(scene.paths[0])
    scene.write_late(scene.paths[0])
    scene.commit().answer.refused("late_writer")
    scene.restore().answer.refused("late_writer")
    scene.purge().answer.refused("commit_unfinished")
    scene.verify().answer.refused("commit_unfinished", 4)
