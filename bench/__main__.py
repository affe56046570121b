"""Measure: ``python -m bench``; as root, for loop devices and to drop caches. See docs/bench.md."""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import cases, locks, report, timing, tools, volumes

ROOT = Path(__file__).resolve().parent.parent


def machine() -> str:
    """Return what matters of this machine; no names, no paths."""
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{os.cpu_count()} cores ({cpu.group(1) if cpu else platform.machine()}), "
        f"{int(memory.group(1)) >> 20 if memory else 0} GiB, Linux {platform.release().split('-')[0]}, "
        f"Python {platform.python_version()}; load {load}"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="1 for the real sizes, 0.01 for a quick look")
    parser.add_argument("--repeats", type=int, default=3, help="measured rounds after one to warm up")
    parser.add_argument("--limit", type=float, default=60.0, metavar="SECONDS", help="time for one slow tool in a case")
    parser.add_argument("--fs", action="append", choices=sorted(volumes.MAKE), help="only on this (default: all)")
    parser.add_argument("--case", action="append", metavar="TEXT", help="only cases whose name has this text")
    parser.add_argument("--directory", type=Path, help="measure in this mounted directory (such as NFS) instead")
    parser.add_argument(
        "--scratch", type=Path, default=ROOT / "var" / "bench", help="where the loop devices' images go"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "var" / "bench" / "recreate.json")
    parser.add_argument("--picture", type=Path, default=ROOT / "var" / "bench" / "recreate.svg")
    return parser.parse_args()


def _recreate(
    case: cases.Case, fs: str, volume: Path, agent: list[str], options: argparse.Namespace
) -> list[report.Row]:
    data_bytes = int(case.data_bytes * options.scale)
    base = Path(tempfile.mkdtemp(prefix="unlatch-bench-", dir=volume))
    files = base / "files"
    files.mkdir()
    with tempfile.TemporaryDirectory(prefix="unlatch-bench-") as state:
        try:
            case.make(files, options.scale)
            tools.make_raw(files, data_bytes)
            Path(state).chmod(0o700)
            measured = timing.interleaved(
                [tools.unlatch(agent, Path(state)), *tools.others(data_bytes)],
                files,
                options.repeats,
                options.limit,
                volumes.drop_caches,
            )
        finally:
            subprocess.run(["rm", "-rf", base], check=True)
    name = case.name if options.scale == 1 else f"{case.name}, x {options.scale:g}"
    return report.rows(name, fs, measured)


def _locks(fs: str, volume: Path, agent: list[str], options: argparse.Namespace) -> list[report.Row]:
    with (
        tempfile.TemporaryDirectory(prefix="unlatch-bench-", dir=volume) as base,
        tempfile.TemporaryDirectory(prefix="unlatch-bench-") as state,
        locks.locked_files(Path(base) / "files", options.scale) as name,
    ):
        chosen = locks.tools(agent, Path(state))
        measured = timing.interleaved(chosen, Path(base) / "files", options.repeats, options.limit, lambda: None)
    return report.rows(name, fs, measured)


def _start(agent: list[str]) -> list[report.Row]:
    """Measure what any answer of the agent costs at least: the interpreter's start, and the agent's own."""
    starts = [
        tools.Tool("python3 alone", lambda _, __: [*agent[:-1], "-c", "pass"], lambda _, __: None),
        tools.Tool("unlatch --version", lambda _, __: [*agent, "--version"], lambda _, __: None),
    ]
    with tempfile.TemporaryDirectory() as base:
        return report.rows("start", "-", timing.interleaved(starts, Path(base) / "x", 5, 60.0, lambda: None))


def main() -> int:
    """Measure all that was asked for, and print and write what came of it."""
    options = _options()
    if os.geteuid() != 0:
        print("bench: needs root (loop devices, caches): sudo make bench", file=sys.stderr)
        return 5
    chosen = [case for case in cases.CASES if not options.case or any(text in case.name for text in options.case)]
    options.scratch.mkdir(parents=True, exist_ok=True)
    for old in options.scratch.glob("unlatch-agent*.pyz"):
        old.unlink()
    built = options.scratch / "unlatch-agent.pyz"
    build = [sys.executable, str(ROOT / "tools" / "build_agent.py"), "--output", str(built)]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    agent = tools.as_on_a_guest(built)
    title = f"{machine()} at the begin"
    print(title, flush=True)
    found = _start(agent)
    room_bytes = max((case.room_bytes(options.scale) for case in chosen), default=0)
    kinds = options.fs or list(volumes.MAKE)
    if options.directory is not None:
        for case in chosen:
            found += _recreate(case, tools.file_system_of(agent, options.directory), options.directory, agent, options)
        kinds = []
    else:
        print("NFS: skipped, name a mounted directory with --directory")
    for kind in kinds:
        try:
            with volumes.mounted(kind, room_bytes, options.scratch) as volume:
                for case in chosen:
                    print(f"{case.name} on {kind}", flush=True)
                    found += _recreate(case, kind, volume, agent, options)
                if kind == kinds[0] and not options.case:
                    print(f"locks on {kind}", flush=True)
                    found += _locks(kind, volume, agent, options)
        except volumes.NotHereError as reason:
            print(f"{kind}: skipped, {reason}")
    print(report.table(found))
    print(f"load at the end {os.getloadavg()[0]:.1f}")
    report.write_json(found, options.output)
    note = "" if options.scale == 1 else f", sizes x {options.scale:g}"
    options.picture.write_text(report.picture(found, f"Verified recreate beside other tools: median seconds{note}"))
    why_not = report.write_png(options.picture, options.picture.with_suffix(".png"))
    if why_not is not None:
        print(f"no PNG: {why_not}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
