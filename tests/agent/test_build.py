"""The shipped file: reproducible, built without any set-up, started by its own first line."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.agent.agent_runner import Agent, interpreter
from tests.agent.conftest import ALL, ROOT


@pytest.mark.parametrize("version", ALL)
def test_the_same_bytes_everywhere(version: str, agent_file: Path, tmp_path: Path) -> None:
    """It should build the same file, byte for byte, from a bare copy of the sources, under every Python."""
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} on the PATH or among pyenv's versions")
    (tmp_path / "tools").mkdir()
    shutil.copyfile(ROOT / "tools" / "build_agent.py", tmp_path / "tools" / "build_agent.py")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "include" / "unlatch_agent", tmp_path / "include" / "unlatch_agent", ignore=ignored)
    done = subprocess.run(
        [python, "-I", tmp_path / "tools" / "build_agent.py"], cwd="/", capture_output=True, text=True, check=True
    )
    built = tmp_path / "dist" / "unlatch-agent.pyz"
    assert done.stdout.strip() == str(built)
    assert built.read_bytes() == agent_file.read_bytes()
    assert built.stat().st_mode & 0o777 == 0o755


def test_its_own_first_line(agent_file: Path, tmp_path: Path) -> None:
    """It should run as a command, isolated from the caller's Python settings and directory."""
    if not Path("/usr/bin/python3").exists():
        pytest.skip("no /usr/bin/python3")
    (tmp_path / "json.py").write_text("raise SystemExit('wrong json')")
    environment = {"PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": str(tmp_path / "json.py")}
    done = subprocess.run(
        [agent_file, "facts", "--json"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert '"verb": "facts"' in done.stdout


def test_isolated(few_agent: Agent, volume: Path) -> None:
    """It should run with -I under every interpreter, which its first line asks for."""
    done = subprocess.run(
        [few_agent.interpreter, "-I", few_agent.file, "check-locks", volume], capture_output=True, text=True, check=True
    )
    assert "ibdata1" in done.stdout
