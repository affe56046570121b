"""Who has files open, or names them: the scan of /proc.

What cannot be read is said to be unchecked, never clear. Looking at a descriptor can hang when its
mount does, so every process is looked at in a guarded child.
"""

import contextlib
import os
import re
from typing import Any, Collection, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

from unlatch_agent import ioguard, processes, rootsquash
from unlatch_agent.errors import Json
from unlatch_agent.locks import Inode

# Other runs of this program name the directory too. They are told apart by the file they run.
_AGENT_FILE = re.compile(r"(^|[/\s'\"])unlatch-(agent|openers|notify|nas-list|nas-clear)[^/\s]*(\s|$|['\"])")
_CARRIERS = ("sudo", "sh", "bash", "dash", "su", "runuser", "setpriv", "timeout", "sshd", "env", "nsenter", "unshare")
# A line of /proc/PID/maps that names a file: device, inode, path.
_MAPPED = re.compile(rb"^\S+ \S+ \S+ ([0-9a-f]+):([0-9a-f]+) ([1-9][0-9]*) +(/.*)$", re.MULTILINE)
# To look for so few numbers in all those lines costs less than to read them.
_FEW_INODES = 16
# Looking at a process takes only the processor.
_CHILDREN = 4
_UNREADABLE = "descriptors are not readable by uid {}"


class Wanted(NamedTuple):
    """What the scan looks for.

    Attributes:
        directories: absolute directory names, as given and resolved.
        inodes: files, wherever their names are.
        executables: base names of programs of interest.
    """

    directories: Sequence[str] = ()
    inodes: Collection[Inode] = ()
    executables: Sequence[str] = ()


def _names(directory: str, text: str) -> bool:
    """Say whether an argument names the directory or something below it."""
    pattern = r"(^|[=:,;\s'\"]){}(/|$|[,:;\s'\"])".format(re.escape(directory.rstrip("/")))
    return re.search(pattern, text) is not None


def _below(directory: str, path: str) -> bool:
    return (path + "/").startswith(directory.rstrip("/") + "/")


def _descriptors(view: str, wanted: Wanted, inodes: Set[Inode]) -> List[Json]:
    """Return the wanted files that a process has open.

    Raises:
        PermissionError: the process does not let this user look.
    """
    found = []
    for number in os.listdir(view + "/fd"):
        link = "{}/fd/{}".format(view, number)
        try:
            path = os.readlink(link)
            if not path.startswith("/") or path.startswith(("/dev/null", "/dev/pts", "/proc/", "/sys/")):
                continue
            status = os.stat(link)
        except FileNotFoundError:
            continue  # closed meanwhile
        inode = (status.st_dev, status.st_ino)
        if inode not in inodes and not any(_below(name, path) for name in wanted.directories):
            continue
        entry: Json = {"path": path, "inode": inode[1], "dev": inode[0], "locked": False}
        with contextlib.suppress(OSError), open("{}/fdinfo/{}".format(view, number)) as source:
            entry["locked"] = any(line.startswith("lock:") for line in source)
        found.append(entry)
    return found


def _maps(view: str, wanted: Wanted, inodes: Set[Inode]) -> List[Json]:
    """Return the wanted files that a process has mapped."""
    found = []
    with open(view + "/maps", "rb", buffering=0) as source:
        lines = source.read()
    if (
        not wanted.directories
        and len(inodes) <= _FEW_INODES
        and not any(b" %d " % inode in lines for _, inode in inodes)
    ):
        return []
    mapped = set(_MAPPED.findall(lines))  # a library has a line for each of its parts
    for major, minor, number, name in sorted(mapped):
        inode, path = (os.makedev(int(major, 16), int(minor, 16)), int(number)), os.fsdecode(name)
        if inode in inodes or any(_below(name, path) for name in wanted.directories):
            found.append({"path": path, "inode": inode[1], "dev": inode[0], "locked": False})
    return found


def _touching(view: str, wanted: Wanted, inodes: Set[Inode], files: List[Json]) -> Tuple[List[str], Optional[str]]:
    """Find the wanted files that a process has open or mapped, adding them to ``files``.

    Returns:
        the ties found, and why the process could not be looked at (None when it could).
    """
    why = []
    try:
        files += _descriptors(view, wanted, inodes)
        if files:
            why.append("descriptor")
        mapped = _maps(view, wanted, inodes)
        if mapped:
            why.append("mapping")
            files += [entry for entry in mapped if entry not in files]
    except PermissionError:
        return why, _UNREADABLE.format(os.geteuid())
    except OSError as error:
        if os.path.exists(view):
            return why, "not readable: {}".format(error)
    return why, None


