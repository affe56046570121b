"""Rows of work that other processes do, each row only when this one has recorded that it begins.

An interpreter runs on one processor, and a small file costs more of that than of the disk. Only the parent writes
the journals: that a row begins, before it lets a process begin it, and what it came to, when the process has told.
Meanwhile the processes work. They end with their parent, as if it had done their work itself and been killed; and what
they inherit keeps the directory's lock until the last of them is gone.
"""

import contextlib
import os
from typing import Callable, Generator, Iterator, List, Sequence, Tuple, TypeVar

from unlatch_agent import ioguard
from unlatch_agent.errors import Json, rebuilt
from unlatch_agent.ioguard import Beat

Row = TypeVar("Row")

# More would wait for each other: all work in the same directory.
MOST_PROCESSES = 4
# So few rows are done before another process would have begun.
LEAST_ROWS = 2
# How many rows a process may have before it that are begun: one that it works on, and the next.
_AHEAD = 2
# None of its own: a process that hangs beats no more, and then its parent does not either.
_LIMIT_S = 1e6


def size(rows: int, most: int = MOST_PROCESSES) -> int:
    """Return how many processes are to do so many rows; 0 when it is not worth one.

    One more than there are processors: one of them mostly waits for the disk.
    """
    usable = len(os.sched_getaffinity(0))
    return 0 if rows < LEAST_ROWS or usable < LEAST_ROWS else min(rows, usable + 1, most)


def work(
    rows: Sequence[Row],
    begin: Callable[[Row], None],
    act: Callable[[int, Beat], Json],
    live: Callable[[], None],
    processes: int,
) -> Generator[Tuple[Row, Json], None, None]:
    """Let processes do all rows, each every so many-th one, in order.

    Args:
        rows: what is to be done.
        begin: records that a row begins; called here.
        act: does the row with that number, and tells what it came to; called in a process.
        live: called with every sign of life of a process.
        processes: how many.

    Yields:
        each row with what it came to, when it is done. Closing the generator ends the processes.

    Raises:
        AgentError: ``wrong`` of what was told (made by ``ioguard.as_message``), after that was yielded; a process died.
    """
    with _turns(processes) as turns:

        def taken(number: int, beat: Beat) -> Json:
            for turn in turns:
                turn.only_listen()
            turns[number % processes].wait()
            return act(number, beat)

        begun = 0

        def begin_up_to(count: int) -> int:
            for number in range(begun, min(count, len(rows))):
                begin(rows[number])
                turns[number % processes].give()
            return max(begun, min(count, len(rows)))

        begun = begin_up_to(_AHEAD * processes)
        outcomes = ioguard.each(list(range(len(rows))), taken, _LIMIT_S, processes, live)
        with contextlib.closing(outcomes):  # ends the processes
            for done, outcome in enumerate(outcomes, 1):
                yield rows[outcome.item], outcome.value
                wrong = outcome.value.get("wrong")
                if wrong is not None:
                    raise rebuilt(wrong["error"], wrong["exit"], wrong["files"])
                begun = begin_up_to(done + _AHEAD * processes)  # one wait for this record and that of what was done


class _Turn:
    """Says to one process that the next of its rows may begin."""

    def __init__(self) -> None:
        self._heard, self._said = os.pipe()

    def give(self) -> None:
        os.write(self._said, b".")

    def wait(self) -> None:
        if not os.read(self._heard, 1):
            os._exit(1)

    def only_listen(self) -> None:
        """Hold nothing that would keep the parent's end open without it."""
        if self._said >= 0:
            os.close(self._said)
            self._said = -1

    def close(self) -> None:
        self.only_listen()
        os.close(self._heard)


@contextlib.contextmanager
def _turns(count: int) -> Iterator[List[_Turn]]:
    turns = [_Turn() for _ in range(count)]
    try:
        yield turns
    finally:
        for turn in turns:
            turn.close()
