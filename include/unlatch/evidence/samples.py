"""Do the instance's files change: those that are locked, pid files, and what a live server writes without a lock?

A file that is locked also tells by its time: written after the death, it was not this guest's start attempt, which got
no lock. The engine's witnesses (redo log, headers, control file) do not: a failed start may have touched them. But that
they change from one look to the next means that a server writes them now, here or on another machine.

This sees what reached the storage, not every commit. So an unchanged file is `clear`, never more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from unlatch.evidence._answers import Check, Finding, alive, clear, not_observed
from unlatch.evidence._servers import own_start_words, own_starts
from unlatch.models import FileFact, Json, LockKind
from unlatch.ports import Scene

BETWEEN_S = 2.0
SLACK = timedelta(seconds=5)  # the clocks of hypervisor, guest and storage
START_SLACK = timedelta(seconds=2)  # a pid file records whole seconds

_FIELDS = ("size_bytes", "mtime_ns", "ctime_ns", "head_sha256")


def _look(scene: Scene) -> Finding:
    if scene.died_at is None:
        return not_observed("the moment of the death is not known, so no time can be compared with it")
    starting = own_starts(scene)
    first, unlocked_first = _sample(scene), _witnesses(scene)
    scene.clock.pause(BETWEEN_S)
    later = replace(scene, agent=scene.agent.anew())
    second, unlocked_second = _sample(later), _witnesses(later)
    detail = {
        "first": [f.as_dict() for f in (unlocked_first | first).values()],
        "second": [f.as_dict() for f in (unlocked_second | second).values()],
    }
    changed = [*_changes(first, second, "was locked or made"), *_late(second.values(), scene)]
    if changed:
        return alive("; ".join(changed), **detail)
    written = "; ".join(_written(unlocked_first, unlocked_second))
    if written:
        return _writer(written, starting | own_starts(later), detail)
    gone = sorted(path.rsplit("/", 1)[-1] for path in first.keys() - second.keys())
    if gone:
        return not_observed(f"{', '.join(gone)} changed hands between the two looks", **detail)
    if not second and not unlocked_second and scene.engine.witnesses(scene.instance):
        where = f"none of the files of a {scene.instance.engine} is below {scene.instance.datadir}"
        return not_observed(f"{where}: is that its data directory?", **detail)
    return clear(_unchanged(second, unlocked_second), **detail)


def _writer(written: str, starting: frozenset[int], detail: Json) -> Finding:
    if starting:
        return not_observed(f"{written}, but {own_start_words(starting)}", **detail)
    return alive(f"{written}: a server writes there now, from this or another machine", **detail)


def _unchanged(locked: Mapping[str, FileFact], unlocked: Mapping[str, FileFact]) -> str:
    rest = {path: file for path, file in unlocked.items() if path not in locked}
    words = [f"unchanged over {BETWEEN_S:g} s and since the death: {_names(locked)}"] if locked else []
    words += [f"unchanged over {BETWEEN_S:g} s: {_names(rest)}"] if rest else []
    return "; ".join(words) or "no file is locked, no pid file and no log is there: nothing to sample"


def _names(files: Mapping[str, FileFact]) -> str:
    return ", ".join(sorted(file.path.name for file in files.values()))


def _witnesses(scene: Scene) -> dict[str, FileFact]:
    paths = scene.engine.witnesses(scene.instance)
    files = scene.agent.samples(scene.instance, paths) if paths else ()
    return {str(file.path): file for file in files}


def _written(first: Mapping[str, FileFact], second: Mapping[str, FileFact]) -> list[str]:
    """What happened to files that nobody locks; one that has gone was replaced by the next of its kind, or removed."""
    gone = [f"{path} was removed between the two looks" for path in sorted(first.keys() - second.keys())]
    return [*_changes(first, second, "was made"), *gone]


def _sample(scene: Scene) -> dict[str, FileFact]:
    engine, instance = scene.engine, scene.instance
    files = scene.agent.check_locks(instance, engine.lock_paths(instance), engine.pid_files(instance))
    return {str(file.path): file for file in files}


def _changes(first: Mapping[str, FileFact], second: Mapping[str, FileFact], if_new: str) -> list[str]:
    found = []
    for path, now in second.items():
        before = first.get(path)
        if before is None:
            found.append(f"{path} {if_new} between the two looks")
            continue
        what = [name for name in _FIELDS if getattr(before.sample, name) != getattr(now.sample, name)]
        if before.inode != now.inode:
            what.append("inode")
        if what:
            found.append(f"{path} changed between the two looks ({', '.join(what)})")
    return found


def _late(files: Iterable[FileFact], scene: Scene) -> list[str]:
    found = []
    latest = scene.died_at + SLACK if scene.died_at else None
    for file in files:
        lock = file.lock
        written = datetime.fromtimestamp(file.sample.mtime_ns / 1e9, UTC)
        if lock.kind is LockKind.PIDFILE:
            if (
                lock.started_at is not None
                and lock.started_at >= scene.agent.facts([scene.instance.datadir]).booted_at - START_SLACK
            ):
                found.append(f"{file.path} names a server that was started at {lock.started_at:%H:%M:%S} in this boot")
        elif lock.kind is not LockKind.NONE and latest is not None and written > latest:
            found.append(f"{file.path} was written after the death, at {written:%Y-%m-%d %H:%M:%S} UTC")
    return found


PLUGIN = Check("samples", _look)
