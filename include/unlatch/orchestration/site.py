"""What schedules and forms of DAG files need of the inventory; read when the file is parsed."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import CronTriggerTimetable

from unlatch import wiring_rechecks

VOLUMES = list(wiring_rechecks.volume_choices())


def by_the_sites_clock(cron: str) -> CronTriggerTimetable:
    """A schedule in the site's zone. A new installation waits for the next time; one that was off catches up once."""
    # With its default of False it still runs at once when the last time was less than a tenth of the interval ago.
    return CronTriggerTimetable(cron, timezone=wiring_rechecks.site_timezone(), run_immediately=timedelta())