def _look(pid: int, wanted: Wanted, inodes: Set[Inode]) -> Optional[Json]:
    """Look at one process: None when it has nothing to do with what is wanted."""
    view = processes.view_of(pid)
    if view is None:
        return None
    files: List[Json] = []
    why, unchecked = _touching(view, wanted, inodes, files)
    if not (why or unchecked or wanted.directories or wanted.executables):
        return None
    process = processes.read(pid)
    if process is None:
        return None
    why += _named(process, wanted)
    is_named = process.program in wanted.executables or process.name in wanted.executables
    if is_named and why:
        why.append("executable")
    if not (why or unchecked or is_named):
        return None
    return {
        "process": process.document(),
        "why": why,
        "fds": files,
        "unchecked": unchecked,
        "same_executable": is_named,
        "agent": _is_agent(process, why),
    }


def _named(process: processes.Process, wanted: Wanted) -> List[str]:
    """Say how a process names a wanted directory: one that is stuck in open() has no descriptor yet."""
    why = []
    if any(_names(name, argument) for name in wanted.directories for argument in process.cmdline):
        why.append("cmdline")
    if process.cwd is not None and any(_below(name, process.cwd) for name in wanted.directories):
        why.append("cwd")
    return why


def _is_agent(process: processes.Process, why: Sequence[str]) -> bool:
    """Say whether this is another run of this program, or what carries one (sudo, a shell)."""
    if process.program.startswith("python"):
        return any(_AGENT_FILE.search(argument) for argument in process.cmdline[1:4])
    touches = "descriptor" in why or "mapping" in why
    carries = process.program in _CARRIERS and not touches
    return carries and any(_AGENT_FILE.search(argument) for argument in process.cmdline)


def scan(wanted: Wanted, limit_s: float) -> Json:
    """Look at every process of this host.

    Args:
        wanted: what counts as a tie.
        limit_s: seconds that the look at one process may take.

    Returns:
        ``openers`` (processes with a tie), ``unchecked`` (those that could not be looked at),
        ``agents`` (other runs of this program) and ``same_executable`` (programs of that name
        without any tie).
    """
    inodes = set(wanted.inodes)
    mine = set(processes.lineage(os.getpid()))
    answer: Dict[str, Any] = {"openers": [], "unchecked": [], "agents": [], "same_executable": []}
    reason = processes.hidden_reason()
    if reason:
        answer["unchecked"].append({"pid": None, "uid": None, "why": reason})
    every = sorted(set(processes.pids()) - set(ioguard.own_pids()))
    children = min(_CHILDREN, os.cpu_count() or 1)
    outcomes = ioguard.each(every, lambda pid, _: _look(pid, wanted, inodes), limit_s, children)
    for outcome in sorted(outcomes, key=lambda outcome: outcome.item):
        pid, found = outcome.item, outcome.value
        if outcome.timed_out:
            late = "looking at it took longer than {:g} s".format(limit_s)
            answer["unchecked"].append({"pid": pid, "uid": None, "why": late})
            continue
        if found is None:
            continue
        process = found["process"]
        if found["unchecked"]:
            answer["unchecked"].append({"pid": pid, "uid": process["uid"], "why": found["unchecked"]})
        why = [reason for reason in found["why"] if pid not in mine or reason in ("descriptor", "mapping")]
        entry = dict(process, why=why, fds=found["fds"])
        if found["agent"] and found["why"]:
            answer["agents"].append(entry)
        elif "descriptor" in why or "mapping" in why or set(why) & {"cmdline", "cwd"}:
            answer["openers"].append(entry)
        elif found["same_executable"]:
            answer["same_executable"].append(entry)
    return answer


def by_inode(answer: Json) -> Dict[Inode, List[Tuple[int, bool]]]:
    """Return the openers of a scan as (pid, holds a lock through that descriptor) by file."""
    found: Dict[Inode, List[Tuple[int, bool]]] = {}
    for opener in answer["openers"]:
        for entry in opener["fds"]:
            found.setdefault((entry["dev"], entry["inode"]), []).append((opener["pid"], entry["locked"]))
    return found


def files_below(directory: str, uid: int, beat: ioguard.Beat) -> Json:
    """Find every regular file below a directory, following no symlinks. Runs in a guarded child.

    Args:
        directory: where to begin.
        uid: as whom to look at it, as ``rootsquash.sees`` found.
        beat: called now and then.

    Returns:
        ``inodes``: [device, inode] of each file; ``unreadable``: directories that could not be listed.
    """
    inodes: List[Inode] = []
    unreadable: List[str] = []
    pending = [(directory, uid)]
    while pending:
        beat(None)
        path, seen_as = pending.pop()
        try:
            found = rootsquash.listing(path, seen_as)
        except FileNotFoundError:
            continue  # removed meanwhile
        except PermissionError:
            unreadable.append(path)
            continue
        inodes += found.inodes
        pending += [(name, found.uid) for name in found.directories]
    return {"inodes": inodes, "unreadable": unreadable}
