"""Verbs that only look, when a call of theirs fails: a failed look is never taken for nothing there."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.faults import sweeps
from tests.faults.loop_volumes import FILE_SYSTEMS
from tests.faults.scene import Scene
from tests.faults.sweeps import Result


@pytest.mark.parametrize("verb", ["status", "verify"])
@pytest.mark.parametrize("kind", FILE_SYSTEMS)
def test_a_look_that_failed(
    kind: str, verb: str, make_scene: Callable[[str], Scene], report: Callable[[str, str, Result], None]
) -> None:
    """It should say that it could not look, and never answer as if nothing were there."""
    scene = make_scene(kind)
    report(
        kind,
        verb,
        sweeps.sweep_looks(
            scene, getattr(Scene, verb), 1 if os.environ.get("FAULTS") == "full" or kind == "ext4" else 8
        ),
    )
