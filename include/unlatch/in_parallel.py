"""Several machines asked at the same time, so that one that hangs costs its own time limit and no more."""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from typing import TypeVar

MOST_AT_ONCE = 16
"""Threads of one round. What waits for a machine costs no processor; a login there does."""

K = TypeVar("K")
T = TypeVar("T")


def in_parallel(questions: Mapping[K, Callable[[], T]], *, at_once: int = MOST_AT_ONCE) -> dict[K, T]:
    """Ask all questions, each in a thread, and wait for all of them.

    A question has a time limit of its own; there is none here. The threads do not keep the program from ending: a
    task that is stopped while it waits leaves them behind.

    Args:
        questions: What to call, by key. Each is called once.
        at_once: How many threads at most.

    Returns:
        The answers, in the order of the questions.

    Raises:
        BaseException: what the first question (in their order) has raised, after all have ended.
    """
    if len(questions) <= 1:
        return {key: ask() for key, ask in questions.items()}
    futures: dict[K, Future[T]] = {key: Future() for key in questions}
    to_ask = deque(questions.items())

    def work() -> None:
        while True:
            try:
                key, ask = to_ask.popleft()
            except IndexError:
                return
            try:
                futures[key].set_result(ask())
            except BaseException as error:  # noqa: BLE001  # raised again below, in the thread that waits
                futures[key].set_exception(error)

    for _ in range(min(at_once, len(questions))):
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(work,), name="in-parallel", daemon=True).start()
    try:
        wait(futures.values())
    except BaseException:
        to_ask.clear()  # who is interrupted asks nothing more
        raise
    return {key: future.result() for key, future in futures.items()}
