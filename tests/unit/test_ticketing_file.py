"""What is special about tickets that are files: their names, and the disk."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from unlatch.errors import ConfigError, TransientError
from unlatch.ticketing import TicketSettings, _turn
from unlatch.ticketing.file import FileTicketing

INCIDENT = "inc-20141018-035452-dbvrtg4037"


@pytest.fixture
def tickets(tmp_path: Path) -> FileTicketing:
    return FileTicketing(TicketSettings(directory=tmp_path / "var" / "tickets"))


def test_the_file_has_the_incident_s_name(tickets: FileTicketing, tmp_path: Path) -> None:
    """It should be found by everyone who knows the incident."""
    assert tickets.open(INCIDENT, "t", "b") == str(tmp_path / "var" / "tickets" / f"{INCIDENT}.md")
    tickets.comment(INCIDENT, "m", "by id")
    tickets.comment(f"elsewhere/{INCIDENT}.md", "n", "by a path of another working directory")
    assert len(list((tmp_path / "var" / "tickets").glob("*.md"))) == 1


@pytest.mark.parametrize(
    "name", ["../../evil", "/etc/passwd", "a/b", ".hidden", "..", "", "a\x00b", "x" * 300, "Zürich"]
)
def test_no_name_leads_outside(tickets: FileTicketing, tmp_path: Path, name: str) -> None:
    """It should write below its directory whatever the incident is called, and find the file again."""
    reference = tickets.open(name, "t", "b")
    tickets.comment(reference, "m", "said")
    assert "said" in Path(reference).read_text()
    assert Path(reference).parent == tmp_path / "var" / "tickets"
    assert tickets.open(name, "t", "b") == reference
    assert list(tmp_path.iterdir()) == [tmp_path / "var"]


def test_names_that_lose_characters_stay_apart(tickets: FileTicketing) -> None:
    """It should not put two incidents into one file."""
    assert len({tickets.open(name, "t", "b") for name in ("a/b", "a_b", "a:b", "a b", "x" * 200, "x" * 201)}) == 6


def test_what_people_wrote_is_kept(tickets: FileTicketing) -> None:
    """It should leave a person's notes alone, also in another encoding, and put a lost state line back."""
    reference = Path(tickets.open(INCIDENT, "t", "b"))
    content = reference.read_bytes().replace(b"**State:** open\n", b"Z\xfcrich was called\n")
    reference.write_bytes(content)
    tickets.set_state(INCIDENT, "waiting")
    tickets.comment(INCIDENT, "m", "said")
    lines = reference.read_bytes().splitlines()
    assert lines[:3] == [b"# t", b"", b"**State:** waiting"]
    assert b"Z\xfcrich was called" in lines


def test_a_lost_ticket_is_told(tickets: FileTicketing) -> None:
    """It should say which file and which setting."""
    with pytest.raises(ConfigError, match=r"no ticket .*inc-x.md.*UNLATCH_TICKETS"):
        tickets.comment("inc-x", "m", "text")


def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """It should be a matter of configuration."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"Tickets cannot be written in .*file/tickets: Not a directory"):
        FileTicketing(TicketSettings(directory=tmp_path / "file" / "tickets")).open(INCIDENT, "t", "b")


def test_a_full_disk_is_transient_and_spoils_nothing(tickets: FileTicketing) -> None:
    """It should leave the ticket as it was: a limit on file size stands in for the full disk."""
    reference = Path(tickets.open(INCIDENT, "t", "b"))
    before = reference.read_bytes()
    program = """
import resource, signal, sys
from pathlib import Path
from unlatch.errors import TransientError
from unlatch.ticketing import TicketSettings
from unlatch.ticketing.file import FileTicketing
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    FileTicketing(TicketSettings(directory=Path(sys.argv[1]))).comment(sys.argv[2], "m", "x" * 5000)
except TransientError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(reference.parent), INCIDENT], capture_output=True, text=True, check=True
    )
    assert "File too large" in done.stdout
    assert reference.read_bytes() == before
    tickets.comment(INCIDENT, "m", "small")
    assert "small" in reference.read_text()


def test_a_writer_that_hangs_is_told(tickets: FileTicketing, monkeypatch: pytest.MonkeyPatch) -> None:
    """It should wait for another writer only so long."""
    reference = Path(tickets.open(INCIDENT, "t", "b"))
    monkeypatch.setattr(_turn, "_WAIT_S", 0.1)
    with (reference.parent / ".file.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(TransientError, match="has not finished"):
            tickets.comment(INCIDENT, "m", "text")
    tickets.comment(INCIDENT, "m", "text")


@pytest.mark.parametrize("name", ["postmortem-inc.pdf", "../../evil.html", "a/b", ".hidden", "x" * 300 + ".pdf"])
def test_a_file_is_attached_once_below_its_ticket(tickets: FileTicketing, tmp_path: Path, name: str) -> None:
    """It should write it whole beside the ticket, whatever it is called, and name it there once."""
    reference = tickets.open(INCIDENT, "t", "b")
    for content in (b"%PDF \x00\xff", b"another, of a retry"):
        tickets.attach(reference, name, content, "application/pdf")
    (file,) = Path(reference).with_suffix(".files").iterdir()
    assert file.read_bytes() == b"%PDF \x00\xff"
    assert file.suffix == (Path(name).suffix if name != ".hidden" else "")
    assert Path(reference).read_text().count("Attached: ") == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "var"]


def test_the_link_leads_to_the_file(tickets: FileTicketing) -> None:
    """It should be an address that a browser on that machine opens."""
    reference = tickets.open(INCIDENT, "t", "b")
    assert tickets.link(reference) == f"file://{reference}"
