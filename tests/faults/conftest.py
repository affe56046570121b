"""Fixtures: the agent that can be stopped, a volume of each kind, and the count of what was covered."""

from __future__ import annotations

import contextlib
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.faults import ptrace
from tests.faults.loop_volumes import NoVolumeError, mounted
from tests.faults.scene import Scene
from tests.faults.stoppable import StoppableAgent
from tests.faults.sweeps import Result

ROOT = Path(__file__).parents[2]


class Ground(NamedTuple):
    """A mounted file system, and an agent that sees it."""

    directory: Path
    agent: StoppableAgent


@pytest.fixture(scope="session")
def agent_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent as it is shipped."""
    if platform.machine() != ptrace.MACHINE:
        pytest.skip(f"system calls are stopped on {ptrace.MACHINE} only, this is {platform.machine()}")
    target = tmp_path_factory.mktemp("dist") / "unlatch-agent.pyz"
    subprocess.run([sys.executable, ROOT / "tools" / "build_agent.py", "--output", target], check=True)
    return target


@pytest.fixture(scope="session")
def grounds(agent_file: Path) -> Iterator[Callable[[str], Ground]]:
    """Mounted file systems by kind, each made at its first use, and an agent for each.

    An agent sees only what was mounted when its namespace was made.
    """
    with contextlib.ExitStack() as mounts, contextlib.ExitStack() as agents:
        made: dict[str, Ground] = {}

        def get(kind: str) -> Ground:
            if kind not in made:
                try:
                    directory = mounts.enter_context(mounted(kind))
                except NoVolumeError as error:
                    pytest.skip(f"no {kind} here: {error}")
                agent = StoppableAgent(agent_file)
                agents.callback(agent.end)
                made[kind] = Ground(directory, agent)
            return made[kind]

        yield get


@pytest.fixture
def make_scene(grounds: Callable[[str], Ground], tmp_path: Path) -> Iterator[Callable[[str], Scene]]:
    """Make the scene of one test on a file system."""
    made: list[Scene] = []

    def make(kind: str) -> Scene:
        ground = grounds(kind)
        base = ground.directory / tmp_path.name
        base.mkdir()
        made.append(Scene(ground.agent, base))
        return made[-1]

    yield make
    for scene in made:
        scene.close()


@pytest.fixture
def report(record_property: Callable[[str, object], None]) -> Callable[[str, str, Result], None]:
    """Count a sweep, and fail the test with all that went wrong."""

    def tell(kind: str, verb: str, result: Result) -> None:
        record_property("covered", [kind, verb, len(result.boundaries), result.stops, len(result.failures)])
        if result.failures:
            pytest.fail(f"{len(result.failures)} of {result.stops}:\n" + "\n".join(result.failures), pytrace=False)

    return tell


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was covered."""
    rows = [
        value
        for reports in (terminalreporter.stats.get("passed", []), terminalreporter.stats.get("failed", []))
        for one in reports
        for name, value in getattr(one, "user_properties", ())
        if name == "covered"
    ]
    if not rows:
        return
    terminalreporter.section("system call boundaries covered")
    for kind, verb, count, stops, failed in sorted(rows):
        terminalreporter.write_line(f"{kind:6} {verb:10} {count:5} boundaries {stops:6} stops {failed:4} failed")
    totals = [sum(row[column] for row in rows) for column in (2, 3, 4)]
    systems = ", ".join(sorted({row[0] for row in rows}))
    terminalreporter.write_line("{} boundaries, {} stops, {} failed, on {}".format(*totals, systems))
