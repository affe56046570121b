"""The facade of `unlatch parse-log`. It loads no more than that needs, so that the command answers at once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import BinaryIO

from unlatch.crash_logs import parse_log
from unlatch.discovery import crash_sources
from unlatch.models import CrashEvent
from unlatch.settings import settings

__all__ = ["crash_sources", "settings"]


def read_crashes(
    stream: BinaryIO,
    *,
    log_format: str,
    timezone: str,
    hypervisor: str,
    path: str = "",
    undated_at: datetime | None = None,
    ambiguous: bool = False,
) -> Iterator[CrashEvent]:
    """The deaths that a log tells, for whoever has it as a file: `parse_log` with the installed formats."""
    return parse_log(
        stream,
        log_format,
        timezone,
        hypervisor,
        crash_sources(),
        path=path,
        undated_at=undated_at,
        ambiguous=ambiguous,
    )
