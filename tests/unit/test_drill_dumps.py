"""Whether a hypervisor would keep a core of what runs its guests, from what one harmless command prints there."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from unlatch.drill import dumps


@pytest.mark.parametrize(
    ("output", "ok", "words"),
    [
        ("|/usr/share/apport/apport %p\nqemu-dm 0", True, "whatever their limit"),
        ("|/lib/systemd/systemd-coredump %P %u\nqemu-dm unlimited", True, "/lib/systemd/systemd-coredump"),
        ("|/lib/systemd/systemd-coredump %P %u\nqemu-dm 0", False, "qemu-dm may write none"),
        ("/no/such/place/core.%e\n! no directory\nqemu-dm unlimited", False, "there is no directory /no/such/place"),
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


def test_question_looks_for_the_directory(tmp_path: Path) -> None:
    """It should see that the directory of a fixed pattern is missing, and say nothing of one that is there."""
    script = dumps.QUESTION[2]
    for pattern, lacks in ((tmp_path / "core.%e", False), (tmp_path / "gone/core.%e", True), ("core", False)):
        (tmp_path / "pattern").write_text(f"{pattern}\n")
        there = script.replace("/proc/sys/kernel/core_pattern", str(tmp_path / "pattern"))
        said = subprocess.run(["sh", "-c", there], capture_output=True, text=True, check=True).stdout.splitlines()
        assert ("! no directory" in said) is lacks


def test_question_runs_in_every_posix_shell() -> None:
    """It should print the pattern first, whatever processes come and go meanwhile, and end well."""
    answer = subprocess.run(dumps.QUESTION, capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[0] == Path("/proc/sys/kernel/core_pattern").read_text().strip()
