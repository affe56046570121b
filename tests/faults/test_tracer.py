"""The tracer itself: what it says that it did to a call is what the program and the disk saw."""

from __future__ import annotations

import errno
import os
import platform
import signal
from pathlib import Path

import pytest

from tests.faults import ptrace
from tests.faults.calls import CHANGING, Namer

# How the program ends: by the answer that its link() got.
_LINKED = 0
pytestmark = pytest.mark.skipif(
    platform.machine() != ptrace.MACHINE or os.geteuid() != 0, reason=f"needs root on {ptrace.MACHINE}"
)


def _linking(directory: Path, decision: int) -> int:
    """Link a file in a traced program, in a process of its own: the tracer reaps every child that it has."""
    tracing = os.fork()
    if tracing == 0:
        program = os.fork()
        if program == 0:
            ptrace.trace_me([CHANGING["linkat"].number])
            code = _LINKED
            try:
                os.link(directory / "a", directory / "b", follow_symlinks=False)
            except OSError as error:
                code = error.errno or 255
            os._exit(code)
        namer = Namer({"volume": str(directory)}, deep=False)
        status = ptrace.Tracer(lambda call: decision if namer.name(call) is not None else 0).run(program)
        os._exit(os.WTERMSIG(status) + 128 if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
    return os.waitstatus_to_exitcode(os.waitpid(tracing, 0)[1])


@pytest.mark.parametrize(
    ("decision", "code", "is_there"),
    [
        (ptrace.GO_ON, _LINKED, True),
        (errno.EIO, errno.EIO, False),
        (ptrace.DONE_BUT + errno.EEXIST, errno.EEXIST, True),
        (ptrace.KILL_THIS, 128 + signal.SIGKILL, False),
        (ptrace.KILL_ALL, 128 + signal.SIGKILL, False),
    ],
    ids=["go on", "answer", "done but", "kill this", "kill all"],
)
def test_a_decision(tmp_path: Path, decision: int, code: int, is_there: bool) -> None:
    """It should let a call happen, answer instead of it, answer after it, or end the program before it."""
    (tmp_path / "a").write_text("a")
    assert _linking(tmp_path, decision) == code
    assert (tmp_path / "b").exists() is is_there
