"""Does a server process of the instance run, also one that has no file open yet?

A server that is stuck in open() on a hung volume has no descriptor, but its program and its arguments are there. A
shell that somebody left in the data directory is no server; it is named in the detail.
"""

from __future__ import annotations

from unlatch.evidence._answers import Check, Finding, alive, clear, named, not_observed
from unlatch.evidence._servers import may_be_server, own_start_words, own_starts
from unlatch.models import Opener
from unlatch.ports import Scene


def _look(scene: Scene) -> Finding:
    programs = scene.engine.executables(scene.instance)
    scan = scene.agent.openers(scene.instance, programs)
    detail = scan.as_dict()
    starting = own_starts(scene)
    servers = [o for o in scan.openers if o.pid not in starting and may_be_server(o, programs)]
    if servers:
        states = "; ".join(f"{named(opener)}{_stuck(opener)}" for opener in servers)
        return alive(f"a server process of the instance runs: {states}", **detail)
    if scan.unchecked:
        return not_observed(f"not every process could be looked at: {scan.unchecked[0].why}", **detail)
    if starting:
        return not_observed(own_start_words(starting), **detail)
    return clear(f"no process runs {' or '.join(programs) or 'the server'} on {scene.instance.datadir}", **detail)


def _stuck(opener: Opener) -> str:
    return ", waiting for its volume (state D)" if opener.state == "D" else ""


PLUGIN = Check("processes", _look)
