"""What is read of the audit by whoever tells of it; the store's own rows are such."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from unlatch.models.base import Json


class AuditEntry(Protocol):
    """A row of the audit. `instance` and `step` are empty where it is about the incident as a whole."""

    @property
    def sequence(self) -> int:
        """Its number."""

    @property
    def at(self) -> datetime:
        """When it was written."""

    @property
    def incident(self) -> str:
        """Whose."""

    @property
    def instance(self) -> str:
        """Of which instance."""

    @property
    def step(self) -> str:
        """Of which step."""

    @property
    def phase(self) -> str:
        """What it says of the step."""

    @property
    def actor(self) -> str:
        """Who asked for it."""

    @property
    def detail(self) -> Json:
        """What was found or done."""

    @property
    def hash(self) -> str:
        """Its hash."""
