"""Where this installation keeps its things, from environment variables.

- `UNLATCH_INVENTORY`: the inventory file (default `./inventory.yaml`);
- `UNLATCH_STORE_URL`, or `UNLATCH_STORE_URL_FILE` naming a file that holds it (default SQLite in `var/unlatch.db`);
- `UNLATCH_AUDIT_KEYS_FILE` naming a file of keys that sign the audit, or `UNLATCH_AUDIT_KEYS` itself (default none);
- `UNLATCH_TICKETS`: where file tickets go (default `var/tickets`);
- `UNLATCH_AGENT`: the built agent (default `dist/unlatch-agent.pyz`);
- `UNLATCH_CALENDAR_FILE`: labs only: a file that holds by how many seconds the calendar is ahead of the clock.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from unlatch.errors import ConfigError


@dataclass(frozen=True)
class Settings:
    """Where this installation keeps its things."""

    inventory: Path
    store_url: str
    tickets: Path
    agent: Path
    audit_keys: str = field(default="", repr=False)
    calendar_file: Path | None = None


def settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings of the environment.

    Raises:
        ConfigError: a file that should hold the store's URL, or the audit's keys, cannot be read.
    """
    url = _said(environment, "UNLATCH_STORE_URL")
    return Settings(
        inventory=Path(environment.get("UNLATCH_INVENTORY", "inventory.yaml")),
        store_url=url or f"sqlite:///{Path('var/unlatch.db').resolve()}",
        tickets=Path(environment.get("UNLATCH_TICKETS", "var/tickets")),
        agent=Path(environment.get("UNLATCH_AGENT", "dist/unlatch-agent.pyz")),
        calendar_file=Path(environment["UNLATCH_CALENDAR_FILE"]) if environment.get("UNLATCH_CALENDAR_FILE") else None,
        audit_keys=_said(environment, "UNLATCH_AUDIT_KEYS") or "",
    )


def _said(environment: Mapping[str, str], name: str) -> str | None:
    """The variable's value, else what the file has that `NAME_FILE` names."""
    said, file = environment.get(name), environment.get(f"{name}_FILE")
    if said is not None or not file:
        return said
    try:
        return Path(file).read_text().strip()
    except OSError as error:
        raise ConfigError(
            f"{name}_FILE names {file}, which cannot be read: {error.strerror}",
            next_step="correct the path, or its mode for the user that runs Airflow.",
        ) from error
