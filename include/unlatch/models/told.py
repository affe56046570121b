"""Who is told: the receivers of alerts that the inventory declares under `notify`."""

from __future__ import annotations

from dataclasses import dataclass

from unlatch.models.base import Value

SEVERITIES = ("info", "warning", "critical")
"""From the least to the most severe."""

EVENTS = {
    "opened": "warning",
    "waiting": "critical",
    "failed": "critical",
    "deadline": "critical",
    "ended": "info",
    "alert": "warning",
}
"""What people can be told, and how severe it is.

A crash; a question that waits for an answer; a step that failed or was refused; an objective that was missed; access
that was proven; and what belongs to no incident, such as a log that has fallen silent.
"""


@dataclass(frozen=True)
class Receiver(Value):
    """One who is told.

    Attributes:
        name: Its name in the inventory.
        by: How: `log`, `mail`, `slack`, `apprise`.
        conn_id: The Airflow connection; None: the one that Airflow's provider takes by default.
        to: Addresses or channels, as `by` needs them.
        severity: The least severe event that it is told.
        on: Only these events; all when empty.
        hours: Weekly hours in which it may be told; what happens at other times is told when they begin.
        after_s: How long an event must have gone without an answer before it is told: an escalation.
    """

    name: str
    by: str
    conn_id: str | None = None
    to: tuple[str, ...] = ()
    severity: str = "info"
    on: tuple[str, ...] = ()
    hours: tuple[str, ...] = ()
    after_s: int = 0

    def wants(self, event: str) -> bool:
        """Whether it is told of such an event at all."""
        severe = SEVERITIES.index(EVENTS[event]) >= SEVERITIES.index(self.severity)
        return severe and (not self.on or event in self.on)
