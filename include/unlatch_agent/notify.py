"""notify: tell every NFSv3 server that this host has restarted, so that it drops all locks of this host.

sm-notify is run on a directory of its own, with copies of statd's entries: run on statd's directory it would
take the entries away, and the next crash of this host would notify nobody. So nothing of statd's is touched
but the state number, which only ever rises, and a run that was cut off needs no repair.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from unlatch_agent import durable, livelocks, mounts, nsm, texts
from unlatch_agent.errors import AgentError, CheckFailedError, HostError, Json, RefusedError, TryAgainError
from unlatch_agent.nsm import STATD_DIRECTORIES

LIMIT_S = 45.0
# sm-notify's own limit (its option is in minutes): one that outlives this program gives up soon. A
# notification that comes late would cost databases that were started meanwhile their locks.
_OWN_LIMIT_MINUTES = "1"
_STOP_S = 2.0
_NAME = "sm-notify"


class Places(NamedTuple):
    """Where things are on a host.

    Attributes:
        nsm: directories that can be statd's; the first that has ``sm`` in it is.
        scratch: a directory that only root writes to.
        path: where sm-notify is looked for.
    """

    proc: str = "/proc"
    nsm: Sequence[str] = STATD_DIRECTORIES
    scratch: str = "/run"
    path: str = "/usr/sbin:/sbin:/usr/bin:/bin"


class Peer(NamedTuple):
    """One machine to notify: its file's name, that file's text, and what the answer calls it."""

    file: str
    text: str
    label: str


def run(check_only: bool, places: Places = Places(), limit_s: float = LIMIT_S) -> Json:  # noqa: B008 (immutable)
    """Notify, unless a process of this host holds a lock that would be lost.

    Args:
        check_only: only say what would be done.
        places: where things are.
        limit_s: how long to wait for the servers' answers.

    Returns:
        ``servers``, ``acknowledged``, ``unanswered`` (with ``why``), ``live_locks``, and ``error`` when there are
        such locks: ``live_locks`` before anything was done, ``locks_meanwhile`` when they came during it.

    Raises:
        HostError: ``not_root``, ``no_sm_notify``, ``sm_notify_failed``.
        TryAgainError: another run is on its way (``busy``).
    """
    if os.geteuid() != 0:
        raise HostError("not_root", "only root can notify the servers", "run it through sudo, or as root")
    live = _live_locks(places)
    if live:
        return _refused(live, _live_locks_error(live))
    program = shutil.which(_NAME, path=places.path)
    if program is None:
        raise HostError(
            "no_sm_notify",
            "sm-notify is not installed on this host",
            "install it (Debian: nfs-common, Red Hat: nfs-utils)",
        )
    directory = _state_directory(places)
    peers = _peers(directory, _servers(places))
    answer: Json = {
        "servers": [peer.label for peer in peers],
        "acknowledged": [],
        "unanswered": [],
        "why": {},
        "live_locks": [],
    }
    if check_only or not peers:
        return answer
    with _alone(places):
        answer["stopped"] = _stop_others(places)
        live = _live_locks(places)
        if live:
            return _refused(live, _live_locks_error(live))
        _keep_the_boots_away(places)
        answer["state"] = _raised(directory, places)
        own = os.path.join(places.scratch, "unlatch-notify")
        shutil.rmtree(own, ignore_errors=True)  # of a run that was cut off
        try:
            _fill(own, directory, peers, answer["state"])
            answer.update(_notified(program, own, peers, limit_s))
        finally:
            shutil.rmtree(own, ignore_errors=True)
    live = _live_locks(places)
    if live:
        answer["live_locks"] = live
        answer["error"] = CheckFailedError(
            "locks_meanwhile",
            "locks were taken while the notification was on its way: {}".format(livelocks.words(live)),
            "stop these processes: the server may have dropped their locks, and another could now write as well",
        )
    return answer


def _refused(live: List[Json], error: AgentError) -> Json:
    return {"servers": [], "acknowledged": [], "unanswered": [], "live_locks": live, "error": error}


def _live_locks_error(live: List[Json]) -> RefusedError:
    return RefusedError(
        "live_locks",
        "this would free locks of running processes: {}".format(livelocks.words(live)),
        "stop those first, or free the stale locks in another way (clear them on the NAS, or recreate the files)",
    )


def _nsm_mounts(places: Places) -> List[mounts.Mount]:
    table = mounts.of_all_namespaces(places.proc)
    return [mount for mount in table if mount.uses_nsm and not mount.locks_are_local]


def _live_locks(places: Places) -> List[Json]:
    return livelocks.found(texts.read(places.proc + "/locks"), _nsm_mounts(places), places.proc)


def _servers(places: Places) -> List[str]:
    return list(dict.fromkeys(mount.server or "" for mount in _nsm_mounts(places)))


def _state_directory(places: Places) -> str:
    for path in places.nsm:
        if os.path.isdir(os.path.join(path, "sm")):
            return path
    raise HostError(
        "no_statd_directory",
        "none of {} has statd's directory sm".format(", ".join(places.nsm)),
        "install nfs-common (Debian) or nfs-utils (Red Hat) on this host",
    )


def _peers(directory: str, servers: Sequence[str]) -> List[Peer]:
    """Return who is to be notified: statd's entries, also those of an earlier run, and each mounted server.

    A host that lost its disk has mounts without entries. What sm-notify needs of an entry is the two names.
    """
    entries: Dict[str, str] = {}
    for kind in ("sm.bak", "sm"):  # of two, the newer entry counts
        with contextlib.suppress(FileNotFoundError):
            for name in sorted(os.listdir(os.path.join(directory, kind))):
                path = os.path.join(directory, kind, name)
                if nsm.can_name_a_file(name) and os.path.isfile(path) and not os.path.islink(path):
                    entries[name] = texts.read(path)  # a file that only statd writes
    peers = []
    covered = set()
    for name, text in entries.items():
        records = nsm.parse_records(text)
        names = [name] + [record.host for record in records]
        mine = [server for server in servers if any(nsm.same_host(server, known) for known in names)]
        if records:
            covered.update(mine)
            peers.append(Peer(name, text, mine[0] if mine else name))
    missing = [server for server in servers if server not in covered and nsm.can_name_a_file(server)]
    own_name = socket.gethostname()
    return peers + [Peer(name, nsm.record_text(nsm.Record(name, own_name)), name) for name in missing]


@contextlib.contextmanager
def _alone(places: Places) -> Iterator[None]:
    """Keep a second run out. The lock goes with this process, however it ends."""
    with open(os.path.join(places.scratch, "unlatch-notify.lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TryAgainError(
                "busy", "another unlatch-notify runs on this host", "wait until it has ended, then run it again"
            ) from None
        yield


def _stop_others(places: Places) -> List[int]:
    """Stop every sm-notify of this host, and return their pids.

    The one of the boot goes on trying for a quarter of an hour. Getting through later it would free the locks of
    databases that were started meanwhile. Its entries are among ours.
    """
    mine = os.readlink(places.proc + "/self/ns/net")
    stopped = []
    for pid in [int(name) for name in os.listdir(places.proc) if name.isdigit()]:
        with contextlib.suppress(OSError):
            view = "{}/{}".format(places.proc, pid)
            if texts.read(view + "/comm").strip() == _NAME and os.readlink(view + "/ns/net") == mine:
                os.kill(pid, signal.SIGKILL)
                stopped.append(pid)
    deadline = time.monotonic() + _STOP_S
    while any(_is_running(pid, places) for pid in stopped) and time.monotonic() < deadline:
        time.sleep(0.02)
    return stopped


def _keep_the_boots_away(places: Places) -> None:
    """Make the mark by which an sm-notify that is started without -f knows that this boot's notification is done.

    One that has not run yet (this host is still booting, or statd is started again) would come after ours.
    """
    with contextlib.suppress(FileExistsError):
        os.close(durable.create(os.path.join(places.scratch, "sm-notify.pid")))


def _is_running(pid: int, places: Places) -> bool:
    try:
        return ") Z " not in texts.read("{}/{}/stat".format(places.proc, pid))
    except OSError:
        return False


def _raised(directory: str, places: Places) -> int:
    """Raise the state number on disk, before it is used, and return it."""
    path = os.path.join(directory, "state")
    used: List[Optional[int]] = []
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as source:
        used.append(nsm.parse_state(source.read()))
    with contextlib.suppress(OSError, ValueError):
        used.append(int(texts.read(places.proc + "/sys/fs/nfs/nsm_local_state")))
    number = nsm.next_state(*used, now_s=time.time())
    owner = os.stat(path if os.path.exists(path) else os.path.join(directory, "sm"))
    temporary = os.path.join(directory, ".state.unlatch")
    with contextlib.suppress(FileNotFoundError):
        durable.unlink(temporary)
    descriptor = durable.create(temporary)
    try:
        os.fchmod(descriptor, 0o644)
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
        durable.append(descriptor, nsm.state_bytes(number))
    finally:
        os.close(descriptor)
    durable.rename(temporary, path)
    durable.sync_directory(directory)
    return number


def _notified(program: str, own: str, peers: Sequence[Peer], limit_s: float) -> Json:
    """Run sm-notify on its own directory; what it has finished with it takes away from there.

    Raises:
        HostError: it could not begin (``sm_notify_failed``).
    """
    said, code = _ended(program, own, limit_s)
    left = {name for kind in ("sm", "sm.bak") for name in os.listdir(os.path.join(own, kind))}
    if code not in (0, None) and "giving up" not in said:
        last = (said.strip() or "it said nothing").splitlines()[-1]
        raise HostError(
            "sm_notify_failed",
            "sm-notify ended with code {}: {}".format(code, last),
            "run it by hand and look at the system log",
        )
    return {
        "acknowledged": [peer.label for peer in peers if peer.file not in left],
        "unanswered": [peer.label for peer in peers if peer.file in left],
        "why": {peer.label: _why(peer, said, limit_s) for peer in peers if peer.file in left},
    }


def _fill(own: str, directory: str, peers: Sequence[Peer], state: int) -> None:
    """Make sm-notify's directory. It runs as the owner of that: statd's user, never root."""
    owner = os.stat(os.path.join(directory, "sm"))
    os.mkdir(own, 0o700)
    for name in ("sm", "sm.bak"):
        os.mkdir(os.path.join(own, name), 0o700)
    written = [os.path.join(own, "state")]
    with open(written[0], "wb") as target:
        target.write(nsm.state_bytes(state))
    for peer in peers:
        written.append(os.path.join(own, "sm", peer.file))
        with open(written[-1], "w", errors="surrogateescape") as entry:
            entry.write(peer.text)
    for path in [*written, os.path.join(own, "sm"), os.path.join(own, "sm.bak"), own]:
        os.chown(path, owner.st_uid, owner.st_gid)


def _ended(program: str, own: str, limit_s: float) -> Tuple[str, Optional[int]]:
    """Run sm-notify until it ends or the limit is over: what it said, and its code (None: it was stopped)."""
    command = [program, "-d", "-f", "-n", "-m", _OWN_LIMIT_MINUTES, "-P", own]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    with tempfile.TemporaryFile(dir=own) as output:
        started = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/", env=environment
        )
        code: Optional[int] = None
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = started.wait(limit_s)
        finally:
            started.kill()
            started.wait()
        output.seek(0)
        return output.read().decode("utf-8", "replace"), code


def _why(peer: Peer, said: str, limit_s: float) -> str:
    if "DNS resolution of {} failed".format(peer.file) in said:
        return "its name is not known here: put it into DNS or /etc/hosts"
    if "No statd on host {}".format(peer.file) in said:
        return "its rpcbind knows of no statd: start rpc-statd on the server"
    return "no answer for {:g} s: see that rpcbind (port 111) and statd of the server are reachable from here".format(
        limit_s
    )
