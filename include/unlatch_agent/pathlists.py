"""Paths from a file: a command line has no room for 100,000 of them."""

import os
import sys
from typing import List

from unlatch_agent.errors import UsageError


def read(name: str) -> List[str]:
    """Read paths, one per line, or ended by NUL bytes as ``find -print0`` writes them.

    Args:
        name: the file; ``-`` for standard input.

    Raises:
        UsageError: it cannot be read, or names nothing.
    """
    try:
        if name == "-":
            content = sys.stdin.buffer.read()
        else:
            with open(name, "rb") as source:
                content = source.read()
    except OSError as error:
        raise UsageError(
            "usage", "cannot read the paths in {}: {}".format(name, error.strerror), "give its path, or - and the text"
        ) from error
    paths = [os.fsdecode(path) for path in content.split(b"\0" if b"\0" in content else b"\n") if path]
    if not paths:
        raise UsageError("usage", "{} names no path".format(name), "write one path per line")
    return paths
