"""The root commands on a file system where root is nobody."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.agent.agent_runner import NOBODY, Agent
from tests.agent.conftest import need_root


def test_a_volume_that_squashes_root(few_agent: Agent, open_volume: Path) -> None:
    """It should see files in directories that root may not list, as on NFS that squashes root, by looking as owner."""
    need_root()
    datadir = open_volume / "datadir"
    inner = datadir / "app"
    inner.mkdir(parents=True)
    (inner / "t.ibd").write_bytes(b"x")
    for path in (inner, inner / "t.ibd", datadir):
        os.chown(path, NOBODY, NOBODY)
        path.chmod(0o700)
    elsewhere = open_volume / "other name"
    os.link(inner / "t.ibd", elsewhere)
    squashed = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    assert subprocess.run([*squashed, "ls", datadir], check=False, capture_output=True).returncode != 0
    with elsewhere.open():
        for asked in (datadir, inner):
            found = few_agent.fresh("openers", "--json", asked, prefix=squashed).done().document
            assert [entry for entry in found["unchecked"] if "cannot list" in entry["why"]] == []
            (mine,) = [entry for entry in found["openers"] if entry["pid"] == os.getpid()]
            assert "descriptor" in mine["why"]
