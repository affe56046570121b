"""The health of logs, as the store keeps it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from unlatch.models import SourceHealth, SourceState
from unlatch.store.sql_store import SqlStore

AT = datetime(2026, 10, 18, 3, 54, 52, tzinfo=UTC)
HEALTH = SourceHealth("hv01:xend:/x.log", "hv01", SourceState.OK, AT, "", AT, None, AT)


def test_row_comes_back_as_it_was(store: SqlStore) -> None:
    """It should keep one row per log, the newest word on it."""
    store.keep_source(HEALTH)
    away = replace(
        HEALTH, state=SourceState.UNREACHABLE, since=AT + timedelta(seconds=5), words="no route", told_at=None
    )
    store.keep_source(away)
    store.keep_source(replace(HEALTH, source="hv02:xend:/x.log", hypervisor="hv02"))
    assert store.sources()[0] == away
    assert [row.hypervisor for row in store.sources()] == ["hv01", "hv02"]
    store.source_told(away.source, SourceState.OK, AT)
    assert store.sources()[0].told_at is None, "what was told was not this state"
    store.source_told(away.source, SourceState.UNREACHABLE, AT)
    assert store.sources()[0].told_at == AT
    store.forget_sources(["hv02:xend:/x.log"])
    assert [row.hypervisor for row in store.sources()] == ["hv02"]


def test_only_changes_are_audited(store: SqlStore) -> None:
    """It should add one row to the audit per change, and none for a log that does well from the beginning."""
    away = replace(HEALTH, state=SourceState.UNREACHABLE, words="no route")
    for health in (HEALTH, HEALTH, away, away, HEALTH):
        store.keep_source(health)
    assert [(row.step, row.phase, row.incident) for row in store.audit_rows()] == [
        ("watch_source", "unreachable", ""),
        ("watch_source", "ok", ""),
    ]
    assert not store.verify_audit().problem
