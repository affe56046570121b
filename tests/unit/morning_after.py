"""Runs the day after a repair, step by step, as the DAG `clean_up` does."""

from __future__ import annotations

import contextlib
import copy
import sqlite3
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath

from tests.unit.fakes import World
from tests.unit.lanes import Run, again
from tests.unit.world_parts import GUEST
from unlatch import cleaning, closing
from unlatch.cleaning import Leftovers
from unlatch.closing import Ending
from unlatch.models import Json, LockKind, Site
from unlatch.purge_days import due_incidents, purge_day, run_of
from unlatch.site_calendar import calendar_of

SITE = Site(timezone="Europe/Zurich", country="CH")
CALENDAR = calendar_of(SITE)
DATADIR = PurePosixPath("/ORA/dbs03/voms")


class Morning:
    """The clean-up of one incident."""

    def __init__(self, run: Run, site: Site = SITE) -> None:
        """Take a repair that has ended."""
        self.run, self.world, self.site = run, run.world, site

    @classmethod
    def after_repair(cls, world: World) -> Morning:
        """The repair of the Saturday's crash has ended, and nothing else has happened."""
        run = Run(world)
        run.all()
        return cls(run)

    def copied(self, store_file: Path) -> Morning:
        """The same morning in a world of its own, in which nothing was called yet."""
        closes = contextlib.closing
        with closes(sqlite3.connect(self.world.file)) as source, closes(sqlite3.connect(store_file)) as target:
            source.backup(target)
        world = World(store_file, *self.world.instances.values(), volume=self.world.volume)
        world.clock.time = self.world.clock.time
        world.names, world.journal, world.units = copy.deepcopy(
            (self.world.names, self.world.journal, self.world.units)
        )
        run = Run(world)
        run.opened = self.run.opened
        return Morning(run, self.site)

    @property
    def day(self) -> datetime | None:
        """Not before then."""
        return purge_day(self.world.store, self.run.incident, calendar_of(self.site))

    def comes(self, days: int = 0) -> Morning:
        """The day has come, or it is so many days later."""
        assert self.day is not None
        self.world.clock.time = self.day + timedelta(days=days)
        return self

    def nas_drops_locks(self) -> Morning:
        """The NAS has forgotten the dead guest."""
        for entry in self.world.journal.values():
            if entry.source.lock is LockKind.REMOTE:
                entry.source.lock = LockKind.NONE
        return self

    def due(self) -> tuple[str, ...]:
        """The runs of what is due now."""
        found = due_incidents(self.world.store, calendar_of(self.site), self.world.clock.now())
        return tuple(run_of(self.world.store, incident, day) for incident, day in found)

    def leftovers(self, of: str = "voms", *, dry_run: bool = False) -> Leftovers:
        """The subject of `clean_up`."""
        case = self.world.case(self.run.incident, of, dry_run=dry_run)
        day = purge_day(self.world.store, self.run.incident, calendar_of(self.site), of)
        return Leftovers(**vars(case), day=day, now=self.world.clock.now(), timezone=self.site.timezone)

    def clean_up(self, of: str = "voms", *, dry_run: bool = False) -> Json:
        """One instance."""
        step = cleaning.plan_clean_up if dry_run else cleaning.clean_up
        return step(self.leftovers(of, dry_run=dry_run), self.world.ports)

    def close(self, *asked: str) -> Json:
        """The incident."""
        names = tuple(self.run.opened["instances"])
        ending = Ending(self.run.incident, GUEST, names, self.world.event, dry_run=False, asked=asked or names)
        return closing.close_incident(ending, self.world.incident_ports)

    def all(self) -> Json:
        """The whole clean-up; every step that dies is run again, as Airflow's retries do."""
        for of in self.run.opened["instances"]:
            again(self.world, lambda of=of: self.clean_up(of))
        return again(self.world, self.close)

    def originals(self) -> int:
        """How many files the repair still keeps."""
        return sum(entry.state != "purged" for entry in self.world.journal.values())

    def write_to_an_original(self, name: str = "ibdata1") -> None:
        """What a writer does that still has the old inode open."""
        self.world.journal[self.run.incident, DATADIR / name].source.mtime_ns += 1
