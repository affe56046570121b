"""Every touch of a volume runs in a child process with a time limit.

A hung network mount puts a process into a sleep that no signal ends. So the process that answers the
controller never touches a volume itself: it forks a child that does, listens on a pipe, and gives
the child up when nothing was heard for the limit. A child given up is killed: it dies as soon as
the mount lets it go, before it could do anything more.
"""

import contextlib
import ctypes
import json
import math
import os
import select
import signal
import sys
import time
import traceback
from typing import Any, Callable, Generator, Generic, Iterable, Iterator, List, NamedTuple, Optional, Sequence, TypeVar

from unlatch_agent.errors import AgentError, HostError, Json, TryAgainError, of_system, rebuilt
from unlatch_agent.manyfiles import ManyFiles

PR_SET_PDEATHSIG = 1
# How long a killed child may take to vanish before it is left behind (it is stuck in the kernel).
REAP_S = 0.2

# An answer can tell of many files: it is never all text at once.
_FILES_AT_ONCE = 256
# A beat sooner after the last message than this tells nothing new, and would cost more than many a look.
BEAT_S = 0.05

# This program's own processes above the present one.
_above: List[int] = []

Beat = Callable[[Optional[Json]], None]
Item = TypeVar("Item")


class Outcome(Generic[Item]):
    """What came of looking at one item: a value, or nothing within the time limit."""

    def __init__(self, item: Item, value: Any, timed_out: bool) -> None:
        """Keep the item with its outcome."""
        self.item = item
        self.value = value
        self.timed_out = timed_out


class _SilenceError(Exception):
    """The child said nothing for the time limit."""


class _Child(NamedTuple):
    pid: int
    pipe: int


def untold(_: Json) -> None:
    """Tell nobody about progress."""


def own_pids() -> List[int]:
    """Return this process and this program's processes that it works for."""
    return [os.getpid(), *_above]


def as_message(error: BaseException) -> Json:
    """Return what a child tells of an error that it is just handling; ``errors.rebuilt`` makes one of it again."""
    if isinstance(error, OSError):
        error = of_system(error)
    if not isinstance(error, AgentError):
        error = HostError(
            "internal",
            "the agent failed: {}".format(traceback.format_exc().strip()),
            "report this as a defect; what was done so far is in the journal, so the same command can be run again",
        )
    return {"error": error.document(), "exit": error.exit_code, "files": list(error.files)}


def _die_with(parent: int) -> None:
    """Let the kernel kill this process when its parent dies: nobody would hear its answer."""
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError):
        return  # the next beat notices the closed pipe instead
    if os.getppid() != parent:
        os._exit(1)


def _fork(work: Callable[[Callable[[Json], None]], None]) -> _Child:
    """Fork a child that runs ``work(send)`` and whose messages arrive on the pipe."""
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        return _Child(pid, reader)
    try:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.close(reader)
        _above.append(parent)
        _die_with(parent)

        def send(message: Json) -> None:
            data = memoryview(json.dumps(message).encode() + b"\n")
            try:
                while data:
                    data = data[os.write(writer, data) :]
            except OSError:
                os._exit(1)  # the parent is gone: stop before doing anything else

        try:
            work(send)
        except BaseException as error:  # noqa: BLE001 (the parent raises it again)
            send(as_message(error))
    finally:
        os._exit(0)


def _pulse(send: Callable[[Json], None]) -> Beat:
    """Return the beat for a child's work: every progress is sent, a mere sign of life now and then."""
    sent = [0.0]

    def beat(progress: Optional[Json]) -> None:
        now = time.monotonic()
        if progress is not None or now - sent[0] >= BEAT_S:
            sent[0] = now
            send({"beat": progress})

    return beat


class _Inbox:
    """Puts what arrives on a pipe together to messages; a message can be many megabytes long."""

    def __init__(self) -> None:
        self._parts: List[bytes] = []

    def added(self, data: bytes) -> Iterator[Json]:
        """Yield the messages that are whole with this data.

        Raises:
            AgentError: the child sent an error.
        """
        head, *others = data.split(b"\n")
        self._parts.append(head)
        for following in others:
            message: Json = json.loads(b"".join(self._parts).decode())
            self._parts = [following]
            if "error" in message:
                raise rebuilt(message["error"], message["exit"], message["files"])
            yield message


