"""The next working day: what a repair has left is looked at once more and deleted, and the incident is closed."""

from __future__ import annotations

from airflow.sdk import DAG, Param

from unlatch import wiring
from unlatch.orchestration.cleaning import PATIENT_ARGS, clean_up, close_incident, find_leftovers

choices = wiring.form_choices()

with DAG(
    "clean_up",
    schedule=None,  # watch_quarantine starts it for each incident on its day: docs/clean-up.md
    default_args=PATIENT_ARGS,
    tags=["unlatch"],
    doc_md=wiring.document("clean_up"),
    max_active_runs=16,
    params={
        "incident": Param(
            type="string",
            title="Incident",
            pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$",
            description="One that waits for its purge; `unlatch incidents` lists them.",
        ),
        "instances": Param(
            [], type="array", items={"type": "string"}, examples=choices.instances, title="Instances (none: all)"
        ),
        "dry_run": Param(
            False, type="boolean", title="Dry run", description="The same look, on any day; nothing is deleted."
        ),
    },
):
    lanes = find_leftovers()
    clean_up.expand_kwargs(lanes) >> close_incident(lanes)
