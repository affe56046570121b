"""The ``openers`` verb: every process that is tied to a directory."""

import os
from typing import List, Sequence

from unlatch_agent import identity, ioguard, openers, rootsquash
from unlatch_agent.errors import Json, UsageError
from unlatch_agent.locks import Inode


def run(directories: Sequence[str], executables: Sequence[str], io_timeout_s: float) -> Json:
    """Look for processes that have files below directories open, or name them, or work there.

    As root it sees every process; as anyone else it says which it could not look at. It reads no
    environment and no configuration, and writes nothing.

    Raises:
        AgentError: a directory is not absolute or not there.
    """
    for directory in directories:
        if not os.path.isabs(directory):
            raise UsageError("relative_path", "{} is relative".format(directory), "give absolute directories")
    names: List[str] = []
    inodes: List[Inode] = []
    unchecked: List[Json] = []
    for outcome in ioguard.each(list(directories), _inside, io_timeout_s):
        names.append(os.path.normpath(outcome.item))
        if outcome.timed_out:
            why = "{} did not answer for {:g} s: files open under other names are not seen".format(
                outcome.item, io_timeout_s
            )
            unchecked.append({"pid": None, "uid": None, "why": why})
            continue
        names.append(outcome.value["resolved"])
        inodes += [(dev, inode) for dev, inode in outcome.value["inodes"]]
        for path in outcome.value["unreadable"]:
            why = "cannot list {}: files open under other names are not seen".format(path)
            unchecked.append({"pid": None, "uid": None, "why": why})
    answer = openers.scan(openers.Wanted(list(dict.fromkeys(names)), inodes, list(executables)), io_timeout_s)
    answer["unchecked"] = unchecked + answer["unchecked"]
    return answer


def _inside(directory: str, beat: ioguard.Beat) -> Json:
    uid = rootsquash.sees(directory)
    with rootsquash.as_user(uid):
        resolved = os.path.realpath(directory)
        if not identity.is_there(resolved):
            raise identity.no_such_path(directory)
    return dict(openers.files_below(resolved, uid, beat), resolved=resolved)
