"""One run per incident: a guest has crashed; its databases are repaired, each in a lane of its own."""

from __future__ import annotations

from airflow.sdk import DAG, Param, task_group

from unlatch import wiring
from unlatch.orchestration.questions import ApproveRepair, ConfirmByOwner
from unlatch.orchestration.steps import (
    DEFAULT_ARGS,
    detect_crash,
    keep_crash_facts,
    step,
    update_ticket,
    wait_for_guest,
)

choices = wiring.form_choices()

with DAG(
    "remediate_guest",
    schedule=None,
    default_args=DEFAULT_ARGS,
    tags=["unlatch"],
    doc_md=wiring.document("remediate_guest"),
    max_active_runs=16,
    params={
        "guest": Param(type="string", title="Guest", examples=choices.guests, minLength=1, maxLength=80),
        "instances": Param(
            [], type="array", items={"type": "string"}, examples=choices.instances, title="Instances (none: all)"
        ),
        "dry_run": Param(
            False, type="boolean", title="Dry run", description="Same evidence and plan; nothing touched."
        ),
        "reason": Param("", type="string", title="Reason", description="For the audit and the ticket.", maxLength=500),
        "ticket": Param(None, type=["null", "string"], title="Ticket", description="An existing one to continue."),
        "crashed_at": Param(
            None, type=["null", "string"], format="date-time", pattern=wiring.MOMENT_PATTERN, title="Crashed at"
        ),
        "incident": Param(None, type=["null", "string"], pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$", title="Incident"),
    },
):
    opened = detect_crash()
    back = wait_for_guest(opened)

    @task_group
    def repair(incident: str, instance: str) -> None:
        """One instance, from the look at its locks to a login that works."""
        subject = {"incident": incident, "instance": instance}
        (
            step("check_locks")(**subject)
            >> step("hold_service")(**subject)
            >> step("verdict")(**subject)
            >> ApproveRepair(task_id="approve", subject="Repair {{ task.instance }}?", **subject)
            >> step("clear_locks")(**subject)
            >> step("recreate_files")(**subject)
            >> step("restart_database")(**subject)
            >> step("confirm_access")(**subject)
            >> ConfirmByOwner(task_id="confirm_by_owner", subject="Is {{ task.instance }} accessible?", **subject)
        )

    back >> repair.expand_kwargs(opened) >> update_ticket(opened)
    back >> keep_crash_facts(opened)
