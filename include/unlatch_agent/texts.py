"""Reading the small texts that the kernel and daemons show. Touches no volume."""

from typing import Optional


def read(path: str) -> str:
    """Read a small file.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, errors="surrogateescape") as source:
        return source.read()


def stripped(path: str) -> Optional[str]:
    """Read a small file without the space around its text; None when it cannot be read."""
    try:
        return read(path).strip()
    except OSError:
        return None
