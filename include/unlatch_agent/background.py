"""prepare with a record of how far it is, in this process or detached."""

import argparse
import json
import os
import signal
from typing import Callable, List

from unlatch_agent import hostlock, ioguard, jobs, safety, verbs
from unlatch_agent.errors import AgentError, HostError, Json, rebuilt


def directories_of(options: argparse.Namespace) -> List[str]:
    """Resolve the directories of the files that are to be prepared, in a guarded child."""

    def work(_: ioguard.Beat) -> Json:
        return {"directories": sorted({target.directory for target in safety.targets(options.paths)})}

    found: List[str] = ioguard.supervise(work, options.io_timeout, ioguard.untold)["directories"]
    return found


def recorded(options: argparse.Namespace, told: verbs.Told, ready: Callable[[], None]) -> Json:
    """Run prepare and keep its record; ``ready`` is called when the record is there.

    The host lock is taken before the record is begun, and the working child inherits it: it holds even
    when this process dies and the child is stuck in the kernel.

    Raises:
        AgentError: as prepare does; the record then has the error. ``busy`` leaves no record.
    """
    directories = directories_of(options)
    hostlock.acquire(directories)
    job = jobs.begin(options.incident, directories)
    ready()

    def keep(progress: Json) -> None:
        # Only the file that is being copied: finished ones are in the journal, and there can be many.
        job.write(progress=progress, files={progress["path"]: progress["file_bytes_done"]})
        told(progress)

    try:
        result = verbs.run_prepare(options, keep)
    except AgentError as error:
        job.write(error=error.document(), exit_code=error.exit_code)
        raise
    job.write(exit_code=0)
    return result


def detached(options: argparse.Namespace, told: verbs.Told) -> Json:
    """Start prepare in the background, or attach to the one that runs; answer with its status.

    Raises:
        AgentError: the job could not even begin.
    """
    directories = directories_of(options)
    if not _is_running(options.incident, directories):
        try:
            _start(options)
        except AgentError as error:
            # Someone else may have started the same job in this very moment.
            if error.code != "busy" or not _is_running(options.incident, directories):
                raise
    asked = argparse.Namespace(incident=options.incident, paths=directories, io_timeout=options.io_timeout)
    return verbs.run_status(asked, told)


def _is_running(incident: str, directories: List[str]) -> bool:
    job = jobs.find(incident, directories)
    return job is not None and job.is_running


def _start(options: argparse.Namespace) -> None:
    """Fork twice, so that the job belongs to nobody, and wait until its record is there."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            _become_job(options, writer)
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as answers:
        line = answers.readline()
    if not line:
        raise HostError("job_not_started", "the job ended before it began", "run prepare without --job to see why")
    answer = json.loads(line.decode())
    if answer["error"]:
        raise rebuilt(answer["error"], answer["exit"], [])


def _become_job(options: argparse.Namespace, writer: int) -> None:
    os.setsid()
    if os.fork():
        return
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    told = []

    def ready() -> None:
        told.append(True)
        os.write(writer, b'{"error": null}\n')
        os.close(writer)

    try:
        recorded(options, ioguard.untold, ready)
    except AgentError as error:
        if not told:  # else the record has it
            os.write(writer, json.dumps({"error": error.document(), "exit": error.exit_code}).encode() + b"\n")
