"""`notify` of the inventory: who is told what, and when."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from unlatch import models
from unlatch.inventory.values import ConnId, Entry, Name, Text, Weekly

Event = Literal["opened", "waiting", "failed", "deadline", "ended", "alert"]


class ReceiverEntry(Entry):
    """One of `notify`."""

    by: Name
    conn_id: ConnId | None = None
    to: list[Text] = Field(default_factory=list)
    severity: Literal["info", "warning", "critical"] = "info"
    on: list[Event] = Field(default_factory=list)
    hours: list[Weekly] = Field(default_factory=list)
    after_s: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _mail_has_an_address(self) -> Self:
        if self.by == "mail" and not self.to:
            raise ValueError("needs to: at least one address")
        return self

    def model(self, name: str) -> models.Receiver:
        """The receiver."""
        return models.Receiver.from_dict({**self.model_dump(), "name": name})
