"""precompile: the copy that starts faster answers the same, under every Python, and is there whole or not at all."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.agent.agent_runner import Agent, Answer, interpreter
from tests.agent.conftest import ROOT
from tests.agent.test_prepare import wait_until

EVERY = ("3.6", "3.7", "3.8", "3.9", "3.10", "3.11", "3.12", "3.13")
NAME = re.compile(r"unlatch-agent-([0-9a-f]{12})-(cpython-\d+)-([0-9a-f]{12})\.pyz")


def started(version: str, file: Path, *argv: object, **environment: str) -> Answer:
    """Start a file as Unlatch does, under some Python."""
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} on the PATH or among pyenv's versions")
    command = [python, "-I", str(file), *map(str, argv)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    return Answer(done.returncode, done.stdout, done.stderr)


def precompiled(version: str, agent_file: Path, directory: Path, **environment: str) -> Path:
    """Make the copy."""
    directory.mkdir(exist_ok=True)
    answer = started(version, agent_file, "precompile", "--json", directory, **environment).done()
    return Path(answer.document["precompiled"]["path"])


def spoilt(copy: Path, suffix: str, directory: Path) -> Path:
    """A copy of the copy in which all files that end so hold nonsense."""
    target = directory / f"without{suffix}"
    with zipfile.ZipFile(copy) as source, zipfile.ZipFile(target, "w") as changed:
        for entry in source.infolist():
            content = b"this is )( not Python" if entry.filename.endswith(suffix) else source.read(entry)
            changed.writestr(zipfile.ZipInfo(entry.filename, entry.date_time), content)
    return target


@pytest.mark.parametrize("version", EVERY)
def test_it_answers_the_same(version: str, agent_file: Path, volume: Path, tmp_path: Path) -> None:
    """It should answer as the original does, and need no source for that: it also runs with nonsense in its place."""
    copy = precompiled(version, agent_file, tmp_path / "copies")
    words = ("check-locks", "--json", volume)
    original = started(version, agent_file, *words).done()
    assert {Path(entry["path"]).name for entry in original.files} == {"ibdata1", "aria_log_control"}
    assert started(version, copy, *words) == original
    assert started(version, spoilt(copy, ".py", tmp_path), *words) == original


@pytest.mark.parametrize(("made_by", "run_by"), [("3.6", "3.7"), ("3.7", "3.6"), ("3.11", "3.13"), ("3.12", "3.8")])
def test_another_python_takes_the_source(
    made_by: str, run_by: str, agent_file: Path, volume: Path, tmp_path: Path
) -> None:
    """It should run under a Python that was installed later, or another one, which must not need the byte code."""
    copy = precompiled(made_by, agent_file, tmp_path / "copies")
    words = ("check-locks", "--json", volume)
    assert started(run_by, copy, *words) == started(run_by, agent_file, *words)
    assert "SyntaxError" in started(run_by, spoilt(copy, ".py", tmp_path), *words).errors


@pytest.mark.parametrize("version", ["3.6", "3.11"])
def test_another_time_zone(version: str, agent_file: Path, volume: Path, tmp_path: Path) -> None:
    """It should run where the clock is another: 3.6 then takes the source, later Pythons the byte code."""
    copy = precompiled(version, agent_file, tmp_path / "copies", TZ="UTC")
    words = ("check-locks", "--json", volume)
    assert started(version, copy, *words, TZ="Asia/Tokyo") == started(version, agent_file, *words)
    broken = started(version, spoilt(copy, ".py", tmp_path), *words, TZ="Asia/Tokyo")
    assert ("SyntaxError" in broken.errors) == (version == "3.6")


@pytest.mark.parametrize("version", EVERY)
def test_a_traceback_names_the_line(version: str, agent_file: Path, tmp_path: Path) -> None:
    """It should tell of a defect as the original does: module, line and the line's text."""
    copy = precompiled(version, agent_file, tmp_path / "copies")
    script = """import sys, traceback
sys.path.insert(0, sys.argv[1])
from unlatch_agent import cli
try: cli.main(None)
except TypeError: print(traceback.format_exc())"""
    told = []
    for file in (agent_file, copy):
        command = [interpreter(version) or "", "-I", "-c", script, str(file)]
        told.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert re.search(r'agent\.pyz/unlatch_agent/cli\.py", line \d+, in main\n +root_name = ', told[1])
    assert told[0] == told[1]


