"""A process of its own that begins and ends steps: `python -m tests.unit.store.writer URL NAME COUNT`.

Prints the sequence of the audit's head after each step, so that whoever kills it knows what had been acknowledged.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from unlatch.store.sql_store import SqlStore


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def pause(self, seconds: float) -> None:
        raise NotImplementedError


def main(url: str, name: str, count: str) -> None:
    store = SqlStore(url, clock=SystemClock(), wait_s=60)
    store.migrate()
    for number in range(int(count)):
        store.begin("inc-1", name, f"step_{number}", actor=name, detail={"number": number})
        store.end("inc-1", name, f"step_{number}", phase="done", actor=name, result={"number": number})
        print(f"{name} {number}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
