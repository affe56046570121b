"""Runs the built agent many times from one warm interpreter, and stops it at a system call.

    python stopping_agent.py AGENT.pyz

Reads one JSON request per line and answers with one JSON line. Request: {"argv", "environment", "stdin",
"roots", "deep", "stop"}; stop: {"at": [call, subject, nth, changes], "answer", "onwards"} with answer as in
:mod:`tests.faults.ptrace`. Answer: {"code", "stdout", "stderr", "calls", "was_hit"}.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import pkgutil
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.agent import warm_agent
from tests.faults import calls, ptrace


class Stop:
    """Watches one run's calls and stops it at the wished one."""

    def __init__(self, request: dict[str, Any]) -> None:
        """Take the wish."""
        stop = request.get("stop") or {}
        self._at = tuple(stop.get("at", ()))
        self._answer = stop.get("answer", ptrace.GO_ON)
        self._onwards = stop.get("onwards", False)
        self._namer = calls.Namer(request["roots"], request["deep"])
        self.seen: list[calls.Boundary] = []
        self.was_hit = False

    def decide(self, call: ptrace.Call) -> int:
        """Tell what to do with one call."""
        boundary = self._namer.name(call)
        if boundary is None:
            return ptrace.GO_ON
        self.seen.append(boundary)
        if boundary == self._at:
            self.was_hit = True
            return self._answer
        if self.was_hit and self._onwards and self._still_fails(boundary):
            return self._answer
        return ptrace.GO_ON

    def _still_fails(self, boundary: calls.Boundary) -> bool:
        same_root = boundary.subject.split("/", 1)[0] == self._at[1].split("/", 1)[0]
        # A full volume still lets go of names.
        return same_root and boundary.changes and not (self._answer == errno.ENOSPC and boundary.call == "unlink")


def run(request: dict[str, Any], agent: str) -> dict[str, Any]:
    """Run the agent once, in a traced fork."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        pid = os.fork()
        if pid == 0:
            code = 99
            try:
                ptrace.trace_me(calls.numbers(request["deep"]))
                code = warm_agent.run(request, output.fileno(), errors.fileno(), agent)
            except SystemExit as end:
                code = int(end.code or 0)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        stop = Stop(request)
        status = ptrace.Tracer(stop.decide).run(pid)
        output.seek(0)
        errors.seek(0)
        return {
            "code": os.waitstatus_to_exitcode(status),
            "stdout": output.read(),
            "stderr": errors.read(),
            "calls": stop.seen,
            "was_hit": stop.was_hit,
        }


def serve(agent: str) -> None:
    """Answer requests until standard input ends."""
    sys.path.insert(0, agent)
    import unlatch_agent  # noqa: PLC0415 (the shipped one)

    for module in pkgutil.iter_modules(unlatch_agent.__path__, "unlatch_agent."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)  # once, for all forks
    for line in sys.stdin:
        sys.stdout.write(json.dumps(run(json.loads(line), agent)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve(sys.argv[1])
