"""What every engine owes: its name, its order, and the causes of failed starts that its samples show."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

import unlatch.engines
from unlatch.models import Instance, Service

SAMPLES = Path(__file__).parent / "engines"
NAMES = sorted(m.name for m in pkgutil.iter_modules(unlatch.engines.__path__) if not m.name.startswith("_"))
CASES = sorted(SAMPLES.glob("*/*.log"))


def _plugin(name: str) -> Any:
    return importlib.import_module(f"unlatch.engines.{name}").PLUGIN


def _instance(name: str) -> Instance:
    service = Service(start=("true",), stop=("true",), status=("true",), hold=("true",), release=("true",))
    return Instance(
        name="voms",
        guest="g",
        engine=name,
        volume="dbs03",
        os_user="mysql",
        datadir=PurePosixPath("/ORA/dbs03/voms"),
        host="127.0.0.1",
        port=1,
        service=service,
        executables=("serverd",),
    )


@pytest.mark.parametrize("name", NAMES)
def test_name_is_the_modules(name: str) -> None:
    """It should be found under the name that inventories write."""
    assert _plugin(name).name == name


@pytest.mark.parametrize("name", NAMES)
def test_has_samples(name: str) -> None:
    """It should come with ends of error logs, one of them with nothing to recognise."""
    logs = list((SAMPLES / name).glob("*.log"))
    assert len(logs) >= 2, f"put ends of error logs into {SAMPLES / name}"
    assert (SAMPLES / name / "nothing_known.log").exists()


@pytest.mark.parametrize("log", CASES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_explains_failures(log: Path) -> None:
    """It should name the cause that is written beside the log, or say that it knows none."""
    expected = log.with_suffix(".expected").read_text().strip()
    meaning = _plugin(log.parent.name).explain_failure(log.read_text())
    if expected:
        assert meaning is not None
        assert expected in meaning
    else:
        assert meaning is None


@pytest.mark.parametrize("name", NAMES)
def test_commit_order_keeps_every_file(name: str) -> None:
    """It should give back the same files, in the same order whatever order they came in."""
    paths = [PurePosixPath(f"/ORA/dbs03/voms/{n}") for n in ("ibdata1", "b", "aria_log_control", "a", "undo001")]
    ordered = _plugin(name).commit_order(paths)
    assert sorted(ordered) == sorted(paths)
    assert _plugin(name).commit_order(reversed(paths)) == ordered


@pytest.mark.parametrize("name", NAMES)
def test_looks_only_below_the_data_directory(name: str) -> None:
    """It should name absolute paths of this instance, and at least one program."""
    plugin, instance = _plugin(name), _instance(name)
    for path in (*plugin.lock_paths(instance), *plugin.pid_files(instance), *plugin.witnesses(instance)):
        assert path.is_relative_to(instance.datadir)
    assert plugin.executables(instance)


@pytest.mark.parametrize("name", NAMES)
def test_takes_any_log(name: str) -> None:
    """It should survive an empty log, braces, and bytes that are no text."""
    for text in ("", "{0} {} {x}", "\x00\ufffd" * 1000, "a" * 200_000):
        assert _plugin(name).explain_failure(text) is None
