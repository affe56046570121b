"""What only a real RT can show: rights, merged tickets, its own words, files, links."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.contract.test_ticketing import ROOT
from tests.contract.ticketing.https_desk import Mood
from tests.rt import real_tracker as look
from tests.rt.real_tracker import Proxy
from unlatch.errors import ConfigError
from unlatch.ticketing.request_tracker import RequestTracker

INCIDENT = "inc-20141018-035452-dbvrtg4037"


def _tickets(directory: Path, **options: Any) -> RequestTracker:
    settings = look.settings(directory)
    assert settings.access is not None
    access = settings.access()
    access = dataclasses.replace(access, options={**access.options, **options})
    return RequestTracker(dataclasses.replace(settings, access=lambda: access), lambda _: None)


@pytest.mark.usefixtures("proxy")
class TestRights:
    """Users who lack one right each."""

    def test_a_user_who_may_not_open_tickets(self, proxy: Proxy, tmp_path: Path) -> None:
        """It should say which rights are needed, in the drill and when a ticket is opened."""
        for user, words in (("reader", "open no ticket"), ("outsider", "has no queue 'DBoD'")):
            proxy.log_in(user)
            with pytest.raises(ConfigError, match=words):
                _tickets(tmp_path).check()
            with pytest.raises(ConfigError, match="No permission to create tickets") as refused:
                _tickets(tmp_path).open(INCIDENT, "title", "body")
            assert "CreateTicket" in refused.value.next_step
        assert look.tickets(tmp_path) == []

    def test_a_queue_that_is_not_there(self, tmp_path: Path) -> None:
        """It should name the queue; a disabled one is none."""
        for queue in ("Nowhere", "Retired"):
            for call in (lambda t: t.check(), lambda t: t.open(INCIDENT, "title", "body")):
                with pytest.raises(ConfigError, match=queue):
                    call(_tickets(tmp_path, queue=queue))
        assert look.tickets(tmp_path) == []

    def test_a_user_who_may_not_comment(self, proxy: Proxy, tmp_path: Path) -> None:
        """It should name the right."""
        reference = _tickets(tmp_path).open(INCIDENT, "title", "body")
        proxy.log_in("reader")
        for call in (
            lambda t: t.comment(reference, "a", "text"),
            lambda t: t.attach(reference, "a.txt", b"text", "text/plain"),
        ):
            with pytest.raises(ConfigError, match="Permission Denied") as refused:
                call(_tickets(tmp_path))
            assert "CommentOnTicket" in refused.value.next_step
        assert look.comments(reference) == []

    def test_a_user_who_may_not_set_the_status(self, proxy: Proxy, tmp_path: Path) -> None:
        """It should not take RT's 200 for a yes."""
        reference = _tickets(tmp_path).open(INCIDENT, "title", "body")
        proxy.log_in("stuck")
        with pytest.raises(ConfigError, match="Permission Denied") as refused:
            _tickets(tmp_path).set_state(reference, "waiting")
        assert "ModifyTicket" in refused.value.next_step
        assert look.state(reference) == "open"

    def test_a_user_who_does_not_see_tickets(self, proxy: Proxy, tmp_path: Path) -> None:
        """It should open one ticket, not one with each try, and go on with it once it is shown."""
        proxy.log_in("unseeing")
        for _ in range(3):
            with pytest.raises(ConfigError, match="not opened again") as hidden:
                _tickets(tmp_path).open(INCIDENT, "title", "body")
            assert "ShowTicket" in hidden.value.next_step
        proxy.log_in("unlatch")
        assert [_tickets(tmp_path).open(INCIDENT, "title", "body")] == look.tickets(tmp_path)

    def test_a_user_who_does_not_see_comments(self, proxy: Proxy, tmp_path: Path) -> None:
        """It should post once at most, say which right is missing, and go on when it is given."""
        proxy.log_in("blind")
        reference = _tickets(tmp_path).open(INCIDENT, "title", "body")
        for marker in ("a", "a", "b"):
            with pytest.raises(ConfigError, match="shows no comment") as refused:
                _tickets(tmp_path).comment(reference, marker, f"text of {marker}")
            assert "ShowTicketComments" in refused.value.next_step
        assert look.comments(reference) == ["text of a"]
        proxy.log_in("unlatch")
        for marker in ("a", "b"):
            _tickets(tmp_path).comment(reference, marker, f"text of {marker}")
        assert look.comments(reference) == ["text of a", "text of b"]

    def test_a_ticket_that_is_not_shown_is_no_reference(self, tmp_path: Path) -> None:
        """It should open its own, and name the one that it was given."""
        theirs = look.theirs("General")
        reference = _tickets(tmp_path).open(INCIDENT, "title", "body", theirs)
        assert reference != theirs
        assert f"Also known as: {theirs}" in look.body(reference)


