"""Copying in batches: the costly waits are shared by many small files.

A batch is one append to the journal before, one after, one wait for the disk in between, and one for each
directory. What a batch finished is recorded even when one of its files failed. While one batch is on its way to
the disk the originals of the next are read.

On a local file system one thread makes a batch: the kernel reads ahead for it, and threads would only wait for each
other's interpreter. Several processes take batches when there are many, see sharing.py. On NFS every call waits for
the server, so many threads call at a time.
"""

from typing import Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

from unlatch_agent import durable, ioguard, workers
from unlatch_agent.copying import Asked, Chooser
from unlatch_agent.errors import Json
from unlatch_agent.journal import Journal
from unlatch_agent.making import Making, Planned
from unlatch_agent.progress import Counting
from unlatch_agent.ranges import SMALL_BYTES

# How much goes into one batch: memory, descriptors (two for a file, and one for the next batch), and what is
# copied again after a kill.
BATCH_FILES = 512
BATCH_BYTES = 8 << 20
DESCRIPTORS_PER_FILE = 3
# So few files of a local file system are waited for one by one, a few at a time.
_FEW = 4


def cut(planned: Iterable[Planned], most: int = BATCH_FILES) -> Iterator[List[Planned]]:
    """Cut a row of files into batches, of at most so many when few can be open, in order; a large file is one."""
    most = max(1, min(most, BATCH_FILES))
    batch: List[Planned] = []
    size_bytes = 0
    for plan in planned:
        is_large = plan.source.size_bytes > SMALL_BYTES
        is_full = len(batch) >= most or size_bytes + plan.source.size_bytes > BATCH_BYTES
        if batch and (is_full or is_large):
            yield batch
            batch, size_bytes = [], 0
        batch.append(plan)
        size_bytes += plan.source.size_bytes
        if is_large:
            yield batch
            batch, size_bytes = [], 0
    if batch:
        yield batch


def make_all(rows: Iterator[Sequence[Making]], chooser: Chooser, asked: Asked, progress: Counting) -> None:
    """Make all copies, batch by batch, and record them as prepared.

    Raises:
        AgentError, OSError: the first thing that went wrong; files that were finished by then are recorded.
    """
    batch: Sequence[Making] = next(rows, ())
    while batch:
        following: Sequence[Making] = next(rows, ())

        def expect_next(following: Sequence[Making] = following) -> None:
            for copy in following:
                copy.expect(chooser)

        try:
            _make(batch, chooser, asked, progress, expect_next)
        except BaseException:
            for copy in following:
                copy.close()
            raise
        batch = following


def _make(
    batch: Sequence[Making], chooser: Chooser, asked: Asked, progress: Counting, meanwhile: Callable[[], None]
) -> None:
    """Make one batch; ``meanwhile`` is called when it has been read and is on its way to the disk."""
    record_begun(batch, chooser)
    try:
        _through(batch, chooser, asked, progress, meanwhile)
    finally:
        for copy in batch:
            copy.close()
        record_begun((copy for copy in batch if copy.is_spoilt), chooser)  # nothing of them is relied on again
        sync_names(batch)
        record("prepared", ((copy.owner, copy.plan.target.name, copy.facts) for copy in batch if copy.is_verified))


def made(
    batch: Sequence[Making], chooser: Chooser, asked: Asked, progress: Counting, meanwhile: Callable[[], None]
) -> Optional[Json]:
    """Make one batch for another process, which has recorded that it begins and will record what came of it.

    Returns:
        what went wrong with one of its files.
    """
    wrong: Optional[Json] = None
    try:
        _through(batch, chooser, asked, progress, meanwhile)
    except Exception as error:  # noqa: BLE001 (the other process raises it, when it has recorded what was finished)
        wrong = ioguard.as_message(error)
    for copy in batch:
        copy.close()
    sync_names(batch)
    return wrong


def record(event: str, facts: Iterable[Tuple[Journal, str, Json]], *, is_awaited: bool = True) -> None:
    """Record an event of some files, with one wait for the disk, or none yet, for each journal."""
    owners: Dict[str, Tuple[Journal, List[Tuple[str, Json]]]] = {}
    for owner, name, known in facts:
        owners.setdefault(owner.directory, (owner, []))[1].append((name, known))
    for owner, rows in owners.values():
        owner.record_all(event, rows, is_awaited=is_awaited)


def record_begun(copies: Iterable[Making], chooser: Chooser) -> None:
    """Record that copies are begun, or gone on with."""
    record("copying", ((copy.owner, copy.plan.target.name, copy.intent(chooser)) for copy in copies))


def sync_names(batch: Sequence[Making]) -> None:
    """Wait until the disk has the names of the copies that are verified."""
    for directory in {copy.owner.directory for copy in batch if copy.is_verified}:
        durable.sync_directory(directory)


def _through(
    batch: Sequence[Making], chooser: Chooser, asked: Asked, progress: Counting, meanwhile: Callable[[], None]
) -> None:
    """Take a batch through its passes; one that is through the first goes on when another fails there."""
    copied: List[Making] = []
    failed: List[BaseException] = []
    threads = min(len(batch), workers.NFS_THREADS) if batch[0].volume.is_nfs else 1

    def copy(one: Making) -> None:
        one.copy(chooser, asked, progress)
        copied.append(one)

    try:
        copy(batch[0])  # shows which method works here
        if threads == 1:
            for one in batch[1:]:
                one.expect(chooser)
        workers.each(batch[1:], copy, threads)
        if threads == 1:
            meanwhile()
    except Exception as error:  # noqa: BLE001 (raised below, when the others are on disk)
        failed.append(error)
    if copied:
        _to_disk(copied, progress, threads)
        workers.each(copied, lambda one: one.verify(asked, progress), threads)
    if failed:
        raise failed[0]


def _to_disk(copied: Sequence[Making], progress: Counting, threads: int) -> None:
    """Wait until the disk has all of some copies, and let the kernel read small ones back."""

    def wait(one: Making) -> None:
        durable.sync(one.target)
        progress.live()

    if threads > 1 or len(copied) < _FEW:
        workers.each(copied, wait, threads if threads > 1 else len(copied))
    else:
        volumes: Dict[int, List[int]] = {}
        for one in copied:
            volumes.setdefault(one.plan.source.dev, []).append(one.target)
        for descriptors in volumes.values():
            durable.sync_together(descriptors)
            progress.live()
    for one in copied:
        if one.is_huge:  # a kill while it is compared does not cost the copy
            one.mark(one.plan.source.size_bytes)
        one.look_ahead()
