"""Text lines out of a stream of bytes that may be anything, in constant memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

LONGEST_LINE_BYTES = 1 << 20
"""Longer lines are dropped without being held in memory."""

_PIECE_BYTES = 128 << 10


def pieces_of(stream: BinaryIO) -> Iterator[str]:
    """Whole lines, as many as the stream has ready, without the end of the last one; of a pipe none waits for more."""
    read = getattr(stream, "read1", stream.read)
    rest, dropping = b"", False
    while piece := read(_PIECE_BYTES):
        end = piece.rfind(b"\n")
        if end >= 0:
            first = piece.find(b"\n")  # that line may have begun before
            if not dropping and len(rest) + first < LONGEST_LINE_BYTES:
                yield (rest + piece[:end]).decode("utf-8", "replace")
            elif first < end:
                yield piece[first + 1 : end].decode("utf-8", "replace")
            rest, dropping = piece[end + 1 :], False
        elif not dropping:
            rest += piece
        if len(rest) >= LONGEST_LINE_BYTES:
            rest, dropping = b"", True
    if rest:
        yield rest.decode("utf-8", "replace")
