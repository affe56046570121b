"""The agent's root commands: root-owned copies of one file, whose names decide what each may do (ADR 0007, 0013)."""

OPENERS = "/usr/local/sbin/unlatch-openers"
"""Scans the processes of a host, and does nothing else."""

NOTIFY = "/usr/local/sbin/unlatch-notify"
"""Frees this host's NFSv3 locks on its servers."""

NAS_LIST = "/usr/local/sbin/unlatch-nas-list"
"""Lists the locks on a Linux NFS server."""

NAS_CLEAR = "/usr/local/sbin/unlatch-nas-clear"
"""Clears them."""


def install_line(command: str) -> str:
    """The line that installs one of them, as root, where the agent's file lies."""
    return f"install -o root -g root -m 0755 unlatch-agent.pyz {command}"
