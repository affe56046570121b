"""Where the NFS lab's scripts are, and whether they can run on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ("build.sh", "up.sh", "crash.sh", "standby.sh", "pause.sh", "down.sh", "lab.conf", "vm.sh")


def scripts_directory() -> Path:
    """Where the lab's scripts are, or would be."""
    return (ROOT / os.environ.get("UNLATCH_NFS_LAB", "../shared/lab")).resolve()


def missing() -> str | None:
    """Why the lab cannot run here, or None."""
    folder = scripts_directory()
    absent = [name for name in SCRIPTS if not (folder / name).is_file()]
    if absent:
        return f"the NFS lab is not there: {folder} has no {absent[0]} (UNLATCH_NFS_LAB names its folder)"
    if os.geteuid() != 0:
        return "the NFS lab makes network namespaces and virtual machines: it needs root"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "the NFS lab needs /dev/net/tun for its machines' network"
    lacking = [name for name in ("ip", "nsenter", "ssh", "sshd") if shutil.which(name) is None]
    if lacking:
        return f"the NFS lab needs {lacking[0]}, which is not installed (make setup installs it)"
    made = subprocess.run(["unshare", "--net", "true"], check=False, capture_output=True, text=True)
    return f"network namespaces are not allowed here: {made.stderr.strip()}" if made.returncode else None


FINGERPRINT = b"""
import hashlib, json, os, stat, sys
seen = {}
for folder, _, names in os.walk(sys.argv[1]):
    for name in names:
        path = os.path.join(folder, name)
        found = os.lstat(path)
        if stat.S_ISREG(found.st_mode):
            with open(path, "rb") as stream:
                digest = hashlib.sha256()
                for block in iter(lambda: stream.read(1 << 20), b""):
                    digest.update(block)
            name = os.path.relpath(path, sys.argv[1])
            seen[name] = [found.st_ino, found.st_size, found.st_mtime_ns, digest.hexdigest()]
print(json.dumps(seen))
"""
"""Python for the NAS: inode, size, mtime and SHA-256 of every file below a directory, as JSON."""
