"""What preflight says of a host: a line of its answer, where things are, its service manager, its crash dumps.

All of it is read from what the host tells anyway; nothing is tried out.
"""

import os
from typing import NamedTuple, Optional, Tuple

from unlatch_agent import nsm, texts
from unlatch_agent.errors import Json

_NOTIFY = "/usr/local/sbin/unlatch-notify"
_TOOL_PATHS = ("/usr/sbin", "/sbin", "/usr/bin", "/bin")
_SUFFIXES = ("service", "socket", "target", "timer", "path", "mount", "scope", "slice")


class Places(NamedTuple):
    """Where things are on a host; ``units`` come before the run-time masks in systemd's order."""

    proc: str = "/proc"
    sys: str = "/sys"
    statd: Tuple[str, ...] = nsm.STATD_DIRECTORIES
    notify: str = _NOTIFY
    tools: Tuple[str, ...] = _TOOL_PATHS
    units: Tuple[str, ...] = (
        "/etc/systemd/system.control",
        "/run/systemd/system.control",
        "/run/systemd/transient",
        "/run/systemd/generator.early",
        "/etc/systemd/system",
        "/etc/systemd/system.attached",
    )
    masks: str = "/run/systemd/system"


def row(privilege: str, path: Optional[str], ok: Optional[bool], why: str, grant: str) -> Json:
    """Make one line of the answer; ``ok`` None: not known, or good to know but not needed."""
    return {"privilege": privilege, "path": path, "ok": ok, "why": why, "grant": None if ok else grant}


def unit_row(unit: str, places: Places = Places()) -> Json:  # noqa: B008 (immutable)
    """Say whether a unit can be masked at run time, which is how it is kept from starting during a repair."""
    name = unit if unit.rpartition(".")[2] in _SUFFIXES else unit + ".service"
    privilege = "unit can be masked"
    if not os.path.isdir(os.path.dirname(places.masks)):
        return row(privilege, unit, None, "systemd does not run here", "give the five commands of the service instead")
    for directory in places.units:
        path = os.path.join(directory, name)
        if not os.path.lexists(path):
            continue
        if os.path.realpath(path) == os.devnull:
            return row(privilege, unit, None, "{} masks it already, for good".format(path), "systemctl unmask " + name)
        grant = (
            "mv {0} /usr/local/lib/systemd/system/ && systemctl daemon-reload (changes of its settings belong into "
            "{0}.d/), or give the five commands of the service in the inventory"
        )
        why = "{} goes before a mask in {}: mask --runtime would not keep it from starting".format(path, places.masks)
        return row(privilege, unit, False, why, grant.format(path))
    return row(privilege, unit, True, "no file of that name goes before a mask in {}".format(places.masks), "")


def dumps_row(places: Places = Places()) -> Json:  # noqa: B008 (immutable)
    """Say what would be left of the next crash for its analysis: of the kernel, and of programs."""
    loaded = texts.stripped(places.sys + "/kernel/kexec_crash_loaded") == "1"
    reserved = "crashkernel=" in (texts.stripped(places.proc + "/cmdline") or "")
    pattern = texts.stripped(places.proc + "/sys/kernel/core_pattern") or ""
    if loaded:
        kernel = "the kernel's crash is dumped (kdump is loaded)"
    else:
        kernel = "the kernel's crash leaves no dump ({})".format(
            "memory is reserved, but kdump is not loaded" if reserved else "no crashkernel=, no kdump"
        )
    if "systemd-coredump" in pattern:
        programs = "programs' cores are kept by systemd-coredump (coredumpctl list)"
    elif pattern.startswith("|"):
        programs = "programs' cores go to {}".format(pattern[1:].split(" ")[0])
    elif pattern.startswith("/"):
        programs = "programs' cores are written as {}".format(pattern)
    else:
        programs = "programs' cores, if any, land in their own directory as {!r}: in the data directory".format(pattern)
    grant = "apt install kdump-tools systemd-coredump (Red Hat: kdump.service), and boot with crashkernel=256M"
    is_good = loaded and (pattern.startswith("/") or "systemd-coredump" in pattern)
    return row("crash dumps", None, True if is_good else None, "{}; {}".format(kernel, programs), grant)
