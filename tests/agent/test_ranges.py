"""Pieces, batches and samples: which parts of which files are copied and compared together."""

from __future__ import annotations

import itertools
from typing import Any

from tests.agent.conftest import need_root
from unlatch_agent import batches, comparing, making, ranges

MIB = 1 << 20


def test_samples() -> None:
    """It should always take the first and the last block, and the same blocks for the same seed."""
    size_bytes = (8 << 30) + 5
    blocks = comparing.sampled(size_bytes, "a")
    assert blocks == comparing.sampled(size_bytes, "a") != comparing.sampled(size_bytes, "b")
    assert blocks[0][0] == 0
    assert blocks[-1][1] == size_bytes
    assert len(blocks) == comparing.SAMPLES + 2 or len(blocks) == comparing.SAMPLES + 1
    assert comparing.sampled(1, "a") == [(0, 1)]


def test_pieces() -> None:
    """It should cut ranges into aligned pieces that cover them and never overlap."""
    cut = list(ranges.pieces([(5, 10), (4000, 9000), (3 * MIB + 1, 5 * MIB)], 5 * MIB + 100))
    assert cut[0][0] == 0
    for (start, end), (following, _) in itertools.pairwise(cut):
        assert start < end <= following
    assert all(start % 4096 == 0 for start, _ in cut)
    assert list(ranges.pieces([(0, 10)], 10)) == [(0, 10)]
    assert list(ranges.union([(0, 5), (10, 20)], [(3, 8), (20, 21)])) == [(0, 8), (10, 21)]


def test_batches() -> None:
    """It should put small files together, keep their order, and give a large file all threads."""
    need_root()
    sizes = [1000] * 600 + [5 * MIB] + [10] * 3

    def planned(number: int, size_bytes: int) -> Any:
        target = making.Target("/v", str(number))
        source = making.Identity(number, 1, size_bytes, 0, 0, 1, 0o100600, size_bytes)
        return making.Planned(target, source, None)

    cut = list(batches.cut([planned(number, size) for number, size in enumerate(sizes)]))
    assert [len(batch) for batch in cut] == [512, 88, 1, 3]
    assert [plan.target.name for batch in cut for plan in batch] == [str(number) for number in range(604)]
