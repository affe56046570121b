"""The agent is killed while it recreates files on real NFS: names keep whole files, every way to go on ends well."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults import ptrace
from tests.faults.stoppable import Stop
from tests.nfs.nfs_lab import NfsLab, say
from tests.nfs.nfs_stops import FILES, GuestAgent, Volume, boundaries, sampled, shown

STOPS = 10


@pytest.fixture(params=["3", "4.2"])
def volume(healthy: Callable[..., NfsLab], agent: Path, request: pytest.FixtureRequest) -> Iterator[Volume]:
    """A directory on the NAS, and the agent on its client."""
    lab = healthy(request.param)
    stoppable = GuestAgent(lab, agent)
    yield Volume(lab, stoppable)
    stoppable.end()


def test_killed_on_nfs_the_agent_goes_on_or_undoes(volume: Volume) -> None:
    """It should leave each name with its whole content, tell of all that is its own, and finish or undo."""
    found = boundaries(volume)
    chosen = sampled(found, STOPS)
    cases = [(at, bool(n % 2)) for n, at in enumerate(chosen)]
    cases += [(at, not undo) for at, undo in cases if at.call.startswith(("link", "rename"))]  # both ways for these
    failures = []
    for at, undo in cases:
        stop = Stop(at, ptrace.KILL_ALL)
        try:
            go_on_after(volume, stop, undo=undo)
        except (AssertionError, KeyError) as error:
            failures.append(f"{stop}, {'undo' if undo else 'go on'}: {type(error).__name__} {str(error)[:800]}")
    say(f"STOPPED ON NFS: {len(chosen)} of {len(found)} calls in {len(cases)} cases, {len(failures)} failed")
    assert not failures, "\n".join(failures)


def go_on_after(volume: Volume, stop: Stop, *, undo: bool) -> None:
    """One kill, a look at what is there, and one of the two ways to go on."""
    originals = volume.fresh()
    ran = volume.recreate(stop=stop)
    assert ran.was_hit, shown(ran)
    left = volume.look()
    for name in FILES:
        assert left[name][3] == originals[name][3], f"{name} is not whole"
        assert originals[name] in [[*found] for found in left.values()], f"the original of {name} was changed or lost"
    ours = {name for name in left if name.startswith(".unlatch-")}
    assert ours <= volume.told(), f"status does not tell of {sorted(ours - volume.told())}"
    ended = volume.restore() if undo else volume.recreate()
    assert ended.answer.code == 0, f"{'restore' if undo else 'recreate'}: {shown(ended)}"
    after = volume.look()
    for name in FILES:
        assert after[name][3] == originals[name][3]
        assert (after[name][0] == originals[name][0]) is undo
        assert originals[name] in list(after.values()), f"the original of {name} was changed or lost"
    purged = volume.purge()
    assert purged.answer.code == 0, f"purge: {shown(purged)}"
    assert set(volume.look()) == set(FILES), "something is left"
