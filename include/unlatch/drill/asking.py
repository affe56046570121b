"""Asks questions of one machine and turns whatever comes back into checks: one bad answer spoils no other."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from unlatch.errors import TransientError, UnlatchError
from unlatch.models import DrillCheck, Json
from unlatch.models.drilled import NOT_ASKED
from unlatch.ports import Leave

MOST_SILENCES = 2
"""After so many questions without an answer a machine is asked no more: each costs minutes."""

GOOD_TO_HAVE = frozenset({"clone support", "server-side copy", "crash dumps"})
"""Rows of the agent's `preflight` that make repairs quicker or their analysis easier; no repair needs them."""

_INSTALL = re.compile(r"install -o root -g root -m 0755 \S+ [^\s),;]+")
_SUDOERS = re.compile(r"\S+ ALL=\([^)]+\) NOPASSWD: .+$")


@dataclass(frozen=True)
class Told:
    """An answer that is not simply yes."""

    ok: bool | None
    why: str
    grant: str | None = None


@dataclass
class Asking:
    """The checks of one subject on one machine, so far."""

    host: str
    checks: list[DrillCheck] = field(default_factory=list)
    _silences: Counter[str] = field(default_factory=Counter)

    def anew(self) -> Asking:
        """For the next subject on the same machine, which is still silent when it was."""
        return Asking(self.host, _silences=self._silences)

    def ask(
        self,
        privilege: str,
        question: Callable[[], str | Told | Leave],
        *,
        path: object = None,
        host: str | None = "",
        waits_for_host: bool = True,
        needed: bool = True,
    ) -> bool | None:
        """Ask one question.

        Args:
            privilege: What is asked.
            question: Gives words when all is well, or an answer; or raises what a repair would see.
            path: What it is about.
            host: Where it would be granted, when that is not this machine; None: on the worker.
            waits_for_host: Whether no answer means that this machine is silent.
            needed: Whether a repair needs it; or it is only good to have.

        Returns:
            Whether the privilege is there; None: not known.
        """
        place = self.host if host == "" else host
        if waits_for_host and self._silences[self.host] >= MOST_SILENCES:
            answer = Told(None, f"{NOT_ASKED}: {self.host} has not answered {MOST_SILENCES} questions")
        else:
            answer = self._answer(question, waits_for_host=waits_for_host)
        named = None if path is None else str(path)
        self.checks.append(DrillCheck(privilege, answer.ok, answer.why, answer.grant, named, place, needed))
        return answer.ok

    def _answer(self, question: Callable[[], str | Told | Leave], *, waits_for_host: bool) -> Told:
        try:
            found = question()
        except TransientError as error:
            self._silences[self.host] += waits_for_host
            return Told(None, error.what, error.next_step or None)
        except UnlatchError as error:
            return Told(False, error.what, _grant_in(error.next_step))
        except Exception as error:  # noqa: BLE001  # a plug-in's mistake must not hide what the others would answer
            return Told(None, f"the question failed: {type(error).__name__}: {error}")
        if isinstance(found, str):
            return Told(True, found)
        return Told(found.ok, found.why, None if found.ok else found.grant)

    def ask_many(
        self, privilege: str, question: Callable[[], Sequence[Json]], keep: Callable[[Json], bool]
    ) -> list[Json]:
        """Take the rows of the agent's `preflight`; when there are none, one check called `privilege` says why.

        Returns:
            The rows, also those that were not kept as checks.
        """
        rows: list[Json] = []

        def told() -> str:
            rows.extend(question())
            return ""

        if self.ask(privilege, told) is not True:
            return []
        self.checks.pop()
        self.checks += [
            DrillCheck(
                privilege=str(row["privilege"]),
                ok=row.get("ok"),
                why=str(row.get("why") or ""),
                grant=None if row.get("ok") else row.get("grant") or None,
                path=row.get("path"),
                host=self.host,
                needed=row["privilege"] not in GOOD_TO_HAVE,
            )
            for row in rows
            if keep(row)
        ]
        return rows

    def note(self, privilege: str, ok: bool | None, why: str, grant: str | None = None) -> None:
        """Keep what is known without asking."""
        self.ask(privilege, lambda: Told(ok, why, grant), waits_for_host=False)


def _grant_in(next_step: str) -> str | None:
    """The command and the sudoers line of an error's advice, each on a line of its own; or else the advice."""
    lines = [found[0] for pattern in (_INSTALL, _SUDOERS) if (found := pattern.search(next_step))]
    return "\n".join(lines) or next_step or None
