"""Measure detection: ``python -m bench.detect``. No root, only this machine. See docs/bench.md.

Sections: `speed` (parse-log beside grep), `latency` (a line into a pipe, until its event comes out), `watch` (many
simulated hypervisors in one event loop), `killed` (10,000 crashes through kill -9 of the reader).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench import killed_reader, log_speed
from bench.watch import percentiles

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


SECTIONS: dict[str, Callable[[argparse.Namespace], dict[str, object]]] = {
    "speed": speed,
    "latency": latency,
    "watch": watch,
    "killed": killed,
}


def others_here() -> str:
    """Say why nothing is measured beside Event-Driven Ansible, or that it could be."""
    missing = [name for name in ("java", "ansible-rulebook", "ansible-playbook") if shutil.which(name) is None]
    if missing:
        return f"event to first task beside ansible-rulebook: not measured, {', '.join(missing)} not installed here"
    return "event to first task beside ansible-rulebook: all of it is here; see docs/bench.md for how it is measured"


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
    print(others_here())
    return 0


if __name__ == "__main__":
    sys.exit(main())
