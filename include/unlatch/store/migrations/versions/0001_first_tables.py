"""The first tables, and triggers that let the audit only grow.

Revision ID: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create everything."""
    _incidents()
    _crash_events()
    _audit()
    if op.get_bind().dialect.name == "sqlite":
        for statement in SQLITE_GUARDS:
            op.execute(statement)
    else:
        for statement in POSTGRESQL_GUARDS:
            op.execute(statement)


def downgrade() -> None:
    """There is no way back: dropping the audit is what it is protected from."""
    raise NotImplementedError("the store's first revision cannot be undone")


def _text(name: str, *, primary_key: bool = False, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, primary_key=primary_key, nullable=nullable)


def _incidents() -> None:
    op.create_table(
        "incidents",
        _text("incident", primary_key=True),
        _text("guest"),
        _text("state"),
        _text("opened_at"),
        _text("died_at", nullable=True),
        sa.Column("dry_run", sa.Boolean, nullable=False),
        _text("reason"),
        _text("ticket", nullable=True),
        _text("event", nullable=True),
    )
    op.create_index("incidents_by_time", "incidents", ["opened_at", "incident"])
    op.create_table(
        "incident_instances",
        _text("incident", primary_key=True),
        _text("instance", primary_key=True),
        _text("last_step"),
        _text("last_phase"),
        _text("changed_at"),
    )
    op.create_table(
        "steps",
        _text("incident", primary_key=True),
        _text("instance", primary_key=True),
        _text("step", primary_key=True),
        _text("phase"),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        _text("started_at"),
        _text("ended_at", nullable=True),
        _text("result"),
    )
    op.create_table("leases", _text("name", primary_key=True), _text("owner"), _text("taken_at"))


def _crash_events() -> None:
    op.create_table(
        "crash_events",
        _text("dedup_key", primary_key=True),
        _text("hypervisor"),
        _text("domain"),
        _text("guest", nullable=True),
        _text("at"),
        _text("recorded_at"),
        _text("event"),
    )
    op.create_index("crash_events_by_time", "crash_events", ["at"])
    op.create_table("cursors", _text("name", primary_key=True), _text("value"), _text("moved_at"))


def _audit() -> None:
    op.create_table(
        "audit",
        sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
        _text("at"),
        _text("incident"),
        _text("instance"),
        _text("step"),
        _text("phase"),
        sa.Column("attempt", sa.Integer, nullable=False),
        _text("actor"),
        _text("detail"),
        _text("previous_hash"),
        _text("hash"),
    )
    op.create_index("audit_by_incident", "audit", ["incident", "sequence"])


# The append guard is more than tidiness: INSERT OR REPLACE deletes the old row without firing a DELETE trigger.
SQLITE_GUARDS = (
    """CREATE TRIGGER audit_only_appends BEFORE INSERT ON audit
       WHEN NEW.sequence IS NOT (SELECT coalesce(max(sequence), 0) + 1 FROM audit)
         OR NEW.previous_hash IS NOT coalesce((SELECT hash FROM audit ORDER BY sequence DESC LIMIT 1), '')
       BEGIN SELECT RAISE(ABORT, 'audit: a row can only be appended behind the newest one'); END""",
    """CREATE TRIGGER audit_never_updated BEFORE UPDATE ON audit
       BEGIN SELECT RAISE(ABORT, 'audit: rows cannot be changed'); END""",
    """CREATE TRIGGER audit_never_deleted BEFORE DELETE ON audit
       BEGIN SELECT RAISE(ABORT, 'audit: rows cannot be deleted'); END""",
)

# ENABLE ALWAYS: a session with session_replication_role = replica skips ordinary triggers.
POSTGRESQL_GUARDS = (
    """CREATE FUNCTION unlatch_audit_only_appends() RETURNS trigger LANGUAGE plpgsql AS $guard$
       DECLARE newest record;
       BEGIN
         EXECUTE format('SELECT sequence, hash FROM %I.%I ORDER BY sequence DESC LIMIT 1',
                        TG_TABLE_SCHEMA, TG_TABLE_NAME) INTO newest;
         IF NEW.sequence IS DISTINCT FROM coalesce(newest.sequence, 0) + 1
            OR NEW.previous_hash IS DISTINCT FROM coalesce(newest.hash, '') THEN
           RAISE EXCEPTION 'audit: a row can only be appended behind the newest one';
         END IF;
         RETURN NEW;
       END $guard$""",
    """CREATE FUNCTION unlatch_audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $guard$
       BEGIN RAISE EXCEPTION 'audit: rows cannot be changed or deleted'; END $guard$""",
    """CREATE TRIGGER audit_only_appends BEFORE INSERT ON audit
       FOR EACH ROW EXECUTE FUNCTION unlatch_audit_only_appends()""",
    """CREATE TRIGGER audit_never_changed BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
       FOR EACH STATEMENT EXECUTE FUNCTION unlatch_audit_refuse()""",
    "ALTER TABLE audit ENABLE ALWAYS TRIGGER audit_only_appends",
    "ALTER TABLE audit ENABLE ALWAYS TRIGGER audit_never_changed",
)
