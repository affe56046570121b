"""How the logs of hypervisors are doing: one row each, and an audit row for each change."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import delete, select, update

from unlatch.models import SourceHealth, SourceState
from unlatch.store.part import Part
from unlatch.store.schema import SOURCES


class Sources(Part):
    """The part of the store that remembers how each log is doing."""

    def sources(self) -> tuple[SourceHealth, ...]:
        """What is known of every log, by name."""
        with self._database.reading() as connection:
            rows = connection.execute(select(SOURCES).order_by(SOURCES.c.source)).mappings()
            return tuple(SourceHealth(**{**row, "state": SourceState(row["state"])}) for row in rows)

    def keep_source(self, health: SourceHealth) -> None:
        """Keep how a log is doing; a state that it had not before is audited."""
        row = {name: getattr(health, name) for name in SOURCES.c.keys()}  # noqa: SIM118  # no mapping
        with self._database.writing() as connection:
            known = connection.execute(select(SOURCES.c.state).where(SOURCES.c.source == health.source))
            before = known.scalar_one_or_none()
            connection.execute(
                self._database.insert(SOURCES)
                .values(**row)
                .on_conflict_do_update(index_elements=["source"], set_={k: v for k, v in row.items() if k != "source"})
            )
            if (before or SourceState.OK) != health.state:
                detail = {"source": health.source, "before": before, "words": health.words}
                self._record(connection, "", str(health.state), detail, step="watch_source")

    def source_told(self, source: str, state: SourceState, at: datetime) -> None:
        """Remember that people were told of that state; nothing when it is another one by now."""
        with self._database.writing() as connection:
            is_it = (SOURCES.c.source == source) & (SOURCES.c.state == str(state))
            connection.execute(update(SOURCES).where(is_it).values(told_at=at))

    def forget_sources(self, but: Collection[str]) -> None:
        """Forget every log but these: what has left the inventory is nobody's sensor any more."""
        with self._database.writing() as connection:
            connection.execute(delete(SOURCES).where(SOURCES.c.source.not_in(list(but))))
