"""`unlatch deliveries`, `postmortem` and `note`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.fakes import World
from tests.unit.lanes import Run, tell_the_rest
from unlatch.cli import main
from unlatch.errors import TransientError

Told = Callable[..., tuple[int, str, str]]


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Told:
    """Runs a command: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*argv: str) -> tuple[int, str, str]:
        code = main(argv)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def silent(world: World) -> Run:
    """An incident whose ticket system went down after it was opened."""
    run = Run(world)
    run.open()
    world.tickets.down = TransientError("tickets.example.org refuses the connection")
    run.lane()
    return run


def url(world: World) -> str:
    return str(world.store.real._database.url)


def test_what_waits_is_shown(told: Told, world: World, silent: Run) -> None:
    """It should say what could not be told, to whom and why, and not print whole comments."""
    _, out, _ = told("deliveries", "--store-url", url(world))
    assert "refuses the connection" in out
    assert "previous incarnation" not in out
    found = json.loads(told("deliveries", silent.incident, "--json", "--store-url", url(world))[1])["deliveries"]
    assert {d["kind"] for d in found} == {"comment"}
    assert all(d["state"] == "waiting" for d in found)
    assert "could not be told yet" in told("show", silent.incident, "--store-url", url(world))[1]
    shown = json.loads(told("show", silent.incident, "--json", "--store-url", url(world))[1])
    assert shown["waiting_messages"] == len(found) > 2


def test_now(told: Told, world: World, silent: Run) -> None:
    """It should let everything be tried at once, and then have nothing more to show but what was told."""
    world.tickets.down = None
    assert "messages are tried" in told("deliveries", "--now", "--store-url", url(world))[1]
    assert tell_the_rest(world, 0) > 2
    assert "Nothing waits" in told("deliveries", "--store-url", url(world))[1]
    assert "delivered" in told("deliveries", "--all", "--store-url", url(world))[1]
    assert "could not be told" not in told("show", silent.incident, "--store-url", url(world))[1]


def test_postmortem(told: Told, world: World, tmp_path: Path) -> None:
    """It should write the report as text, or into a file in the format of its name."""
    run = Run(world)
    run.all()
    at = ("--store-url", url(world))
    page = tmp_path / "report.html"
    code, out, _ = told("postmortem", run.incident, "--output", str(page), *at)
    assert (code, "bytes of html" in out) == (0, True)
    assert page.read_text().startswith("<!DOCTYPE html>")
    told("postmortem", run.incident, "--output", str(tmp_path / "a"), "--format", "pdf", *at)
    assert (tmp_path / "a").read_bytes().startswith(b"%PDF")
    code, _, err = told("postmortem", run.incident, "--output", str(tmp_path / "no/a.md"), *at)
    assert (code, "cannot be written" in err) == (5, True)
    assert told("postmortem", "inc-none", *at)[0] == 2


def test_postmortem_on_standard_output(world: World) -> None:
    """It should print Markdown when nothing else is asked for, with what people have noted."""
    run = Run(world)
    run.open()
    moment = "2026-03-07T06:00:00+00:00"
    at = ["--store-url", url(world)]
    program = [sys.executable, "-m", "unlatch.cli"]
    subprocess.run([*program, "note", run.incident, "CMS called", "--at", moment, *at], check=True)
    done = subprocess.run([*program, "postmortem", run.incident, *at], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("# dbvrtg4037: voms unavailable")
    assert "06:00 - CMS called" in done.stdout
    bad = subprocess.run(
        [*program, "note", run.incident, "x", "--at", "tomorrow", *at], capture_output=True, check=False
    )
    assert bad.returncode == 2
