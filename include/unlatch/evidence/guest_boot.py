"""Has the guest booted since the death? A guest that has not was never down.

A new boot is no proof of death: a high-availability restart elsewhere has one too. So this check never says `dead`.
"""

from __future__ import annotations

from datetime import timedelta

from unlatch.evidence._answers import Check, Finding, alive, clear, not_observed
from unlatch.ports import Scene

SLACK = timedelta(seconds=2)  # the log's whole seconds, and the guest's clock
LARGEST_SKEW = timedelta(seconds=30)


def _look(scene: Scene) -> Finding:
    if scene.died_at is None:
        return not_observed("the moment of the death is not known, so the boot cannot be compared with it")
    facts = scene.agent.facts([scene.instance.datadir])
    off = scene.agent.clock_skew([scene.instance.datadir])
    detail = {"boot_id": facts.boot_id, "booted_at": facts.booted_at.isoformat()}
    if abs(off) > LARGEST_SKEW:
        seconds = f"{off.total_seconds():+.0f} s"
        return not_observed(f"the guest's clock is {seconds} off, so its boot time says nothing", **detail)
    if facts.booted_at < scene.died_at - SLACK:
        return alive(
            f"this guest was never down: it runs since {facts.booted_at:%Y-%m-%d %H:%M:%S} UTC, "
            "before the reported death",
            **detail,
        )
    return clear(f"the guest booted at {facts.booted_at:%H:%M:%S} UTC, after the death", **detail)


PLUGIN = Check("guest_boot", _look)
