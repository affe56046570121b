"""What one machine has answered during one look: each question is asked once, and a silent machine nothing more."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from unlatch.errors import UnlatchError, UnreachableError

T = TypeVar("T")


@dataclass
class _Way:
    """The way to a machine: one question at a time. `silence` is why there is none any more."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    silence: UnreachableError | None = None


@dataclass(frozen=True)
class _Failed:
    error: UnlatchError


class Memory:
    """Answers of one machine, for several threads. Make a new one for each look: an act must not rest on an old one.

    That a question failed is remembered as well, so that the same silence is not waited for again and again. After
    `UnreachableError` nothing else is asked. Forgetting a failure could only add what was seen too late; keeping it
    makes a check not observed, which never improves a verdict.
    """

    def __init__(self, way: _Way | None = None) -> None:
        """Nothing asked yet."""
        self._way = way or _Way()
        self._answers: dict[Hashable, Any] = {}

    def anew(self) -> Memory:
        """A memory of nothing, of the same machine: for a second look at the same thing. A silent one stays silent."""
        return Memory(self._way)

    def ask(self, question: Hashable, how: Callable[[], T]) -> T:
        """The remembered answer to a question, or that of `how`.

        Raises:
            UnlatchError: what `how` raises now, or has raised before.
        """
        with self._way.lock:
            if question not in self._answers:
                self._answers[question] = self._asked(how)
            answer = self._answers[question]
        if isinstance(answer, _Failed):
            raise _again(answer.error)
        kept: T = answer
        return kept

    def _asked(self, how: Callable[[], T]) -> T | _Failed:
        if self._way.silence is not None:
            return _Failed(self._way.silence)
        try:
            return how()
        except UnreachableError as error:
            self._way.silence = error
            return _Failed(error)
        except UnlatchError as error:
            return _Failed(error)


def _again(error: UnlatchError) -> UnlatchError:
    """The same error as a new one: whoever raises it adds a traceback, and several threads may at the same time."""
    return type(error)(error.what, next_step=error.next_step, detail=error.detail)
