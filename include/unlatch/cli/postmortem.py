"""`unlatch postmortem` and `unlatch note`: the report of an incident, and people's own words for it."""

from __future__ import annotations

import argparse
import getpass
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from unlatch.cli.commands import UsageError
from unlatch.errors import ConfigError


def postmortem(options: argparse.Namespace) -> int:
    """Write the report to a file or to standard output."""
    from unlatch import wiring_telling  # noqa: PLC0415  # loaded by the commands that need it

    _known(options.incident)
    output = Path(options.output) if options.output else None
    by_name = output.suffix.removeprefix(".") if output else ""
    kind = options.format or (by_name if by_name in wiring_telling.FORMATS else "md")
    if output is None and kind == "pdf" and sys.stdout.isatty():
        raise UsageError("A PDF is not for a terminal.", next_step="add --output FILE.pdf")
    content = wiring_telling.postmortem(options.incident, kind)
    if output is None:
        sys.stdout.buffer.write(content)
        return 0
    try:
        output.write_bytes(content)
    except OSError as error:
        raise ConfigError(
            f"{output} cannot be written: {error.strerror}.", next_step="choose another file, or make its directory."
        ) from error
    print(f"{output}: {len(content)} bytes of {kind}")
    return 0


def note(options: argparse.Namespace) -> int:
    """Keep a person's words in the audit of an incident."""
    store = _known(options.incident)
    detail: dict[str, Any] = {"words": options.words, "kind": options.kind}
    if options.at:
        detail["at"] = options.at.isoformat()
    store.note(options.incident, "", "note", "noted", actor=getpass.getuser(), detail=detail)
    print("Noted.")
    return 0


def moment(text: str) -> datetime:
    """A moment with its offset, for argparse."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no moment like 2014-10-18T10:47:00+02:00")
    return found


def _known(incident: str) -> Any:
    from unlatch import wiring  # noqa: PLC0415

    if wiring.store().incident(incident) is None:
        raise UsageError(
            f"There is no incident {incident!r} in this store.",
            next_step="`unlatch incidents` lists them; UNLATCH_STORE_URL says which store is asked.",
        )
    return wiring.store()
