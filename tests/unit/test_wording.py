"""What people read: tables stay tables whatever a machine has put into them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import PurePosixPath

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.builders import NOW, evidence
from unlatch.models import (
    Answer,
    Certainty,
    CrashEvent,
    Evidence,
    FilePlan,
    FileState,
    Plan,
    Remedy,
    RemedyOption,
    Verdict,
    VerdictKind,
)
from unlatch.wording import evidence_table, opening_comment

PATH = PurePosixPath("/ORA/dbs03/voms/ibdata1")
WORDS = st.text("ab|\\\n\t ", max_size=20)


def table(words: str, grant: str | None = None) -> str:
    """The question to a person, with these words wherever a machine's own words can stand."""
    seen = Evidence("openers", Answer.NOT_OBSERVED, words, NOW, NOW + timedelta(seconds=120))
    verdict = Verdict(VerdictKind.UNKNOWN, ("openers: why",), (seen, evidence("port", Answer.CLEAR)), "d", NOW)
    files = (FilePlan(PATH, FileState.UNKNOWN, Remedy.RECREATE, words, 10, 1.0),)
    options = (RemedyOption(Remedy.RECREATE, True, 1.0, words), RemedyOption(Remedy.NOTIFY, False, 15.0, words, grant))
    return evidence_table("voms", verdict, Plan(files, 1.0, "the proof is not complete", options))


@given(WORDS)
def test_rows_keep_their_cells(words: str) -> None:
    """It should give each row of a table the cells that its heading has, one row a line."""
    for block in table(words).split("\n\n"):
        if block.startswith("| "):
            counts = {line.replace("\\|", "").count("|") for line in block.split("\n")}
            assert len(counts) == 1, block


def test_the_question_has_evidence_plan_and_risk() -> None:
    """It should show what was seen, what would be done, which grant is missing, and what a mistake would cost."""
    text = table("sudo refuses", "dbod ALL=(root) NOPASSWD: x")
    for words in (
        "| openers | not_observed | sudo refuses |",
        "| port | clear | port says clear |",
        f"| `{PATH}` | unknown | recreate | sudo refuses | 1 s |",
        "| 1 | recreate |",
        "| — | notify | sudo refuses **Missing privilege; to grant it:** dbod ALL=(root) NOPASSWD: x | not now |",
        "**A person must decide:** the proof is not complete.",
        "splits the database in two",
    ):
        assert words in text, text


def test_words_of_a_machine_are_no_markup() -> None:
    """It should show what a process calls itself as text: no link, no image, no tag in the question to a person."""
    text = table("pid 5 (x ![](https://example.org/p.png) [approve](https://example.org) <b>) has it open")
    assert "![](" not in text
    assert "[approve](" not in text.replace("\\[", "")
    assert "<b>" not in text.replace("\\<", "")


def test_log_lines_stay_in_their_block() -> None:
    """It should show log lines as they are, also when one of them would end the block that they stand in."""
    lines = ("Domain has crashed: name=```", "```", "# approved")
    event = CrashEvent("x`y", "hv01", NOW, "died", lines, Certainty.CERTAIN)
    text = opening_comment("", (), event, dry_run=False)
    assert "````\n" + "\n".join(lines) + "\n````" in text
