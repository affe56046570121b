"""The lab makes namespaces, which only root may."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

from lab.site import REPOSITORY


def become_root(module: str, kept: Sequence[str]) -> None:
    """Start `python -m MODULE` again through sudo, unless root already.

    Without a sudo that asks for no password this returns, and the lab then says what it needs.

    Args:
        module: The module that is running.
        kept: Names of environment variables that it reads.
    """
    if os.geteuid() == 0 or not shutil.which("sudo"):
        return
    if subprocess.run(["sudo", "-n", "true"], check=False, capture_output=True).returncode != 0:
        return
    words = [f"{name}={os.environ[name]}" for name in kept if name in os.environ]
    os.chdir(REPOSITORY)
    os.execvp("sudo", ["sudo", "-n", "env", *words, sys.executable, "-m", module, *sys.argv[1:]])
