"""Measure detection: ``python -m bench.detect``. No root, only this machine. See docs/bench.md.

Sections: `speed` (parse-log beside grep), `latency` (a line into a pipe, until its event comes out), `watch` (many
simulated hypervisors in one event loop), `killed` (10,000 crashes through kill -9 of the reader), `killed_airflow` (as
many through kill -9 of triggerer, scheduler and sshd of a real Airflow; needs root), `first_task` (a line, until the
first task runs in a real Airflow, beside ansible-rulebook where that is installed).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench import first_task as first_tasks
from bench import killed_airflow, killed_reader, log_speed
from bench.watch import percentiles
from lab.private_sshd import directory_for_all, missing

ROOT = Path(__file__).resolve().parent.parent
LOG_BYTES = 1_000_000_000
HYPERVISORS = 300
EVENTS = 10_000

_WATCH_LIMIT_S = 900


def speed(options: argparse.Namespace) -> dict[str, object]:
    """Beside grep."""
    with tempfile.TemporaryDirectory(prefix="unlatch-bench-", dir=options.scratch) as directory:
        log = log_speed.write_log(Path(directory), int(LOG_BYTES * options.scale))
        return log_speed.beside_grep(log, options.repeats)


def latency(options: argparse.Namespace) -> dict[str, object]:
    """Line to event."""
    return {"lines to event": percentiles(log_speed.latencies_s(max(10, int(1000 * options.scale))), 1000, "ms")}


def watch(options: argparse.Namespace) -> dict[str, object]:
    """Hundreds of hypervisors, in a process of its own: its memory is measured."""
    count = max(2, int(HYPERVISORS * options.scale))
    with tempfile.TemporaryDirectory(prefix="unlatch-bench-") as directory:
        output = Path(directory) / "watch.json"
        argv = [sys.executable, "-m", "bench.watch", "--hypervisors", str(count), "--output", str(output)]
        subprocess.run(argv, check=True, cwd=ROOT, stdout=subprocess.DEVNULL, timeout=_WATCH_LIMIT_S)
        found: dict[str, object] = {"hypervisors": count, **json.loads(output.read_text())}
        return found


def killed(options: argparse.Namespace) -> dict[str, object]:
    """Through kill -9 of the reader.

    Raises:
        RuntimeError: a crash was lost or told twice.
    """
    with tempfile.TemporaryDirectory(prefix="unlatch-bench-") as directory:
        told = killed_reader.run(Path(directory), max(100, int(EVENTS * options.scale)))
    if told.lost or told.doubled or told.unended:
        raise RuntimeError(f"crashes were lost or told twice: {told}")
    return told._asdict()


def killed_in_airflow(options: argparse.Namespace) -> dict[str, object]:
    """Through kill -9 of triggerer, scheduler and sshd.

    Raises:
        RuntimeError: a crash, or the run that it had to start, was lost or doubled.
    """
    if why := missing():
        return {"killed_airflow": f"not measured: {why}"}
    with directory_for_all() as directory:
        told = killed_airflow.run(directory, max(100, int(EVENTS * options.scale)))
    if told.lost or told.doubled or told.unended or told.runs_lost or told.runs_doubled:
        raise RuntimeError(f"crashes were lost or told twice: {told}")
    return told._asdict()


def first_task(options: argparse.Namespace) -> dict[str, object]:
    """Line to first task, in a real Airflow; beside Event-Driven Ansible where that is installed."""
    count = max(3, int(10 * options.scale))
    found: dict[str, object] = {}
    with tempfile.TemporaryDirectory(prefix="unlatch-bench-") as directory:
        to_run, to_task = zip(*first_tasks.unlatch_s(Path(directory), count), strict=True)
        found["unlatch, line to run of remediate_guest"] = first_tasks.median_words(to_run)
        found["unlatch, line to first task"] = first_tasks.median_words(to_task)
    if missing := first_tasks.rulebook_missing():
        found["ansible-rulebook"] = f"not measured: {missing} is not installed here"
        return found
    with tempfile.TemporaryDirectory(prefix="unlatch-bench-") as directory:
        seconds = first_tasks.rulebook_s(Path(directory), count)
        found["ansible-rulebook, line to first task"] = first_tasks.median_words(seconds)
    return found


SECTIONS: dict[str, Callable[[argparse.Namespace], dict[str, object]]] = {
    "speed": speed,
    "latency": latency,
    "watch": watch,
    "killed": killed,
    "killed_airflow": killed_in_airflow,
    "first_task": first_task,
}


def main() -> int:
    """Measure the sections that were asked for, print and write what came of them."""
    parser = argparse.ArgumentParser(prog="python -m bench.detect", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="1 for the real sizes, 0.01 for a quick look")
    parser.add_argument("--repeats", type=int, default=5, help="measured rounds of `speed`, after one to warm up")
    parser.add_argument("--section", action="append", choices=sorted(SECTIONS), help="only this (default: all)")
    parser.add_argument("--scratch", type=Path, default=ROOT / "var" / "bench", help="where the generated log goes")
    parser.add_argument("--output", type=Path, default=ROOT / "var" / "bench" / "detect.json")
    options = parser.parse_args()
    options.scratch.mkdir(parents=True, exist_ok=True)
    found: dict[str, object] = json.loads(options.output.read_text()) if options.output.exists() else {}
    for name in options.section or SECTIONS:
        before = os.getloadavg()[0]
        print(f"{name}:", flush=True)
        rows = SECTIONS[name](options)
        rows["scale"], rows["load before and after"] = options.scale, [round(before, 1), round(os.getloadavg()[0], 1)]
        for row, value in rows.items():
            print(f"| {row} | {value} |", flush=True)
        found[name] = rows
        options.output.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
