"""The time line: one line for each thing that people would want to read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from unlatch.models import AuditEntry, Json
from unlatch.postmortem.account import NOTE, Account

_TOGETHER = timedelta(seconds=20)


@dataclass(frozen=True)
class Moment:
    """One line of the time line. `of` are the instances that it is about."""

    at: datetime
    of: tuple[str, ...]
    words: str

    @property
    def text(self) -> str:
        """The line without its time."""
        return f"{', '.join(self.of)}: {self.words}" if self.of else self.words


def moments(account: Account) -> tuple[Moment, ...]:
    """What happened when, oldest first. What several instances went through within 20 s is one line."""
    found = [*_before(account), *_told(account.rows)]
    folded: list[Moment] = []
    for moment in sorted(found, key=lambda m: m.at):
        same = next((m for m in folded if m.of and (m.words, True) == (moment.words, bool(moment.of))), None)
        if same is not None and moment.at - same.at < _TOGETHER and moment.of[0] not in same.of:
            folded[folded.index(same)] = Moment(moment.at, (*same.of, *moment.of), same.words)
        else:
            folded.append(moment)
    return tuple(sorted(folded, key=lambda m: m.at))


def _before(account: Account) -> Iterable[Moment]:
    """What happened before anybody knew."""
    event = account.event
    if account.died_at is not None:
        count = len(account.instances)
        hosted = f" hosting {count} database{'s' * (count != 1)} ({', '.join(account.instances)})" if count else ""
        cause = f": {event.cause}" if event and event.cause else ""
        yield Moment(account.died_at, (), f"Virtual machine {account.guest}{hosted} crashed{cause}.")
    if event is not None and event.restarted_at is not None:
        yield Moment(event.restarted_at, (), f"{event.hypervisor or 'The hypervisor'} restarted it.")
    why = account.reason.rstrip(".") or "no reason was given"
    yield Moment(account.opened_at, (), f"The incident was opened by {_who(account.opened_by)}: {why}.")


def _told(rows: Iterable[AuditEntry]) -> Iterable[Moment]:
    for row in rows:
        words = _words(row)
        if words:
            said_at = row.detail.get("at") if row.step == NOTE else None
            at = datetime.fromisoformat(said_at) if said_at else row.at
            yield Moment(at, (row.instance,) if row.instance else (), words)


def _words(row: AuditEntry) -> str:
    if row.phase in {"failed", "refused"} and row.step:
        return f"{row.step} {row.phase}: {row.detail.get('error', 'no reason is known')}"
    if row.phase == "state" and row.detail.get("to") == "waiting_for_person":
        return "a person was asked to decide"
    if row.phase == "ticket":
        return f"The ticket is {row.detail.get('ticket')}."
    if row.phase == "tried":
        return f"remedy {row.detail.get('remedy')}: {_plain(row.detail.get('outcome'))}: {row.detail.get('words')}"
    say = _DONE.get(row.step)
    return say(row.detail, row.actor) if say is not None and row.phase in {"done", "noted"} else ""


def _who(actor: str) -> str:
    """A person by name; what Airflow started by itself was Unlatch."""
    return "Unlatch" if actor.startswith("airflow:") or actor in {"", "unlatch", "sensor"} else actor


def _plain(word: object) -> str:
    return str(word or "").replace("_", " ")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _recreated(said: Json, _: str) -> str:
    files = said.get("files", [])
    equal = all(f.get("content_equal") for f in files)
    content = "the same content" if equal else "content that was NOT compared whole"
    return f"{_count(len(files), 'locked file')} recreated as new files with new inodes and {content}" if files else ""


def _cleared(said: Json, _: str) -> str:
    freed, aside = said.get("freed") or [], said.get("quarantine") or []
    parts = [f"{_count(len(freed), 'file')} freed without a copy"] * bool(freed)
    parts += [f"{_count(len(aside), 'stale pid file')} set aside"] * bool(aside)
    return ", ".join(parts)


def _approved(said: Json, actor: str) -> str:
    answer = said.get("approval", {})
    return f"{answer.get('by', actor)} approved the repair{_comment(answer)}"


def _confirmed(said: Json, actor: str) -> str:
    return f"{said.get('by', actor)} confirms that it is accessible{_comment(said)}"


def _noted(said: Json, actor: str) -> str:
    """A person's words; what belongs to another section is left to that."""
    if said.get("kind", "event") != "event":
        return ""
    return str(said.get("words", "")) + ("" if said.get("at") else f" ({actor})")


def _comment(said: Json) -> str:
    return f": {said['comment']}" if said.get("comment") else ""


_DONE: dict[str, Callable[[Json, str], str]] = {
    "wait_for_guest": lambda said, _: (
        f"The virtual machine answers again (booted {str(said.get('booted_at'))[11:19]} UTC)."
    ),
    "hold_service": lambda said, _: "held, so that nothing starts it meanwhile" if said.get("held") else "",
    "verdict": lambda said, _: (
        f"previous incarnation {said['verdict']['kind']}" if said.get("verdict") else "nothing to repair"
    ),
    "approve": _approved,
    "clear_locks": _cleared,
    "recreate_files": _recreated,
    "restart_database": lambda said, actor: f"database restarted by {_who(actor)}" if said.get("started") else "",
    "confirm_access": lambda said, _: "" if "would" in said else "accepts logins again",
    "confirm_by_owner": _confirmed,
    "update_ticket": lambda *_: "The ticket was told how it ended.",
    "clean_up": lambda said, _: str(said.get("words") or "quarantined files cleaned up"),
    "recheck": lambda said, _: str(said.get("words") or "locks on the affected volumes looked at again"),
    NOTE: _noted,
}
