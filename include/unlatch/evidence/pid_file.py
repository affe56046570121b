"""Whose is the pid that a left-over pid file names?

A pid is a process only together with its start time, program and directory: after a reboot the number may belong to
anything, which then keeps the server from starting.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath

from unlatch.evidence._answers import Check, Finding, alive, clear, not_observed
from unlatch.models import Answer, FileFact, LockKind, ProcessFact
from unlatch.ports import Scene

SLACK = timedelta(seconds=2)  # a pid file records whole seconds

_SEVERITY = (Answer.CLEAR, Answer.NOT_OBSERVED, Answer.ALIVE)


def _look(scene: Scene) -> Finding:
    pid_files = scene.engine.pid_files(scene.instance)
    if not pid_files:
        return clear(f"{scene.instance.engine} has no pid file that keeps it from starting")
    looked = scene.agent.check_locks(scene.instance, scene.engine.lock_paths(scene.instance), pid_files)
    files = [file for file in looked if file.path in pid_files]
    found = [_judge(file, scene) for file in files if file.lock.kind is LockKind.PIDFILE]
    if len(found) < len(files):
        found.append(not_observed("the agent did not read a file as a pid file"))
    if not found:
        return clear("no pid file is there")
    worst = max(found, key=lambda finding: _SEVERITY.index(finding.answer))
    return Finding(worst.answer, worst.summary, {"files": [file.as_dict() for file in files]})


def _judge(file: FileFact, scene: Scene) -> Finding:
    lock, process = file.lock, file.lock.process
    if lock.pid is None:
        return not_observed(f"{file.path} names no pid: unknown, please check by hand")
    if process is not None:
        is_server = _is_server(process, scene)
        if is_server is None:
            return not_observed(f"pid {lock.pid} of {file.path.name} is there, but its program cannot be seen")
        if is_server:
            return alive(f"pid {lock.pid} of {file.path.name} is a server of this instance")
    booted_at = scene.agent.facts([scene.instance.datadir]).booted_at
    recorded = lock.started_at
    written = recorded or datetime.fromtimestamp(file.sample.mtime_ns / 1e9, UTC)
    if written >= booted_at - SLACK:
        if recorded is not None:
            return alive(f"{file.path.name} names a server that was started at {written:%H:%M:%S}, in this boot")
        return not_observed(f"{file.path.name} was written at {written:%H:%M:%S}, in this boot, and says not by whom")
    owner = "nobody has that pid now" if process is None else f"that pid is {_words(process)} now"
    return clear(f"{file.path.name} is of {written:%Y-%m-%d %H:%M:%S} UTC, before this boot; {owner}")


def _is_server(process: ProcessFact, scene: Scene) -> bool | None:
    """Whether it runs this engine's program on this data directory; None when its program is hidden."""
    program = process.exe.removesuffix(" (deleted)") if process.exe else next(iter(process.cmdline), None)
    if program is None:
        return None
    name = PurePosixPath(program.split(" ", 1)[0]).name.rstrip(":")
    if name not in scene.engine.executables(scene.instance):
        return False
    datadir = str(scene.instance.datadir)
    if process.cwd is None:
        return True  # the right program in a directory that cannot be seen: do not guess
    return process.cwd == datadir or any(datadir in word for word in process.cmdline)


def _words(process: ProcessFact) -> str:
    return " ".join(process.cmdline)[:80] or process.exe or "?"


PLUGIN = Check("pid_file", _look)
