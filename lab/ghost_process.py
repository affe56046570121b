"""The ghost itself: waits for write locks on the given files, then keeps them until it is killed.

Usage: ghost_process.py PATH… . Prints `waiting` when every lock is waited for and `holding` when it owns all of them.
It opens each file once and closes none: closing any descriptor of a file would drop its lock.
"""

import ctypes
import fcntl
import os
import signal
import sys
import threading
import time

TIMEOUT_S = 15.0
PR_SET_PDEATHSIG = 1


def waiting() -> int:
    """Count the lock requests of this process that the kernel has queued: `12: -> POSIX  ADVISORY  WRITE 4711 …`."""
    me = str(os.getpid())
    with open("/proc/locks") as stream:
        lines = [line.split() for line in stream]
    return sum(1 for words in lines if words[1] == "->" and words[5] == me)


def main(paths: list[str]) -> None:
    """Wait, take, keep."""
    # Until it owns the locks it is of use only to whoever started it: left alone it would lock a living database out.
    starter = os.getppid()
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != starter:
        os._exit(1)
    descriptors = [os.open(path, os.O_RDWR) for path in paths]
    threads = [threading.Thread(target=fcntl.lockf, args=(number, fcntl.LOCK_EX)) for number in descriptors]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + TIMEOUT_S
    while waiting() < len(paths):
        if time.monotonic() > deadline:
            print(f"only {waiting()} of {len(paths)} locks are waited for", flush=True)
            os._exit(1)
        time.sleep(0.005)
    print("waiting", flush=True)
    for thread in threads:
        thread.join()
    libc.prctl(PR_SET_PDEATHSIG, 0)
    print("holding", flush=True)
    while True:
        signal.pause()


main(sys.argv[1:])
