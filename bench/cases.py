"""The files that are recreated."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
_GIB = 1 << 30
# One MiB of data in every 32 MiB: a tablespace that was extended long before it fills up.
_SPARSE_STEP = 32 * MIB
_SMALL_BYTES = 16 * 1024


@dataclass(frozen=True)
class Case:
    """Files to recreate.

    Attributes:
        name: in the table.
        make: writes the files into an empty directory, at a scale.
        size_bytes: room that one set of them needs at scale 1; sparse ones count in full.
        data_bytes: what is really stored at scale 1.
    """

    name: str
    make: Callable[[Path, float], None]
    size_bytes: int
    data_bytes: int

    def room_bytes(self, scale: float) -> int:
        """Return the size of a volume: the originals, dd's source, a copy reserved in full, and what btrfs keeps."""
        return int((self.size_bytes * 1.15 + self.data_bytes * 2) * scale) + 700 * MIB


def _write(path: Path, size_bytes: int, step_bytes: int, seed: int) -> None:
    """Write a file with a MiB of noise at every step; a step of one MiB makes a file without holes."""
    noise = random.Random(seed)  # noqa: S311 (only has to be incompressible, and the same every time)
    with path.open("wb") as file:
        for offset in range(0, size_bytes, step_bytes):
            os.pwrite(file.fileno(), noise.randbytes(min(MIB, size_bytes - offset)), offset)
        file.truncate(size_bytes)


def _one(directory: Path, scale: float) -> None:
    _write(directory / "ibdata1", int(_GIB * scale), MIB, 1)


def _sparse(directory: Path, scale: float) -> None:
    _write(directory / "users01.dbf", int(8 * _GIB * scale), _SPARSE_STEP, 2)


def _many(directory: Path, scale: float) -> None:
    for number in range(max(1, int(10_000 * scale))):
        _write(directory / f"t{number:05}.ibd", _SMALL_BYTES, MIB, number)


CASES = (
    Case("1 GB", _one, _GIB, _GIB),
    Case("8 GB sparse", _sparse, 8 * _GIB, 8 * _GIB // 32),
    Case("10,000 x 16 KB", _many, 10_000 * 2 * _SMALL_BYTES, 10_000 * _SMALL_BYTES),
)
