"""What people read: evidence, plan and outcome in Markdown, for tickets and for the question to a person."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unlatch.models import CrashEvent, Instance, Json, Plan, RemedyOption, SwappedFile, Verdict


def evidence_table(instance: str, conclusion: Verdict, planned: Plan) -> str:
    """The verdict with its evidence, the plan and the risk, in Markdown."""
    rows = [_row(e.check, e.answer, e.summary) for e in conclusion.evidence]
    steps = [_row(f"`{f.path}`", f.state, f.remedy or "—", f.why, f"{f.estimate_s:.0f} s") for f in planned.files]
    parts = [
        f"**{instance}: previous incarnation {conclusion.kind}**",
        "\n".join(f"- {_text(reason)}" for reason in _short_reasons(conclusion)),
        "| check | answer | what it saw |\n|---|---|---|\n" + "\n".join(rows),
        f"Good until {conclusion.expires_at:%H:%M:%S} UTC; what is older is asked again before anything is touched.",
        "| file | state | remedy | why | estimate |\n|---|---|---|---|---|\n" + "\n".join(steps)
        if steps
        else "No file needs a remedy.",
        *([_options(planned)] if planned.options else []),
    ]
    if planned.needs_person:
        parts.append(
            f"**A person must decide:** {planned.needs_person}.\n\n"
            "If the previous incarnation still runs somewhere, going on splits the database in two and loses data. "
            "Approve only when you know that it is dead."
        )
    return "\n\n".join(parts)


def _options(planned: Plan) -> str:
    """Which remedy comes first, and why the others do not."""
    rows = [
        _row(number if option.allowed else "—", option.remedy, option.why + _grant(option.grant), _about(option))
        for number, option in enumerate(planned.options, 1)
    ]
    return "| try | remedy for the locks | why | estimate |\n|---|---|---|---|\n" + "\n".join(rows)


def _row(*cells: object) -> str:
    """One row of a table, whatever a machine has put into its words."""
    return f"| {' | '.join(_text(str(cell)) for cell in cells)} |"


def _text(words: str) -> str:
    """A machine's words on one line, in which nothing becomes a cell, a link, an image or a tag."""
    return re.sub(r"([|\[<])", r"\\\1", " ".join(words.split()))


def _about(option: RemedyOption) -> str:
    return f"{option.estimate_s:.0f} s" if option.allowed else "not now"


def _grant(grant: str | None) -> str:
    return f" **Missing privilege; to grant it:** {grant}" if grant else ""


def remedies_tried(instance: str, tried: Sequence[Json]) -> str:
    """What the remedies without a copy did, one line each, with the grant of a privilege that was missing."""
    lines = [f"- {t['remedy']}: {t['outcome'].replace('_', ' ')}: {t['words']}{_grant(t.get('grant'))}" for t in tried]
    return f"**{instance}: remedies for the locks**\n\n" + "\n".join(lines)


def _short_reasons(conclusion: Verdict) -> list[str]:
    """The reasons without what the table below them says in full."""
    in_table = {f"{e.check}: {e.summary}": f"{e.check}: {e.answer}" for e in conclusion.evidence}
    return [in_table.get(reason, reason) for reason in conclusion.reasons]


def swap_list(swapped: tuple[SwappedFile, ...]) -> str:
    """One line per recreated file."""
    lines = [
        f"- `{s.path}`: inode {s.inode_before} → {s.inode_after}, original kept as `{s.quarantine.name}`"
        for s in swapped
    ]
    compared = "content compared" if all(s.content_equal for s in swapped) else "NOT all of them compared whole"
    return f"**Recreated, {compared}:**\n\n" + "\n".join(lines)


@dataclass(frozen=True)
class InstanceOutcome:
    """How an instance ended."""

    instance: str
    ok: bool
    refused: bool
    words: str
    quarantine: tuple[str, ...] = ()


