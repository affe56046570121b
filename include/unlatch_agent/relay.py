"""Many files of a local file system are swapped by one process, in their order; see crew.py.

This one looks at them and writes the journal.

The process inherits the descriptors that keep the new inodes locked, so they stay locked as long as either has them.
"""

import contextlib
from typing import Callable, List, Sequence

from unlatch_agent import crew, mounts, swapping
from unlatch_agent.errors import Json
from unlatch_agent.ioguard import Beat
from unlatch_agent.swapping import Held, Step


def swapped(
    groups: Sequence[Sequence[Held]], batch: Sequence[str], refuse_unless_valid: Callable[[], None], beat: Beat
) -> List[Step]:
    """Swap groups of files, one after the other; those that are done already are left alone.

    Args:
        groups: the files.
        batch: the directories that are swapped together.
        refuse_unless_valid: raises when the permit does not allow another group.
        beat: called before each touch.

    Raises:
        AgentError: the first thing that went wrong; what is known to be right by then is recorded.
    """
    steps: List[Step] = []

    # Where calls wait for a server and not for this processor another process gains nothing.
    on_nfs = mounts.any_on_nfs(batch)
    if sum(map(len, groups)) <= swapping.ONE_BY_ONE or not crew.size(len(groups)) or on_nfs:
        for group in groups:
            refuse_unless_valid()
            steps += swapping.swapped(group, batch, beat, on_nfs=on_nfs)
        return steps

    def begin(group: Sequence[Held]) -> None:
        refuse_unless_valid()
        swapping.begin(group, batch)

    def act(number: int, beat: Beat) -> Json:
        refuse_unless_valid()
        swapping.swap(groups[number], beat)
        return {}

    try:
        with contextlib.closing(crew.work(groups, begin, act, lambda: beat(None), processes=1)) as done:
            for group, _ in done:
                steps += swapping.finished(group, beat, is_awaited=False)
    finally:
        for group in groups:
            group[0].step.owner.wait()
    return steps
