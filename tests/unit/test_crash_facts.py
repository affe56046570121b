"""What is kept of a crash: found, not there, or not to be read; never too much, never a password, never an error."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.fakes import World
from tests.unit.lanes import Run, again, refused
from tests.unit.world_parts import DIED_AT
from unlatch import crash_facts
from unlatch.crash_facts import BUDGET_S, CrashFact, keep_crash_facts
from unlatch.errors import ConfigError, TransientError
from unlatch.excerpts import EXCERPT_BYTES, hide_secrets, trimmed
from unlatch.ports import CommandAnswer, IncidentPorts

Answers = Callable[[Sequence[str]], CommandAnswer]
CRASHED = "[2026-03-07 05:54:52 4572] WARNING (XendDomainInfo:1907) Domain has crashed: name=2130_dbvrtg4037 id=2."
NO_RIGHTS = """\
Hint: You are currently not seeing messages from other users and the system.
      Users in groups 'adm', 'systemd-journal' can see all messages.
      Pass -q to turn off this notice.
No journal files were opened due to insufficient permissions.
"""
NO_BOOT = "Specifying boot ID or boot offset has no effect, no persistent journal was found.\n"


def ports(world: World, guest: Answers, hypervisor: Answers) -> IncidentPorts:
    world.agent.command = guest  # type: ignore[method-assign]
    return dataclasses.replace(world.incident_ports, run_on=lambda _where, _guest, argv: hypervisor(argv))


def collected(world: World, guest: Answers, hypervisor: Answers) -> dict[tuple[str, str], CrashFact]:
    run = Run(world)
    again(world, run.open)
    result = keep_crash_facts(run.whole, ports(world, guest, hypervisor))
    facts = [CrashFact.from_dict(fact) for fact in result["facts"]]
    return {(fact.host, fact.what.split(",")[0]): fact for fact in facts}


def answering(**by_program: CommandAnswer | str) -> Answers:
    """Answers by the program's name; any other is not there."""

    def answer(argv: Sequence[str]) -> CommandAnswer:
        assert list(argv[:4]) == ["env", "LC_ALL=C", "timeout", "20"], "every question has its time limit"
        name = argv[4] if argv[4] != "cat" else f"cat_{argv[5].rsplit('/', 1)[-1]}"
        said = by_program.get(name, CommandAnswer(127, f"timeout: failed to run command '{argv[4]}': No such file"))
        return CommandAnswer(0, said) if isinstance(said, str) else said

    return answer


FULL = answering(
    journalctl="2026-03-07T05:54:40+00:00 db kernel: EXT4-fs error\n",
    cat_core_pattern="|/usr/lib/systemd/systemd-coredump %P %u\n",
    cat_kexec_crash_loaded="1\n",
    find="2026-03-07+05:54:53.1 4096 bytes /var/crash/202603070554/vmcore\n",
)
NOTHING = answering(
    journalctl=CommandAnswer(1, NO_BOOT),
    sh=CommandAnswer(1, ""),
    cat_core_pattern="core\n",
    cat_kexec_crash_loaded="0\n",
    find="",
)


def test_everything_is_kept(world: World) -> None:
    """It should keep what each host tells with the incident, and tell the ticket what there is without the texts."""
    world.log_lines = ["[2026-03-07 05:54:51 4572] INFO (X:1) before", CRASHED]
    found = collected(world, FULL, FULL)
    assert {fact.found for fact in found.values()} == {True}
    assert found["hv01", "log"].text.splitlines() == list(world.log_lines)
    assert "EXT4-fs error" in found["dbvrtg4037", "kernel log of the previous boot"].text
    assert "/var/crash/202603070554/vmcore" in found["hv01", "core and crash dumps"].words
    row = world.store.step(Run(world).incident, "", "keep_crash_facts")
    assert row is not None
    assert row.phase == "done"
    assert len(row.result["facts"]) == 6
    assert "| hv01 | log, 60 s before and after the death | 2 lines |" in world.tickets.text
    assert r"core_pattern there is '\|/usr/lib/systemd" in world.tickets.text
    assert "EXT4" not in world.tickets.text


