"""What one ticket system does that others do not."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.ticketing import ggus as ggus_samples
from tests.contract.ticketing import request_tracker as rt_samples
from tests.contract.ticketing import servicenow as servicenow_samples
from unlatch.errors import CheckFailedError, ConfigError
from unlatch.ticketing.ggus import Ggus
from unlatch.ticketing.request_tracker import RequestTracker
from unlatch.ticketing.servicenow import ServiceNow

INCIDENT = "inc-20141018-035452-dbvrtg4037"


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[servicenow_samples.Instance]:
    with servicenow_samples.running(tmp_path) as server:
        yield server


@pytest.fixture
def zammad(tmp_path: Path) -> Iterator[ggus_samples.Zammad]:
    with ggus_samples.running(tmp_path) as server:
        yield server


@pytest.fixture
def tracker(tmp_path: Path) -> Iterator[rt_samples.RequestTracker]:
    with rt_samples.running(tmp_path) as server:
        yield server


def _made(plugin: Any, samples: Any, directory: Path, **options: Any) -> Any:
    settings = samples.settings(directory)
    access = dataclasses.replace(settings.access(), options={**settings.access().options, **options})
    return plugin(dataclasses.replace(settings, access=lambda: access), lambda _: None)


class TestServiceNow:
    """Numbers, journals, and queries that forgive too much."""

    def test_what_an_incident_carries(self, instance: servicenow_samples.Instance, tmp_path: Path) -> None:
        """It should have the correlation id, the group's sys_id, the site's own fields, and a title that fits."""
        tickets = _made(ServiceNow, servicenow_samples, tmp_path)
        assert tickets.open(INCIDENT, "t" * 200, "b" * 5000) == "INC0010001"
        record = instance.tables["incident"][0]
        assert record["correlation_id"] == INCIDENT
        assert record["assignment_group"] == "287ebd7da9fe198100f92cc8d1d2154e"
        assert (record["impact"], record["category"]) == ("1", "database")
        assert (len(record["short_description"]), len(record["description"])) == (160, 4000)

    def test_states_are_numbers(self, instance: servicenow_samples.Instance, tmp_path: Path) -> None:
        """It should give the fields that a state makes mandatory, and a site's own numbers."""
        tickets = _made(ServiceNow, servicenow_samples, tmp_path, states={"waiting": 18}, close_code="Solved")
        reference = tickets.open(INCIDENT, "title", "body")
        record = instance.tables["incident"][0]
        tickets.set_state(reference, "waiting")
        assert (record["state"], record["hold_reason"]) == ("18", "4")
        tickets.set_state(reference, "resolved")
        assert (record["state"], record["close_code"]) == ("6", "Solved")

    def test_a_journal_that_cannot_be_read_posts_nothing(
        self, instance: servicenow_samples.Instance, tmp_path: Path
    ) -> None:
        """It should not take notes that are hidden from it for notes that are not there."""
        tickets = _made(ServiceNow, servicenow_samples, tmp_path)
        reference = tickets.open(INCIDENT, "title", "body")
        instance.hides_journal = True
        with pytest.raises(ConfigError, match="shows no work note") as hidden:
            tickets.comment(reference, "a", "text")
        assert "sys_journal_field" in hidden.value.next_step
        assert servicenow_samples.comments(reference) == []

    def test_a_query_that_was_not_understood_is_seen(
        self, instance: servicenow_samples.Instance, tmp_path: Path
    ) -> None:
        """It should not use another incident when the table does not know the field that was asked for."""
        record = instance.add(short_description="printer on fire")
        del record["correlation_id"]
        with pytest.raises(CheckFailedError, match="correlation_id"):
            _made(ServiceNow, servicenow_samples, tmp_path).open(INCIDENT, "title", "body")
        assert len(instance.tables["incident"]) == 1

    @pytest.mark.parametrize("given", ["INC0010001^ORnumber=INC0010002", "a=b", "../x", ""])
    def test_a_reference_is_no_query(self, instance: servicenow_samples.Instance, tmp_path: Path, given: str) -> None:
        """It should look up plain numbers only."""
        for _ in range(2):
            instance.add(short_description="printer on fire")
        assert _made(ServiceNow, servicenow_samples, tmp_path).open(INCIDENT, "t", "b", given) == "INC0010003"

    def test_words_are_not_html(self, instance: servicenow_samples.Instance, tmp_path: Path) -> None:
        """It should not let a log's words switch the journal to HTML, or look like a marker."""
        tickets = _made(ServiceNow, servicenow_samples, tmp_path)
        reference = tickets.open(INCIDENT, "title", "body")
        tickets.comment(reference, "a", "[code]<script>x</script>[/CODE] [unlatch:0]")
        assert servicenow_samples.comments(reference) == ["[ code]<script>x</script>[ /CODE] [ unlatch:0]"]
        assert len(instance.writes()) == 2

    def test_an_unknown_table_is_told(self, instance: servicenow_samples.Instance, tmp_path: Path) -> None:
        """It should name the table and where it stands."""
        for table in ("u_incidents", "incident?x"):
            with pytest.raises(ConfigError, match=table[:8]) as wrong:
                _made(ServiceNow, servicenow_samples, tmp_path, table=table).check()
            assert "extra of unlatch_ticket_servicenow" in wrong.value.next_step
        assert instance.writes() == []

    def test_an_attachment_is_the_file(self, instance: servicenow_samples.Instance, tmp_path: Path) -> None:
        """It should send the bytes with their type to the incident."""
        tickets = _made(ServiceNow, servicenow_samples, tmp_path)
        reference = tickets.open(INCIDENT, "title", "body")
        tickets.attach(reference, "post-mortem.md", b"# 13 hours", "text/markdown")
        (made,) = instance.attachments
        assert (made["table_name"], made["content"], made["content_type"]) == (
            "incident",
            "# 13 hours",
            "text/markdown",
        )
        assert made["table_sys_id"] == instance.tables["incident"][0]["sys_id"]


