"""check-locks: who holds which file."""

import errno
import os
import stat
import time
from typing import Callable, Dict, Iterator, List, Optional, Sequence, Set, Tuple

from unlatch_agent import identity, ioguard, locks, mounts, openers, pidfile, safety
from unlatch_agent.errors import AgentError, HostError, Json
from unlatch_agent.locks import Holders, Inode

# So many files are looked at between two messages of a child.
_CHUNK = 256
# One per processor where looking takes only that; more where it waits for a server.
_CHILDREN = 4
_NFS_CHILDREN = 12
_BEAT_S = 0.2
_LISTED_S = 0.5

_listed: List[Tuple[float, Holders]] = []


def run(paths: Sequence[str], pidfiles: Sequence[str], only_locked: bool, io_timeout_s: float) -> Json:
    """Probe files and the regular files below directories. Takes no lock and changes nothing.

    Args:
        paths: files and directories.
        pidfiles: paths that are pid files, beside every postmaster.pid.
        only_locked: leave out free files below directories; a file that is named itself is always told, and so is
            what a repair has left behind.
        io_timeout_s: limit for one file or one directory listing.

    Returns:
        ``files``, and ``error`` when something could not be looked at: such a file's lock has the kind
        ``unknown``, never ``none``.

    Raises:
        AgentError: ``no_such_path``, ``enolck``; ``local_locks`` when the mount's locks stay on this host: nobody
            else's lock would be seen; ``io_timeout`` when a directory does not answer.
    """
    inside = _every(_below, paths, io_timeout_s)
    named_files = _every(_itself, paths, io_timeout_s)
    named_pidfiles = _every(lambda path, _: [_resolved(path)], pidfiles, io_timeout_s)
    names = list(dict.fromkeys(inside + named_pidfiles))
    safety.refuse_local_locks(os.path.dirname(name) for name in inside)
    found: List[Json] = []
    problem: Optional[AgentError] = None
    always = set(named_files) | set(named_pidfiles)
    always |= {name for name in inside if identity.leftover_kind(os.path.basename(name)) is not None}
    for looked in _looks(names, set(named_pidfiles), always if only_locked else None, io_timeout_s):
        if looked.timed_out:
            problem = ioguard.io_timeout(looked.item, io_timeout_s)
            found.append(_unknown(looked.item, problem.message))
        elif looked.value is not None:
            found.append(looked.value)
            if looked.value["lock"]["kind"] == "unknown" and problem is None:
                problem = unreadable(looked.item, looked.value["why"])
    answer: Json = {"error": problem, "unchecked": _add_openers(found, io_timeout_s)}
    for entry in found:
        entry.pop("standing", None)
    answer["files"] = [
        entry for entry in found if not only_locked or entry["lock"]["kind"] != "none" or entry["path"] in always
    ]
    return answer


def _looks(
    names: Sequence[str], pidfiles: Set[str], always: Optional[Set[str]], io_timeout_s: float
) -> Iterator["ioguard.Outcome[str]"]:
    """Probe files; few of them one by one, many of them in several children at a time.

    Args:
        names: the files.
        pidfiles: those of them that are pid files.
        always: the files to tell of even when they are free; None for all.
        io_timeout_s: limit for one file.
    """
    chunks = [names[start : start + _CHUNK] for start in range(0, len(names), _CHUNK)]
    answers = _many(chunks, pidfiles, always, io_timeout_s) if len(chunks) > 1 else {}
    for chunk in chunks:
        if chunk[0] in answers:
            for value in answers.pop(chunk[0]):
                yield ioguard.Outcome(value["path"], value, timed_out=False)
        else:  # few files, or one of these hung: find out which
            for outcome in ioguard.each(chunk, lambda path, _: probed(path, path in pidfiles), io_timeout_s):
                yield outcome


def _many(
    chunks: Sequence[Sequence[str]], pidfiles: Set[str], always: Optional[Set[str]], io_timeout_s: float
) -> Dict[str, List[Json]]:
    """Probe many files in several children, by the first of each chunk; the chunk of one that hangs is left out."""

    def look(paths: Sequence[str], beat: ioguard.Beat) -> List[Json]:
        found = []
        told = time.monotonic()
        for path in paths:
            entry = probed(path, path in pidfiles, _recently_listed(), always is None or path in always)
            if entry is not None:
                found.append(entry)
            if time.monotonic() - told > _BEAT_S:
                told = time.monotonic()
                beat(None)
        return found

    on_nfs = mounts.any_on_nfs({os.path.dirname(chunk[0]) for chunk in chunks})
    children = _NFS_CHILDREN if on_nfs else min(_CHILDREN, os.cpu_count() or 1)
    outcomes = ioguard.each(chunks, look, io_timeout_s, children)
    return {outcome.item[0]: outcome.value for outcome in outcomes if not outcome.timed_out}


def _recently_listed() -> Holders:
    """Return the kernel's list of locks, at most a moment old: to read it for each of many files takes longer."""
    now = time.monotonic()
    if not _listed or now - _listed[0][0] > _LISTED_S:
        _listed[:] = [(now, locks.listed_here())]
    return _listed[0][1]