def opening_comment(reason: str, instances: Sequence[Instance], event: CrashEvent | None, *, dry_run: bool) -> str:
    """What is known when the incident is opened."""
    parts = []
    if event is not None:
        lines = "\n".join(event.lines)
        fence = "```"
        while fence in lines:
            fence += "`"
        parts.append(
            f"`{event.domain}` on {event.hypervisor} died at {event.at:%Y-%m-%d %H:%M:%S} UTC: {event.cause}.\n\n"
            f"{fence}\n{lines}\n{fence}"
        )
    else:
        parts.append("No crash event is known: without the hypervisor's word a person will be asked.")
    if reason:
        parts.append(f"Reason given: {reason}")
    parts.append("\n".join(f"- {i.name} ({i.engine}, {i.datadir})" for i in instances) or "No instance is known.")
    if dry_run:
        parts.append("**Dry run**: nothing will be touched.")
    return "\n\n".join(parts)


def closing_comment(outcomes: Sequence[InstanceOutcome], *, dry_run: bool, until: str | None = None) -> str:
    """How the run ended, instance by instance, and what is still owed; `until`: when originals will be purged."""
    rows = [f"| {o.instance} | {'ok' if o.ok else 'NOT accessible'} | {o.words} |" for o in outcomes]
    heading = "**Dry run ended**" if dry_run else "**Run ended**"
    parts = [heading, "| instance | access | what was done |\n|---|---|---|\n" + "\n".join(rows)]
    kept = [path for o in outcomes for path in o.quarantine]
    if kept:
        listing = "\n".join(f"- `{path}`" for path in kept)
        when = f"; they are purged on {until}" if until else ""
        parts.append(f"Originals are kept in quarantine{when}:\n\n{listing}")
    return "\n\n".join(parts)


def access_words(instance: Instance, proof: Json, probed: str) -> str:
    """What a login has proven, in words."""
    parts = [
        f"**{instance.name} accepts logins** at {instance.host}:{instance.port}",
        f"{proof['user']} logged in to {proof['server_version']} in {proof['seconds']:.2f} s",
    ]
    if proof.get("table_rows_seen") is not None:
        parts.append(f"read {proof['table_rows_seen']} rows of {instance.read_table}")
    if proof.get("wrote"):
        parts.append("wrote and undid a row")
    return ", ".join(parts) + "." + (f" {probed}" if probed else "")


def purge_comment(instance: str, result: Json) -> str:
    """What was deleted of an instance, and how much space came back."""
    files = result["files"]
    if not files:
        return f"**{instance} is cleaned up**: nothing was left to delete."
    parts = [f"**{instance} is cleaned up**: {_files(len(files))} deleted, {space(result['freed_bytes'])} came back."]
    parts.append("\n".join(f"- `{file['removed']}` ({space(file['bytes_held'])})" for file in files))
    if result["not_freed_bytes"]:
        locked = "\n".join(f"- `{path}`: {why}" for path, why in result["why_not_freed"].items())
        parts.append(
            f"**{space(result['not_freed_bytes'])} did NOT come back**: the NAS keeps the space of a deleted file "
            f"until it drops the last lock on it.\n\n{locked}"
        )
    return "\n\n".join(parts)


def _files(count: int) -> str:
    return f"{count} file{'s' * (count != 1)}"


def closed_comment(cleaned: Mapping[str, Json]) -> str:
    """The last word on an incident."""
    rows = [
        f"| {name} | {len(found['files'])} | {space(found['freed_bytes'])} | {space(found['not_freed_bytes'])} |"
        for name, found in cleaned.items()
    ]
    head = "| instance | files deleted | came back | still held by a lock |\n|---|---|---|---|\n"
    return "**Closed**: every database works, and nothing of the repair is left.\n\n" + head + "\n".join(rows)


def space(count_bytes: int) -> str:
    """A number of bytes as people say it."""
    size = float(count_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:  # noqa: PLR2004  # that is what the units mean
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