def test_that_nothing_was_found_is_said(world: World) -> None:
    """It should say plainly what is not there, and how the next crash would leave more."""
    found = collected(world, NOTHING, NOTHING)
    assert {fact.found for fact in found.values()} == {False}
    assert "nothing was logged around 2026-03-07 05:54:52 UTC" in found["hv01", "log"].words
    previous = found["dbvrtg4037", "kernel log of the previous boot"].words
    assert "it was not kept" in previous
    assert "mkdir -p /var/log/journal" in previous
    dumps = found["dbvrtg4037", "core and crash dumps"].words
    assert "none since shortly before the death in /var/crash, " in dumps
    assert "core_pattern there is 'core', so a core goes to the working directory" in dumps
    assert "kdump-tools" in found["dbvrtg4037", "crash kernel (kdump)"].words


def test_a_missing_right_is_named_with_what_grants_it(world: World) -> None:
    """It should say who may not read what, and the command that changes it."""
    closed = answering(
        journalctl=CommandAnswer(1, NO_RIGHTS),
        sh=CommandAnswer(1, "dmesg: read kernel buffer failed: Operation not permitted"),
        id="dbod\n",
        cat_core_pattern="core",
        find=CommandAnswer(1, "find: '/var/crash': Permission denied\nfind: '/cores': No such file or directory\n"),
    )
    found = collected(world, closed, closed)
    for boot in ("present", "previous"):
        fact = found["dbvrtg4037", f"kernel log of the {boot} boot"]
        assert fact.found is None
        assert "usermod -aG systemd-journal dbod" in fact.words
    dumps = found["hv01", "core and crash dumps"]
    assert (dumps.found, "dbod may not look into /var/crash" in dumps.words) == (None, True)
    assert found["dbvrtg4037", "crash kernel (kdump)"].found is None


@pytest.mark.parametrize(
    ("older", "code", "output", "expected"),
    [
        ("/var/log/messages", 0, "Mar  7 05:54:40 db kernel: BUG: soft lockup\n", True),
        ("/var/log/messages", 1, "/var/log/messages: Permission denied\n", None),
    ],
)
def test_systems_without_a_journal(world: World, older: str, code: int, output: str, *, expected: bool | None) -> None:
    """It should read the files in which older systems keep what their kernel said."""

    def guest(argv: Sequence[str]) -> CommandAnswer:
        if argv[4] == "sh" and argv[-1] == older:
            return CommandAnswer(code, output)
        return answering(id="dbod")(argv) if argv[4] in {"id", "journalctl"} else CommandAnswer(1, "")

    found = collected(world, guest, NOTHING)["dbvrtg4037", "kernel log of the previous boot"]
    assert found.found is expected
    if expected:
        assert "soft lockup" in found.text
        assert older in found.words
    else:
        assert found.words == "dbod may not read it; as root on dbvrtg4037: usermod -aG adm dbod"


def test_a_ring_buffer_that_is_closed(world: World) -> None:
    """It should name the setting, where there is no journal whose group would do."""
    closed = answering(
        id="dbod",
        sh=CommandAnswer(1, "dmesg: read kernel buffer failed: Operation not permitted"),
        cat_kexec_crash_loaded=CommandAnswer(1, "cat: /sys/kernel/kexec_crash_loaded: No such file or directory"),
    )
    found = collected(world, closed, NOTHING)
    assert "sysctl -w kernel.dmesg_restrict=0" in found["dbvrtg4037", "kernel log of the present boot"].words
    assert (
        found["dbvrtg4037", "crash kernel (kdump)"].words == "its kernel cannot keep dumps of itself (it has no kexec)"
    )


