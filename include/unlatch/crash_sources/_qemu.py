"""What several formats know of qemu: its process names, its scopes, its name on the command line, signals."""

from __future__ import annotations

import re
import signal

from unlatch.crash_sources._lines import compiled

KVM_COMMAND = r"(?:qemu-kvm|kvm|qemu-system-(?!i38)[a-z0-9_]{2,20})"
"""As the kernel shows it, cut to 15 characters. Under these names the process is the guest."""

XEN_COMMAND = r"(?:qemu-dm|xen-qemu-system[a-z0-9_-]{0,20}|qemu-system-i38[6]?)"
"""Xen's device model: a guest can outlive it."""

_MACHINE = compiled(r"machine-qemu((?:\\x2d|-)[^\s/,;\"]{1,255})\.scope")
_PROXMOX = compiled(r"qemu\.slice/(\d{3,9})\.scope")
_ESCAPED = compiled(r"\\x([0-9a-f]{2})")
_NUMBERED = compiled(r"^[-]?\d{1,10}-")
_NAME_OPTION = compiled(r"-name[ \0]['\"]?(?:guest=)?([^\s,'\"\0]{1,255})")
_SIGNAL_NUMBERS = {s.name.removeprefix("SIG"): int(s) for s in signal.Signals}
_SIGNAL_TEXTS = {"segmentation fault": 11, "aborted": 6, "killed": 9, "bus error": 7, "illegal instruction": 4}


def domain_of_scope(text: str) -> str | None:
    r"""The domain whose scope a line names: `machine-qemu\x2d4\x2dfc32.scope` or `qemu.slice/143.scope`."""
    if found := _MACHINE.search(text):
        plain = _ESCAPED.sub(_character, found[1])
        return machine_domain("qemu" + plain)
    found = _PROXMOX.search(text)
    return found[1] if found else None


def machine_domain(machine: str) -> str:
    """The domain behind a name in systemd-machined: `qemu-4-fc32` is `fc32`."""
    return _NUMBERED.sub("", machine.removeprefix("qemu").removeprefix("-")) or machine


def domain_of_command(command: str) -> str | None:
    """The name that qemu was started with."""
    found = _NAME_OPTION.search(command)
    return found[1] if found else None


def signal_number(word: str) -> int | None:
    """Of `11`, `SIGSEGV`, `SEGV` or `Segmentation fault`."""
    if word.isascii() and word.isdigit():
        return int(word)
    return _SIGNAL_NUMBERS.get(word.removeprefix("SIG")) or _SIGNAL_TEXTS.get(word.lower())


def killed_by(number: int | None) -> str:
    """A cause in words."""
    if number is None:
        return "qemu died"
    try:
        return f"qemu killed by {signal.Signals(number).name}"
    except ValueError:
        return f"qemu killed by signal {number}"


def _character(found: re.Match[str]) -> str:
    return chr(int(found[1], 16))
