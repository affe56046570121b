"""Running the built agent so that a test can stop it at a system call."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tests.agent.agent_runner import Answer
from tests.faults import ptrace
from tests.faults.calls import Boundary

HERE = Path(__file__).parent
# In a PID namespace of its own the test's processes are remote ones for the agent, and it has few to look at.
_COMMAND = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable]


class Stop(NamedTuple):
    """What is to happen at a boundary: a kill or an errno, once or from there on."""

    at: Boundary
    answer: int
    onwards: bool = False

    @property
    def is_kill(self) -> bool:
        """Say whether the agent dies of it."""
        return self.answer in (ptrace.KILL_ALL, ptrace.KILL_THIS)

    def __str__(self) -> str:
        """Say it for people."""
        names = {ptrace.KILL_ALL: "SIGKILL to all", ptrace.KILL_THIS: "SIGKILL to the caller"}
        what = names.get(self.answer) or errno.errorcode[self.answer % ptrace.DONE_BUT]
        what = f"done but {what}" if self.answer > ptrace.DONE_BUT else what
        return f"{what}{' from there on' if self.onwards else ''} at {self.at}"


@dataclass
class Ran:
    """One run: its answer and the boundaries that it passed."""

    answer: Answer
    calls: list[Boundary]
    was_hit: bool


class StoppableAgent:
    """One warm interpreter with the built agent, that stops runs on request."""

    def __init__(self, file: Path) -> None:
        """Start it."""
        self._start([*_COMMAND, str(HERE / "stopping_agent.py"), str(file)])

    def _start(self, command: list[str]) -> None:
        self.constants: list[object] = []
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(
        self, argv: list[str], roots: dict[str, Path], *, stdin: str = "", deep: bool = False, stop: Stop | None = None
    ) -> Ran:
        """Run a verb with --json; ``roots`` has the volume and the agent's state directory."""
        request: dict[str, Any] = {
            "argv": [argv[0], "--json", *argv[1:]],
            "environment": {"UNLATCH_AGENT_STATE": str(roots["state"])},
            "roots": {name: str(path) for name, path in roots.items()},
            "stdin": stdin,
            "deep": deep,
        }
        if self.constants:
            request["faults"] = {"set": self.constants}
        if stop is not None:
            request["stop"] = {"at": stop.at, "answer": stop.answer, "onwards": stop.onwards}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the tracing process has ended"
        answer = json.loads(line)
        calls = [Boundary(*values) for values in answer["calls"]]
        return Ran(Answer(answer["code"], answer["stdout"], answer["stderr"]), calls, answer["was_hit"])

    def end(self) -> None:
        """End the interpreter."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
