"""The lab from the command line: `python -m lab up`, `crash`, `status`, `down`."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from lab.errors import LabError, LabUnavailableError
from lab.lab import Lab
from lab.privilege import become_root
from lab.site import REPOSITORY

ENVIRONMENT = 5
FAILED = 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lab", description=__doc__)
    default = Path(os.environ.get("UNLATCH_LAB_ROOT") or REPOSITORY / "var/lab")
    parser.add_argument("--root", type=Path, default=default, help="the lab's directory (default: %(default)s)")
    megabytes = int(os.environ.get("LAB_VOMS_MB", "200"))
    parser.add_argument("--voms-mb", type=int, default=megabytes, help="MB of rows in voms (default: %(default)s)")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("up", help="hypervisor, guest and three databases, all running")
    crash = verbs.add_parser("crash", help="kill the guest while a writer commits, keep its locks, boot it again")
    crash.add_argument("--no-boot", action="store_true", help="leave the guest down")
    crash.add_argument("--no-locks", action="store_true", help="leave no lock and no stale pid file behind")
    verbs.add_parser("boot", help="boot the guest after crash --no-boot")
    verbs.add_parser("reset", help="fresh data, no locks of the dead, all running")
    verbs.add_parser("status", help="what runs and what is locked")
    verbs.add_parser("release", help="let the locks of the dead go, as clearing them on the storage would")
    verbs.add_parser("down", help="end everything; the data stay")
    verbs.add_parser("connections", help="the Airflow connections, as JSON with passwords")
    writer = verbs.add_parser("writer", help="the client that commits rows all the time")
    writer.add_argument("action", choices=["start", "stop", "status", "missing"])
    execute = verbs.add_parser("exec", help="run a program inside the guest")
    execute.add_argument("--user", default="root", help="as whom (default: %(default)s)")
    execute.add_argument("argv", nargs=argparse.REMAINDER, metavar="PROGRAM …")
    return parser


def _run(lab: Lab, arguments: argparse.Namespace) -> int:
    began = time.monotonic()
    match arguments.verb:
        case "crash":
            report = lab.crash(boot=not arguments.no_boot, locks=not arguments.no_locks)
            print(f"killed at {report.crashed_at:%Y-%m-%d %H:%M:%S} UTC, old boot id {report.old_boot_id}")
            for path in report.locked_files:
                print(f"  still locked: {lab.guest_path(path)}")
        case "connections":
            print(json.dumps(lab.connections(), indent=2))
            return 0
        case "exec":
            argv = arguments.argv[1:] if arguments.argv[:1] == ["--"] else arguments.argv
            return subprocess.run(lab.guest_argv(argv or ["bash", "-l"], arguments.user), check=False).returncode
        case "writer":
            return _writer(lab, arguments.action)
        case "status":
            pass
        case "release":
            lab.release_ghost()
        case verb:
            {"up": lab.up, "down": lab.down, "boot": lab.boot, "reset": lab.reset}[verb]()
    print(lab.summary())
    if arguments.verb != "status":
        print(f"{arguments.verb}: done in {time.monotonic() - began:.1f} s")
    return 0


def _writer(lab: Lab, action: str) -> int:
    writer = lab.writer()
    if action == "missing":
        missing = writer.missing_after()
        print(json.dumps({name: len(rows) for name, rows in missing.items()}))
        return FAILED if any(missing.values()) else 0
    if action != "status":
        {"start": writer.start, "stop": writer.stop}[action]()
    print(json.dumps({"running": writer.running, "acknowledged": writer.acknowledged}))
    return 0


def main() -> int:
    """Run one command and return its exit code."""
    arguments = _parser().parse_args()
    become_root("lab", ("UNLATCH_LAB_ROOT", "UNLATCH_LAB_CACHE", "LAB_VOMS_MB"))
    try:
        return _run(Lab(arguments.root, arguments.voms_mb), arguments)
    except LabUnavailableError as error:
        print(f"lab: {error}", file=sys.stderr)
        return ENVIRONMENT
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return FAILED


if __name__ == "__main__":
    sys.exit(main())
