"""Hold a POSIX write lock on a file, as a living process of this guest, until killed.

Usage: holder.py PATH. Prints `locked` when it has the lock.
"""

from __future__ import annotations

import ctypes
import fcntl
import signal
import sys

PR_SET_PDEATHSIG = 1

ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # whoever kills the starter means this one
stream = open(sys.argv[1], "r+b")  # noqa: SIM115  # closing it would drop the lock
fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
print("locked", flush=True)
signal.pause()
