"""Would a hypervisor keep a core of what runs its guests? In 2014 a device model died, and nothing was left of it."""

from __future__ import annotations

from collections.abc import Sequence

from unlatch.drill.asking import Told

QUESTION = (
    "sh",
    "-c",
    """cat /proc/sys/kernel/core_pattern
read -r pattern </proc/sys/kernel/core_pattern
case ${pattern%/*} in
  *%*) ;;
  /*) [ -d "${pattern%/*}" ] || echo '! no directory' ;;
esac
for p in /proc/[0-9]*; do
  read -r name <"$p/comm" || continue
  case $name in
    qemu*|kvm*|xend*|xl|virt*) set -- $(grep '^Max core file size' "$p/limits") && echo "$name $5" ;;
  esac
done 2>/dev/null
:""",
)
"""Prints the kernel's core pattern, whether its directory is missing, then each device model or manager of guests with
its limit for a core."""

_NO_DIRECTORY = "! no directory"

_NOWHERE = frozenset({"/bin/false", "/bin/true", "/usr/bin/false", "/usr/bin/true"})
_GRANT = (
    "apt install systemd-coredump (Red Hat: systemd-coredump or abrt), or sysctl -w "
    "kernel.core_pattern=/var/crash/core.%e.%p.%t (mkdir -p /var/crash); with LimitCORE=infinity for the services that "
    "run guests"
)


def would_be_kept(output: str) -> Told:
    """Whether a core would be kept, from what the question printed."""
    pattern, *processes = [line.strip() for line in output.splitlines()] or [""]
    limited = sorted({name for name, _, limit in (line.partition(" ") for line in processes) if limit == "0"})
    if pattern.startswith("|"):
        return _piped(pattern, limited)
    if not pattern:
        return Told(False, "the kernel's core pattern is empty", _GRANT)
    where = f"as {pattern}" + ("" if pattern.startswith("/") else " in the working directory of what crashed")
    if limited:
        return Told(False, f"cores would be written {where}, but {', '.join(limited)} may write none (limit 0)", _GRANT)
    if _NO_DIRECTORY in processes:
        return Told(False, f"there is no directory {pattern.rpartition('/')[0]}, where cores would be written", _GRANT)
    if not processes:
        return Told(
            None, f"cores are written {where} where a limit allows it; no device model runs now whose limit tells"
        )
    return Told(True, f"cores are written {where}")


def _piped(pattern: str, limited: Sequence[str]) -> Told:
    program = pattern[1:].split(" ", 1)[0]
    if program in _NOWHERE:
        return Told(False, f"cores are thrown away ({pattern})", _GRANT)
    if not program.endswith("/systemd-coredump"):
        return Told(True, f"cores go to {program}, whatever their limit")
    if limited:  # unlike the kernel it keeps to the limit of what crashed
        return Told(False, f"cores go to {program}, but {', '.join(limited)} may write none (limit 0)", _GRANT)
    return Told(True, f"cores go to {program}")
