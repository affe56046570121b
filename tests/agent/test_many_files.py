"""What is told of very many files is the same, and small."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.agent.test_pure import JSON
from unlatch_agent.manyfiles import ManyFiles, written

calm = settings(deadline=None)  # a loaded machine is no defect


def entry(number: int) -> dict[str, Any]:
    """What an answer tells of a file."""
    path = f"/ORA/dbs03/voms/table_{number:06d}.ibd"
    return {"path": path, "removed": path, "bytes": number * 512, "freed": True, "state": "purged"}


@calm
@given(st.integers(0, 700), st.dictionaries(st.sampled_from(["error", "files", "ok", '"files": []']), JSON))
def test_an_answer(count: int, others: dict[str, Any]) -> None:
    """It should be written just as it would be with a plain list, wherever the files stand in it."""
    files = ManyFiles()
    files.add(entry(number) for number in range(count))
    plain = {"schema": 1, "verb": "purge", **others, "files": [entry(number) for number in range(count)], "next": "[]"}
    assert "".join(written(dict(plain, files=files))) == json.dumps(plain) == "".join(written(plain))
    assert list(files) == plain["files"]
    assert (len(files), bool(files)) == (count, count > 0)
    assert (entry(0) in files, entry(count) in files) == (count > 0, False)


def test_memory() -> None:
    """It should take far less than the text of what is told."""
    tracemalloc.start()
    try:
        files = ManyFiles()
        files.add(entry(number) for number in range(20_000))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < len(json.dumps(list(files))) / 2
