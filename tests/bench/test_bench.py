"""The benchmark's own arithmetic: turns, medians, ratios, and what it writes. No time is asserted."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench import report
from bench.cases import CASES, Case
from bench.timing import FailedError, Measured, interleaved
from bench.tools import UNLATCH, Tool, file_system_of


def _tool(name: str, told: list[str], command: str = "true") -> Tool:
    def undo(_: Path, number: int) -> None:
        told.append(f"undo {name}")

    return Tool(name, lambda _, __: ["sh", "-c", command], undo)


def test_turns(tmp_path: Path) -> None:
    """It should run each tool once unmeasured, then in turns that begin with another tool each, and undo each run."""
    told: list[str] = []
    measured = interleaved(
        [_tool("a", told), _tool("b", told)], tmp_path / "files", 3, 60.0, lambda: told.append("before")
    )
    order = [line.removeprefix("undo ") for line in told if line != "before"]
    assert order == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert [len(one.seconds) for one in measured] == [3, 3]
    assert told.count("before") == 8


def test_a_slow_tool_sits_out(tmp_path: Path) -> None:
    """It should measure a tool that used up its time once, and the agent in every round."""
    told: list[str] = []
    measured = interleaved([_tool(UNLATCH, told), _tool("slow", told)], tmp_path / "files", 3, 0.0, lambda: None)
    assert [len(one.seconds) for one in measured] == [3, 1]


def test_a_tool_that_fails(tmp_path: Path) -> None:
    """It should not take the time of a tool that did not do its job."""
    with pytest.raises(FailedError, match="no such luck"):
        interleaved([_tool("a", [], "echo no such luck >&2; false")], tmp_path / "files", 1, 60.0, lambda: None)


def test_what_is_written(tmp_path: Path) -> None:
    """It should give medians and ratios to the agent, as JSON, as a table and as a picture that is well-formed."""
    measured = [Measured(UNLATCH, [1.0, 4.0, 2.0], 2**20), Measured("cp <a>", [3.0, 5.0, 4.0])]
    found = [*report.rows("start", "-", [Measured("unlatch --version", [0.5])]), *report.rows("1 GB", "xfs", measured)]
    report.write_json(found, tmp_path / "deep" / "recreate.json")
    written = json.loads((tmp_path / "deep" / "recreate.json").read_text())
    assert [set(entry) for entry in written] == [{"case", "fs", "tool", "seconds_median", "ratio_to_unlatch"}] * 3
    assert [entry["ratio_to_unlatch"] for entry in written] == [None, 1.0, 2.0]
    assert "| 1 GB | xfs | cp <a> | 4.000 s | 2.00 |" in report.table(found)
    picture = ET.fromstring(report.picture(found, "title"))
    assert len([part for part in picture.iter() if part.tag.endswith("rect")]) == 3


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case(case: Case, tmp_path: Path) -> None:
    """It should write the files that it names, sparse where it says so, within the room that it asks for."""
    scale = 0.01
    case.make(tmp_path, scale)
    files = list(tmp_path.iterdir())
    stored = sum(path.stat().st_blocks * 512 for path in files)
    assert stored <= case.room_bytes(scale)
    assert len(files) == (100 if "10,000" in case.name else 1)
    assert (stored < sum(path.stat().st_size for path in files)) is ("sparse" in case.name)


@pytest.mark.parametrize(("version", "name"), [(None, "nfs_of_old"), ("3", "NFSv3"), ("4.2", "NFSv4.2")])
def test_the_file_system_of_a_directory(tmp_path: Path, version: str | None, name: str) -> None:
    """It should name an NFS mount by its version, and any other by its type, as the agent tells them."""
    place = {"path": str(tmp_path), "fstype": "nfs_of_old", "nfs_version": version}
    answer = tmp_path / "answer"
    answer.write_text(json.dumps({"paths": [place]}))
    assert file_system_of(["sh", "-c", f"cat {answer}"], tmp_path) == name
