"""The report: description, impact, time line, where the time went, analysis, follow up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from unlatch.models import Answer, Json, VerdictKind
from unlatch.postmortem.account import NOTE, Account
from unlatch.postmortem.document import (
    Bar,
    Block,
    Bullets,
    Chart,
    Document,
    Grid,
    Heading,
    Paragraph,
    bullets,
    duration,
)
from unlatch.postmortem.durations import PHASES, of_lane, totals
from unlatch.postmortem.timeline import moments

_MINUTES_DO = timedelta(hours=3)
"""Longer incidents are told in minutes, as people do."""


@dataclass(frozen=True)
class Past:
    """Another incident of the site, for comparison."""

    incident: str
    guest: str
    died_at: datetime
    seconds_to_access: float | None


def write(account: Account, zone: tzinfo, past: Sequence[Past] = (), findings: Sequence[str] = ()) -> Document:
    """Write the report.

    Args:
        account: What happened.
        zone: The site's time zone, for all times.
        past: Other incidents.
        findings: What the newest drill has found missing, one line each.
    """
    names = ", ".join(account.instances) or "no known instance"
    return Document(
        f"{account.guest}: {names} {'(dry run)' if account.dry_run else 'unavailable'}",
        (
            Heading("Description"),
            Paragraph(_description(account, zone)),
            Heading("Impact"),
            bullets(_impact(account)),
            Heading("Time line of the incident"),
            bullets([f"{_moment(m.at, account, zone)} - {m.text}" for m in moments(account)]),
            Heading("Where the time went"),
            *_where_the_time_went(account),
            *_compared(account, past, zone),
            Heading("Analysis"),
            Bullets(tuple(_analysis(account))),
            Heading("Follow up"),
            bullets([*_follow_up(account), *findings] or ["Nothing is left to do."]),
            Paragraph(_source(account)),
        ),
    )


def chart(account: Account) -> Chart:
    """The time line chart."""
    rows = []
    for instance in account.instances:
        stretches = of_lane(account, instance)
        bars = [Bar(s.phase, _since(account, s.began), _since(account, s.ended)) for s in stretches]
        rows.append((instance, tuple(bars)))
    return Chart(tuple(rows), account.objective_s, _objective(account))


def _since(account: Account, moment: datetime) -> float:
    return (moment - account.began_at).total_seconds()


def _moment(at: datetime, account: Account, zone: tzinfo) -> str:
    """As the report of 2014 has it; with seconds where minutes would hide what came first."""
    long = (account.ended_at or account.last_at) - account.began_at > _MINUTES_DO
    return f"{at.astimezone(zone):{'%d-%b-%y %H:%M' if long else '%d-%b-%y %H:%M:%S'}}"


def _description(account: Account, zone: tzinfo) -> str:
    names = " and ".join(filter(None, [", ".join(account.instances[:-1]), *account.instances[-1:]]))
    began = account.began_at.astimezone(zone)
    subject = f"The database{'s' * (len(account.instances) != 1)} {names or '(none is known)'}"
    verb = "was" if len(account.instances) == 1 else "were"
    since = f"{subject} {verb} unavailable on {began:%A %-d %B %Y} from {_clock(began, account)}"
    ended = account.ended_at
    if ended is None:
        return f"{since} on; access was not proven until the end of this report ({zone})."
    local = ended.astimezone(zone)
    day = "" if local.date() == began.date() else f"{local:%A %-d %B %Y} "
    return f"{since} to {day}{_clock(local, account)} ({zone}), {duration(account.seconds_to_access or 0)} in all."


def _clock(at: datetime, account: Account) -> str:
    return _moment(at, account, at.tzinfo or account.began_at.tzinfo).partition(" ")[2]  # type: ignore[arg-type]


def _impact(account: Account) -> list[str]:
    lines = []
    for instance in account.instances:
        reached = account.accessible_at.get(instance)
        took = f"no access for {duration(_since(account, reached))}" if reached else "no access proven"
        owner = account.of(instance, "confirm_by_owner").get("by")
        lines.append(f"{instance}: {took}{f'; {owner} confirmed it' if owner else ''}")
    said = [row.detail for row in account.rows if row.step == NOTE and row.detail.get("kind") == "impact"]
    return lines + [str(detail["words"]) for detail in said]


def _where_the_time_went(account: Account) -> list[Block]:
    lanes = {instance: totals(of_lane(account, instance)) for instance in account.instances}
    used = [phase for phase in PHASES if any(phase in lane for lane in lanes.values())]
    rows = [(PHASES[p], *(duration(lane[p]) if p in lane else "" for lane in lanes.values())) for p in used]
    rows.append(("in all", *(duration(sum(lane.values())) for lane in lanes.values())))
    return [Grid(("phase", *lanes), tuple(rows)), chart(account), Paragraph(_objective(account))] if lanes else []


def _objective(account: Account) -> str:
    """The promise and what became of it, with what took longest."""
    took = account.seconds_to_access
    spent: dict[str, float] = {}
    for instance in account.instances:
        for phase, seconds in totals(of_lane(account, instance)).items():
            spent[phase] = max(spent.get(phase, 0.0), seconds)
    longest = max(spent, key=lambda phase: spent[phase], default=None)
    most = f" Most of it was {PHASES[longest]} ({duration(spent[longest])})." if longest else ""
    if account.objective_s is None:
        return f"From the crash to access: {duration(took) if took is not None else 'not reached'}.{most}"
    promise = f"objective {duration(account.objective_s)}"
    if took is None:
        return f"Access was not reached; {promise}.{most}"
    missed = took - account.objective_s
    judged = "met" if missed <= 0 else f"missed by {duration(missed)}"
    return f"From the crash to access: {duration(took)}; {promise}: {judged}.{most}"


def _compared(account: Account, past: Sequence[Past], zone: tzinfo) -> list[Block]:
    if not past:
        return []
    rows = [(account.incident, account.guest, f"{account.began_at.astimezone(zone):%d-%b-%y}",
             _reached(account.seconds_to_access))]  # fmt: skip
    rows += [
        (p.incident, p.guest, f"{p.died_at.astimezone(zone):%d-%b-%y}", _reached(p.seconds_to_access)) for p in past
    ]
    return [Paragraph("Beside the site's earlier incidents:"),
            Grid(("incident", "guest", "day", "crash to access"), tuple(rows))]  # fmt: skip


def _reached(seconds: float | None) -> str:
    return "not reached" if seconds is None else duration(seconds)


def _analysis(account: Account) -> list[tuple[str, tuple[str, ...]]]:
    event, items = account.event, []
    if event is not None:
        items.append((f"{event.domain} on {event.hypervisor} died: {event.cause}, as its log says:", event.lines))
    else:
        items.append(("No crash event is known: the hypervisor's word is missing.", ()))
    kept: list[Json] = next(
        (s.result.get("facts", []) for s in reversed(account.spans) if s.step == "keep_crash_facts"), []
    )
    if kept:
        items.append(
            ("What else is known of the crash:", tuple(f"{f['host']}, {f['what']}: {f['words']}" for f in kept))
        )
    for instance in account.instances:
        items += _verdict(instance, account)
        items += _files(instance, account)
        items += _tried(instance, account)
    wrong = [(s.instance or account.guest, s) for s in account.spans if s.went_wrong]
    items += [
        (f"{of}: {s.step} {'was refused' if s.phase == 'refused' else 'failed'}: {s.result.get('error', '')}", ())
        for of, s in wrong
    ]
    return items


def _verdict(instance: str, account: Account) -> list[tuple[str, tuple[str, ...]]]:
    found = account.of(instance, "verdict").get("verdict")
    if not found:
        return []
    seen = tuple(f"{e['check']}: {e['answer']}: {e['summary']}" for e in found["evidence"])
    return [(f"{instance}: the previous incarnation was {found['kind']}:", seen)]


def _files(instance: str, account: Account) -> list[tuple[str, tuple[str, ...]]]:
    files = account.of(instance, "recreate_files").get("files", [])
    lines = tuple(f"{f['path']}: inode {f['inode_before']} -> {f['inode_after']}" for f in files)
    words = (
        "its locked files were recreated: the original is renamed, which keeps the locked inode, and a file with the "
        "old name, the same content and a new, unlocked inode takes its place:"
    )
    return [(f"{instance}: {words}", lines)] if lines else []


def _tried(instance: str, account: Account) -> list[tuple[str, tuple[str, ...]]]:
    tried = [row.detail for row in account.rows if (row.instance, row.phase) == (instance, "tried")]
    lines = tuple(f"{t['remedy']}: {str(t['outcome']).replace('_', ' ')}: {t['words']}" for t in tried)
    return [(f"{instance}: what was tried without a copy, and what came of it:", lines)] if lines else []


def _follow_up(account: Account) -> list[str]:
    """What the audit itself asks for: missing privileges, failures, checks without an answer, a promise not kept."""
    todo: list[str] = []
    for row in account.rows:
        if row.phase == "tried" and row.detail.get("grant"):
            todo.append(f"Grant what {row.detail['remedy']} lacked on {row.instance}: {row.detail['grant']}")
        elif row.phase in {"failed", "refused"} and row.detail.get("next"):
            of = f" of {row.instance}" if row.instance else ""
            todo.append(f"{row.step}{of} {row.phase}: {row.detail['next']}")
    for instance in account.instances:
        verdict = account.of(instance, "verdict").get("verdict") or {}
        unknown = verdict.get("kind") == VerdictKind.UNKNOWN
        silent = [e for e in verdict.get("evidence", []) if e["answer"] == Answer.NOT_OBSERVED] if unknown else []
        todo += [f"Let {e['check']} be answered for {instance}: {e['summary']}" for e in silent]
    if account.objective_s is not None and (account.seconds_to_access or float("inf")) > account.objective_s:
        todo.append(f"The objective was missed. {_objective(account)}")
    kept = sum(
        len(_originals(account.of(i, "recreate_files"), account.of(i, "clear_locks"))) for i in account.instances
    )
    if kept and not any(s.step == "clean_up" and s.phase == "done" for s in account.spans):
        todo.append(f"{kept} originals are in quarantine until the next working day's clean-up.")
    todo += [str(r.detail["words"]) for r in account.rows if r.step == NOTE and r.detail.get("kind") == "follow-up"]
    return list(dict.fromkeys(todo))


def _originals(recreated: Json, cleared: Json) -> list[str]:
    return [*(f["quarantine"] for f in recreated.get("files", [])), *cleared.get("quarantine", [])]


def _source(account: Account) -> str:
    first, last = account.rows[0], account.rows[-1]
    return (
        f"Written by Unlatch from the audit of {account.incident}: rows {first.sequence} to {last.sequence}, the last "
        f"with the hash {last.hash}."
    )