class TestGgus:
    """Zammad's articles, states with a time, and numbers that people write in many ways."""

    def test_what_a_ticket_carries(self, zammad: ggus_samples.Zammad, tmp_path: Path) -> None:
        """It should have the group, the customer, the site's own fields, and a public note in plain text."""
        _made(Ggus, ggus_samples, tmp_path).open(INCIDENT, "title", "body")
        (row,), (article,) = zammad.ticket_rows, zammad.articles
        assert (row["group"], row["customer"], row["priority"]) == ("DBoD", "unlatch@example.org", "3 high")
        assert article["subject"].startswith(f"Unlatch {INCIDENT} [")
        assert (article["type"], article["content_type"], article["internal"]) == ("note", "text/plain", False)

    def test_the_states_of_a_plain_zammad(self, zammad: ggus_samples.Zammad, tmp_path: Path) -> None:
        """It should use what every Zammad has when the connection names no states, and give a reminder its time."""
        tickets = _made(Ggus, ggus_samples, tmp_path, states={}, internal=True)
        reference = tickets.open(INCIDENT, "title", "body")
        seen = []
        for state in ("in progress", "waiting", "resolved", "closed"):
            tickets.set_state(reference, state)
            seen.append(zammad.ticket_rows[0]["state"])
        assert seen == ["open", "pending reminder", "closed", "closed"]
        assert zammad.ticket_rows[0]["pending_time"] == "2014-10-19T17:12:00Z"
        assert zammad.articles[0]["internal"] is True

    @pytest.mark.parametrize("given", ["22001", "#22001", "GGUS:22001", "ggus-22001", "GGUS #22001 "])
    def test_a_number_may_be_written_in_many_ways(
        self, zammad: ggus_samples.Zammad, tmp_path: Path, given: str
    ) -> None:
        """It should find the ticket that a person means."""
        zammad.add(title="databases down")
        assert _made(Ggus, ggus_samples, tmp_path).open(INCIDENT, "t", "b", given) == "22001"

    def test_a_state_that_is_not_there_is_told(self, zammad: ggus_samples.Zammad, tmp_path: Path) -> None:
        """It should name the state, in the drill with those that there are."""
        tickets = _made(Ggus, ggus_samples, tmp_path, states={"waiting": "napping"})
        reference = tickets.open(INCIDENT, "title", "body")
        with pytest.raises(ConfigError, match="napping"):
            tickets.set_state(reference, "waiting")
        with pytest.raises(ConfigError, match="napping") as wrong:
            tickets.check()
        assert "pending reminder" in wrong.value.next_step
        assert zammad.ticket_rows[0]["state"] == "open"

    @pytest.mark.parametrize("name", ["group", "customer"])
    def test_what_the_connection_lacks_is_told(self, zammad: ggus_samples.Zammad, tmp_path: Path, name: str) -> None:
        """It should say which entry of the extra is missing, before a ticket is made."""
        with pytest.raises(ConfigError, match=f"names no {name}"):
            _made(Ggus, ggus_samples, tmp_path, **{name: ""}).open(INCIDENT, "title", "body")
        assert zammad.ticket_rows == []

    @pytest.mark.parametrize("options", [{"states": ["open"]}, {"group": ["DBoD"]}, {"fields": "x"}])
    def test_an_extra_of_another_shape_is_told(
        self, zammad: ggus_samples.Zammad, tmp_path: Path, options: dict[str, Any]
    ) -> None:
        """It should name the entry and the connection."""
        with pytest.raises(ConfigError, match=f"{next(iter(options))} in the extra of unlatch_ticket_ggus"):
            _made(Ggus, ggus_samples, tmp_path, **options).open(INCIDENT, "title", "body")
        assert zammad.writes() == []

    def test_an_attachment_is_an_article(self, zammad: ggus_samples.Zammad, tmp_path: Path) -> None:
        """It should send the file in base64 with its type."""
        tickets = _made(Ggus, ggus_samples, tmp_path)
        tickets.attach(tickets.open(INCIDENT, "t", "b"), "post-mortem.md", b"# 13 hours", "text/markdown")
        (file,) = zammad.articles[1]["attachments"]
        assert file == {"filename": "post-mortem.md", "data": "IyAxMyBob3Vycw==", "mime-type": "text/markdown"}


