"""What each command does. `unlatch.wiring` is loaded inside them, so that --help and mistakes answer at once."""

from __future__ import annotations

import argparse
import json
import os
import stat
import sys
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from unlatch.cli import output, records
from unlatch.errors import CheckFailedError, ConfigError, UnlatchError
from unlatch.models import CrashEvent


class UsageError(UnlatchError):
    """A name or value on the command line does not exist."""

    exit_code = 2


def inventory_check(options: argparse.Namespace) -> int:
    """Load and check the inventory; the errors are the loader's."""
    from unlatch import wiring  # noqa: PLC0415  # see the module's docstring

    found = wiring.load_inventory()
    counts = {
        "hypervisors": len(found.hypervisors),
        "guests": len(found.guests),
        "instances": len(found.instances),
        "volumes": len(found.volumes),
    }
    if options.json:
        print(json.dumps({"ok": True, "file": str(wiring.settings().inventory), **counts}))
    else:
        words = ", ".join(f"{count} {name if count != 1 else name[:-1]}" for name, count in counts.items())
        print(f"{wiring.settings().inventory}: correct ({words}).")
        output.show_instances(found.instances.values(), found.volumes)
    return 0


def parse_log(options: argparse.Namespace) -> int:
    """Print the deaths of a log, each as soon as it is complete."""
    from unlatch import wiring_logs  # noqa: PLC0415

    known = _inventory_if_any(options)
    hypervisor = known.hypervisors.get(options.hypervisor) if known else None
    formats = wiring_logs.crash_sources()
    if options.format != "auto" and options.format not in formats:
        raise UsageError(
            f"There is no log format {options.format!r}.",
            next_step=f"choose one of: auto, {', '.join(sorted(formats))}.",
        )
    timezone = _zone(options.tz or _declared_zone(hypervisor, options) or "UTC")
    with _opened(options.file) as stream:
        events = wiring_logs.read_crashes(
            stream,
            log_format=options.format,
            timezone=timezone,
            hypervisor=options.hypervisor or "",
            path="" if options.file == "-" else str(Path(options.file).absolute()),
            undated_at=_written_by(stream),
            ambiguous=options.ambiguous,
        )
        for event in events:
            print(json.dumps(_named(event, known, options.hypervisor), ensure_ascii=False), flush=True)
    return 0


def _inventory_if_any(options: argparse.Namespace) -> Any:
    """The inventory; None when there is none. Only one that was asked for by option must be right."""
    from unlatch import wiring_logs  # noqa: PLC0415

    if options.inventory is None and not wiring_logs.settings().inventory.exists():
        return None
    from unlatch import wiring  # noqa: PLC0415

    try:
        return wiring.load_inventory()
    except ConfigError as error:
        if options.inventory is not None:
            raise
        print(f"unlatch: guests are not named: {output.clean(error.what)}", file=sys.stderr)
        return None


def _declared_zone(hypervisor: Any, options: argparse.Namespace) -> str | None:
    """The zone of the hypervisor's logs of that format, when the inventory has exactly one."""
    logs = hypervisor.logs if hypervisor else ()
    zones = {log.timezone for log in logs if options.format in {"auto", log.format}}
    return zones.pop() if len(zones) == 1 else None


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UsageError(
            f"There is no time zone {name!r}.", next_step="give its IANA name, such as Europe/Zurich or UTC."
        ) from error
    return name


def _opened(file: str) -> Any:
    if file == "-":
        stream: BinaryIO = sys.stdin.buffer
        return nullcontext(stream)
    try:
        return Path(file).open("rb")
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be read: {error.strerror}.", next_step="give the log's path, or - for standard input."
        ) from error


def _written_by(stream: BinaryIO) -> datetime:
    """When the log was last written: no line of it is younger. Now, for one that comes through a pipe."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return datetime.now(UTC)
    return datetime.fromtimestamp(status.st_mtime, UTC) if stat.S_ISREG(status.st_mode) else datetime.now(UTC)


def _named(event: CrashEvent, known: Any, hypervisor: str | None) -> dict[str, Any]:
    """The event as JSON; its guest, and its hypervisor unless it was given, come from the inventory."""
    guest = known.guest_of(event.domain, hypervisor) if known else None
    named = replace(event, guest=guest.name if guest else None).as_dict()
    return {**named, "hypervisor": hypervisor or (guest.hypervisor if guest else None)}


def incidents(options: argparse.Namespace) -> int:
    """List the newest incidents."""
    found = records.newest(options.limit)
    if options.json:
        print(json.dumps({"incidents": found}, ensure_ascii=False))
    else:
        output.show_incidents(found)
    return 0


def show(options: argparse.Namespace) -> int:
    """Show one incident."""
    found = records.whole(options.incident)
    if found is None:
        raise UsageError(
            f"There is no incident {options.incident!r} in this store.",
            next_step="`unlatch incidents` lists them; UNLATCH_STORE_URL says which store is asked.",
        )
    if options.json:
        print(json.dumps(found, ensure_ascii=False))
    else:
        output.show_incident(found)
    return 0


def audit_verify(options: argparse.Namespace) -> int:
    """Verify the chain.

    Raises:
        CheckFailedError: it does not hold.
    """
    from unlatch import wiring  # noqa: PLC0415

    report = wiring.store().verify_audit(options.witness)
    if options.json:
        print(json.dumps({"ok": report.verified, **report.as_dict()}))
        return 0 if report.verified else CheckFailedError.exit_code
    if not report.verified:
        others = "".join(f"\n  {f.problem}" for f in report.findings if f.problem != report.problem)
        raise CheckFailedError(
            f"The audit is damaged: {report.problem}." + (f" And:{others}" if others else ""),
            next_step="keep a copy of the database as it is, and compare with the audit heads in the tickets and "
            "with earlier exports.",
        )
    if not report.rows:
        print("The audit is empty.")
        return 0
    sequence, digest = report.head
    signed = f", {report.rows - report.unsigned} of them signed" if report.unsigned < report.rows else ""
    print(f"The audit holds: {report.rows} rows{signed}, head {sequence}:{digest}")
    return 0


def audit_export(options: argparse.Namespace) -> int:
    """Print the audit."""
    from unlatch import wiring  # noqa: PLC0415

    store = wiring.store()
    for lines in store.export_csv() if options.format == "csv" else store.export():
        print(lines)
    return 0
