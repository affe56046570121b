"""Many small files of a local file system are copied and verified by a few processes at a time; see crew.py."""

import contextlib
import sys
from typing import Dict, List, Sequence

from unlatch_agent import batches, crew
from unlatch_agent.copying import Asked, Chooser
from unlatch_agent.errors import Json
from unlatch_agent.ioguard import Beat
from unlatch_agent.journal import Journal
from unlatch_agent.making import Making, Planned, Volume
from unlatch_agent.progress import Counting, Progress
from unlatch_agent.ranges import SMALL_BYTES

_NOTHING: List[Json] = []


def is_shared(plan: Planned, volume: Volume) -> bool:
    """Say whether a file is one of those that several processes may copy. On NFS threads do as well."""
    return not volume.is_nfs and plan.source.size_bytes <= SMALL_BYTES


def make_all(
    rows: Sequence[Sequence[Planned]],
    journals: Dict[str, Journal],
    chooser: Chooser,
    asked: Asked,
    progress: Progress,
) -> None:
    """Make all copies of some batches, and record them as prepared.

    Raises:
        AgentError: the first thing that went wrong; what was told to be finished by then is recorded.
    """
    processes = crew.size(len(rows))
    expected: Dict[int, List[Making]] = {}

    def make(number: int, beat: Beat) -> Json:
        following = number + processes

        def expect_next() -> None:
            if following < len(rows):
                expected[following] = _makings(rows[following], journals)
                for copy in expected[following]:
                    copy.expect(chooser)

        batch = expected.pop(number, None) or _makings(rows[number], journals)
        wrong = batches.made(batch, chooser, asked, Counting(beat), expect_next)
        return {
            "made": [copy.facts if copy.is_verified else None for copy in batch],
            "spoilt": [copy.is_spoilt for copy in batch],
            "wrong": wrong,
        }

    def begin(row: Sequence[Planned]) -> None:
        batches.record_begun(_makings(row, journals), chooser)

    try:
        with contextlib.closing(crew.work(rows, begin, make, progress.live, processes)) as done:
            for row, told in done:
                _record(row, told, journals, chooser)
                for plan, facts in zip(row, told["made"]):
                    if facts is not None:
                        progress.count(plan.target.path, plan.source.size_bytes)
    finally:
        for owner in journals.values():
            owner.wait()


def _record(row: Sequence[Planned], told: Json, journals: Dict[str, Journal], chooser: Chooser) -> None:
    """Record what a process has told of a batch."""
    spoilt = _makings([plan for plan, is_spoilt in zip(row, told["spoilt"]) if is_spoilt], journals)
    for copy in spoilt:
        copy.is_spoilt = True
    batches.record_begun(spoilt, chooser)
    made = [(plan, facts) for plan, facts in zip(row, told["made"]) if facts is not None]
    for plan, facts in made:
        _share(plan, facts)
    batches.record(
        "prepared",
        ((journals[plan.target.directory], plan.target.name, facts) for plan, facts in made),
        is_awaited=False,
    )


def _share(plan: Planned, facts: Json) -> None:
    """Keep what is the same of many files once: what was told has objects of its own for each."""
    for key in ("method", "verify", "verified"):
        facts[key] = sys.intern(facts[key])
    for key in ("fell_back", "metadata_lost"):
        facts[key] = facts[key] or _NOTHING
    source = plan.source.document()
    temp = facts["temp"]
    for key in temp:
        if temp[key] == source[key]:
            temp[key] = source[key]


def _makings(row: Sequence[Planned], journals: Dict[str, Journal]) -> List[Making]:
    return [Making(journals[plan.target.directory], plan, Volume()) for plan in row]
