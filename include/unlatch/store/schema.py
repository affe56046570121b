"""The tables as SQLAlchemy Core sees them. The migrations create them; a test holds the two together.

Everything is text, integers and booleans: the same rows on SQLite and PostgreSQL, and an audit whose hashed bytes no
database type can round or re-order.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, Column, Dialect, Identity, Index, Integer, MetaData, Table, Text
from sqlalchemy.types import TypeDecorator

from unlatch.models import canonical_json, utc


def iso(moment: datetime) -> str:
    """UTC, always with microseconds: texts of equal length sort like the moments they name."""
    return utc(moment).isoformat(timespec="microseconds")


class Moment(TypeDecorator[datetime]):
    """An aware datetime, kept as ISO 8601 text in UTC."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:  # noqa: ARG002  # SQLAlchemy's signature
        """Text for the database."""
        return None if value is None else iso(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """The moment that the text names."""
        return None if value is None else datetime.fromisoformat(value)


class JsonText(TypeDecorator[Any]):
    """A JSON value, kept as its canonical text."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Text for the database; lone surrogates (file names that are no UTF-8) as JSON escapes, so they come back."""
        return None if value is None else canonical_json(value).encode("utf-8", "backslashreplace").decode("utf-8")

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:  # noqa: ARG002
        """The value again."""
        return None if value is None else json.loads(value)


METADATA = MetaData()

INCIDENTS = Table(
    "incidents",
    METADATA,
    Column("incident", Text, primary_key=True),
    Column("guest", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("opened_at", Moment, nullable=False),
    Column("died_at", Moment),
    Column("dry_run", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("ticket", Text),
    Column("event", JsonText),
    Index("incidents_by_time", "opened_at", "incident"),
)

INCIDENT_INSTANCES = Table(
    "incident_instances",
    METADATA,
    Column("incident", Text, primary_key=True),
    Column("instance", Text, primary_key=True),
    Column("last_step", Text, nullable=False),
    Column("last_phase", Text, nullable=False),
    Column("changed_at", Moment, nullable=False),
)

STEPS = Table(
    "steps",
    METADATA,
    Column("incident", Text, primary_key=True),
    Column("instance", Text, primary_key=True),
    Column("step", Text, primary_key=True),
    Column("phase", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("position", Integer, nullable=False),  # of its last start within the incident
    Column("started_at", Moment, nullable=False),
    Column("ended_at", Moment),
    Column("result", JsonText, nullable=False),
)

CRASH_EVENTS = Table(
    "crash_events",
    METADATA,
    Column("dedup_key", Text, primary_key=True),
    Column("hypervisor", Text, nullable=False),
    Column("domain", Text, nullable=False),
    Column("guest", Text),
    Column("at", Moment, nullable=False),
    Column("recorded_at", Moment, nullable=False),
    Column("event", JsonText, nullable=False),
    Index("crash_events_by_time", "at"),
)

CURSORS = Table(
    "cursors",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("value", JsonText, nullable=False),
    Column("moved_at", Moment, nullable=False),
)

LEASES = Table(
    "leases",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("taken_at", Moment, nullable=False),
)

AUDIT = Table(
    "audit",
    METADATA,
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("at", Text, nullable=False),  # plain text: what was hashed is what is read back
    Column("incident", Text, nullable=False),
    Column("instance", Text, nullable=False),
    Column("step", Text, nullable=False),
    Column("phase", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("actor", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("previous_hash", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Index("audit_by_incident", "incident", "sequence"),
)

SOURCES = Table(
    "sources",
    METADATA,
    Column("source", Text, primary_key=True),
    Column("hypervisor", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("since", Moment, nullable=False),  # of this state
    Column("reached_at", Moment),
    Column("line_at", Moment),
    Column("words", Text, nullable=False),
    Column("told_at", Moment),
)

REPORTS = Table(
    "reports",
    METADATA,
    Column("report", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("at", Moment, nullable=False),
    Column("title", Text, nullable=False),
    Column("content", JsonText, nullable=False),
    Index("reports_by_time", "kind", "subject", "at"),
)

DELIVERIES = Table(
    "deliveries",
    METADATA,
    Column("position", Integer, Identity(), primary_key=True),  # a sender's later message has the higher one
    Column("delivery", Text, nullable=False, unique=True),
    Column("channel", Text, nullable=False),
    Column("incident", Text, nullable=False),
    Column("instance", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("marker", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("queued_at", Moment, nullable=False),
    Column("next_at", Moment, nullable=False),
    Column("claimed_until", Moment),
    Column("delivered_at", Moment),
    Column("payload", JsonText, nullable=False),
    Column("error", Text),
    Index("deliveries_by_lane", "incident", "channel", "position"),
    Index("deliveries_due", "state", "next_at"),
)

VERSION_TABLE = "unlatch_schema"
"""Alembic's bookkeeping under a name of our own, so that the store may share a database with Airflow's tables."""
