"""preflight: can this user do here what a repair needs? Read only."""

import os
import pwd
import shlex
import stat
import sys
from typing import Dict, List, NamedTuple, Optional, Sequence

from unlatch_agent import facts, hostlock, hostrows, identity, ioguard, locks, metadata, mounts, openers, readiness
from unlatch_agent.errors import AgentError, Json, UsageError

_OLDEST_PYTHON = (3, 6)
_OPENERS = "/usr/local/sbin/unlatch-openers"
# Of a tree with more files only so many are opened: check-locks looks at all.
_MOST_PROBED = 1000
_WITHOUT_HARD_LINKS = ("vfat", "exfat", "msdos")


def run(paths: Sequence[str], os_user: Optional[str], units: Sequence[str], io_timeout_s: float) -> Json:
    """Check every privilege for every path.

    Args:
        paths: files, or data directories.
        os_user: the user that a repair will run as; only root can check for another user.
        units: systemd units that a repair would hold.
        io_timeout_s: limit for the look at one path.

    Returns:
        ``privileges``: ``privilege``, ``path``, ``ok`` (None: could not be checked, or good to know but not needed),
            ``why``, ``grant``.

    Raises:
        UsageError: there is no such user.
    """
    checks = [_python(), _identity(os_user)]

    def look(path: str, beat: ioguard.Beat) -> List[Json]:
        if os_user is not None and os.geteuid() == 0:
            _become(os_user)
        return _checked(path, beat) if path else [hostlock.state_row()]

    for path in ("", *map(os.path.abspath, paths)):  # a child each: becoming another user cannot be undone
        for outcome in ioguard.each([path], look, io_timeout_s):
            if outcome.timed_out:
                why = "it did not answer for {:g} s".format(io_timeout_s)
                checks.append(
                    hostrows.row("reach the volume", outcome.item, None, why, "look at the mount and the NAS")
                )
            else:
                checks += outcome.value
    checks.append(_visibility(io_timeout_s))
    checks += [hostrows.unit_row(unit) for unit in units]
    checks.append(hostrows.dumps_row())
    return {"privileges": checks}


def _python() -> Json:
    version = ".".join(str(part) for part in sys.version_info[:3])
    ok = sys.version_info[:2] >= _OLDEST_PYTHON
    return hostrows.row("python", None, ok, "Python {}".format(version), "install Python 3.6 or later")


def _user(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise UsageError("no_such_user", "there is no user {}".format(name), "give the instance's OS user") from None


def _identity(os_user: Optional[str]) -> Json:
    me = facts.user_name(os.geteuid())
    if os_user is None or os_user == me:
        return hostrows.row("run as the instance's user", None, True, "running as {}".format(me), "")
    _user(os_user)
    if os.geteuid() == 0:
        return hostrows.row("run as the instance's user", None, True, "root can become {}".format(os_user), "")
    grant = "run it as sudo -u {0}; sudoers: {1} ALL=({0}) NOPASSWD: ALL".format(os_user, me)
    return hostrows.row("run as the instance's user", None, None, "running as {}, not {}".format(me, os_user), grant)


def _become(name: str) -> None:
    user = _user(name)
    os.initgroups(user.pw_name, user.pw_gid)
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)


class _Below(NamedTuple):
    """What a repair may have to do with: a directory and those below it, their files, and what cannot be listed."""

    directories: List[str]
    files: Dict[str, os.stat_result]
    hidden: List[OSError]


def _checked(path: str, beat: ioguard.Beat) -> List[Json]:
    """Check one path as the user that this child has become."""
    if not os.path.lexists(path):
        return [hostrows.row("reach the volume", path, False, "it does not exist", "mount the volume, check the path")]
    is_directory = os.path.isdir(path)
    directory = os.path.realpath(path if is_directory else os.path.dirname(path))
    below = _below(directory, beat) if is_directory else _Below([directory], {path: os.lstat(path)}, [])
    checks = [_hidden(directory, error) for error in below.hidden[:1]]
    if not below.directories:
        return checks
    files = below.files
    checks += [_writing(directory, below.directories, beat), _mount(directory), _hard_links(directory)]
    checks += [_space(directory, files), _owners(directory, files), _attributes(directory)]
    beat(None)
    checks.append(_probing(directory, files, beat))
    return checks + readiness.volume_rows(directory, beat)