class TestRequestTracker:
    """Refusals that are told with a 200, comments that are hidden, and links that find a ticket again."""

    def test_what_a_ticket_carries(self, tracker: rt_samples.RequestTracker, tmp_path: Path) -> None:
        """It should refer to the incident, have the site's own fields and a title that fits, and mail no requestor."""
        _made(RequestTracker, rt_samples, tmp_path).open(INCIDENT, "t" * 300, "body")
        (row,) = tracker.ticket_rows
        assert (row["Queue"], row["Priority"], len(row["Subject"])) == ("DBoD", "50", 200)
        assert row["RefersTo"] == [f"urn:unlatch:{INCIDENT}"]
        assert "Requestor" not in row

    def test_an_incident_that_is_no_plain_word_is_no_query(
        self, tracker: rt_samples.RequestTracker, tmp_path: Path
    ) -> None:
        """It should ask for a fingerprint instead of words that TicketSQL would read."""
        tickets = _made(RequestTracker, rt_samples, tmp_path)
        assert tickets.open("x' OR id > 0 OR Subject = 'y", "t", "b") == "1"
        assert tickets.open("x' OR id > 0 OR Subject = 'z", "t", "b") == "2"
        assert all(len(row["RefersTo"][0]) == len("urn:unlatch:") + 24 for row in tracker.ticket_rows)

    def test_the_statuses_of_a_plain_rt(self, tracker: rt_samples.RequestTracker, tmp_path: Path) -> None:
        """It should use what every RT has when the connection names no states."""
        tickets = _made(RequestTracker, rt_samples, tmp_path, states={})
        reference = tickets.open(INCIDENT, "title", "body")
        seen = [tracker.ticket_rows[0]["Status"]]
        for state in ("in progress", "waiting", "resolved", "closed", "open"):
            tickets.set_state(reference, state)
            seen.append(tracker.ticket_rows[0]["Status"])
        assert seen == ["new", "open", "stalled", "resolved", "resolved", "new"]

    @pytest.mark.parametrize("given", ["1", "#1", "RT:1", "rt-1", "RT #1 "])
    def test_a_number_may_be_written_in_many_ways(
        self, tracker: rt_samples.RequestTracker, tmp_path: Path, given: str
    ) -> None:
        """It should find the ticket that a person means, and let it refer to the incident."""
        tracker.add(Subject="databases down")
        tickets = _made(RequestTracker, rt_samples, tmp_path)
        assert tickets.open(INCIDENT, "t", "b", given) == "1"
        assert tickets.open(INCIDENT, "t", "b") == "1"
        assert tracker.ticket_rows[0]["RefersTo"] == [f"urn:unlatch:{INCIDENT}"]

    def test_a_status_that_is_refused_with_a_200_is_told(
        self, tracker: rt_samples.RequestTracker, tmp_path: Path
    ) -> None:
        """It should look at the ticket instead of the code, and repeat RT's words."""
        tickets = _made(RequestTracker, rt_samples, tmp_path, states={"waiting": "napping"})
        reference = tickets.open(INCIDENT, "title", "body")
        with pytest.raises(ConfigError, match="Status 'napping' isn't a valid status"):
            tickets.set_state(reference, "waiting")
        tracker.may = lambda right: right != "ModifyTicket"
        with pytest.raises(ConfigError, match="Permission Denied") as refused:
            tickets.set_state(reference, "closed")
        assert "ModifyTicket" in refused.value.next_step

    def test_comments_that_are_hidden_are_not_posted_again(
        self, tracker: rt_samples.RequestTracker, tmp_path: Path
    ) -> None:
        """It should post one comment at most that it cannot see, say which right is missing, and go on with it."""
        tickets = _made(RequestTracker, rt_samples, tmp_path)
        reference = tickets.open(INCIDENT, "title", "body")
        tracker.shows = lambda row: row.get("Type") != "Comment"
        for marker in ("a", "a", "b"):
            with pytest.raises(ConfigError, match="shows no comment") as hidden:
                tickets.comment(reference, marker, f"text of {marker}")
            assert "ShowTicketComments" in hidden.value.next_step
        assert rt_samples.comments(reference) == ["text of a"]
        tracker.shows = lambda _: True
        for marker in ("a", "b"):
            tickets.comment(reference, marker, f"text of {marker}")
        assert rt_samples.comments(reference) == ["text of a", "text of b"]

    def test_a_login_may_stand_for_the_token(self, tracker: rt_samples.RequestTracker, tmp_path: Path) -> None:
        """It should send login and password when the connection has a login, else the token."""
        for login, scheme in (("unlatch", "Basic"), ("", "token")):
            settings = rt_samples.settings(tmp_path, login=login)
            RequestTracker(settings).check()
            assert tracker.requests[-1].headers["Authorization"].split()[0] == scheme

    def test_rt_may_have_a_path(self, tracker: rt_samples.RequestTracker, tmp_path: Path) -> None:
        """It should ask and link below the path that the connection names."""
        tickets = _made(RequestTracker, rt_samples, tmp_path, path="rt/")
        assert tickets.link("7") == f"{tracker.url}/rt/Ticket/Display.html?id=7"
        with pytest.raises(ConfigError, match="404"):
            tickets.check()
        assert tracker.requests[-1].path == "/rt/REST/2.0/queues"

    def test_what_the_connection_lacks_is_told(self, tracker: rt_samples.RequestTracker, tmp_path: Path) -> None:
        """It should say that the queue is missing, before a ticket is made."""
        with pytest.raises(ConfigError, match="names no queue"):
            _made(RequestTracker, rt_samples, tmp_path, queue="").open(INCIDENT, "title", "body")
        assert tracker.ticket_rows == []

    def test_a_queue_that_takes_no_tickets_is_told(self, tracker: rt_samples.RequestTracker, tmp_path: Path) -> None:
        """It should tell the drill that the user may not open tickets there."""
        tracker.may = lambda right: right != "CreateTicket"
        with pytest.raises(ConfigError, match="open no ticket") as refused:
            _made(RequestTracker, rt_samples, tmp_path).check()
        assert "CreateTicket" in refused.value.next_step

    def test_an_attachment_is_a_comment(self, tracker: rt_samples.RequestTracker, tmp_path: Path) -> None:
        """It should send the file in base64 with its type."""
        tickets = _made(RequestTracker, rt_samples, tmp_path)
        tickets.attach(tickets.open(INCIDENT, "t", "b"), "post-mortem.md", b"# 13 hours", "text/markdown")
        (file,) = tracker.transactions[1]["files"]
        assert file == {"FileName": "post-mortem.md", "FileType": "text/markdown", "FileContent": "IyAxMyBob3Vycw=="}