def _messages(child: _Child, limit_s: float) -> Iterator[Json]:
    """Yield the child's messages until it closes the pipe.

    Raises:
        _SilenceError: nothing arrived for ``limit_s``.
        AgentError: the child sent an error.
    """
    inbox = _Inbox()
    heard = time.monotonic()
    while True:
        left_s = heard + limit_s - time.monotonic()
        if left_s <= 0 or not _readable([child.pipe], left_s):
            raise _SilenceError
        data = os.read(child.pipe, 1 << 16)
        if not data:
            return
        heard = time.monotonic()
        for message in inbox.added(data):
            yield message


def _readable(pipes: Sequence[int], limit_s: float) -> List[int]:
    """Wait until there is something to read; unlike select(2), also on descriptors with large numbers."""
    waiting = select.poll()
    for pipe in pipes:
        waiting.register(pipe, select.POLLIN)
    return [pipe for pipe, _ in waiting.poll(math.ceil(limit_s * 1000))]


def _end(child: _Child) -> None:
    """Kill and reap the child; a child stuck in the kernel is left behind, it can do no more."""
    with contextlib.suppress(OSError):
        os.kill(child.pid, signal.SIGKILL)
    try:
        # The pipe closes when the child is really gone, so this waits for an event, not for time.
        deadline = time.monotonic() + REAP_S
        while _readable([child.pipe], max(0.0, deadline - time.monotonic())):
            if not os.read(child.pipe, 1 << 16):
                os.waitpid(child.pid, 0)
                break
    except OSError:
        pass
    os.close(child.pipe)


class _Lane(Generic[Item]):
    """Items that are looked at one after the other, in one child until it hangs and then in another."""

    def __init__(
        self, items: Sequence[Item], look: Callable[[Item, Beat], Any], limit_s: float, on_beat: Callable[[], None]
    ) -> None:
        self._left: List[Item] = list(items)
        self._look = look
        self._limit_s = limit_s
        self._on_beat = on_beat
        self._begin()

    def _begin(self) -> None:
        batch = list(self._left)

        def work(send: Callable[[Json], None]) -> None:
            beat = _pulse(send)
            for item in batch:
                send({"value": self._look(item, beat)})

        self._child: Optional[_Child] = _fork(work)
        self._inbox = _Inbox()
        self._heard = time.monotonic()

    @property
    def pipe(self) -> int:
        """Return what its child's messages arrive on; -1 when all items are done."""
        return -1 if self._child is None else self._child.pipe

    @property
    def patience_s(self) -> float:
        """Return how long its child may still say nothing."""
        return max(0.0, self._heard + self._limit_s - time.monotonic())

    def arrived(self) -> "Iterator[Outcome[Item]]":
        """Yield what came of the items whose messages have arrived.

        Raises:
            AgentError: raised by the look, or the child died.
        """
        data = os.read(self.pipe, 1 << 16)
        self._heard = time.monotonic()
        for message in self._inbox.added(data):
            if "value" in message:
                yield Outcome(self._left.pop(0), message["value"], False)
            else:
                self._on_beat()
        if not data:
            self.end()
            if self._left:
                raise TryAgainError(
                    "worker_died",
                    "the agent's child process ended while it looked at {}".format(_words(self._left[0])),
                    "run the same command again; if it happens again look for an out-of-memory kill",
                )

    def give_up(self) -> "Outcome[Item]":
        """Leave the item that hangs, and go on with the next."""
        self.end()
        outcome = Outcome(self._left.pop(0), None, True)
        if self._left:
            self._begin()
        return outcome

    def end(self) -> None:
        """End its child, if there is one."""
        if self._child is not None:
            child, self._child = self._child, None
            _end(child)