def test_a_host_that_is_away_is_asked_once(world: World) -> None:
    """It should say for each part why it is missing, and not wait for the same host again and again."""
    asked = []

    def away(argv: Sequence[str]) -> CommandAnswer:
        asked.append(argv)
        raise TransientError("dbvrtg4037 does not answer.")

    world.hypervisor_says = ConfigError("/var/log/xen/xend.log may not be read", next_step="chmod it")
    found = collected(world, away, FULL)
    assert len(asked) == 1
    words = {fact.words for (host, _), fact in found.items() if host == "dbvrtg4037"}
    assert words == {"dbvrtg4037 does not answer."}
    assert found["hv01", "log"].found is None
    assert "chmod it" in found["hv01", "log"].words


def test_it_takes_no_longer_than_its_budget(world: World) -> None:
    """It should give up what is left when hosts are slow, and say so."""

    def slow(_argv: Sequence[str]) -> CommandAnswer:
        world.clock.pause(BUDGET_S / 2 + 1)
        return CommandAnswer(124, "")

    before = world.clock.now()
    found = collected(world, slow, slow)
    assert world.clock.now() - before <= timedelta(seconds=2 * BUDGET_S)
    words = [fact.words for fact in found.values()]
    assert any("did not answer within 20 s" in w for w in words)
    assert sum("were over" in w for w in words) >= 2


def test_a_host_without_the_programs(world: World) -> None:
    """It should say what is missing there instead of what it could not find."""

    def bare(_argv: Sequence[str]) -> CommandAnswer:
        return CommandAnswer(127, "env: 'timeout': No such file or directory")

    found = collected(world, bare, answering(cat_core_pattern="core"))
    assert "no program timeout" in found["dbvrtg4037", "core and crash dumps"].words
    assert "no GNU find" in found["hv01", "core and crash dumps"].words
    assert found["hv01", "core and crash dumps"].found is None


def test_no_event_is_known(world: World) -> None:
    """It should take the time that the run was started with when the hypervisor told nothing."""
    run = Run(world)
    run.open()
    whole = dataclasses.replace(run.whole, event=None)
    keep_crash_facts(whole, ports(world, NOTHING, NOTHING))
    asked = [c.arguments for c in world.calls if c.name == "hypervisor.lines_around"]
    assert [arguments[1] for arguments in asked] == [DIED_AT]


def test_again_it_looks_again_and_tells_once(world: World) -> None:
    """It should be safe to run twice; the same words are not told twice."""
    run = Run(world)
    run.open()
    for _ in range(2):
        keep_crash_facts(run.whole, ports(world, NOTHING, NOTHING))
    assert world.tickets.text.count("What is known of the crash") == 1


def test_the_global_stop(world: World) -> None:
    """It should ask nobody anything while the stop is set."""
    run = Run(world)
    run.open()
    world.stop = True
    assert "unlatch_stop" in refused(lambda: keep_crash_facts(run.whole, world.incident_ports)).what


# --- on real files ---------------------------------------------------------------------------------------------------


def here(argv: Sequence[str]) -> CommandAnswer:
    ran = subprocess.run(argv, capture_output=True, text=True, check=False)
    return CommandAnswer(ran.returncode, ran.stdout + ran.stderr)


