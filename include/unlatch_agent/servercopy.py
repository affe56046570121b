"""server: the NFS server copies the bytes by itself (NFSv4.2), and none of them crosses the network.

On a local file system the same call only saves this program's own memory, and it cannot be split among
threads as well as reading and writing can: there it is used only when it was asked for by name.
"""

import os

from unlatch_agent import durable, ranges, streaming, syscalls
from unlatch_agent.errors import naming
from unlatch_agent.requests import Advance, Request, UnfitError, unfit

# Small enough to tell how far it is: one call says nothing until it is done.
_AT_ONCE_BYTES = 32 << 20


def server(request: Request, advance: Advance) -> None:
    """Let the server copy all data; holes stay holes.

    Raises:
        UnfitError: it cannot, or stopped in the middle.
        OSError: anything else.
    """
    with naming(request.target):
        os.ftruncate(request.target, request.size_bytes)
    told = marked = request.start_bytes
    for start, end in ranges.of_data(request.source, request.size_bytes, request.start_bytes):
        position = start
        while position < end:
            wanted = min(_AT_ONCE_BYTES, streaming.MARK_BYTES, end - position)
            try:
                count = syscalls.copy_file_range(request.source, request.target, wanted, position)
            except OSError as error:
                raise unfit(error, told) from error
            if not count:
                raise UnfitError("it stopped before the end", told)
            position += count
            advance(position - told)
            told = position
            if request.mark is not None and position - marked >= streaming.MARK_BYTES:
                durable.sync(request.target)
                request.mark(position)
                marked = position
    advance(request.size_bytes - told)