def _every(look: Callable[[str, ioguard.Beat], List[str]], paths: Sequence[str], io_timeout_s: float) -> List[str]:
    """Return the files that each path stands for, once each.

    Raises:
        AgentError: a path is missing, or does not answer.
    """
    names: Dict[str, None] = {}
    for outcome in ioguard.each(list(paths), look, io_timeout_s):
        if outcome.timed_out:
            raise ioguard.io_timeout(outcome.item, io_timeout_s)
        names.update(dict.fromkeys(outcome.value))
    return list(names)


def _resolved(path: str) -> str:
    """Resolve a file's directory, as every verb does, so that all name a file in the same way."""
    directory, name = os.path.split(os.path.abspath(path))
    return os.path.join(os.path.realpath(directory), name)


def _itself(path: str, _: ioguard.Beat) -> List[str]:
    """Return a path that is a file, nothing for a directory."""
    return [] if identity.is_directory(path) else [_resolved(path)]


def _below(path: str, beat: ioguard.Beat) -> List[str]:
    """Return a file, or the regular files below a directory; leads out through no symlink."""
    if not identity.is_there(path):
        raise identity.no_such_path(path)
    if not identity.is_directory(path):
        return [_resolved(path)]
    path = os.path.realpath(path)
    found = []
    directories = [path]
    while directories:
        directory = directories.pop()
        beat(None)
        try:
            with os.scandir(directory) as entries:  # its answers say what kind a name is: no look at each file
                names = sorted(entries, key=lambda entry: entry.name)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise HostError(
                "unreadable",
                "cannot list {}: {}".format(directory, error.strerror),
                "run the agent as the owner of the files (the instance's OS user)",
            ) from error
        found += [entry.path for entry in names if entry.is_file(follow_symlinks=False)]
        directories += [entry.path for entry in reversed(names) if entry.is_dir(follow_symlinks=False)]
    return found


def _unknown(path: str, why: str) -> Json:
    return {
        "path": path,
        "inode": None,
        "size_bytes": None,
        "lock": {"kind": "unknown", "type": None, "pid": None},
        "why": why,
        "openers": [],
        "unchecked": [],
        "sample": None,
    }


def unreadable(path: str, why: str) -> HostError:
    """Return the error for a file that this user cannot look at."""
    return HostError(
        "unreadable",
        "cannot look at {}: {}".format(path, why),
        "run the agent as the owner of the files (the instance's OS user)",
    )


def probed(
    path: str, is_pidfile: bool, listed: Optional[Holders] = None, is_told_when_free: bool = True
) -> Optional[Json]:
    """Probe one file. Runs in a guarded child.

    Args:
        path: the file.
        is_pidfile: whether it is a pid file, whatever its name.
        listed: the kernel's list of locks; read now when it is not given.
        is_told_when_free: whether a free file is of interest.

    Returns:
        its entry; None when it has gone meanwhile, or is free and of no interest.
    """
    try:
        descriptor = identity.open_to_read(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        is_symlink = error.errno == errno.ELOOP
        return _unknown(path, "it is a symlink" if is_symlink else str(error.strerror))
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return _unknown(path, "it is not a regular file")
        inode = (status.st_dev, status.st_ino)
        standing = locks.standing(descriptor)
        holders = (locks.listed_here() if listed is None else listed).get(inode, set())
        is_pidfile = is_pidfile or os.path.basename(path) == pidfile.POSTMASTER
        if not (standing or holders or is_told_when_free or is_pidfile):
            return None
        found = identity.of_status(status)
        entry: Json = dict(
            found.document(),
            path=path,
            uid=status.st_uid,
            gid=status.st_gid,
            mode=stat.S_IMODE(status.st_mode),
            nlink=found.links,
            leftover=identity.leftover_kind(os.path.basename(path)),
            lock=locks.describe(standing, holders),
            standing=[list(lock) for lock in standing],
            openers=[],
            unchecked=[],
            sample={
                "size_bytes": found.size_bytes,
                "mtime_ns": found.mtime_ns,
                "ctime_ns": found.ctime_ns,
                "head_sha256": identity.head_sha256(descriptor),
            },
        )
    finally:
        os.close(descriptor)
    if is_pidfile:
        content = pidfile.read(path)
        entry.update(content.document())
        entry["lock"] = {"kind": "pidfile", "type": "excl", "pid": content.pid}
    return entry


def _add_openers(found: Sequence[Json], io_timeout_s: float) -> List[Json]:
    """Add to each file who has it open, and name the holders of locks that have no pid of their own.

    Returns:
        the processes that could not be looked at.
    """
    known = [entry for entry in found if entry["inode"] is not None]
    inodes: List[Inode] = [(entry["dev"], entry["inode"]) for entry in known]
    answer = openers.scan(openers.Wanted(inodes=inodes), io_timeout_s)
    users = openers.by_inode(answer)
    unchecked: List[Json] = [{"pid": one["pid"], "why": one["why"]} for one in answer["unchecked"]]
    for entry, inode in zip(known, inodes):
        mine = users.get(inode, [])
        entry["openers"] = sorted({pid for pid, _ in mine})
        entry["unchecked"] = unchecked
        holder = next((pid for pid, has_lock in mine if has_lock), None)
        if entry["lock"]["kind"] in ("none", "remote") and holder is not None:
            standing = [locks.Lock(*lock) for lock in entry["standing"]]
            entry["lock"] = locks.describe(standing, set(), holder)
    return unchecked
