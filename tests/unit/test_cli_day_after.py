"""`unlatch clean-up`, `close`, `recheck`, `report`: what they print, and how they end."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from unlatch import wiring_cleaning, wiring_rechecks
from unlatch.cli import main
from unlatch.errors import CheckFailedError, RefusedError
from unlatch.models import Finding, Report
from unlatch.recheck_report import recheck_report

INCIDENT = "inc-20260307-055452-dbvrtg4037"
AT = datetime(2026, 3, 9, 8, 0, tzinfo=UTC)
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command: exit code, standard output, standard error."""
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")

    def run(*argv: str) -> tuple[int, str, str]:
        code = main(list(argv))
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def cleaned(*, freed: bool = True) -> dict[str, Any]:
    file = {"path": "/x/ibdata1", "removed": "/x/.unlatch-1.orig", "bytes_held": 12 << 20, "freed": freed}
    return {
        "files": [file],
        "freed_bytes": (12 << 20) if freed else 0,
        "not_freed_bytes": 0 if freed else (12 << 20),
        "why_not_freed": {} if freed else {"/x/.unlatch-1.orig": "nas lists a lock"},
    }


@pytest.fixture
def day(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What each instance's clean-up gives, or raises; and what was asked for."""
    world: dict[str, Any] = {"voms": cleaned(), "lxr": cleaned(), "asked": []}

    def clean_up(incident: str, instance: str, *, dry_run: bool, actor: str) -> Any:
        world["asked"].append((instance, dry_run, actor.partition(":")[0]))
        print("a library logs")
        if isinstance(world[instance], Exception):
            raise world[instance]
        return world[instance]

    def close(incident: str, instances: Any, *, dry_run: bool, actor: str) -> Any:
        return {"closed": list(instances) == ["voms", "lxr"]}

    def lanes(conf: Any) -> Any:
        names = conf["instances"] or ["voms", "lxr"]
        return [{"incident": conf["incident"], "instance": name, "dry_run": conf["dry_run"]} for name in names]

    monkeypatch.setattr(wiring_cleaning, "clean_up_lanes", lanes)
    monkeypatch.setattr(wiring_cleaning, "clean_up", clean_up)
    monkeypatch.setattr(wiring_cleaning, "close_incident", close)
    return world


def test_clean_up(run: Run, day: dict[str, Any]) -> None:
    """It should tell every file and the space that came back, end with 0, and log elsewhere."""
    day["lxr"] = cleaned(freed=False)
    code, out, err = run("clean-up", INCIDENT)
    assert code == 0
    assert "still held: nas lists a lock" in out
    assert "12.0 MiB came back, 12.0 MiB only when the last lock on it is dropped. The incident is closed." in out
    assert "a library logs" in err
    assert day["asked"] == [("voms", False, "cli"), ("lxr", False, "cli")]


def test_clean_up_of_one_as_a_dry_run(run: Run, day: dict[str, Any]) -> None:
    """It should ask for that instance only, and close nothing."""
    code, out, _ = run("clean-up", INCIDENT, "--instance", "lxr", "--dry-run", "--json")
    found = json.loads(out)
    assert code == 0
    assert day["asked"] == [("lxr", True, "cli")]
    assert found["closed"] is False
    assert found["instances"]["lxr"]["freed_bytes"] == 12 << 20


def test_one_that_fails_spares_the_others(run: Run, day: dict[str, Any]) -> None:
    """It should clean up the other, tell what to do, and end with the worst exit code."""
    day["voms"] = CheckFailedError("LATE WRITER on voms.", next_step="find it.")
    code, out, err = run("clean-up", INCIDENT)
    assert code == 4
    assert "12.0 MiB came back" in out
    assert "closed" not in out
    assert "unlatch: LATE WRITER on voms.\n  next: find it." in err
    day["voms"] = RefusedError("Not before Monday.", next_step="wait.")
    code, out, _ = run("clean-up", INCIDENT, "--json")
    assert code == 3
    (error,) = json.loads(out)["errors"]
    assert error["message"] == "Not before Monday."


def test_close(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It should need a reason, and say what the incident was."""
    monkeypatch.setattr(wiring_cleaning, "close_by_hand", lambda *_, **__: {"closed": True, "was": "failed"})
    assert run("close", INCIDENT, "--reason", "done by hand")[:2] == (0, f"{INCIDENT} is closed; it was failed.\n")
    with pytest.raises(SystemExit) as caught:
        run("close", INCIDENT)
    assert caught.value.code == 2


@pytest.fixture
def monday(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What is found on the one volume; and how the report was asked for."""
    world: dict[str, Any] = {"findings": [], "asked": {}}

    def made(name: str, looked: Any, drills: Any, **asked: Any) -> Report:
        world["asked"] = {**asked, "drills": list(drills)}
        findings = tuple(Finding.from_dict(one) for each in looked.values() for one in each)
        return recheck_report(name, findings, volumes=list(looked), drilled=[], at=AT, zone="UTC")

    monkeypatch.setattr(wiring_rechecks, "volumes_to_recheck", lambda names: list(names) or ["dbs03"])
    monkeypatch.setattr(wiring_rechecks, "recheck_volume", lambda _: [f.as_dict() for f in world["findings"]])
    monkeypatch.setattr(wiring_rechecks, "guests_to_drill", lambda: ["dbvrtg4037"])
    monkeypatch.setattr(wiring_rechecks, "drill_guest", lambda *_, **__: {})
    monkeypatch.setattr(wiring_rechecks, "report_recheck", made)
    return world


def test_recheck(run: Run, monday: dict[str, Any]) -> None:
    """It should print the report, and end with 4 when there is something to do."""
    code, out, err = run("recheck")
    assert (code, "all is well" in out) == (0, True)
    assert "recheck: drill of dbvrtg4037" in err
    assert monday["asked"] == {"dry_run": False, "whole_fleet": True, "drills": ["dbvrtg4037"]}
    monday["findings"] = [Finding("leftover", "voms", "/x/\x1b[31m.orig", "ls -li /x")]
    code, out, _ = run("recheck", "dbs03", "--no-drill", "--dry-run")
    assert code == 4
    assert "ls -li /x" in out
    assert "\x1b" not in out
    assert monday["asked"] == {"dry_run": True, "whole_fleet": False, "drills": []}


def test_report(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It should list what is kept, print one in either format, and end with 2 for one that is not there."""
    kept = recheck_report("recheck-1", (), volumes=["dbs03"], drilled=[], at=AT, zone="UTC")
    monkeypatch.setattr(wiring_rechecks, "reports", lambda kind, _: (kept,) if kind == "recheck" else ())
    monkeypatch.setattr(wiring_rechecks, "report", lambda name: kept if name == "recheck-1" else None)
    assert "recheck-1" in run("report")[1]
    assert "# Re-check of Mon 2026-03-09 08:00 UTC: all is well" in run("report", "recheck-1")[1].replace("\\", "")
    assert "<h1>" in run("report", "recheck-1", "--format", "html")[1]
    assert json.loads(run("report", "recheck-1", "--format", "json")[1])["kind"] == "recheck"
    assert run("report", "recheck-2")[0] == 2


@pytest.mark.parametrize("verb", ["clean-up", "close", "recheck", "report"])
def test_help_has_an_example(run: Run, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It should show how it is used, and what the exit codes mean."""
    with pytest.raises(SystemExit) as caught:
        run(verb, "--help")
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert f"example:\n  unlatch {verb}" in shown
    assert "exit codes:" in shown
