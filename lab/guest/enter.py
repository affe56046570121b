"""First half of a lab machine's start: give it a file system of its own, then become its init.

Runs as PID 1 of fresh PID, mount, UTS, IPC and time namespaces, with the system's Python. Everything that is mounted
here lives in this mount namespace only: when the last process dies, all mounts go with it, and the host never has one.

Usage: enter.py CONFIG.json
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import sys

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC = 1, 2, 4, 8, 32, 4096, 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")

libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str | None, target: str, fstype: str | None = None, flags: int = 0, data: str | None = None) -> None:
    """Mount a file system; an error names both ends."""
    words = [None if word is None else word.encode() for word in (source, target, fstype)]
    if libc.mount(*words, ctypes.c_ulong(flags), None if data is None else data.encode()) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount {source} on {target}: {os.strerror(number)}")


def bind(source: str, target: str, *, read_only: bool = False) -> None:
    """Show a directory or file of the host at `target`."""
    mount(source, target, flags=MS_BIND | MS_REC)
    if read_only:
        mount(None, target, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)


def make_devices(dev: str) -> None:
    """Fill an empty /dev with what daemons and logins need; no device of the host's disks is among it."""
    mount("tmpfs", dev, "tmpfs", MS_NOSUID, "mode=755,size=64k")
    for name in DEVICES:
        open(dev + "/" + name, "w").close()
        bind("/dev/" + name, dev + "/" + name)
    os.mkdir(dev + "/pts")
    mount("devpts", dev + "/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620,gid=5")
    os.symlink("pts/ptmx", dev + "/ptmx")
    os.mkdir(dev + "/shm")
    mount("tmpfs", dev + "/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        os.symlink("/proc/self/fd" + target, dev + "/" + name)


def main() -> None:
    """Mount, pivot, and become init."""
    with open(sys.argv[1]) as stream:
        config = json.load(stream)
    root = config["rootfs"]
    socket.sethostname(config["hostname"])
    mount(None, "/", flags=MS_REC | MS_PRIVATE)
    bind(root, root)
    bind("/usr", root + "/usr", read_only=True)
    bind(root + "/local", root + "/usr/local")
    for entry in config["binds"]:
        bind(entry["source"], root + entry["target"])
    mount("proc", root + "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("/sys", root + "/sys", flags=MS_BIND)
    mount(None, root + "/sys", flags=MS_BIND | MS_REMOUNT | MS_RDONLY)
    mount("tmpfs", root + "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    mount("tmpfs", root + "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
    make_devices(root + "/dev")
    # A boot id of this boot only: programs tell one boot from the next by it.
    with open(root + "/run/boot_id", "w") as stream:
        stream.write(config["boot_id"] + "\n")
    bind(root + "/run/boot_id", root + "/proc/sys/kernel/random/boot_id", read_only=True)
    os.chdir(root)
    if libc.pivot_root(b".", b".") != 0:
        raise OSError(ctypes.get_errno(), "pivot_root")
    libc.umount2(b".", MNT_DETACH)
    os.chdir("/")
    os.execv("/usr/bin/python3", ["/sbin/init", "-I", "/usr/local/lib/lab/init.py"])


if __name__ == "__main__":
    main()
