"""Does a process of the guest itself hold a lock on the instance's files?"""

from __future__ import annotations

from unlatch.evidence._answers import Check, Finding, alive, clear, not_observed
from unlatch.evidence._servers import own_start_words, own_starts
from unlatch.models import LockKind
from unlatch.ports import Scene


def _look(scene: Scene) -> Finding:
    paths = scene.engine.lock_paths(scene.instance)
    if not paths:
        return clear(f"{scene.instance.engine} takes no locks on its files")
    files = scene.agent.check_locks(scene.instance, paths, scene.engine.pid_files(scene.instance))
    detail = {"files": [file.as_dict() for file in files]}
    local = [file for file in files if file.lock.kind is LockKind.LOCAL]
    starting = own_starts(scene)
    if local and all(file.lock.pid in starting for file in local):
        return not_observed(own_start_words(starting), **detail)
    if local:
        holders = ", ".join(f"pid {file.lock.pid} holds {file.path.name}" for file in local)
        return alive(f"a process of this guest holds a lock: {holders}", **detail)
    locked = [file.path.name for file in files if file.lock.kind is LockKind.REMOTE]
    if locked:
        return clear(f"no process of this guest holds the locks on {', '.join(locked)}", **detail)
    return clear("no file is locked", **detail)


PLUGIN = Check("lock_holder", _look)
