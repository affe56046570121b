"""Reports of re-checks and drills, and since when an incident is in its state, which they ask."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select

from unlatch.models import Report
from unlatch.store.part import Part
from unlatch.store.schema import AUDIT, REPORTS

_CHANGES = ("opened", "state")


class Reports(Part):
    """The part of the store that keeps reports."""

    def keep_report(self, report: Report) -> bool:
        """Keep a report; False when one of that id was kept before. Audited by its id, kind and title."""
        with self._database.writing() as connection:
            kept = connection.execute(
                self._database.insert(REPORTS)
                .values(**vars(report))
                .on_conflict_do_nothing(index_elements=["report"])
                .returning(REPORTS.c.report)
            ).scalar_one_or_none()
            if kept is not None:
                told = {"report": report.report, "kind": report.kind, "subject": report.subject, "title": report.title}
                self._record(connection, "", "report", told)
            return kept is not None

    def report(self, report: str) -> Report | None:
        """One report."""
        with self._database.reading() as connection:
            found = connection.execute(select(REPORTS).where(REPORTS.c.report == report)).mappings().one_or_none()
            return None if found is None else Report(**found)

    def reports(self, kind: str, subject: str | None = None, limit: int = 20) -> tuple[Report, ...]:
        """The newest reports of a kind, about one subject or all, newest first."""
        query = select(REPORTS).where(REPORTS.c.kind == kind)
        if subject is not None:
            query = query.where(REPORTS.c.subject == subject)
        query = query.order_by(REPORTS.c.at.desc(), REPORTS.c.report.desc()).limit(limit)
        with self._database.reading() as connection:
            return tuple(Report(**found) for found in connection.execute(query).mappings())

    def state_since(self, incident: str) -> datetime | None:
        """Since when an incident is in its present state, by the audit; None for one that is not known."""
        query = (
            select(AUDIT.c.at)
            .where(AUDIT.c.incident == incident, AUDIT.c.step == "", AUDIT.c.phase.in_(_CHANGES))
            .order_by(AUDIT.c.sequence.desc())
            .limit(1)
        )
        with self._database.reading() as connection:
            found = connection.execute(query).scalar_one_or_none()
            return None if found is None else datetime.fromisoformat(found)
