"""Logs in memory, for the watch."""

from __future__ import annotations

from unlatch.models import Hypervisor, HypervisorLog, Json


class FakeReader:
    """See `ports.LogReader`: lines by hypervisor, read from the cursor's number on; an exception is raised."""

    def __init__(self) -> None:
        """Nothing written yet."""
        self.lines: dict[str, list[str]] = {}
        self.errors: dict[str, Exception] = {}

    def read_new(self, hypervisor: Hypervisor, _log: HypervisorLog, cursor: Json | None) -> tuple[list[str], Json]:
        """Lines behind the cursor."""
        if hypervisor.name in self.errors:
            raise self.errors[hypervisor.name]
        every = self.lines.get(hypervisor.name, [])
        return every[(cursor or {}).get("line", 0) :], {"line": len(every)}
