"""Slack and apprise through Airflow's real providers, to a real HTTP server on this machine, as the policy says."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.unit.fakes import World
from tests.unit.lanes import Run
from tests.unit.test_notices import People
from unlatch.discovery import load_plugins
from unlatch.errors import ConfigError, TransientError
from unlatch.models import Answer, Receiver

SENDERS = {name: module.PLUGIN for name, module in load_plugins("unlatch.notifications").items()}
TOKEN = "not-in-any-log-4711"


@dataclass
class Posts:
    """A server that keeps what is posted; `statuses` are answers by path, others are 200."""

    port: int = 0
    kept: list[tuple[str, dict[str, Any], str]] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)
    refusal: str = ""

    def at(self, path: str) -> list[dict[str, Any]]:
        """What was taken there."""
        return [document for where, document, _ in self.kept if where == path]


@pytest.fixture
def posts() -> Iterator[Posts]:
    kept = Posts()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status = kept.statuses.get(self.path, 200)
            if status == 200 and not kept.refusal:
                kept.kept.append((self.path, document, self.headers.get("Authorization", "")))
            slack = {"ok": False, "error": kept.refusal} if kept.refusal or status != 200 else {"ok": True}
            body = json.dumps(slack).encode() if self.path.startswith("/api/") else b"ok"
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing to the test's output."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kept.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield kept
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def _connections(posts: Posts, monkeypatch: pytest.MonkeyPatch) -> None:
    there = f"http://127.0.0.1:{posts.port}"
    addresses = [
        {"path": f"json://127.0.0.1:{posts.port}/pager/{TOKEN}", "tag": ["on_call"]},
        {"path": f"json://127.0.0.1:{posts.port}/teams/{TOKEN}", "tag": ["chief", "office"]},
    ]
    given: dict[str, dict[str, Any]] = {
        "bot": {"conn_type": "slack", "password": TOKEN, "extra": {"base_url": f"{there}/api/"}},
        "hook": {"conn_type": "slackwebhook", "password": f"{there}/services/{TOKEN}"},
        "pager": {"conn_type": "apprise", "extra": {"config": addresses}},
    }
    for name, connection in given.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(connection))


BOT = Receiver("office", "slack", "bot", ("db-ops", "db-night"))
HOOK = Receiver("office", "slack", "hook")
PAGER = Receiver("on_call", "apprise", "pager", ("on_call",))
EVERYBODY = Receiver("everybody", "apprise", "pager")


def _tell(receiver: Receiver) -> None:
    SENDERS[receiver.by](receiver, "dbvrtg4037 crashed", "<!channel> & voms\nis down", "a/b")


class TestSlack:
    """A bot that posts to channels, and a webhook that has its own."""

    def test_a_bot_posts_to_each_channel(self, posts: Posts) -> None:
        """It should say what happened in each, and let a log's words call nobody."""
        _tell(BOT)
        told = posts.at("/api/chat.postMessage")
        assert [document["channel"] for document in told] == ["db-ops", "db-night"]
        assert {document["text"] for document in told} == {"*dbvrtg4037 crashed*\n&lt;!channel&gt; &amp; voms\nis down"}
        assert {authorization for _, _, authorization in posts.kept} == {f"Bearer {TOKEN}"}

    def test_a_webhook_is_posted_to(self, posts: Posts) -> None:
        """It should be used when the receiver names no channel."""
        _tell(HOOK)
        (told,) = posts.at(f"/services/{TOKEN}")
        assert told["text"] == "*dbvrtg4037 crashed*\n&lt;!channel&gt; &amp; voms\nis down"

    def test_a_channel_that_is_not_there(self, posts: Posts, caplog: pytest.LogCaptureFixture) -> None:
        """It should be a person's business, without the token in the words."""
        posts.refusal = "channel_not_found"
        with pytest.raises(ConfigError, match="office could not be told by slack") as refused:
            _tell(BOT)
        assert "bot" in refused.value.next_step
        assert "4711" not in f"{refused.value}{caplog.text}"

    @pytest.mark.parametrize(("status", "kind"), [(503, TransientError), (429, TransientError), (404, ConfigError)])
    @pytest.mark.parametrize("receiver", [BOT, HOOK], ids=["bot", "webhook"])
    def test_an_answer_that_is_no_yes(self, posts: Posts, receiver: Receiver, status: int, kind: type) -> None:
        """It should tell a busy server from a wrong address."""
        posts.statuses = {"/api/chat.postMessage": status, f"/services/{TOKEN}": status}
        with pytest.raises(kind):
            _tell(receiver)
        assert posts.kept == []