def test_dumps_on_a_real_file_system(world: World, tmp_path: Path) -> None:
    """It should find dumps that are new enough, at the depth where tools put them, and nothing else."""
    crash = tmp_path / "crash"
    (crash / "127.0.0.1-2026").mkdir(parents=True)
    for name, age_s in (("127.0.0.1-2026/vmcore", -10), ("core.qemu.123", 60), ("core.old", 7200), ("notes.txt", -10)):
        (crash / name).write_text("x")
        moment = (DIED_AT - timedelta(seconds=age_s)).timestamp()
        os.utime(crash / name, (moment, moment))
    host = crash_facts._Host("hv01", here, world.clock.now() + timedelta(seconds=60), world.incident_ports)
    fact = crash_facts._dumps(host, (str(crash), str(tmp_path / "missing")), DIED_AT)
    assert fact.found is True, fact
    assert sorted(line.rsplit("/", 1)[-1] for line in fact.text.splitlines()) == ["core.qemu.123", "vmcore"]
    empty = tmp_path / "empty"
    empty.mkdir()
    fact = crash_facts._dumps(host, (str(empty), str(tmp_path / "missing")), DIED_AT)
    assert fact.found is False
    assert f"death in {empty}; core_pattern" in fact.words
    fact = crash_facts._dumps(host, (str(tmp_path / "missing"),), DIED_AT)
    assert f"in the usual places ({tmp_path}/missing)" in fact.words


def test_the_previous_boot_in_a_real_file(tmp_path: Path) -> None:
    """It should give the kernel's last lines before its last start, and none of what others wrote."""
    first = [
        "Mar  7 05:00:00 db kernel: Linux version 5.10",
        *(f"Mar  7 05:00:01 db kernel: line {n}" for n in range(500)),
    ]
    last = ["Mar  7 05:55:00 db kernel: [    0.000000] Linux version 5.10", "Mar  7 05:55:01 db kernel: up again"]
    log = tmp_path / "messages"
    log.write_text("\n".join([*first, "Mar  7 05:01:00 db sshd[1]: not the kernel", *last]) + "\n")
    script = crash_facts._shell(crash_facts._BEFORE_THE_BOOT, str(log))
    kept = here(script).output.splitlines()
    assert kept == [f"Mar  7 05:00:01 db kernel: line {n}" for n in range(100, 500)]
    log.write_text("\n".join(first[1:]) + "\n")
    assert here(script) == CommandAnswer(0, "")
    log.unlink()
    assert here(script) == CommandAnswer(1, "")


# --- texts -----------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"])), min_size=1, max_size=60),
    st.data(),
)
def test_an_excerpt_is_one_piece_around_its_centre(lines: list[str], data: st.DataObject) -> None:
    """It should keep everything that fits, in order and around what matters."""
    centre = data.draw(st.integers(0, len(lines) - 1))
    assert trimmed(lines, centre) == "\n".join(lines)
    long = [line + "x" * 3000 for line in lines]
    kept = trimmed(long, centre)
    assert len(kept.encode()) <= EXCERPT_BYTES
    whole = [line for line in kept.split("\n") if not line.endswith("are left out]")]
    assert any(whole == long[start : start + len(whole)] for start in range(centre + 1))
    assert long[centre] in whole


def test_what_is_left_out_is_said() -> None:
    """It should say how many lines are missing, on each side."""
    kept = trimmed(["y" * 1000] * 500, 250).split("\n")
    assert kept[0].endswith("lines before are left out]")
    assert kept[-1].endswith("lines behind are left out]")
    left_out = sum(int(line[1:].split(" ")[0]) for line in (kept[0], kept[-1]))
    assert left_out + len(kept) - 2 == 500


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("'vncpasswd': 'hunter2', 'x': 1", "'vncpasswd': ***, 'x': 1"),
        ("['vncpasswd', 'hunter2'], ['x', 1]", "['vncpasswd', ***], ['x', 1]"),
        ("mount -o password=hunter2,ro", "mount -o password=***,ro"),
        ("api_key: hunter2 next", "api_key: *** next"),
        ('"token": "hun ter2"}', '"token": ***}'),
        ("kernel: token ring loaded", "kernel: token ring loaded"),
    ],
)
def test_secrets_are_hidden(text: str, expected: str) -> None:
    """It should hide what follows a word for a secret, as xend's configuration dumps and kernel command lines do."""
    assert hide_secrets(text) == expected


def test_nothing_is_no_excerpt() -> None:
    """It should be empty for no lines."""
    assert trimmed([], 0) == ""
