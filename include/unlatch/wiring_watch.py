"""The facade of the watch over hypervisors: what its sensor, its trigger and `unlatch sources` call."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from unlatch import source_watch, watching
from unlatch.assembly import SystemClock, alerts, load_inventory, session_opener, store
from unlatch.crash_events import CrashSpotter
from unlatch.discovery import crash_sources
from unlatch.models import Hypervisor, HypervisorLog, Json, Sight, SourceState
from unlatch.source_health import source_name

if TYPE_CHECKING:
    from unlatch.transport.bell import FollowedLog

READ_AT_ONCE = 8
"""Hypervisors that are read at the same time."""

_LARGEST_STATE_BYTES = 64 << 10
"""What a follower need not know it is not told: it then rings for a death a moment later, or once too often."""


def read_new_crashes(bell: Mapping[str, object] | None = None) -> list[Json]:
    """Read what is new, note how the logs do; one run of `remediate_guest` per crash that needs one.

    Args:
        bell: What the trigger said; None at the beginning of a watch, which reads what nobody has read yet. The others
            begin where they were left, and ring at once.

    Returns:
        The runs, as `{"trigger_run_id", "conf"}` each.
    """
    from unlatch.transport.log_reader import PositionReader  # noqa: PLC0415  # see `unlatch.wiring`

    known, clock = load_inventory(), SystemClock()
    with ExitStack() as opened:
        ports = watching.WatchPorts(
            inventory=known,
            sources=crash_sources(),
            reader=PositionReader(session_opener(opened)),
            store=store(),
            clock=clock,
            at_once=READ_AT_ONCE,
            policy=known.policy,
            alerts=alerts(),
        )
        sights = _sights(bell)
        sights |= watching.read_logs(ports, _chosen(bell, ports))
        wanted = watching.wanted_now(ports)
    doing = source_watch.note_sights(source_watch.SourcePorts(known, store(), clock, alerts()), sights)
    _measure(doing)
    return [
        {
            "trigger_run_id": w.incident,
            "conf": {
                "guest": w.guest,
                "crashed_at": w.crashed_at.isoformat(),
                "incident": w.incident,
                "reason": w.reason,
            },
        }
        for w in wanted
    ]


def _chosen(bell: Mapping[str, object] | None, ports: watching.WatchPorts) -> Sequence[str]:
    if bell is None:
        return watching.never_read(ports)
    if bell["reason"] == "housekeeping":
        return watching.longest_unread(ports)
    named = bell["hypervisors"]
    return [str(name) for name in named] if isinstance(named, list) else []


def _sights(bell: Mapping[str, object] | None) -> dict[str, Sight]:
    found = (bell or {}).get("sights")
    return {source: Sight.from_dict(sight) for source, sight in found.items()} if isinstance(found, dict) else {}


def _measure(doing: Mapping[SourceState, int]) -> None:
    """Airflow's own metrics (StatsD or OpenTelemetry), where the site has them switched on."""
    from airflow.sdk.observability import stats  # noqa: PLC0415  # see `unlatch.wiring`

    for state in SourceState:
        stats.gauge("unlatch.sources", doing.get(state, 0), tags={"state": str(state)})


def watch_arguments() -> Json:
    """What the trigger needs: every log with its connection, format, durable position and health; how long to wait."""
    known, kept = load_inventory(), store()
    states = {health.source: health.state for health in kept.sources()}
    ports = watching.WatchPorts(known, crash_sources(), _NoReader(), kept, SystemClock())
    return {
        "logs": [
            _log_argument(hypervisor, log, states.get(source_name(hypervisor.name, log), SourceState.OK))
            for hypervisor, log in source_watch.every_log(known)
        ],
        "longest_wait_s": watching.longest_wait_s(ports, source_watch.silences(known, kept)),
    }


def _log_argument(hypervisor: Hypervisor, log: HypervisorLog, state: SourceState) -> Json:
    position = watching.position_of(store(), hypervisor, log)
    memory = {"deaths": position.get("deaths"), "parser": position.get("parser")}
    if len(json.dumps(memory)) > _LARGEST_STATE_BYTES:
        memory = {}
    return {
        "hypervisor": hypervisor.name,
        "conn_id": hypervisor.conn_id,
        "log": log.as_dict(),
        "cursor": position.get("log"),
        "state": str(state),
        **memory,
    }


class _NoReader:
    """Where nothing is to be read."""

    def read_new(self, hypervisor: Hypervisor, log: HypervisorLog, cursor: Json | None) -> tuple[list[str], Json]:
        """See `ports.LogReader`."""
        raise AssertionError(f"{log.where} of {hypervisor.name} is not read here ({cursor})")


async def wait_for_bell(logs: Sequence[Json], *, poll_s: float, longest_wait_s: float, most_noise_bytes: int) -> Json:
    """Follow all logs, as `watch_arguments` lists them, until one has something to tell; why, as JSON."""
    from unlatch.transport import bell, log_follow  # noqa: PLC0415  # see `unlatch.wiring`
    from unlatch.transport.async_shell import LocalAsyncShell  # noqa: PLC0415
    from unlatch.transport.kept_shells import kept_shells  # noqa: PLC0415

    async def here() -> LocalAsyncShell:
        return LocalAsyncShell()

    shells = kept_shells()
    machines: dict[tuple[str, bool], list[Json]] = {}
    for log in logs:
        machines.setdefault((log["hypervisor"], bool(log["log"].get("local"))), []).append(log)
    followers = [
        log_follow.HypervisorFollower(
            name,
            here if is_local else functools.partial(shells.open, its_logs[0]["conn_id"], name),
            [_followed(log) for log in its_logs],
            poll_s=poll_s,
        )
        for (name, is_local), its_logs in machines.items()
    ]
    try:
        rung = await bell.wait_for_bell(followers, longest_wait_s=longest_wait_s, most_noise_bytes=most_noise_bytes)
    except BaseException:
        await shells.close()  # the trigger is taken away, perhaps to another machine
        raise
    return rung.as_dict()


def _followed(log: Json) -> FollowedLog:
    from unlatch.transport.bell import FollowedLog  # noqa: PLC0415  # see `unlatch.wiring`
    from unlatch.transport.log_access import access_to  # noqa: PLC0415

    declared = HypervisorLog.from_dict(log["log"])
    name = log["hypervisor"]
    spotter = CrashSpotter(
        crash_sources()[declared.format],
        declared.timezone,
        name,
        str(declared.path or ""),
        deaths=log.get("deaths"),
        parser=log.get("parser"),
    )
    return FollowedLog(
        source_name(name, declared), access_to(declared), log["cursor"], spotter.hears, known=SourceState(log["state"])
    )


def sources_now() -> Json:
    """How every log does, for people and programs."""
    return source_watch.sources_now(load_inventory(), store(), SystemClock())
