"""Which processes are servers of the instance, and which of those are this guest's own start attempts."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import PurePosixPath

from unlatch.models import Opener
from unlatch.ports import Scene


def may_be_server(opener: Opener, programs: tuple[str, ...]) -> bool:
    """By its program, or by the script that an interpreter runs; one that hides its program may be anything."""
    if opener.exe is None and not opener.cmdline:
        return True
    words = [opener.exe.removesuffix(" (deleted)") if opener.exe else "", *opener.cmdline[:2]]
    return any(PurePosixPath(word).name.rstrip(":") in programs for word in words if word)


def own_starts(scene: Scene) -> frozenset[int]:
    """Servers that this boot of the guest runs while its service is not held (a dry run holds nothing).

    Once the service is held, what is left was not started by it: then there is no such process, whatever runs.
    """
    if scene.held:
        return frozenset()
    programs = scene.engine.executables(scene.instance)
    scan = scene.agent.openers(scene.instance, programs)
    return frozenset(o.pid for o in scan.openers if o.exe is not None and may_be_server(o, programs))


def own_start_words(pids: Collection[int]) -> str:
    """Why such a process is neither a sign of life nor its absence."""
    listing = ", ".join(map(str, sorted(pids)))
    return f"the guest itself is starting the server (pid {listing}); a run that is not dry would stop that first"
