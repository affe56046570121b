"""The bell of the watch: one trigger that follows the logs of all hypervisors, without a worker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from unlatch import wiring_watch


class HypervisorTrigger(BaseTrigger):  # type: ignore[misc]  # Airflow's classes carry no types for mypy here
    """Fires once: as soon as a log tells of a crash, or when it is time to move the durable positions.

    The event is `{"hypervisors": [names], "reason": text, "problems": {name: text}, "sights": {log: how it does}}`;
    see `transport.bell`. It only rings the bell: the resumed task reads everything from its own cursors.

    Args:
        logs: What `wiring_watch.watch_arguments` gives of each.
        poll_s: Pause between two looks at a log, in seconds.
        longest_wait_s: After so many seconds it fires in any case.
        most_noise_bytes: And after one hypervisor logged so many bytes without a crash.
    """

    def __init__(
        self,
        logs: Sequence[dict[str, Any]],
        *,
        poll_s: float = 0.25,
        longest_wait_s: float = 600.0,
        most_noise_bytes: int = 8 << 20,
    ) -> None:
        super().__init__()
        self.logs = list(logs)
        self.poll_s = poll_s
        self.longest_wait_s = longest_wait_s
        self.most_noise_bytes = most_noise_bytes

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class and its arguments as JSON; connections are named, never contained."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "logs": self.logs,
                "poll_s": self.poll_s,
                "longest_wait_s": self.longest_wait_s,
                "most_noise_bytes": self.most_noise_bytes,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait for the bell."""
        bell = await wiring_watch.wait_for_bell(
            self.logs,
            poll_s=self.poll_s,
            longest_wait_s=self.longest_wait_s,
            most_noise_bytes=self.most_noise_bytes,
        )
        yield TriggerEvent(bell)
