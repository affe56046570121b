"""Every day, and by hand: is everything there that a repair would need? Only looks."""

from __future__ import annotations

from airflow.sdk import DAG, Param

from unlatch import wiring
from unlatch.orchestration.rechecks import drill_guest, guests_to_drill
from unlatch.orchestration.site import by_the_sites_clock
from unlatch.orchestration.steps import DEFAULT_ARGS

choices = wiring.form_choices()

with DAG(
    "drill",
    schedule=by_the_sites_clock("0 7 * * *"),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    tags=["unlatch"],
    doc_md=wiring.document("drill"),
    params={
        "guests": Param(
            [], type="array", items={"type": "string"}, examples=choices.guests, title="Guests (none: all)"
        ),
        "dry_run": Param(False, type="boolean", title="Dry run", description="Keep no result and tell nobody."),
    },
):
    drill_guest.expand(guest=guests_to_drill())
