"""Does a hypervisor's list of running domains tell where a guest runs? An exit code of 0 alone proves nothing of it."""

from __future__ import annotations

from collections.abc import Sequence

from unlatch.drill.asking import Told
from unlatch.models import Guest, Hypervisor
from unlatch.ports import CommandAnswer


def told_by(answer: CommandAnswer, hypervisor: Hypervisor, guests: Sequence[Guest], login_user: str) -> Told:
    """Whether a repair would find its guest in that list.

    Args:
        answer: What the command said.
        hypervisor: Whose list it is.
        guests: Those that the inventory puts on it.
        login_user: Who asked.
    """
    if answer.code != 0:
        words = f"exit code {answer.code}: {answer.output.strip()[:200]}"
        return Told(False, words, "correct the command or its rights")
    listed = answer.output.split()
    found = [guest.name for guest in guests if any(guest.is_called(word) for word in listed)]
    lacking = [guest.name for guest in guests if guest.name not in found]
    if not found and hypervisor.lists_own_session and login_user != "root":
        return Told(
            False,
            f"it lists what {login_user} itself has started, not what runs there",
            f"write sudo before it in hypervisors.{hypervisor.name}.domains, or -c qemu:///system behind virsh",
        )
    if lacking and not found:
        advice = "; ".join(f"compare guests.{name}.names with the names in that list" for name in lacking)
        return Told(None, f"it ran, and lists none of its guests: {', '.join(lacking)}", advice)
    without = f", without {', '.join(lacking)} (down, moved, or called otherwise)" if lacking else ""
    return Told(True, f"it ran{without}")
