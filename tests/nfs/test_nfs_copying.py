"""A large file on real NFS is read once for its copy, and a machine that writes to it meanwhile is found."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import pytest

from tests.agent.agent_runner import Answer
from tests.nfs.nfs_lab import EXPORT, MOUNTPOINT, NfsLab, say

NAME = "unlatch-copying"
INCIDENT = "inc-copying"
PLACE = f"/var/tmp/{NAME}"
"""On the guest's own disk: the agent and its state."""
DATAFILE = PurePosixPath(MOUNTPOINT, NAME, "users01.dbf")
SIZE_MIB = 160
"""More than two stretches, so that the first is compared long before the last is read."""


class Client:
    """The agent on the NAS's client, beside one large file."""

    def __init__(self, lab: NfsLab, agent: Path) -> None:
        """Put both there; the file is written on the NAS, so that the client has none of it in memory."""
        self.lab = lab
        place = f"{EXPORT}/{NAME}"
        lab.root("nas", f"rm -rf {place}; mkdir {place}; chown --reference={EXPORT}/ALVMYSQL/mysql {place}")
        write = f"dd if=/dev/urandom of=users01.dbf bs=1M count={SIZE_MIB} conv=fsync status=none"
        lab.root("nas", f"cd {place} && {write} && chown --reference=. users01.dbf")
        lab.root("client", f"rm -rf {PLACE}; install -d -o mysql -g mysql {PLACE}")
        lab.root("client", f"cat > {PLACE}/agent.pyz", stdin=agent.read_bytes())

    def begun(self, verb: str, *words: object) -> subprocess.Popen[str]:
        """A verb of the agent, under way."""
        as_mysql = f"cd / && exec runuser -u mysql -- env UNLATCH_AGENT_STATE={PLACE} python3 {PLACE}/agent.pyz"
        command = " ".join([as_mysql, verb, "--json", "--incident", INCIDENT, *map(str, words)])
        return subprocess.Popen(self.lab.shell("client", command), stdout=subprocess.PIPE, text=True)

    def answer(self, verb: str, *words: object) -> Answer:
        """A verb of the agent, to its end."""
        return self.ended(self.begun(verb, *words))

    def ended(self, running: subprocess.Popen[str]) -> Answer:
        """What it answered."""
        text, _ = running.communicate(timeout=600)
        return Answer(running.returncode, text, "")

    def read_bytes(self) -> int:
        """How much the client has read from the NAS since it was mounted (mountstats)."""
        text = self.lab.root("client", f"grep -A 30 ' mounted on {MOUNTPOINT} ' /proc/self/mountstats")
        (line,) = [line for line in text.splitlines() if line.strip().startswith("bytes:")]
        return int(line.split()[5])


@pytest.fixture(params=["3", "4.2"])
def client(healthy: Callable[..., NfsLab], agent: Path, request: pytest.FixtureRequest) -> Iterator[Client]:
    """The agent beside one large file."""
    lab = healthy(request.param)
    yield Client(lab, agent)
    lab.root("client", f"rm -rf {PLACE}")
    lab.root("nas", f"rm -rf {EXPORT}/{NAME}")


def test_large_file_is_read_once_and_a_writer_elsewhere_is_found(client: Client) -> None:
    """It should refuse an original that the NAS saw written to behind the copy, and else read both files once."""
    folder = f"{EXPORT}/{NAME}"
    half_way = f'[ "$(du -cm .unlatch-*.new 2>/dev/null | tail -n 1 | cut -f 1)" -ge {SIZE_MIB // 2} ]'
    write = "printf late | dd of=users01.dbf conv=notrunc,fsync status=none"
    wait = shlex.quote(f"until {half_way}; do sleep 0.1; done")
    with subprocess.Popen(client.lab.shell("nas", f"cd {folder} && timeout 300 sh -c {wait} && {write}")) as elsewhere:
        refused = client.answer("prepare", "--method", "stream", DATAFILE)
    assert elsewhere.returncode == 0
    assert refused.code == 3, refused.text
    error = json.loads(refused.text)["error"]
    assert (error["code"], str(DATAFILE) in error["message"]) == ("source_changed", True)
    assert client.answer("purge", DATAFILE.parent).code == 0
    assert set(client.lab.fingerprint_of(folder)) == {"users01.dbf"}

    client.lab.root("client", "echo 1 > /proc/sys/vm/drop_caches")
    before = client.read_bytes()
    done = client.answer("recreate", "--confirm", INCIDENT, "--method", "stream", DATAFILE)
    assert done.code == 0, done.text
    (entry,) = json.loads(done.text)["files"]
    assert (entry["method"], entry["content_equal"]) == ("stream", True)
    share = (client.read_bytes() - before) / (SIZE_MIB << 20)
    say(f"READ from the NAS for a verified copy: {share:.2f} times its size")
    assert 1.9 < share < 2.3
    found = client.lab.fingerprint_of(folder)
    original = PurePosixPath(entry["quarantine"]).name
    assert found["users01.dbf"][1:] == found[original][1:]
    assert client.answer("purge", DATAFILE.parent).code == 0