@pytest.mark.usefixtures("proxy")
class TestTickets:
    """What people do with them."""

    def test_workers_that_comment_at_once_lose_nothing(self, tmp_path: Path) -> None:
        """It should keep every comment of both, and those with one marker once."""
        reference = _tickets(tmp_path).open(INCIDENT, "title", "body")
        command = [sys.executable, "-m", "tests.contract.ticketing.commenter", RequestTracker.name, str(tmp_path)]
        workers = [subprocess.Popen([*command, reference, name, "4"], cwd=ROOT) for name in ("voms", "lxr")]
        assert [worker.wait() for worker in workers] == [0, 0]
        made = look.comments(reference)
        for name in ("voms", "lxr", "everyone"):
            assert [text for text in made if text.startswith(name)] == [f"{name} says {number}" for number in range(4)]
        assert len(made) == 12
        assert look.state(reference) == "in progress"

    def test_a_login_may_stand_for_the_token(self, proxy: Proxy, tmp_path: Path) -> None:
        """It should be let in with a password, and not with a wrong one."""
        proxy.log_in("unlatch", "s3cret-of-unlatch")
        assert look.ticket(_tickets(tmp_path).open(INCIDENT, "title", "body"))["Creator"]["id"] == "unlatch"
        proxy.log_in("unlatch", "another")
        with pytest.raises(ConfigError, match="refused the login"):
            _tickets(tmp_path).check()

    def test_a_ticket_is_found_when_people_have_changed_it(self, tmp_path: Path) -> None:
        """It should find it with another subject, in another queue, and merged into another ticket."""
        reference = _tickets(tmp_path).open(INCIDENT, "title", "body")
        _tickets(tmp_path).comment(reference, "a", "text")
        look.as_root("PUT", f"/ticket/{reference}", {"Subject": "voms is down", "Queue": "General"})
        look.as_root("PUT", f"/ticket/{reference}", {"Queue": "DBoD"})
        assert _tickets(tmp_path).open(INCIDENT, "title", "body") == reference
        into = look.theirs()
        look.as_root("PUT", f"/ticket/{reference}", {"MergeInto": into})
        assert _tickets(tmp_path).open(INCIDENT, "title", "body") == into
        for marker in ("a", "b"):
            _tickets(tmp_path).comment(reference, marker, f"text of {marker}")
        assert look.comments(into) == ["text", "text of b"]
        _tickets(tmp_path).set_state(reference, "resolved")
        assert look.state(into) == "resolved"

    def test_a_deleted_ticket_is_opened_anew(self, tmp_path: Path) -> None:
        """It should not speak into a ticket that nobody sees."""
        reference = _tickets(tmp_path).open(INCIDENT, "title", "body")
        look.as_root("DELETE", f"/ticket/{reference}")
        assert _tickets(tmp_path).open(INCIDENT, "title", "body") != reference

    def test_the_statuses_of_a_plain_queue(self, tmp_path: Path) -> None:
        """It should use RT's own, and repeat RT's words about one that is not there."""
        tickets = _tickets(tmp_path, queue="Plain", states={})
        reference = tickets.open(INCIDENT, "title", "body")
        seen = [look.ticket(reference)["Status"]]
        for state in ("in progress", "waiting", "resolved", "closed", "open"):
            tickets.set_state(reference, state)
            seen.append(look.ticket(reference)["Status"])
        assert seen == ["new", "open", "stalled", "resolved", "resolved", "new"]
        with pytest.raises(ConfigError, match="'archived' isn't a valid status"):
            _tickets(tmp_path).set_state(reference, "closed")

    def test_a_status_that_new_tickets_cannot_have(self, tmp_path: Path) -> None:
        """It should repeat RT's words, and open nothing."""
        with pytest.raises(ConfigError, match=r"POST /REST/2\.0/ticket") as refused:
            _tickets(tmp_path, states={"open": "napping"}).open(INCIDENT, "title", "body")
        assert "napping" in str(refused.value)
        assert look.tickets(tmp_path) == []

    def test_a_comment_mails_and_opens_nothing(self, proxy: Proxy, tmp_path: Path) -> None:
        """It should leave a resolved ticket resolved, and send nobody a mail of RT's."""
        tickets = _tickets(tmp_path, fields={"Requestor": "people@example.org"})
        reference = tickets.open(INCIDENT, "title", "body")
        mails = list((proxy.rt.directory / "var").glob("*.mbox"))
        before = [mail.read_bytes() for mail in mails]
        tickets.set_state(reference, "resolved")
        tickets.comment(reference, "late", "the post-mortem is there")
        assert look.state(reference) == "resolved"
        assert b"the post-mortem is there" not in b"".join(mail.read_bytes() for mail in mails).removeprefix(
            b"".join(before)
        )

    def test_words_arrive_as_they_were_said(self, tmp_path: Path) -> None:
        """It should keep tables, accents, markup and a body that looks like a header."""
        text = "| a | b |\n|---|---|\n\nSubject: no <b>header</b>\n\u00e4\u2026 \U0001f512\n-- \n> cited\n`x`"
        tickets = _tickets(tmp_path)
        reference = tickets.open(INCIDENT, "t\u00eftle \u2026" + "x" * 300, text)
        tickets.comment(reference, "a", text)
        assert look.body(reference) == text
        assert look.comments(reference) == [text]
        assert look.title(reference).startswith("t\u00eftle \u2026xxx")  # RT cuts at 200 bytes
        (entry,) = look.history(reference, "Comment")
        assert {part["ContentType"] for part in look.parts(entry)} == {"text/plain"}

    def test_a_file_arrives_whole(self, proxy: Proxy, tmp_path: Path) -> None:
        """It should be the same bytes under its name in ASCII, also after an answer that was lost."""
        content = bytes(range(256)) * 5000
        reference = _tickets(tmp_path).open(INCIDENT, "title", "body")
        proxy.moods = [Mood(done=True)]
        for _ in range(2):
            _tickets(tmp_path).attach(reference, "post-mortem \u00fc.pdf", content, "application/pdf")
        (entry,) = look.history(reference, "Comment")
        (file,) = [part for part in look.parts(entry) if part["ContentType"] == "application/pdf"]
        assert (file["Filename"], file["Content"] == content) == ("post-mortem _.pdf", True)

    def test_the_link_is_a_page(self, proxy: Proxy, tmp_path: Path) -> None:
        """It should be where RT shows the ticket to a person who has logged in."""
        reference = _tickets(tmp_path).open(INCIDENT, "dbvrtg4037 crashed", "voms is down")
        link = _tickets(tmp_path).link(reference)
        there = f"http://127.0.0.1:{proxy.rt.port}"
        with requests.Session() as person:
            person.trust_env = False
            person.post(f"{there}/NoAuth/Login.html", {"user": "unlatch", "pass": "s3cret-of-unlatch"}, timeout=120)
            page = person.get(link.replace(proxy.url, there), timeout=120)
        assert page.status_code == 200
        assert f"#{reference}: dbvrtg4037 crashed" in page.text


