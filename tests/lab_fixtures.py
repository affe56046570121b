"""The embedded lab as pytest fixtures.

Name this module in `pytest_plugins` to use them. Where the lab can't run, its tests are skipped with the reason.

* `lab_factory`: makes labs in directories of their own and takes them down at the end of the session.
* `lab`: one lab for the session, up once. A test that changes it must leave it usable, or use the next two.
* `running_lab`: the same lab with three databases up; what earlier tests wrote stays. The quickest one to ask for.
* `healthy_lab`: the same lab, fresh: three databases up, nothing locked by the dead.
* `crashed_lab`: the same lab, fresh, then crashed and booted again; `crashed_lab.last_crash` tells what happened.
"""

import shutil
from collections.abc import Callable, Iterator
from typing import Protocol

import pytest

import lab as embedded_lab
from lab import Lab, LabError

VOMS_MB = 16


class LabFactory(Protocol):
    """Makes a lab that is not up yet."""

    def __call__(self, voms_mb: int = VOMS_MB) -> Lab:
        """Return a lab in a directory of its own."""


@pytest.fixture(scope="session")
def lab_factory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabFactory]:
    """Make labs; all are taken down and removed at the end of the session."""
    reason = embedded_lab.unavailable_reason()
    if reason:
        pytest.skip(f"the lab can't run here: {reason}")
    made: list[Lab] = []

    def make(voms_mb: int = VOMS_MB) -> Lab:
        made.append(Lab(tmp_path_factory.mktemp("lab"), voms_mb))
        return made[-1]

    yield make
    for each in made:
        each.down()
        shutil.rmtree(each.root)


@pytest.fixture(scope="session")
def lab(lab_factory: Callable[..., Lab]) -> Lab:
    """One lab for the whole session, up."""
    made = lab_factory()
    made.up()
    return made


@pytest.fixture
def running_lab(lab: Lab) -> Lab:
    """The session's lab with three databases that accept logins, reset only when an earlier test left it otherwise."""
    if lab.ghost_locks():
        lab.reset()
        return lab
    try:
        lab.boot()
        for name in lab.instances:
            lab.service("release", name)
            lab.service("start", name)
    except LabError:
        lab.reset()
    return lab


@pytest.fixture
def healthy_lab(lab: Lab) -> Lab:
    """The session's lab, back at its start: all up, nothing locked by the dead, no trace of an earlier repair."""
    lab.reset()
    return lab


@pytest.fixture
def crashed_lab(healthy_lab: Lab) -> Lab:
    """The session's lab right after a crash and the next boot: locked files, lxr kept down by its old pid file."""
    healthy_lab.crash()
    return healthy_lab
