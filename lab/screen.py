"""The demo's live picture: step by instance, with times and the phase of the copy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from rich import box
from rich.table import Table
from rich.text import Text

from unlatch.ports import StepRow

STEPS = (
    "check_locks",
    "hold_service",
    "verdict",
    "clear_locks",
    "recreate_files",
    "restart_database",
    "confirm_access",
)

_MARKS = {
    "intent": ("…", "yellow"),
    "done": ("✓", "green"),
    "failed": ("✗", "red"),
    "refused": ("⛔", "red"),
    "retry": ("↻", "yellow"),
}


def picture(
    instances: Sequence[str], rows: Sequence[StepRow], copying: Mapping[str, str], now: datetime, crashed_at: datetime
) -> Table:
    """The table as it is now.

    Args:
        instances: Names, in the order of the columns.
        rows: All steps of the incident.
        copying: Per instance, how far its copy is.
        now: The present moment.
        crashed_at: When the guest died.
    """
    elapsed = (now - crashed_at).total_seconds()
    table = Table(title=f"{elapsed:5.1f} s since the crash", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("step", no_wrap=True)
    for instance in instances:
        table.add_column(instance, min_width=14, no_wrap=True)
    by_cell = {(row.instance, row.step): row for row in rows}
    for step in STEPS:
        table.add_row(step, *(_cell(by_cell.get((name, step)), copying.get(name), now) for name in instances))
    return table


def _cell(row: StepRow | None, copying: str | None, now: datetime) -> Text:
    if row is None:
        return Text("·", style="dim")
    mark, colour = _MARKS[row.phase]
    seconds = ((row.ended_at or now) - row.started_at).total_seconds()
    words = f"{mark} {seconds:.1f} s"
    if row.step == "recreate_files" and copying:
        words += f", {copying}"
    return Text(words, style=colour)
