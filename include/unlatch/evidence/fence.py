"""Was the old holder cut off? Asked only where the incident has applied a fence; one that failed is a veto."""

from __future__ import annotations

from unlatch.evidence._answers import Check, Finding, alive, dead, not_observed
from unlatch.ports import Scene


def _look(scene: Scene) -> Finding:
    if scene.fenced is None:
        return not_observed("no fence was needed")
    if scene.fenced:
        return dead(f"the old {scene.guest.name} was cut off, and that was verified")
    return alive(f"the fence of {scene.guest.name} failed: whatever was to be cut off may still write")


PLUGIN = Check("fence", _look)
