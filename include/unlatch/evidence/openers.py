"""Does any process of the guest have a file of the instance open?"""

from __future__ import annotations

from unlatch.evidence._answers import Check, Finding, alive, clear, named, not_observed
from unlatch.evidence._servers import own_start_words, own_starts
from unlatch.ports import Scene


def _look(scene: Scene) -> Finding:
    scan = scene.agent.openers(scene.instance, scene.engine.executables(scene.instance))
    detail = scan.as_dict()
    starting = own_starts(scene)
    having = [opener for opener in scan.openers if opener.fds and opener.pid not in starting]
    if having:
        what = "; ".join(f"{named(opener)} has {opener.fds[0].path} open" for opener in having)
        return alive(what, **detail)
    if scan.unchecked:
        return not_observed(f"not every process could be looked at: {scan.unchecked[0].why}", **detail)
    if starting:
        return not_observed(own_start_words(starting), **detail)
    return clear(f"no process of the guest has a file below {scene.instance.datadir} open", **detail)


PLUGIN = Check("openers", _look)
