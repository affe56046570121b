"""Mondays at nine: what repairs have left, what is stuck, whether the audit holds, and the drill of the whole fleet."""

from __future__ import annotations

from airflow.sdk import DAG, Param

from unlatch import wiring
from unlatch.orchestration.rechecks import (
    drill_guest,
    guests_to_drill,
    recheck_volume,
    report,
    volumes_to_recheck,
)
from unlatch.orchestration.site import VOLUMES, by_the_sites_clock
from unlatch.orchestration.steps import DEFAULT_ARGS

with DAG(
    "recheck_volumes",
    schedule=by_the_sites_clock("0 9 * * MON"),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    tags=["unlatch"],
    doc_md=wiring.document("recheck_volumes"),
    params={
        "volumes": Param(
            [],
            type="array",
            items={"type": "string"},
            examples=VOLUMES,
            title="Volumes (none: all that incidents have touched since the last re-check)",
        ),
        "dry_run": Param(False, type="boolean", title="Dry run", description="Look; keep and send no report."),
    },
):
    volumes, guests = volumes_to_recheck(), guests_to_drill()
    report(volumes, recheck_volume.expand(volume=volumes), guests, drill_guest.expand(guest=guests))
