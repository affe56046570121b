"""Plug-ins are found by being there, and a broken one stops the start."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from unlatch.discovery import load_plugins
from unlatch.errors import ConfigError

GOOD = "class PLUGIN:\n    name = {name!r}\n"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """An importable package of its own for each test."""
    directory = tmp_path / f"plugins_of_{abs(hash(request.node.name))}"
    directory.mkdir()
    (directory / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    known = set(sys.modules)
    yield directory
    for name in set(sys.modules) - known:
        if name.startswith(directory.name):
            del sys.modules[name]


def test_every_module_is_a_plug_in(package: Path) -> None:
    """It should find classes and objects by their PLUGIN's name, and leave shared modules alone."""
    (package / "one.py").write_text(GOOD.format(name="first"))
    (package / "two.py").write_text(GOOD.format(name="second") + "PLUGIN = PLUGIN()\n")
    (package / "_shared.py").write_text("raise RuntimeError('not to be imported')")
    found = load_plugins(package.name)
    assert sorted(found) == ["first", "second"]
    assert found["second"].PLUGIN.name == "second"
    assert load_plugins(package.name) == found


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "import no_such_library",
            r"broken cannot be imported: ModuleNotFoundError: No module named 'no_such_library'",
        ),
        ("1 / 0", r"broken cannot be imported: ZeroDivisionError"),
        ("def (", r"broken cannot be imported: SyntaxError"),
        ("x = 1", r"broken \(.*broken.py\) is no plug-in"),
        ("PLUGIN = object()", r"is no plug-in: it has no PLUGIN with a name"),
        (GOOD.format(name=""), r"is no plug-in"),
        (
            GOOD.format(name="first"),
            r"one and .*broken are both called 'first'|broken and .*one are both called 'first'",
        ),
    ],
)
def test_a_broken_plug_in_stops_the_start(package: Path, source: str, message: str) -> None:
    """It should name the module, so that nobody finds out in the middle of a repair."""
    (package / "one.py").write_text(GOOD.format(name="first"))
    (package / "broken.py").write_text(source)
    with pytest.raises(ConfigError, match=message):
        load_plugins(package.name)


def test_a_package_that_is_not_there_is_told() -> None:
    """It should be an error too."""
    with pytest.raises(ConfigError, match="no_such_package cannot be imported"):
        load_plugins("no_such_package")