@pytest.mark.parametrize(
    "marker",
    ["\u20ac" * 60 + " x" * 40, "=?utf-8?q?x?=", "a,b;" * 50, "\u00fc" * 300],
    ids=["wide", "coded", "commas", "umlauts"],
)
@pytest.mark.usefixtures("proxy")
def test_a_marker_is_found_whatever_it_is_made_of(tmp_path: Path, marker: str) -> None:
    """It should find its first comment again, though RT folds and decodes subjects like a mail's header."""
    reference = _tickets(tmp_path).open(INCIDENT, "title", "body")
    for _ in range(2):
        _tickets(tmp_path).comment(reference, marker, "text")
    assert look.comments(reference) == ["text"]


@pytest.mark.usefixtures("proxy")
def test_files_that_rt_does_not_take_as_they_are(tmp_path: Path) -> None:
    """It should attach a file whose name RT breaks, and tell of an empty one, once each."""
    reference = _tickets(tmp_path).open(INCIDENT, "title", "body")
    for _ in range(2):
        _tickets(tmp_path).attach(reference, "\u20acber.html", b"<p>13 hours</p>", "text/html")
        _tickets(tmp_path).attach(reference, "trace.log", b"", "text/plain")
    assert look.comments(reference) == ["Attached: \u20acber.html", "trace.log is empty."]