def _words(item: Any) -> str:
    """Name an item, or a chunk of them by its first."""
    return "{} or one after it".format(item[0]) if isinstance(item, (list, tuple)) else str(item)


def _unheard() -> None:
    """Pass on no sign of life: the caller's own supervisor waits longer than one look takes."""


def each(
    items: Sequence[Item],
    look: Callable[[Item, Beat], Any],
    limit_s: float,
    children: int = 1,
    on_beat: Callable[[], None] = _unheard,
) -> Generator["Outcome[Item]", None, None]:
    """Look at every item in a child process, moving on from those that hang.

    Args:
        items: what to look at; when looking at one takes very little, chunks.
        look: called in the child with the item and a beat to call in long looks; what it returns
            must be JSON.
        limit_s: seconds without a sign of life after which an item is given up.
        children: how many items are looked at at a time, each child its own share of them: every so many-th.
        on_beat: called with every sign of life of a child.

    Yields:
        one outcome per item; in the items' order, when there is one child.

    Raises:
        AgentError: raised by ``look``.
    """
    lanes: "List[_Lane[Item]]" = []
    try:
        for first in range(min(children, len(items))):
            lanes.append(_Lane(items[first::children], look, limit_s, on_beat))
        while lanes:
            ready = _readable([lane.pipe for lane in lanes], min(lane.patience_s for lane in lanes))
            for lane in lanes:
                if lane.pipe in ready:
                    for outcome in lane.arrived():
                        yield outcome
                elif not lane.patience_s:
                    yield lane.give_up()
            lanes = [lane for lane in lanes if lane.pipe >= 0]
    finally:
        for lane in lanes:
            lane.end()


def _send_files(files: Iterable[Json], send: Callable[[Json], None]) -> None:
    """Send what is told of files, piece by piece: the parent reads while the rest is looked at."""
    some: List[Json] = []
    try:
        for entry in files:
            some.append(entry)
            if len(some) == _FILES_AT_ONCE:
                send({"files": some})
                some = []
    finally:  # also when the look at one after them failed
        if some:
            send({"files": some})


def supervise(work: Callable[[Beat], Json], limit_s: float, on_progress: Callable[[Json], None]) -> Json:
    """Run a whole verb in one child process that must show progress.

    Args:
        work: runs in the child; calls its beat before each touch of the volume, with a progress
            document now and then; returns the answer, whose ``files`` may be any iterable.
        limit_s: seconds without a beat after which the child is given up.
        on_progress: gets the progress documents.

    Returns:
        what ``work`` returned; its ``files``, if there are any, as :class:`ManyFiles`.

    Raises:
        AgentError: raised by ``work``.
        TryAgainError: the volume did not answer (``io_timeout``), or the child died (``worker_died``).
    """

    def run(send: Callable[[Json], None]) -> None:
        value = work(_pulse(send))
        files = value.pop("files", None)
        _send_files(files or (), send)
        send({"value": value if files is None else dict(value, files=[])})

    child = _fork(run)
    files = ManyFiles()
    try:
        for message in _messages(child, limit_s):
            if "files" in message:
                files.add(message["files"])
                continue
            if "value" in message:
                value: Json = message["value"]
                if "files" in value:
                    value["files"] = files
                return value
            if message["beat"] is not None:
                on_progress(message["beat"])
    except _SilenceError:
        raise io_timeout("the volume", limit_s) from None
    except AgentError as error:
        error.files = error.files or files
        raise
    finally:
        _end(child)
    raise TryAgainError(
        "worker_died",
        "the agent's working process was killed; the journal holds what was done",
        "run the same command again: it goes on where it stopped",
    )


def io_timeout(what: str, limit_s: float, files: Optional[List[Json]] = None) -> TryAgainError:
    """Return the error for a mount that does not answer."""
    return TryAgainError(
        "io_timeout",
        "{} did not answer for {:g} s".format(what, limit_s),
        "look at the mount and the NAS (a hung NFS server traps every process that touches it), "
        "then run the same command again",
        files,
    )
