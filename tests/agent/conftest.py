"""Fixtures: the built agent under several interpreters, here and in a PID namespace of its own."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.agent.agent_runner import NOBODY, Agent, interpreter

ROOT = Path(__file__).parents[2]
ALL = ("3.6", "3.11", "3.12", "3.13")
# The long fault tests: the oldest Python that is promised, and a modern one.
FEW = ("3.6", "3.11")
_NAMESPACE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]


@pytest.fixture(scope="session")
def agent_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent as it is shipped, built once for all tests."""
    target = tmp_path_factory.mktemp("dist") / "unlatch-agent.pyz"
    subprocess.run([sys.executable, ROOT / "tools" / "build_agent.py", "--output", target], check=True)
    return target


@pytest.fixture(scope="session")
def warm(agent_file: Path) -> Iterator[Callable[[str, bool], Agent]]:
    """Agents by Python version, one warm interpreter each for the whole session."""
    agents: dict[tuple[str, bool], Agent] = {}

    def get(version: str, outside: bool) -> Agent:
        found = interpreter(version)
        if found is None:
            pytest.skip(f"no Python {version} on the PATH or among pyenv's versions")
        key = (version, outside)
        if key not in agents:
            agents[key] = Agent(found, agent_file, Path("/nonexistent"), _NAMESPACE if outside else [])
        return agents[key]

    yield get
    for agent in agents.values():
        agent.stop()


def _for_test(agent: Agent, tmp_path: Path) -> Agent:
    agent.scratch = tmp_path
    return agent


@pytest.fixture(params=ALL)
def agent(request: pytest.FixtureRequest, warm: Callable[[str, bool], Agent], tmp_path: Path) -> Agent:
    """The agent, under every interpreter."""
    return _for_test(warm(request.param, False), tmp_path)


@pytest.fixture(params=FEW)
def few_agent(request: pytest.FixtureRequest, warm: Callable[[str, bool], Agent], tmp_path: Path) -> Agent:
    """The agent, under the oldest and a modern interpreter."""
    return _for_test(warm(request.param, False), tmp_path)


@pytest.fixture
def one_agent(warm: Callable[[str, bool], Agent], tmp_path: Path) -> Agent:
    """The agent, under one interpreter."""
    return _for_test(warm("3.11", False), tmp_path)


@pytest.fixture(params=FEW)
def far_agent(request: pytest.FixtureRequest, warm: Callable[[str, bool], Agent], tmp_path: Path) -> Agent:
    """The agent in a PID namespace of its own: every process of this test is a remote one for it."""
    need_root()
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    return _for_test(warm(request.param, True), tmp_path)


@pytest.fixture
def one_far_agent(warm: Callable[[str, bool], Agent], tmp_path: Path) -> Agent:
    """The same under one interpreter."""
    need_root()
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    return _for_test(warm("3.11", True), tmp_path)


def need_root() -> None:
    """Skip a test that only root can make."""
    if os.geteuid() != 0:
        pytest.skip("needs root (namespaces, mounts, other users)")


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A directory with two database files."""
    directory = tmp_path / "volume"
    directory.mkdir()
    (directory / "ibdata1").write_bytes(os.urandom(300_000))
    (directory / "aria_log_control").write_bytes(b"aria" * 13)
    return directory


@pytest.fixture
def small_volume(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    need_root()
    directory = tmp_path / "small"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", directory], check=True)
    yield directory
    subprocess.run(["umount", directory], check=True)


@pytest.fixture
def open_volume() -> Iterator[Path]:
    """The same in a place that every user can reach, owned by the user nobody."""
    need_root()
    base = Path(tempfile.mkdtemp(prefix="unlatch-test-", dir="/var/tmp"))
    base.chmod(0o755)
    directory = base / "volume"
    directory.mkdir()
    (directory / "ibdata1").write_bytes(os.urandom(100_000))
    (directory / "aria_log_control").write_bytes(b"aria" * 13)
    for path in (directory, *directory.iterdir()):
        os.chown(path, NOBODY, NOBODY)
    (directory / "ibdata1").chmod(0o640)
    yield directory
    shutil.rmtree(base)


@pytest.fixture
def holding() -> Iterator[Callable[[Path], int]]:
    """Hold a POSIX write lock on a whole file, in this process, until the test ends."""
    descriptors: list[int] = []

    def hold(path: Path) -> int:
        descriptor = os.open(path, os.O_RDWR)
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        descriptors.append(descriptor)
        return descriptor

    yield hold
    for descriptor in descriptors:
        os.close(descriptor)
