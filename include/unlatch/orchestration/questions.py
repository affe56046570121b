"""Questions to people. The task parks without a worker until someone answers; nobody in time means no."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLOperator
from airflow.sdk import Param

from unlatch import wiring, wiring_telling
from unlatch.orchestration.steps import actor


class _InstanceQuestion(ApprovalOperator):  # type: ignore[misc]  # Airflow's classes carry no types for mypy here
    """Approve or reject, about one instance; asks nobody when the question is None."""

    # In this order: the subject names the instance, which is only known once it has been rendered itself.
    template_fields: Sequence[str] = ("incident", "instance", *ApprovalOperator.template_fields)

    def __init__(self, *, incident: Any, instance: Any, **kwargs: Any) -> None:
        # Airflow hands the DAG's own params in here; only the comment belongs into the answer's form.
        kwargs["params"] = {"comment": Param(None, type=["null", "string"], title="Comment for the audit")}
        kwargs["map_index_template"] = "{{ task.instance }}"
        timeout = timedelta(seconds=wiring.approval_timeout_s())
        super().__init__(defaults=self.REJECT, response_timeout=timeout, **kwargs)
        self.incident = incident
        self.instance = instance

    def question(self) -> str | None:
        """What to ask, in Markdown."""
        raise NotImplementedError

    def answered(self, *, approved: bool, by: str, comment: str | None) -> Any:
        """Keep the answer."""
        raise NotImplementedError

    def execute(self, context: Any) -> Any:
        """Ask, or go on at once when no person is needed."""
        self.body = self.question()
        if self.body is None:
            return {"asked": False}
        wiring_telling.tell_people(actor=actor())
        self.assigned_users = [{"id": u, "name": u} for u in wiring.approvers(self.incident)] or None
        return super().execute(context)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        """Go on, or fail this lane, as the person said; a time-out counts as no, by nobody."""
        answer = HITLOperator.execute_complete(self, context, event)
        by = (answer["responded_by_user"] or {}).get("name") or f"nobody within {wiring.approval_timeout_s()} s"
        approved = answer["chosen_options"] == [self.APPROVE]
        return self.answered(approved=approved, by=by, comment=answer["params_input"].get("comment"))


class ApproveRepair(_InstanceQuestion):
    """`approve`: may Unlatch go on although the proof of death is not complete?"""

    def question(self) -> str | None:
        """Evidence, plan and risk; None when the verdict needs no person."""
        return wiring.question(self.incident, self.instance, actor=actor())

    def answered(self, *, approved: bool, by: str, comment: str | None) -> Any:
        """Bind the answer to the evidence."""
        return wiring.approve(self.incident, self.instance, approved=approved, by=by, comment=comment)


class ConfirmByOwner(_InstanceQuestion):
    """`confirm_by_owner`: someone who uses the database says that it is accessible."""

    def question(self) -> str | None:
        """What to look at; None when the inventory does not ask for it."""
        return wiring.owner_question(self.incident, self.instance, actor=actor())

    def answered(self, *, approved: bool, by: str, comment: str | None) -> Any:
        """Keep the owner's word."""
        return wiring.confirm_by_owner(self.incident, self.instance, approved=approved, by=by, comment=comment)
