"""A process of its own that comments: `python -m tests.contract.ticketing.commenter SYSTEM DIRECTORY TICKET NAME N`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from unlatch.discovery import load_plugins


def main(system: str, directory: str, reference: str, name: str, count: str) -> None:
    samples = importlib.import_module(f"tests.contract.ticketing.{system}")
    tickets = load_plugins("unlatch.ticketing")[system].PLUGIN(samples.settings(Path(directory)))
    for number in range(int(count)):
        tickets.comment(reference, f"{name}/{number}", f"{name} says {number}")
        tickets.comment(reference, f"shared/{number}", f"everyone says {number}")
        tickets.set_state(reference, "in progress")


if __name__ == "__main__":
    main(*sys.argv[1:])
