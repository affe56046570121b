"""The contract of ticket systems that are servers: lost answers, busy servers, refusals, pages, secrets, certificates.

It runs over every plug-in whose samples have `running(directory)`: a server behind real TLS that answers as documented.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from tests.contract.ticketing.https_desk import SECRET, HttpsDesk, Mood
from unlatch.discovery import load_plugins
from unlatch.drill.asking import Asking
from unlatch.drill.questions import ask_ticketing
from unlatch.errors import ConfigError, TransientError, UnlatchError
from unlatch.ticketing import TicketAccess, TicketSettings

INCIDENT = "inc-20141018-035452-dbvrtg4037"
SYSTEMS = load_plugins("unlatch.ticketing")
REMOTE = sorted(set(SYSTEMS) - {"file"})


class Site(NamedTuple):
    """A server, and what reaches it."""

    name: str
    look: ModuleType
    server: HttpsDesk
    directory: Path
    pauses: list[float]

    def tickets(self, change: Callable[[TicketAccess], TicketAccess] = lambda access: access, **http: Any) -> Any:
        """The plug-in as a new process makes it; it waits for nothing."""
        settings: TicketSettings = self.look.settings(self.directory, **http)
        assert settings.access is not None
        access = change(settings.access())
        settings = dataclasses.replace(settings, access=lambda: access)
        return SYSTEMS[self.name].PLUGIN(settings, self.pauses.append)

    def opened(self) -> str:
        """A ticket that is there."""
        return str(self.tickets().open(INCIDENT, "title", "body"))


@pytest.fixture(params=REMOTE)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    look = importlib.import_module(f"tests.contract.ticketing.{request.param}")
    with look.running(tmp_path) as server:
        yield Site(request.param, look, server, tmp_path, [])


LOST = [
    pytest.param([Mood(done=True)], id="dropped"),
    pytest.param([Mood(status=503, done=True)], id="503"),
    pytest.param([Mood(status=504, done=True)], id="504"),
    pytest.param([Mood(), Mood(status=500), Mood(status=502, done=True)], id="third-time"),
]


class TestPostingOnce:
    """Whatever becomes of the answer."""

    @pytest.mark.parametrize("moods", LOST)
    def test_a_lost_answer_makes_no_second_ticket(self, site: Site, moods: list[Mood]) -> None:
        """It should find the ticket that was made although nobody said so."""
        site.server.moods = list(moods)
        reference = site.opened()
        assert site.look.tickets(site.directory) == [reference]
        assert site.server.moods == []

    @pytest.mark.parametrize("moods", LOST)
    def test_a_lost_answer_makes_no_second_comment(self, site: Site, moods: list[Mood]) -> None:
        """It should look before it posts again, in the same call and in the next."""
        reference = site.opened()
        site.server.moods = list(moods)
        site.tickets().comment(reference, "voms/verdict", "dead")
        site.tickets().comment(reference, "voms/verdict", "dead")
        assert site.look.comments(reference) == ["dead"]

    def test_a_busy_server_is_asked_again(self, site: Site) -> None:
        """It should wait as long as it is told, up to a bound, else longer each time, and then post once."""
        reference = site.opened()
        site.server.moods = [Mood(status=429, retry_after="3"), Mood(status=503), Mood(status=429, retry_after="86400")]
        site.tickets().comment(reference, "a", "text")
        assert site.pauses == [3.0, 1.0, 10.0]
        site.server.moods = [Mood(status=429, reads=True, retry_after="2"), Mood(status=500, reads=True)]
        site.tickets().set_state(reference, "waiting")
        assert site.pauses[3:] == [2.0, 1.0]
        assert site.look.comments(reference) == ["text"]
        assert site.look.state(reference) == "waiting"

    def test_a_state_may_be_set_twice(self, site: Site) -> None:
        """It should set the state again when the answer was lost, and ask for nothing when it is set already."""
        reference = site.opened()
        site.server.moods = [Mood(done=True)]
        site.tickets().set_state(reference, "in progress")
        assert site.look.state(reference) == "in progress"
        before = len(site.server.writes())
        site.tickets().set_state(reference, "in progress")
        assert len(site.server.writes()) == before

    def test_a_gateway_that_gave_up_is_not_posted_to_again(self, site: Site) -> None:
        """It should leave it to the next call when the server may still be at it."""
        reference = site.opened()
        before = len(site.server.writes())
        site.server.moods = [Mood(status=504)]
        with pytest.raises(TransientError, match="504"):
            site.tickets().comment(reference, "a", "text")
        assert len(site.server.writes()) == before + 1
        site.tickets().comment(reference, "a", "text")
        assert site.look.comments(reference) == ["text"]

    def test_markers_are_looked_for_on_every_page(self, site: Site) -> None:
        """It should find what it has posted behind the words of many others."""
        reference = site.opened()
        site.tickets().comment(reference, "a", "text")
        site.look.crowd(reference)
        site.server.requests.clear()
        site.tickets().comment(reference, "a", "text")
        assert site.opened() == reference
        assert site.server.writes() == []
        pages = [
            a for a in site.server.requests if a.query.get("page") == "3" or a.query.get("sysparm_offset") == "200"
        ]
        assert pages

    def test_a_persons_ticket_is_used(self, site: Site) -> None:
        """It should go on in the ticket that people talk in, once, and for two incidents."""
        theirs = site.look.theirs()
        for incident in (INCIDENT, INCIDENT, f"{INCIDENT}x"):
            assert site.tickets().open(incident, "title", f"body of {incident}", theirs) == theirs
        assert site.look.tickets(site.directory) == [theirs]
        words = "\n".join([site.look.body(theirs), *site.look.comments(theirs)])
        assert words.count(f"body of {INCIDENT}x") == 1
        assert words.count(f"body of {INCIDENT}") == 2

    def test_a_file_is_attached_once(self, site: Site) -> None:
        """It should attach a file by its name, also when the answer was lost."""
        reference = site.opened()
        site.server.moods = [Mood(done=True)]
        for _ in range(2):
            site.tickets().attach(reference, "post-mortem.md", b"# 13 hours", "text/markdown")
        assert len(site.server.writes()) == 2

    def test_the_link_is_on_the_server(self, site: Site) -> None:
        """It should be an address that a person opens."""
        assert site.tickets().link(site.opened()).startswith(f"{site.server.url}/")


class TestWhatIsWrong:
    """Errors say what to do, and show no secret."""

    @pytest.mark.parametrize("mood", [Mood(status=429, reads=True), Mood(status=502, reads=True), Mood(reads=True)])
    def test_a_server_that_stays_busy_is_tried_another_time(self, site: Site, mood: Mood) -> None:
        """It should give up after a few requests, and have posted nothing."""
        reference = site.opened()
        site.server.moods = [mood] * 20
        for call in (
            lambda: site.tickets().comment(reference, "a", "text"),
            lambda: site.tickets().open("inc-2", "title", "body"),
            lambda: site.tickets().set_state(reference, "closed"),
            lambda: site.tickets().check(),
        ):
            with pytest.raises(TransientError):
                call()
        assert len(site.server.moods) == 4
        assert site.look.comments(reference) == []

    def test_out_of_reach_is_tried_another_time(self, site: Site) -> None:
        """It should be an error that is worth another try."""
        reference = site.opened()
        site.server.unplug()
        with pytest.raises(TransientError, match="does not answer"):
            site.tickets().comment(reference, "a", "text")

    def test_a_wrong_secret_is_not_shown(self, site: Site) -> None:
        """It should name the connection, try once, and not show the secret, even when the server repeats it."""
        site.server.requests.clear()
        tickets = site.tickets(password="not-it")
        with pytest.raises(ConfigError, match=f"unlatch_ticket_{site.name}") as refused:
            tickets.open(INCIDENT, "title", "body")
        assert "password" in refused.value.next_step
        assert "not-it" not in f"{refused.value}{refused.value.__cause__}"
        assert len(site.server.requests) == 1
        access = site.look.settings(site.directory).access()
        assert SECRET not in f"{access!r}{access.http!r}"

    @pytest.mark.parametrize("method", ["GET", "write"])
    def test_a_missing_right_names_the_grant(self, site: Site, method: str) -> None:
        """It should say which role or permission the user needs."""
        reference = site.opened()
        site.server.forbidden = lambda asked: (asked.method == "GET") is (method == "GET")
        with pytest.raises(ConfigError) as refused:
            site.tickets().comment(reference, "a", "text")
        assert any(word in refused.value.next_step for word in ("itil", "ticket.agent", "CommentOnTicket"))

    def test_a_name_that_is_not_there_is_told(self, site: Site) -> None:
        """It should not open a ticket that nobody gets, and say so ahead of time in the drill."""

        def spoilt(access: TicketAccess) -> TicketAccess:
            return dataclasses.replace(access, options=site.look.spoil_name(dict(access.options)))

        for call in (lambda t: t.open(INCIDENT, "title", "body"), lambda t: t.check()):
            with pytest.raises(ConfigError, match="Nobody"):
                call(site.tickets(spoilt))
        assert site.look.tickets(site.directory) == []

    def test_a_ticket_that_is_not_there_is_told(self, site: Site) -> None:
        """It should name it, for a comment and for a state."""
        for call in (lambda t: t.comment("4711", "a", "text"), lambda t: t.set_state("4711", "closed")):
            with pytest.raises(ConfigError, match=r"no .* 4711"):
                call(site.tickets())

    @pytest.mark.parametrize("raw", [b"<html>please log in</html>", b'{"surprise": 1}', b"[1]", b"null"])
    def test_an_answer_that_is_not_understood_posts_nothing(self, site: Site, raw: bytes) -> None:
        """It should stop rather than take a login page for an empty list."""
        reference = site.opened()
        before = len(site.server.writes())
        site.server.moods = [Mood(raw=raw, reads=True)]
        with pytest.raises(UnlatchError):
            site.tickets().comment(reference, "a", "text")
        assert len(site.server.writes()) == before

    def test_an_unknown_certificate_is_refused(self, site: Site) -> None:
        """It should send no secret to a server whose certificate nobody vouches for."""
        for verify, words in ((True, "certificate"), ("/nonexistent/ca.pem", r"ca\.pem")):
            with pytest.raises(ConfigError, match=words) as refused:
                site.tickets(verify=verify).check()
            assert "verify" in refused.value.next_step
        assert site.server.requests == []

    @pytest.mark.parametrize(
        "http",
        [{"base_url": "http://127.0.0.1:1"}, {"base_url": "https://me:s3@127.0.0.1:1"}, {"password": ""}],
        ids=["plain", "userinfo", "empty"],
    )
    def test_a_connection_that_would_tell_is_refused(self, site: Site, http: dict[str, str]) -> None:
        """It should send no secret in the clear or in an address, nor ask without one."""
        with pytest.raises(ConfigError) as refused:
            site.tickets(**http).open(INCIDENT, "title", "body")
        assert "s3" not in str(refused.value)
        assert site.server.requests == []

    def test_no_connection_is_an_error_of_the_call(self, tmp_path: Path, site: Site) -> None:
        """It should be made without its connection, and say which one is missing when it is used."""
        tickets = SYSTEMS[site.name].PLUGIN(TicketSettings(directory=tmp_path / "tickets"))
        with pytest.raises(ConfigError) as missing:
            tickets.open(INCIDENT, "title", "body")
        assert f"unlatch_ticket_{site.name}" in missing.value.next_step


def test_the_drills_question_changes_nothing(site: Site) -> None:
    """It should say where tickets would go, and write none."""
    assert "127.0.0.1" in site.tickets().check()
    assert site.server.writes() == []
    assert site.look.tickets(site.directory) == []


def test_the_drill_has_a_row(site: Site) -> None:
    """It should be well, then missing with what to do when the login is wrong."""
    rows = []
    for tickets in (site.tickets(), site.tickets(password="not-it")):
        asking = Asking("worker")
        ask_ticketing(asking, tickets)
        rows += asking.checks
    assert [(row.privilege, row.path, row.ok) for row in rows] == [
        ("write tickets", site.name, True),
        ("write tickets", site.name, False),
    ]
    assert f"unlatch_ticket_{site.name}" in str(rows[1])
