"""Telling people, wired: the queue of messages, and the post-mortem in the ticket."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from unlatch import deliveries, metrics, notices
from unlatch.assembly import load_inventory, notice_policy, senders, store, ticketing
from unlatch.errors import ConfigError
from unlatch.lifecycle import IncidentState
from unlatch.models import Drill, Json
from unlatch.ports import TICKET, DeliveryRow, IncidentRow, Store, Ticketing
from unlatch.postmortem import account, markup, report
from unlatch.postmortem.document import Document

FORMATS = ("md", "html", "pdf", "twiki")
_ATTACHED = {"pdf": "application/pdf", "html": "text/html"}
_COMPARED = 10
_LATELY = 20
_MEASURED = 500
_ALL_ROWS = 1_000_000

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Telling:
    """What telling needs; connections are read when something is told."""

    store: Store
    ticketing: Ticketing
    actor: str


def deliver_messages(*, actor: str) -> Json:
    """Tell everything that is due, and attach the post-mortems of incidents that were closed meanwhile.

    Returns:
        How many messages were told and how many still wait.
    """
    ports = Telling(store(), ticketing(), actor)
    notices.queue_new(store(), store(), notice_policy(), datetime.now(UTC))
    for row in store().incidents(_LATELY):
        if row.state is IncidentState.CLOSED:
            attach_postmortem(row.incident, actor=actor, ending="-closed")
    told = deliveries.deliver_everything(ports, lambda channel: _post_of(channel, ports))
    measure()
    return {"told": told, "waiting": len(store().deliveries())}


def measure() -> None:
    """Airflow's own metrics (StatsD or OpenTelemetry), where the site has them on; the first time from now on."""
    from airflow.sdk.observability import stats  # noqa: PLC0415  # Airflow is loaded where it is used

    kept = store().cursor(metrics.CURSOR)
    after = int(kept["sequence"]) if kept else store().audit_head()[0]
    while rows := store().audit_rows(after):
        for row in rows:
            for found in metrics.of_row(row, store().incident(row.incident)):
                _emit(stats, found)
        after = rows[-1].sequence
        store().set_cursor(metrics.CURSOR, {"sequence": after})
    if not kept:
        store().set_cursor(metrics.CURSOR, {"sequence": after})
    incidents = store().incidents(_MEASURED)
    kept_files = {r.incident: store().steps(r.incident) for r in incidents if r.state is IncidentState.AWAITING_PURGE}
    for found in metrics.levels(incidents, kept_files, len(store().deliveries())):
        _emit(stats, found)


def _emit(stats: Any, found: metrics.Measure) -> None:
    if found.kind == "count":
        stats.incr(found.name, int(found.value), tags=dict(found.tags))
    elif found.kind == "time":
        stats.timing(found.name, timedelta(seconds=found.value), tags=dict(found.tags))
    else:
        stats.gauge(found.name, found.value, tags=dict(found.tags))


def tell_people(*, actor: str) -> None:
    """Tell at once who wants to know what has just happened. It never raises, and nothing that is done waits for it."""
    try:
        ports = Telling(store(), ticketing(), actor)
        notices.queue_new(store(), store(), notice_policy(), datetime.now(UTC))
        for channel, incident in store().lanes_due():
            if channel != TICKET:
                deliveries.deliver(channel, incident, ports, _post_of(channel, ports))
    except Exception:  # noqa: BLE001  # see the docstring
        _log.exception("People could not be told now; the next run of deliver_messages tells them.")


def _post_of(channel: str, ports: Telling) -> Callable[[DeliveryRow], None]:
    if channel == TICKET:
        return deliveries.ticket_post(ports)
    return notices.post_of(channel, store(), notice_policy().receivers, senders())


def attach_postmortem(incident: str, *, actor: str, ending: str = "") -> None:
    """Attach the post-mortem to the ticket, once per `ending`. It never raises: a repair does not fail for a report."""
    done = f"postmortem:{incident}{ending}"
    try:
        row = store().incident(incident)
        if row is None or row.dry_run or store().cursor(done) is not None:
            return
        ports = Telling(store(), ticketing(), actor)
        for kind, content_type in _ATTACHED.items():
            name, content = f"postmortem-{incident}{ending}.{kind}", postmortem(incident, kind)
            deliveries.attach_to_ticket(incident, ports, file_name=name, content=content, content_type=content_type)
        store().set_cursor(done, {"at": datetime.now(UTC).isoformat()})
    except Exception:  # noqa: BLE001  # see the docstring
        _log.exception("The post-mortem of %s could not be attached; `unlatch postmortem` writes it.", incident)


def postmortem(incident: str, kind: str) -> bytes:
    """The post-mortem in one of `FORMATS`.

    Raises:
        CheckFailedError: the audit has nothing of that incident, or a row is damaged.
    """
    found = _account(incident)
    document = report.write(found, _zone(), _past(incident), _missing_in_drill(found.guest))
    if kind == "pdf":
        from unlatch.postmortem.pdf import pdf  # noqa: PLC0415  # a quarter of a second that the other formats save

        return pdf(document, found.last_at)
    return _TEXTS[kind](document).encode()


_TEXTS: dict[str, Callable[[Document], str]] = {
    "md": markup.markdown,
    "html": markup.html,
    "twiki": markup.twiki,
}


def _account(incident: str) -> account.Account:
    return account.read(incident, store().audit_rows(incident=incident, limit=_ALL_ROWS))


def _past(incident: str) -> list[report.Past]:
    """The site's other incidents, newest first."""
    others = [row for row in store().incidents(_COMPARED + 1) if row.incident != incident and not row.dry_run]
    return [_as_past(row) for row in others[:_COMPARED]]


def _as_past(row: IncidentRow) -> report.Past:
    found = _account(row.incident)
    return report.Past(row.incident, row.guest, found.began_at, found.seconds_to_access)


def _missing_in_drill(guest: str) -> list[str]:
    """What the guest's newest drill has found missing, with what grants it."""
    kept = store().reports("drill", guest, 1)
    missing = Drill.from_dict(kept[0].content["drill"]).missing if kept else ()
    return [
        f"The drill of {kept[0].at:%Y-%m-%d} misses {check.privilege}: {check.why}"
        + f": {check.grant}" * bool(check.grant)
        for check in missing
    ]


def _zone() -> tzinfo:
    """The site's; UTC without an inventory."""
    try:
        return ZoneInfo(load_inventory().site.timezone)
    except ConfigError:
        return UTC