def test_name_and_mode(agent: Agent, agent_file: Path, tmp_path: Path) -> None:
    """It should name the copy by both contents, let nobody write it, and start it by its own first line."""
    directory = tmp_path / "copies"
    directory.mkdir()
    answer = agent.run("precompile", directory).done().document["precompiled"]
    (copy,) = directory.iterdir()
    content = copy.read_bytes()
    name = NAME.fullmatch(copy.name)
    assert name is not None
    assert name[1] == hashlib.sha256(agent_file.read_bytes()).hexdigest()[:12]
    assert name[3] == hashlib.sha256(content).hexdigest()[:12]
    assert answer["path"] == str(copy)
    assert (answer["sha256"], answer["size_bytes"]) == (hashlib.sha256(content).hexdigest(), len(content))
    assert copy.stat().st_mode & 0o7777 == 0o555
    assert content.startswith(b"#!/usr/bin/python3 -I\n")
    with zipfile.ZipFile(copy) as archive, zipfile.ZipFile(agent_file) as original:
        names = {entry.filename for entry in original.infolist()}
        assert set(archive.namelist()) == names | {name + "c" for name in names}
        assert all(archive.read(name) == original.read(name) for name in names)
    table = agent.fresh("precompile", directory).done().text
    assert f"{name[2]}  {len(names)}" in table


def test_a_spoilt_copy_is_replaced(one_agent: Agent, tmp_path: Path) -> None:
    """It should put the right content in the place of a changed one of the same name, and leave others alone."""
    copy = Path(one_agent.run("precompile", tmp_path).done().document["precompiled"]["path"])
    content = copy.read_bytes()
    other = tmp_path / copy.name.replace("cpython-311", "cpython-36")
    other.write_text("another Python's")
    copy.unlink()
    copy.symlink_to(other)
    assert one_agent.run("precompile", tmp_path).done().document["precompiled"]["path"] == str(copy)
    assert not copy.is_symlink()
    assert copy.read_bytes() == content
    assert other.read_text() == "another Python's"


def test_a_full_disk(few_agent: Agent, small_volume: Path) -> None:
    """It should leave nothing where there is no room, and say so."""
    (small_volume / "filler").write_bytes(b"x" * 500_000)
    few_agent.run("precompile", small_volume).refused("no_space", 5)
    assert [path.name for path in small_volume.iterdir()] == ["filler"]


def test_a_kill(few_agent: Agent, tmp_path: Path) -> None:
    """It should have the whole copy in place, or nothing under such a name, wherever it is killed."""
    log = tmp_path / "log"
    few_agent.run("precompile", tmp_path, faults={"log": str(log)}).done()
    calls = log.read_text().split()
    assert calls == ["create", "rename", "sync_directory"]
    there = []
    for number in range(1, len(calls) + 1):
        for when in ("before", "after"):
            directory = tmp_path / f"{when}-{number}"
            directory.mkdir()
            assert few_agent.run("precompile", directory, faults={"kill": [number, when]}).code != 0
            found = [path for path in directory.iterdir() if not path.name.startswith(".")]
            assert all(hashlib.sha256(path.read_bytes()).hexdigest()[:12] in path.name for path in found)
            there.append(len(found))
    assert there == [0, 0, 0, 1, 1, 1]


def test_byte_code_that_is_not_taken(one_agent: Agent, tmp_path: Path) -> None:
    """It should make no copy that this Python would compile anew all the same."""
    directory = tmp_path / "copies"
    directory.mkdir()
    answer = one_agent.run("precompile", directory, faults={"set": ["bytecode", "_UNCHECKED_HASH", 0]})
    answer.refused("byte_code_not_taken", 5)
    assert not list(directory.iterdir())


def test_from_a_directory(tmp_path: Path) -> None:
    """It should ask for the one file when it runs from a directory of sources."""
    command = [sys.executable, "-m", "unlatch_agent", "precompile", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "include")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    assert done.stderr.startswith("not_one_file: ")
    assert "make agent" in done.stderr
    assert not list(tmp_path.iterdir())


def test_no_directory(one_agent: Agent, volume: Path) -> None:
    """It should refuse a place that is none."""
    one_agent.run("precompile", volume / "nowhere").refused("no_such_path", 5)
    assert one_agent.run("precompile", volume / "ibdata1").code == 2
    assert one_agent.run("precompile").code == 2


def test_a_background_job(few_agent: Agent, volume: Path, tmp_path: Path) -> None:
    """It should also copy in the background from the faster file."""
    copy = Path(few_agent.run("precompile", tmp_path).done().document["precompiled"]["path"])
    faster = Agent(few_agent.interpreter, copy, tmp_path)
    faster.fresh("prepare", "--json", "--job", "--incident", "i", volume / "ibdata1").done()

    def repair() -> dict[str, Any]:
        return faster.fresh("status", "--json", "--incident", "i", volume).done().document["repair"]

    wait_until(lambda: not repair()["job"]["running"])
    assert (repair()["state"], repair()["error"]) == ("prepared", None)


def test_a_root_command_makes_none(one_agent: Agent, tmp_path: Path) -> None:
    """It should not know this verb under the name of a root command."""
    command = tmp_path / "unlatch-openers"
    command.write_bytes(one_agent.file.read_bytes())
    renamed = Agent(one_agent.interpreter, command, tmp_path)
    assert renamed.fresh("precompile", "--json", tmp_path).code == 2
    assert {path.name for path in tmp_path.iterdir()} == {"unlatch-openers"}
