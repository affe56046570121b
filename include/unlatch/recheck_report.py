"""The one report of a re-check. Pure: findings in, a page out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from unlatch.models import Finding, Json, Report
from unlatch.postmortem.document import Block, Document, Grid, Heading, Paragraph
from unlatch.postmortem.markup import html, markdown
from unlatch.working_days import in_words

KIND = "recheck"


def recheck_report(
    name: str,
    findings: Sequence[Finding],
    *,
    volumes: Sequence[str],
    drilled: Sequence[Json],
    at: datetime,
    zone: str,
    subject: str = "",
) -> Report:
    """The report.

    Args:
        name: Its id.
        findings: Everything that somebody should look at.
        volumes: What was looked at.
        drilled: Per guest `{"guest", "title"}`.
        at: When.
        zone: Of the site, for people.
        subject: The volumes that were asked for; empty when all were looked at that need it.
    """
    count = len(findings)
    title = f"Re-check of {in_words(at, zone)}: " + (f"{count} finding{'s' * (count != 1)}" if count else "all is well")
    looked = f"Looked at volumes: {', '.join(volumes) or 'none, since no incident has touched any'}. "
    blocks: list[Block] = [Paragraph(looked + "The audit was verified from its first row on.")]
    for kind in dict.fromkeys(finding.kind for finding in findings):
        rows = tuple((f.subject, f.words, f.command) for f in findings if f.kind == kind)
        blocks += [Heading(kind.capitalize()), Grid(("of", "what", "what to do"), rows)]
    if drilled:
        results = tuple((str(drill["guest"]), str(drill["title"])) for drill in drilled)
        blocks += [Heading("Drill"), Grid(("guest", "result"), results)]
    page = Document(title, tuple(blocks))
    content: Json = {
        "findings": [finding.as_dict() for finding in findings],
        "volumes": list(volumes),
        "markdown": markdown(page),
        "html": html(page),
    }
    return Report(name, KIND, subject, at, title, content)
