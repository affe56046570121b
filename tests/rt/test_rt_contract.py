"""The contract of every ticket system, this time with a real one: the same tests, another server."""

from __future__ import annotations

from tests.contract import test_ticketing_remote as remote
from tests.contract.test_ticketing import (  # noqa: F401  # pytest runs what it finds here
    test_a_comment_is_made_once_per_marker,
    test_a_reference_that_a_person_gave_is_kept,
    test_another_incident_is_another_ticket,
    test_markers_that_look_alike_are_told_apart,
    test_opening_twice_is_one_ticket,
    test_text_cannot_forge_a_marker_or_a_state,
    test_the_state_is_the_last_one_said,
)
from tests.contract.test_ticketing_remote import (  # noqa: F401
    Site,
    test_the_drill_has_a_row,
    test_the_drills_question_changes_nothing,
)


class TestPosting(remote.TestPostingOnce):
    """Whatever becomes of the answer."""

    def test_markers_are_looked_for_on_every_page(self, site: Site) -> None:
        """It should find what it has posted behind the words of many others, although RT tells no number of pages."""
        theirs = site.look.theirs()
        site.look.crowd(theirs)
        site.tickets().comment(theirs, "a", "text")
        site.server.requests.clear()
        site.tickets().comment(theirs, "a", "text")
        assert site.server.writes() == []
        assert [asked.query["page"] for asked in site.server.requests if "page" in asked.query] == ["1", "2", "3"]


class TestErrors(remote.TestWhatIsWrong):
    """Errors say what to do, and show no secret."""
