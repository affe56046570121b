"""All incidents, newest first, read page by page."""

from __future__ import annotations

from collections.abc import Iterator

from unlatch.ports import IncidentRow, Store

_PAGE = 50


def every_incident(store: Store) -> Iterator[IncidentRow]:
    """Every incident; who needs only the newest stops asking."""
    before: str | None = None
    while page := store.incidents(_PAGE, before):
        yield from page
        before = page[-1].incident
