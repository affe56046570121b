"""The command line: what it prints for people and for programs, and how it ends."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.inventory import inventory
from tests.unit.fakes import World
from tests.unit.lanes import Run
from unlatch.cli import main
from unlatch.crash_facts import keep_crash_facts
from unlatch.errors import CheckFailedError
from unlatch.models import Answer, CrashEvent

CRASH = """\
[2014-10-18 05:54:52 4572] WARNING (image:490) domain 2130_dbvrtg4037: device model failure: pid 1619: died due to \
signal 11; see /var/log/xen/qemu-dm-2130_dbvrtg4037.log
[2014-10-18 05:54:53 4572] WARNING (XendDomainInfo:1907) Domain has crashed: name=2130_dbvrtg4037 id=2.
"""
AMBIGUOUS = "[2014-10-18 06:00:00 4572] WARNING (image:490) domain 9_other: device model failure: pid 1: died due to "
COMMANDS = [
    [], ["inventory"], ["inventory", "check"], ["parse-log"], ["incidents"], ["show"], ["audit"], ["audit", "verify"],
    ["audit", "export"], ["drill"], ["sources"], ["deliveries"], ["postmortem"], ["note"],
]  # fmt: skip


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A directory without an inventory, an environment without settings, and lines as long as they are."""
    monkeypatch.chdir(tmp_path)
    for name in ("UNLATCH_INVENTORY", "UNLATCH_STORE_URL", "UNLATCH_STORE_URL_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def lab_inventory(tmp_path: Path) -> Path:
    """The lab's inventory without its instances."""
    file = tmp_path / "lab.yaml"
    file.write_text(yaml.safe_dump(inventory({})))
    return file


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command: exit code, standard output, standard error."""

    def run(*argv: str) -> tuple[int, str, str]:
        try:
            code = main(argv)
        except SystemExit as ended:  # argparse
            code = int(ended.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


Told = Callable[..., tuple[int, str, str]]


def url(world: World) -> str:
    """The store of a world, for --store-url."""
    return str(world.store.real._database.url)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: " ".join(c) or "unlatch")
def test_every_command_has_help_with_an_example(told: Told, command: list[str]) -> None:
    """It should explain itself, with an example and the exit codes."""
    code, out, _ = told(*command, "--help")
    assert code == 0
    assert "example:\n  unlatch " in out
    assert "exit codes:" in out


@pytest.mark.parametrize(
    "argv",
    [
        [], ["nonsense"], ["audit"], ["audit", "export", "--format", "xml"], ["incidents", "--limit", "0"], ["show"],
        ["audit", "verify", "--witness", "118"], ["drill", "--guest"],
        ["parse-log", "--tz", "No/Where"], ["parse-log", "--format", "vmx"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_usage_is_2(told: Told, argv: list[str]) -> None:
    """It should end with 2 on what it does not understand, and say what to do on standard error."""
    code, out, err = told(*argv)
    assert (code, out) == (2, "")
    assert err


def test_parse_log_without_inventory(told: Told, tmp_path: Path) -> None:
    """It should print one event per line in UTC, nothing for what is ambiguous, and no guest."""
    (tmp_path / "xend.log").write_text(f"junk \x1b[31m\n{CRASH}{AMBIGUOUS}signal 11;\n")
    code, out, err = told("parse-log", "--tz", "Europe/Zurich", "xend.log")
    assert (code, err) == (0, "")
    (line,) = out.splitlines()
    event = CrashEvent.from_dict(json.loads(line))
    assert event.domain == "2130_dbvrtg4037"
    assert event.at.isoformat() == "2014-10-18T03:54:52+00:00"
    assert (event.guest, event.hypervisor, event.signal) == (None, None, 11)
    assert len(event.lines) == 2


def test_parse_log_names_the_guest(told: Told, tmp_path: Path, lab_inventory: Path) -> None:
    """It should take guest, hypervisor and zone from the inventory when there is one."""
    (tmp_path / "xend.log").write_text(CRASH)
    code, out, _ = told("parse-log", "--hypervisor", "hv01", "--inventory", str(lab_inventory), "xend.log")
    event = json.loads(out)
    assert (code, event["guest"], event["hypervisor"]) == (0, "dbvrtg4037", "hv01")
    assert event["at"] == "2014-10-18T03:54:52+00:00"
    _, out, _ = told("parse-log", "--hypervisor", "hv02", "--inventory", str(lab_inventory), "xend.log")
    assert json.loads(out)["guest"] is None, "another hypervisor's domain of that name is another machine"


def test_parse_log_reads_standard_input(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """It should read - and no file at all as standard input, also bytes that are no text."""
    for arguments in ([], ["-"]):
        stream = io.TextIOWrapper(io.BytesIO(b"\xff\xfe\n" + CRASH.encode()))
        monkeypatch.setattr(sys, "stdin", stream)
        code, out, _ = told("parse-log", "--format", "xend", *arguments)
        assert (code, len(out.splitlines())) == (0, 1)


def test_parse_log_with_a_wrong_inventory(told: Told, tmp_path: Path) -> None:
    """It should go on without one that merely lies there, saying so; one that was asked for must be right."""
    (tmp_path / "xend.log").write_text(CRASH)
    (tmp_path / "inventory.yaml").write_text("version: 7\n")
    code, out, err = told("parse-log", "xend.log")
    assert code == 0
    assert json.loads(out)["guest"] is None
    assert "inventory.yaml:1" in err
    code, out, err = told("parse-log", "--inventory", "inventory.yaml", "xend.log")
    assert (code, out) == (5, "")
    assert "next:" in err


def test_parse_log_of_no_file(told: Told) -> None:
    """It should end with 5 and name the file."""
    code, _, err = told("parse-log", "/no/such/xend.log")
    assert code == 5
    assert "/no/such/xend.log" in err


def test_inventory_check(told: Told, lab_inventory: Path) -> None:
    """It should say that a right one is right, to people and to programs."""
    code, out, _ = told("inventory", "check", "--file", str(lab_inventory))
    assert code == 0
    assert "correct (1 hypervisor, 1 guest, 0 instances, 1 volume)" in out
    code, out, _ = told("inventory", "check", "--json", "--file", str(lab_inventory))
    assert json.loads(out) == {
        "ok": True, "file": str(lab_inventory), "hypervisors": 1, "guests": 1, "instances": 0, "volumes": 1,
    }  # fmt: skip


def test_inventory_check_of_a_wrong_one(told: Told, lab_inventory: Path) -> None:
    """It should end with 5 and name line and key; --json says the same as a document."""
    lab_inventory.write_text(lab_inventory.read_text() + "color: blue\n")
    code, out, err = told("inventory", "check", "--file", str(lab_inventory))
    assert (code, out) == (5, "")
    line = len(lab_inventory.read_text().splitlines())
    assert f"lab.yaml:{line}" in err
    assert "color" in err
    code, out, _ = told("inventory", "check", "--file", str(lab_inventory), "--json")
    assert code == 5
    assert "color" in json.loads(out)["error"]["message"]


def test_option_wins_over_the_environment_for_one_command(
    told: Told, monkeypatch: pytest.MonkeyPatch, lab_inventory: Path
) -> None:
    """It should use --file although the environment says otherwise, and leave the environment as it was."""
    monkeypatch.setenv("UNLATCH_INVENTORY", "/no/such/file")
    code, _, _ = told("inventory", "check", "--file", str(lab_inventory))
    assert code == 0
    assert os.environ["UNLATCH_INVENTORY"] == "/no/such/file"


def test_incidents_and_show(told: Told, world: World) -> None:
    """It should list a finished incident, and show its steps, evidence, files and times."""
    run = Run(world, reason="a test")
    run.all()
    code, out, _ = told("incidents", "--store-url", url(world))
    assert code == 0
    assert run.incident in out
    assert "awaiting_purge" in out

    code, out, _ = told("show", run.incident, "--store-url", url(world))
    assert code == 0
    for words in ("a test", "previous incarnation dead", "hypervisor_log says dead", "/ORA/dbs03/voms/ibdata1", "→"):
        assert words in out
    for step in ("detect_crash", "recreate_files", "confirm_access", "update_ticket"):
        assert step in out


def test_incidents_and_show_as_json(told: Told, world: World) -> None:
    """It should give programs the same as one JSON document each."""
    run = Run(world)
    run.all()
    _, out, _ = told("incidents", "--json", "--store-url", url(world))
    (listed,) = json.loads(out)["incidents"]
    assert (listed["incident"], listed["state"], listed["guest"]) == (run.incident, "awaiting_purge", "dbvrtg4037")

    _, out, _ = told("show", "--json", run.incident, "--store-url", url(world))
    shown: dict[str, Any] = json.loads(out)
    assert {s["phase"] for s in shown["steps"]} == {"done"}
    (voms,) = shown["instances"]
    assert (voms["instance"], voms["verdict"], voms["access"]) == ("voms", "dead", "ok")
    files = {Path(f["path"]).name: f for f in voms["files"]}
    assert files["ibdata1"]["remedy"] == "recreate"
    assert files["ibdata1"]["inode_before"] != files["ibdata1"]["inode_after"] is not None
    assert files["server.pid"]["done"]


def test_show_of_a_refused_incident(told: Told, world: World) -> None:
    """It should show why an instance was refused, with the evidence of the sign of life."""
    world.answers["port"] = Answer.ALIVE
    run = Run(world)
    run.attempt()
    _, out, _ = told("show", run.incident, "--store-url", url(world))
    assert "refused" in out
    assert "port says alive" in out


def test_show_what_is_known_of_the_crash(told: Told, world: World) -> None:
    """It should say what was kept and why the rest was not, and leave the long texts to --json."""
    world.log_lines = ["[2026-03-07 05:54:52 4572] INFO (X:1) a line of the log"]
    run = Run(world)
    run.open()
    keep_crash_facts(run.whole, world.incident_ports)
    _, out, _ = told("show", run.incident, "--store-url", url(world))
    for words in ("What is known of the crash", "log, 60 s before and after the death", "1 lines", "kept"):
        assert words in out
    assert "a line of the log" not in out
    _, out, _ = told("show", "--json", run.incident, "--store-url", url(world))
    assert "a line of the log" in out


def test_show_of_no_incident(told: Told, world: World) -> None:
    """It should end with 2 and say where to look."""
    code, out, err = told("show", "inc-nothing", "--store-url", url(world))
    assert (code, out) == (2, "")
    assert "unlatch incidents" in err


def test_show_lets_nothing_steer_the_terminal(told: Told, world: World) -> None:
    """It should print control characters of logs and reasons as what they are not."""
    run = Run(world, reason="\x1b]0;owned\x07 [bold]not markup[/bold]")
    run.all()
    _, out, _ = told("show", run.incident, "--store-url", url(world))
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "[bold]not markup[/bold]" in out


def test_audit_verify_and_export(told: Told, world: World) -> None:
    """It should verify a whole chain, also against a witness, and export lines that chain."""
    Run(world).all()
    sequence, digest = world.store.audit_head()
    code, out, _ = told("audit", "verify", "--store-url", url(world))
    assert code == 0
    assert f"head {sequence}:{digest}" in out
    assert told("audit", "verify", "--witness", f"{sequence}:{digest}", "--store-url", url(world))[0] == 0
    code, out, _ = told("audit", "export", "--format", "jsonl", "--store-url", url(world))
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [row["sequence"] for row in rows] == list(range(1, sequence + 1))
    assert [row["previous_hash"] for row in rows[1:]] == [row["hash"] for row in rows[:-1]]


def test_audit_verify_of_a_damaged_chain(told: Told, world: World) -> None:
    """It should end with 4 and name the first row that is not as it was written."""
    Run(world).all()
    with sqlite3.connect(str(world.store.real._database.url.database)) as connection:
        for (trigger,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {trigger}")
        connection.execute("UPDATE audit SET actor = 'somebody else' WHERE sequence = 7")
    connection.close()
    code, out, err = told("audit", "verify", "--store-url", url(world))
    assert (code, out) == (CheckFailedError.exit_code, "")
    assert "row 7 was changed" in err
    code, out, _ = told("audit", "verify", "--json", "--store-url", url(world))
    assert code == 4
    report = json.loads(out)
    assert (report["ok"], report["first_bad"]) == (False, 7)


def test_audit_verify_with_a_witness_of_rows_that_are_gone(told: Told, world: World) -> None:
    """It should end with 4 when a ticket has seen more rows than there are."""
    code, _, err = told("audit", "verify", "--witness", "5:ab12", "--store-url", url(world))
    assert code == 4
    assert "rows 1 to 5 are missing" in err


def test_store_that_is_wrong(told: Told) -> None:
    """It should end with 5 and not show the URL, which may hold a password."""
    code, _, err = told("incidents", "--store-url", "oracle://scott:tiger@db/x")
    assert code == 5
    assert "tiger" not in err


def _program(*argv: str) -> list[str]:
    return [sys.executable, "-m", "unlatch.cli", *argv]


def test_starts_without_airflow(lab_inventory: Path) -> None:
    """It should not load Airflow, which takes seconds, for anything that it does."""
    script = (
        "import sys; from unlatch.cli import main\n"
        "codes = [main(argv.split()) for argv in sys.argv[1:]]\n"
        "print(codes, [m for m in ('airflow', 'paramiko', 'asyncssh') if m in sys.modules])"
    )
    commands = [f"inventory check --file {lab_inventory}", "incidents", "audit verify", "parse-log /dev/null"]
    done = subprocess.run([sys.executable, "-c", script, *commands], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "[0, 0, 0, 0] []", done.stderr


def test_reader_that_goes_away(world: World) -> None:
    """It should end quietly when its output is closed early, as `| head -1` does."""
    Run(world).all()
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        _program("audit", "export", "--store-url", url(world)), stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
