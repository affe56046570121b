"""Re-checks and recorded drills with real machines: the DAGs `recheck_volumes` and `drill`, and `unlatch recheck`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from unlatch import drill_history, recheck_report, rechecking
from unlatch.assembly import SystemClock, alerts, engines, host_agent, load_inventory, session_opener, store
from unlatch.drill_history import HistoryPorts
from unlatch.errors import ConfigError, RefusedError
from unlatch.models import Drill, Finding, Instance, Json, Report
from unlatch.ports import HostAgent
from unlatch.rechecking import RecheckPorts
from unlatch.site_calendar import calendar_of
from unlatch.wiring_drill import run_drill


def site_timezone() -> str:
    """The site's zone for schedules; UTC while there is no valid inventory, so that DAGs can still be parsed."""
    try:
        return load_inventory().site.timezone
    except ConfigError:
        return "UTC"


def volume_choices() -> tuple[str, ...]:
    """Suggestions for the trigger form."""
    try:
        return tuple(sorted(load_inventory().volumes))
    except ConfigError:
        return ()


def guests_to_drill(names: Sequence[str] = ()) -> list[str]:
    """Those that were asked for, or all. A name that nobody knows is told by its drill."""
    return list(dict.fromkeys(names or load_inventory().guests))


def drill_guest(guest: str, *, run: str, dry_run: bool = False) -> Json:
    """Drill one guest, keep the result, and tell what was lost since the last time.

    Returns:
        `guest`, `title`, `lost`, and what is missing as `findings`.
    """
    found = run_drill([guest])
    lost = () if dry_run else drill_history.keep_drill(found, HistoryPorts(store(), alerts()), run=run)
    counts = found.as_dict()
    title = f"{counts['ok']} ok, {counts['missing']} missing, {counts['unchecked']} not checked"
    findings = [finding.as_dict() for finding in _missing(guest, found)]
    return {"guest": guest, "title": title, "lost": [check.as_dict() for check in lost], "findings": findings}


def _missing(guest: str, found: Drill) -> Iterator[Finding]:
    for check in found.missing:
        words = f"{check.privilege}{f' ({check.path})' if check.path else ''}: {check.why}"
        yield Finding("privilege", guest, words, check.grant or f"unlatch drill --guest {guest}")


def volumes_to_recheck(names: Sequence[str] = ()) -> list[str]:
    """Those that were asked for; else those that incidents have touched since the last re-check.

    Raises:
        RefusedError: the inventory has no such volume.
    """
    known = load_inventory()
    unknown = sorted(set(names) - set(known.volumes))
    if unknown:
        raise RefusedError(
            f"There is no volume {', '.join(unknown)} in the inventory.",
            next_step=f"choose from: {', '.join(sorted(known.volumes))}.",
        )
    last = next(iter(store().reports(recheck_report.KIND, "", 1)), None)
    touched = rechecking.touched_volumes(store(), known.instances.values(), last.at if last else None)
    return list(dict.fromkeys(names or touched))


def recheck_volume(name: str) -> list[Json]:
    """Everything on a volume that somebody should look at."""
    known = load_inventory()
    on_it = [instance for instance in known.instances.values() if instance.volume == name]
    with ExitStack() as opened:
        session = session_opener(opened)

        @contextmanager
        def agent(instance: Instance) -> Iterator[HostAgent]:
            yield host_agent(known.guests[instance.guest].conn_id, instance.guest, session)

        ports = RecheckPorts(store(), agent, lambda instance: engines()[instance.engine])
        found = rechecking.look_at_volume(known.volumes[name], on_it, ports, SystemClock().now())
    return [finding.as_dict() for finding in found]


def report_recheck(
    run: str, looked: Mapping[str, Sequence[Json]], drills: Mapping[str, Json], *, dry_run: bool, whole_fleet: bool
) -> Report:
    """One report of everything, kept and sent; a dry run keeps and sends nothing.

    Args:
        run: Names this re-check; the same again is kept once.
        looked: What was found, by volume.
        drills: What `drill_guest` returned, by guest; empty for one whose drill did not end.
        dry_run: Only make it.
        whole_fleet: All touched volumes were looked at; else the next re-check does not count from this one.

    Raises:
        TransientError: nobody could be told.
    """
    known, now = load_inventory(), SystemClock().now()
    calendar = calendar_of(known.site)
    findings = [Finding.from_dict(found) for each in looked.values() for found in each]
    findings += rechecking.stuck_incidents(store(), calendar, known.policy, now)
    findings += rechecking.unwatched(store(), known.instances.values())
    findings += _audit()
    for guest, drilled in drills.items():
        if drilled:
            findings += [Finding.from_dict(found) for found in drilled["findings"]]
        else:
            findings.append(Finding("not looked at", guest, "its drill did not end", f"unlatch drill --guest {guest}"))
    made = recheck_report.recheck_report(
        f"{recheck_report.KIND}-{run}",
        tuple(findings),
        volumes=tuple(looked),
        drilled=[drill for drill in drills.values() if drill],
        at=now,
        zone=known.site.timezone,
        subject="" if whole_fleet else ",".join(looked),
    )
    if not dry_run and store().report(made.report) is None:
        alerts().alert(f"recheck:{made.report}", made.title, made.content["markdown"])
        store().keep_report(made)
    return made


def _audit() -> list[Finding]:
    report = store().verify_audit()
    return [] if report.verified else [Finding("audit", "audit", str(report.problem), "unlatch audit verify")]


def reports(kind: str, limit: int) -> tuple[Report, ...]:
    """The newest reports of a kind."""
    return store().reports(kind, None, limit)


def report(name: str) -> Report | None:
    """One report."""
    return store().report(name)
