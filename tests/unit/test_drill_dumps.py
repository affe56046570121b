"""Whether a hypervisor would keep a core of what runs its guests, from what one harmless command prints there."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from unlatch.drill import dumps


@pytest.mark.parametrize(
    ("output", "ok", "words"),
    [
        ("|/lib/systemd/systemd-coredump %P %u\nqemu-dm 0", True, "/lib/systemd/systemd-coredump"),
        ("|/bin/false", False, "thrown away"),
        ("/var/crash/core.%e\nqemu-dm unlimited\nxend 0", False, "xend may write none"),
        ("/var/crash/core.%e\nqemu-system-x86 unlimited", True, "as /var/crash/core.%e"),
        ("core\nqemu-dm unlimited", True, "working directory"),
        ("core", None, "no device model runs now"),
        ("", False, "empty"),
    ],
)
def test_core_dumps_of_a_hypervisor(output: str, ok: bool | None, words: str) -> None:
    """It should tell whether the next crash of a device model leaves a core, with a grant where it leaves none."""
    told = dumps.would_be_kept(output)
    assert told.ok is ok
    assert words in told.why
    assert bool(told.grant) is (ok is False)


def test_question_runs_in_every_posix_shell() -> None:
    """It should print the pattern first, whatever processes come and go meanwhile, and end well."""
    answer = subprocess.run(dumps.QUESTION, capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[0] == Path("/proc/sys/kernel/core_pattern").read_text().strip()
