"""`site` and `policy` of the inventory: what holds for all guests."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self

from pydantic import Field, model_validator

from unlatch import models
from unlatch.inventory.values import (
    Country,
    Entry,
    FreeDay,
    Hour,
    LockRemedy,
    Moment,
    Name,
    Positive,
    StuckState,
    Text,
    Weekly,
    Zone,
)


class StormEntry(Entry):
    """`policy.storm`."""

    events: Positive = 5
    window_s: Positive = 600


class RemediesEntry(Entry):
    """`policy.remedies`."""

    order: list[LockRemedy] = Field(default_factory=list)
    forbid: list[LockRemedy] = Field(default_factory=list)

    @model_validator(mode="after")
    def _something_is_left(self) -> Self:
        if set(self.forbid) == set(models.LOCK_REMEDIES):
            raise ValueError("forbids every remedy: then no stale lock could ever be cured")
        if len(set(self.order)) < len(self.order):
            raise ValueError("names a remedy twice in order")
        return self


class MaintenanceEntry(Entry):
    """One of `policy.maintenance`."""

    why: Text
    guests: list[Name] = Field(default_factory=list)
    hypervisors: list[Name] = Field(default_factory=list)
    volumes: list[Name] = Field(default_factory=list)
    since: Moment | None = Field(None, alias="from")
    until: Moment | None = None
    weekly: Weekly | None = None

    @model_validator(mode="after")
    def _somewhere_and_sometime(self) -> Self:
        if not (self.guests or self.hypervisors or self.volumes):
            raise ValueError("needs guests, hypervisors or volumes: what people work on")
        if self.weekly is not None and (self.since is not None or self.until is not None):
            raise ValueError("needs either from and until, or weekly, not both")
        if self.weekly is None and (self.since is None or self.until is None):
            raise ValueError("needs from and until, or weekly, as in Sun 02:00-04:00")
        if self.since and self.until and datetime.fromisoformat(self.until) <= datetime.fromisoformat(self.since):
            raise ValueError("needs an until that is later than its from")
        return self


class PolicyEntry(Entry):
    """`policy`."""

    storm: StormEntry = StormEntry()
    remedies: RemediesEntry = RemediesEntry()
    max_event_age_s: Positive = 3600
    guest_return_s: Positive = 900
    repairs_per_volume: Positive = 2
    repairs_at_once: Positive = 8
    repairs_per_guest_day: Positive = 3
    incidents_per_guest_hour: Positive = 6
    maintenance: list[MaintenanceEntry] = Field(default_factory=list)
    approval_timeout_s: Positive = 3600
    evidence_life_s: Annotated[int, Field(ge=10, le=900)] = 120
    objective_s: Positive = 900
    stuck_after_s: dict[StuckState, Positive] = Field(default_factory=dict)
    service_hours: list[Weekly] = Field(default_factory=list)
    act_outside_hours: bool = True

    def model(self, timezone: str = "UTC") -> models.Policy:
        """The policy; weekly hours are those of the site's clock."""
        zone = {"timezone": timezone} if self.service_hours else {}
        windows = [{**window.model_dump(), "timezone": timezone} for window in self.maintenance]
        return models.Policy.from_dict({**self.model_dump(), "maintenance": windows, **zone})


class SiteEntry(Entry):
    """`site`."""

    timezone: Zone = "UTC"
    country: Country | None = None
    region: Text | None = None
    holidays: list[FreeDay] = Field(default_factory=list)
    clean_up_at: Hour = "09:00"
    ticketing: Name = "file"

    @model_validator(mode="after")
    def _holidays_are_known(self) -> Self:
        """A country that nobody knows would have no holidays, and files would be deleted on one."""
        if self.country is None:
            if self.region is not None:
                raise ValueError("region needs country")
            return self
        import holidays  # noqa: PLC0415  # it takes a fifth of a second

        try:
            holidays.country_holidays(self.country, subdiv=self.region)
        except NotImplementedError as error:
            known = holidays.list_supported_countries()
            if self.country not in known:
                raise ValueError(f"country {self.country}: its public holidays are not known; leave it out") from error
            raise ValueError(f"region {self.region}: {self.country} has {', '.join(known[self.country])}") from error
        return self

    def model(self) -> models.Site:
        """The site."""
        return models.Site.from_dict(self.model_dump())