def _below(top: str, beat: ioguard.Beat) -> _Below:
    found = _Below([], {}, [])

    def hide(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # a directory of temporary tables, gone again
            found.hidden.append(error)

    for directory, _, names in os.walk(top, onerror=hide):
        beat(None)
        found.directories.append(directory)
        for name in sorted(names):
            if identity.leftover_kind(name) is not None:
                continue
            path = os.path.join(directory, name)
            try:
                status = os.lstat(path)
            except OSError:
                continue  # it went away; whether what is there can be looked at, the probe says
            if stat.S_ISREG(status.st_mode):
                found.files[path] = status
    return found


def _hidden(directory: str, error: OSError) -> Json:
    why = "{}: {}".format(error.filename, error.strerror)
    return hostrows.row(
        "read the directory", directory, False, why, "make this user the owner of {}".format(error.filename)
    )


def _no_files(privilege: str, directory: str) -> Json:
    return hostrows.row(privilege, directory, None, "there are no files", "see whether the volume is mounted there")


def _writing(top: str, directories: Sequence[str], beat: ioguard.Beat) -> Json:
    """Say whether copies could be made and renamed in each of the directories: the first no, else the first doubt."""
    me, doubt = facts.user_name(os.geteuid()), None
    for directory in directories:
        beat(None)
        if not os.access(directory, os.W_OK | os.X_OK):
            grant = "chown {} {}, or mount it read-write".format(shlex.quote(me), shlex.quote(directory))
            why = "{} may not write in {}".format(me, directory)
            return hostrows.row("write in the directory", top, False, why, grant)
        status = os.stat(directory)
        if doubt is None and status.st_mode & stat.S_ISVTX and os.geteuid() not in (0, status.st_uid):
            why = "the sticky bit of {} lets only owners rename".format(directory)
            doubt = hostrows.row("write in the directory", top, None, why, "chmod -t {}".format(shlex.quote(directory)))
    below = len(directories) - 1
    why = "{} may write here{}".format(me, " and in {} directories below".format(below) if below else "")
    return doubt or hostrows.row("write in the directory", top, True, why, "")


def _mount(directory: str) -> Json:
    mount = mounts.mount_of(directory, mounts.read_mounts())
    if mount is None:
        return hostrows.row("real locks", directory, None, "its mount is not known", "look at /proc/self/mountinfo")
    why = "{} ({})".format(mount.fstype, mount.options)
    return hostrows.row("real locks", directory, not mount.locks_are_local, why, "mount without nolock and local_lock")


def _hard_links(directory: str) -> Json:
    mount = mounts.mount_of(directory, mounts.read_mounts())
    ok = mount is None or mount.fstype not in _WITHOUT_HARD_LINKS
    return hostrows.row("hard links", directory, ok, mount.fstype if mount else "", "use a file system with hard links")


def _space(directory: str, files: Dict[str, os.stat_result]) -> Json:
    if not files:
        return _no_files("space", directory)
    volume = os.statvfs(directory)
    free_bytes = volume.f_bavail * volume.f_frsize
    largest = max([status.st_size for status in files.values()] or [0])
    total = sum(status.st_size for status in files.values())
    why = "{} bytes free; the largest file has {}, all files {}".format(free_bytes, largest, total)
    if free_bytes >= total:
        return hostrows.row("space", directory, True, why, "")
    return hostrows.row("space", directory, None if free_bytes >= largest else False, why, "make room on the volume")


def _owners(directory: str, files: Dict[str, os.stat_result]) -> Json:
    if not files:
        return _no_files("keep owner and mode", directory)
    groups = set(os.getgroups()) | {os.getegid()}
    foreign = [
        name
        for name, status in files.items()
        if os.geteuid() != 0 and (status.st_uid != os.geteuid() or status.st_gid not in groups)
    ]
    if not foreign:
        return hostrows.row("keep owner and mode", directory, True, "owner of the files, or root", "")
    why = "{} belongs to {}".format(foreign[0], facts.user_name(files[foreign[0]].st_uid))
    return hostrows.row("keep owner and mode", directory, False, why, "run the agent as that user")


def _attributes(directory: str) -> Json:
    try:
        os.listxattr(directory)
    except OSError as error:
        why = "{}: attributes and ACLs, if any, are lost".format(error.strerror)
        return hostrows.row("extended attributes", directory, None, why, "nothing to do unless the files have some")
    return hostrows.row("extended attributes", directory, True, "supported", "")


def _probing(directory: str, files: Dict[str, os.stat_result], beat: ioguard.Beat) -> Json:
    if not files:
        return _no_files("probe locks", directory)
    for name in list(files)[:_MOST_PROBED]:
        beat(None)
        try:
            descriptor = identity.open_to_read(name)
        except OSError as error:
            why = "cannot read {}: {}".format(name, error.strerror)
            return hostrows.row("probe locks", directory, False, why, "run the agent as the owner of the files")
        try:
            locks.standing(descriptor)
            if metadata.flags(descriptor) & (metadata.IMMUTABLE | metadata.APPEND_ONLY):
                why = "{} is immutable or append-only".format(name)
                return hostrows.row("probe locks", directory, False, why, "chattr -ia {}".format(shlex.quote(name)))
        except (AgentError, OSError) as error:
            return hostrows.row("probe locks", directory, False, str(error), "systemctl start rpc-statd")
        finally:
            os.close(descriptor)
    why = "{} of {} files probed".format(min(len(files), _MOST_PROBED), len(files))
    return hostrows.row("probe locks", directory, True, why, "")


def _visibility(io_timeout_s: float) -> Json:
    me = facts.user_name(os.geteuid())
    unchecked = openers.scan(openers.Wanted(), io_timeout_s)["unchecked"]
    grant = "install this file as {0}, owned by root; sudoers: {1} ALL=(root) NOPASSWD: {0}".format(_OPENERS, me)
    if not unchecked:
        return hostrows.row("see every process", None, True, "every process is visible to {}".format(me), "")
    why = "{} processes are not readable by {}".format(len(unchecked), me)
    return hostrows.row("see every process", None, False, why, grant)
