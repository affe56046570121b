"""`unlatch deliveries`: what must still be told to somebody, and why it was not."""

from __future__ import annotations

import argparse
import json
from typing import Any

from unlatch.cli import output
from unlatch.models import Json


def deliveries(options: argparse.Namespace) -> int:
    """List messages; with `--now`, let those that wait be tried at the next occasion."""
    from unlatch import wiring  # noqa: PLC0415  # loaded by the commands that need it

    store = wiring.store()
    if options.now:
        count = store.deliver_now(options.incident)
        print(
            json.dumps({"ok": True, "messages": count})
            if options.json
            else f"{count} messages are tried by the next run of deliver_messages, within a minute."
        )
        return 0
    found = [_shown(row) for row in store.deliveries(options.incident, waiting=not options.all)]
    if options.json:
        print(json.dumps({"deliveries": found}, ensure_ascii=False))
    else:
        output.show_deliveries(found)
    return 0


def _shown(row: Any) -> Json:
    """Without what is told: a comment is long, and a file is no text."""
    names = ("incident", "instance", "channel", "kind", "marker", "state", "attempts", "error")
    moments = ("queued_at", "next_at", "delivered_at")
    times = {name: getattr(row, name).isoformat() if getattr(row, name) else None for name in moments}
    return {**{name: getattr(row, name) for name in names}, **times}
