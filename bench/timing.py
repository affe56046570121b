"""Interleaved, repeated runs: noise of a shared machine hits all tools alike."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.tools import UNLATCH, Tool

_ERROR_CHARACTERS = 500


@dataclass
class Measured:
    """One tool's runs."""

    tool: str
    seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0

    @property
    def median_s(self) -> float:
        """Return the median of its runs."""
        return statistics.median(self.seconds)


class FailedError(Exception):
    """A tool did not do its job: its time means nothing."""


def _timed(tool: Tool, files: Path, number: int) -> tuple[float, int]:
    command = tool.command(files, number)
    errors = files.with_name(files.name + ".errors")
    with errors.open("w+") as told:
        begun = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=told, env={**os.environ, **tool.environment}
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            told.seek(0)
            raise FailedError(f"{tool.name} failed ({process.returncode}): {told.read()[-_ERROR_CHARACTERS:]}")
    return seconds, usage.ru_maxrss * 1024


def interleaved(
    tools: Sequence[Tool],
    files: Path,
    repeats: int,
    limit_s: float,
    before_each: Callable[[], None],
) -> list[Measured]:
    """Run all tools in turns: one round to warm up, then the measured ones, each beginning with another tool.

    Args:
        tools: what to run.
        files: the directory to work on.
        repeats: measured rounds.
        limit_s: a tool that has run for so long sits out the further rounds; it has one measured run at least.
        before_each: called before each run, untimed.

    Raises:
        FailedError: a tool failed.
    """
    results = {tool.name: Measured(tool.name) for tool in tools}
    spent = dict.fromkeys(results, 0.0)
    number = 0
    for turn in range(repeats + 1):
        first = turn % len(tools)
        for tool in [*tools[first:], *tools[:first]]:
            if results[tool.name].seconds and spent[tool.name] > limit_s and tool.name != UNLATCH:
                continue
            number += 1
            before_each()
            seconds, peak_bytes = _timed(tool, files, number)
            tool.undo(files, number)
            spent[tool.name] += seconds
            measured = results[tool.name]
            measured.peak_bytes = max(measured.peak_bytes, peak_bytes)
            if turn:
                measured.seconds.append(seconds)
            sys.stderr.write(f"\r\x1b[K  {tool.name}: {seconds:.2f} s {'' if turn else '(warm-up)'}")
            sys.stderr.flush()
    sys.stderr.write("\r\x1b[K")
    return list(results.values())
