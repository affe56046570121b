"""What hypervisors themselves list as running, and one question put to several of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from unlatch.errors import ConfigError, TransientError, UnlatchError
from unlatch.in_parallel import in_parallel
from unlatch.models import Hypervisor
from unlatch.transport import allowed
from unlatch.transport.shell import FinishedCommand, Shell

_T = TypeVar("_T")
_NOT_THERE = (126, 127)
_QUOTED = 200


def lists_domain(hypervisor: Hypervisor, shell: Shell, is_guests: Callable[[str], bool]) -> bool | None:
    """Whether the hypervisor's `domains` command lists a domain; None when it has no such command.

    Any word of the output may be the name: so the lists of `xl list`, `xm list`, `virsh list` and plain names do. Every
    listed domain counts as running, also a paused or a crashed one that was kept: it can be there again.

    Raises:
        TransientError: the hypervisor is out of reach, or the command fails.
        ConfigError: the command is not there, sudo refuses it, or the connection is wrong.
    """
    argv = hypervisor.domains
    if not argv:
        return None
    answer = allowed.ask(shell, argv)
    allowed.insist(shell, argv, answer, host=hypervisor.name)
    if answer.code != 0:
        raise _failed(hypervisor, answer)
    words = answer.stdout.decode("utf-8", "replace").split()
    is_listed = any(is_guests(word) for word in words)
    if not is_listed:
        _insist_on_everybodys(hypervisor, shell)
    return is_listed


def _insist_on_everybodys(hypervisor: Hypervisor, shell: Shell) -> None:
    """Without a connection, virsh shows to anyone but root what that user's own session runs: nothing, and no error."""
    argv, name = hypervisor.domains, hypervisor.name
    if not hypervisor.lists_own_session:
        return
    user = allowed.login_user(shell, name)
    if user != "root":
        raise ConfigError(
            f"{' '.join(argv)} on {name} lists what {user} itself has started, not what runs there.",
            next_step=f"write sudo before it in hypervisors.{name}.domains, or -c qemu:///system behind virsh.",
        )


def _failed(hypervisor: Hypervisor, answer: FinishedCommand) -> UnlatchError:
    said = (answer.stderr or answer.stdout).decode("utf-8", "replace").strip()[:_QUOTED] or "it said nothing"
    name = hypervisor.name
    what = f"{' '.join(hypervisor.domains)} on {name} failed with exit code {answer.code}: {said}"
    if answer.code in _NOT_THERE:
        return ConfigError(what, next_step=f"correct hypervisors.{name}.domains in the inventory.")
    return TransientError(what, next_step=f"run it on {name} by hand as the login user.")


@dataclass(frozen=True)
class _Answer(Generic[_T]):
    """What one hypervisor said."""

    value: _T


def _answer(ask: Callable[[Hypervisor], _T], hypervisor: Hypervisor) -> _Answer[_T] | UnlatchError:
    try:
        return _Answer(ask(hypervisor))
    except UnlatchError as error:
        return error


def ask_each(
    hypervisors: Iterable[Hypervisor], ask: Callable[[Hypervisor], _T], plain: Callable[[_T], Any] = lambda found: found
) -> Mapping[str, _T]:
    """Put one question to several hypervisors at the same time; one that does not answer hides no other's answer.

    Args:
        hypervisors: Whom to ask.
        ask: The question.
        plain: An answer as JSON types.

    Returns:
        The answers by hypervisor.

    Raises:
        TransientError: at least one is out of reach. Its `detail` has what the others said: `answers` (by hypervisor,
            as JSON types) and `unanswered` (by hypervisor, why).
        ConfigError: at least one cannot be asked otherwise, and none is merely out of reach; with the same `detail`.
    """
    found = in_parallel({h.name: functools.partial(_answer, ask, h) for h in hypervisors})
    answers = {name: answer.value for name, answer in found.items() if isinstance(answer, _Answer)}
    errors = {name: error for name, error in found.items() if isinstance(error, UnlatchError)}
    if not errors:
        return answers
    passing = any(isinstance(error, TransientError) for error in errors.values())
    raise (TransientError if passing else ConfigError)(
        " ".join(error.what for error in errors.values()),
        next_step=" ".join(dict.fromkeys(error.next_step for error in errors.values() if error.next_step)),
        detail={
            "answers": {name: plain(answer) for name, answer in answers.items()},
            "unanswered": {name: error.what for name, error in errors.items()},
        },
    )
