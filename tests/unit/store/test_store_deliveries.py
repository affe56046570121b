"""The queue of messages on both databases, with workers that really run at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from tests.unit.store.conftest import TickingClock
from unlatch.ports import TICKET, Message
from unlatch.store.deliveries import CLAIM
from unlatch.store.sql_store import SqlStore


def message(text: str, *, incident: str = "inc-1", kind: str = "comment", channel: str = TICKET) -> Message:
    return Message(channel, incident, "voms", kind, text, {"text": text})


def test_messages_come_back_as_they_were(store: SqlStore) -> None:
    """It should keep any text, strange file names included, and no password of a URL."""
    assert store.queue(message("a \udc80 \N{SNOWMAN} http://eva:geheim@example.org/"))
    assert not store.queue(message("a \udc80 \N{SNOWMAN} http://eva:geheim@example.org/"))
    row = store.take_delivery(TICKET, "inc-1")
    assert row is not None
    assert row.payload == {"text": "a \udc80 \N{SNOWMAN} http://eva:***@example.org/"}
    assert (row.state, row.attempts, row.instance) == ("waiting", 0, "voms")


def test_lanes_are_told_oldest_first(store: SqlStore) -> None:
    """It should name every lane with something due, and none that has nothing."""
    for incident, channel in (("inc-2", TICKET), ("inc-1", "dbas"), ("inc-1", TICKET), ("inc-2", TICKET)):
        store.queue(message(f"{incident}{channel}", incident=incident, channel=channel))
    assert store.lanes_due() == ((TICKET, "inc-2"), ("dbas", "inc-1"), (TICKET, "inc-1"))
    row = store.take_delivery("dbas", "inc-1")
    assert row is not None
    store.delivered(row.delivery, actor="t")
    assert store.lanes_due() == ((TICKET, "inc-2"), (TICKET, "inc-1"))


def test_a_claim_has_an_end(store: SqlStore, clock: TickingClock) -> None:
    """It should give what a killed worker had in hand to another one, but not before some minutes."""
    store.queue(message("first"))
    assert store.take_delivery(TICKET, "inc-1") is not None
    assert store.take_delivery(TICKET, "inc-1") is None
    clock.pause(CLAIM.total_seconds())
    assert store.take_delivery(TICKET, "inc-1") is not None


def test_workers_at_once_tell_each_message_once_and_in_order(url: str, store: SqlStore) -> None:
    """It should let one worker tell at a time, and none forget what came while another was telling."""
    told: list[str] = []
    telling = threading.Lock()
    clock = TickingClock()  # of all: what one worker queues is due for the others, too

    def work(name: str) -> None:
        mine = SqlStore(url, clock=clock, wait_s=60)
        for number in range(12):
            mine.queue(message(f"{name}-{number:02d}"))
            while (row := mine.take_delivery(TICKET, "inc-1")) is not None:
                assert telling.acquire(blocking=False), "two workers tell at once"
                told.append(row.payload["text"])
                telling.release()
                mine.delivered(row.delivery, actor=name)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, ["a", "b", "c", "d"]))
    assert store.deliveries("inc-1") == []
    assert len(told) == len(set(told)) == 48
    for name in "abcd":
        assert [text for text in told if text[0] == name] == [f"{name}-{number:02d}" for number in range(12)]