class TestApprise:
    """Some hundred services behind one connection."""

    def test_only_the_tagged_address_is_told(self, posts: Posts) -> None:
        """It should post title and words to it."""
        _tell(PAGER)
        ((where, document, _),) = posts.kept
        assert where == f"/pager/{TOKEN}"
        assert (document["title"], document["message"], document["type"]) == (
            "dbvrtg4037 crashed",
            "<!channel> & voms\nis down",
            "warning",
        )

    def test_without_tags_all_are_told(self, posts: Posts) -> None:
        """It should leave out none."""
        _tell(EVERYBODY)
        assert sorted(where for where, _, _ in posts.kept) == [f"/pager/{TOKEN}", f"/teams/{TOKEN}"]

    def test_what_was_not_taken_is_tried_again(self, posts: Posts, caplog: pytest.LogCaptureFixture) -> None:
        """It should not take apprise's silence for a yes."""
        posts.statuses = {f"/pager/{TOKEN}": 503}
        with pytest.raises(TransientError, match="on_call could not be told by apprise") as caught:
            _tell(PAGER)
        assert "4711" not in f"{caught.value}{caplog.text}"

    def test_one_of_two_that_was_not_told(self, posts: Posts) -> None:
        """It should say which kind of address is wrong, and that the others have heard it."""
        posts.statuses = {f"/pager/{TOKEN}": 403}
        with pytest.raises(ConfigError, match="told by apprise in part"):
            _tell(EVERYBODY)
        assert len(posts.at(f"/teams/{TOKEN}")) == 1

    def test_nobody_has_the_tag(self, posts: Posts) -> None:
        """It should be an error, since nobody was told."""
        with pytest.raises(ConfigError, match="no address that it understands has one of the tags night"):
            _tell(Receiver("on_call", "apprise", "pager", ("night",)))
        assert posts.kept == []


def test_the_policy_is_kept_to_the_wire(world: World, posts: Posts) -> None:
    """It should tell each what the inventory says: all of it, only what is critical, only what nobody has answered."""
    people = People(
        world,
        office={"by": "slack", "conn_id": "hook"},
        on_call={"by": "apprise", "conn_id": "pager", "to": ["on_call"], "severity": "critical"},
        chief={"by": "apprise", "conn_id": "pager", "to": ["chief"], "on": ["waiting"], "after_s": 1200},
    )
    people.senders = SENDERS
    world.answers["port"] = Answer.NOT_OBSERVED
    run = Run(world)
    run.open()
    run.lane(end="verdict")
    run.question()
    people.tell()
    titles = [document["text"].split("\n")[0] for document in posts.at(f"/services/{TOKEN}")]
    assert titles == [
        "*dbvrtg4037 crashed: its databases are down*",
        "*dbvrtg4037: the repair waits for your answer*",
    ]
    waits = ["dbvrtg4037: the repair waits for your answer"]
    assert [document["title"] for document in posts.at(f"/pager/{TOKEN}")] == waits
    assert posts.at(f"/teams/{TOKEN}") == []
    people.tell(1201)
    assert [document["title"] for document in posts.at(f"/teams/{TOKEN}")] == waits


def test_a_receiver_that_is_down_is_told_later_and_once(world: World, posts: Posts) -> None:
    """It should keep the words while the server is down, and not repeat them afterwards."""
    people = People(world, on_call={"by": "apprise", "conn_id": "pager", "to": ["on_call"]})
    people.senders = SENDERS
    posts.statuses = {f"/pager/{TOKEN}": 503}
    Run(world).open()
    people.tell()
    assert posts.kept == []
    posts.statuses = {}
    people.tell(60)
    people.tell(3600)
    titles = [document["title"] for document in posts.at(f"/pager/{TOKEN}")]
    assert titles.count("dbvrtg4037 crashed: its databases are down") == 1
