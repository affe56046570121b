"""Folding lines into deaths."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlatch.crash_events import (
    KNOWN_DOMAINS,
    SAME_DEATH,
    CrashSpotter,
    DeathFolder,
    fold,
)
from unlatch.crash_logs import parse_log
from unlatch.crash_sources.xend import PLUGIN as XEND
from unlatch.errors import ConfigError
from unlatch.log_lines import LONGEST_LINE_BYTES, pieces_of
from unlatch.models import Certainty, CrashEvent, DomainChange, DomainFact

START = datetime(2014, 10, 18, 3, 54, 52, tzinfo=UTC)
DIED, CRASHED, DESTROYED = DomainChange.DEVICE_MODEL_DIED, DomainChange.CRASHED, DomainChange.DESTROYED
DOWN, SUSPECTED = DomainChange.DOWN, DomainChange.SUSPECTED
CREATED, MIGRATED, SHUT_DOWN = DomainChange.CREATED, DomainChange.MIGRATED, DomainChange.SHUT_DOWN


def fact(change: DomainChange, after_s: float = 0, number: int | None = None, domain: str = "d") -> DomainFact:
    return DomainFact(domain, change, START + timedelta(seconds=after_s), f"{change} {after_s}", number)


def deaths(*facts: DomainFact) -> list[CrashEvent]:
    return [e for e in fold(facts, "hv01") if e.certainty is Certainty.CERTAIN]


def test_lines_of_one_death_are_one_event() -> None:
    """It should take the time of the first line, all lines, and the restart."""
    (event,) = deaths(
        fact(DIED),
        fact(CRASHED, 1, 2),
        fact(DESTROYED, 1, 2),
        fact(DESTROYED, 2, 2),
        fact(CREATED, 6),
        fact(CREATED, 9),
    )
    assert event.at == START
    assert len(event.lines) == 4
    assert event.restarted_at == START + timedelta(seconds=6)


def test_death_is_told_at_once_and_again_when_more_is_known() -> None:
    """It should answer with the line that says it, and with the same key for each completion."""
    folder = DeathFolder("hv01")
    (suspicion,) = folder.feed(fact(DIED))
    (death,) = folder.feed(fact(CRASHED, 1, 2))
    (restarted,) = folder.feed(fact(CREATED, 6))
    assert suspicion.certainty is Certainty.AMBIGUOUS
    assert death.certainty is Certainty.CERTAIN
    assert death.restarted_at is None
    assert restarted.restarted_at == START + timedelta(seconds=6)
    assert len({e.dedup_key for e in (suspicion, death, restarted)}) == 1


@pytest.mark.parametrize(
    "facts",
    [
        [fact(DIED)],
        [fact(DIED), fact(CREATED, 5)],
        [fact(DIED), fact(DESTROYED, SAME_DEATH.total_seconds() + 1, 2)],
        [fact(DIED), fact(SHUT_DOWN, 1, 2), fact(DESTROYED, 2, 2)],
        [fact(DIED), fact(MIGRATED, 1, 2), fact(DESTROYED, 2, 2)],
        [fact(SHUT_DOWN, 0, 2), fact(DESTROYED, 1, 2), fact(CREATED, 2)],
        [fact(DESTROYED, 0, 2), fact(DESTROYED, 0, 2)],
        [fact(MIGRATED, 0, 2), fact(CRASHED, 1, 2), fact(DESTROYED, 2, 2)],
        [fact(CREATED)],
        [fact(SUSPECTED), fact(DESTROYED, 1)],
        [fact(SUSPECTED, 0, 2), fact(DESTROYED, 1, 2)],
        [fact(SUSPECTED), fact(SUSPECTED, 1), fact(SHUT_DOWN, 2)],
        [fact(MIGRATED), fact(DOWN, 1)],
    ],
    ids=lambda facts: "-".join(f.change for f in facts),
)
def test_what_is_no_certain_death(facts: list[DomainFact]) -> None:
    """It should not take shutdown, migration, a person's destroy or a dead device model alone for a death."""
    assert deaths(*facts) == []


@pytest.mark.parametrize(
    "facts",
    [
        [fact(CRASHED, 0, 1), fact(CREATED, 5), fact(CRASHED, 20, 2)],
        [fact(CRASHED, 0, 1), fact(CRASHED, 5, 2)],
        [fact(CRASHED, 0, 1), fact(CRASHED, SAME_DEATH.total_seconds() + 1, 1)],
        [fact(DIED), fact(CRASHED, 1, 1), fact(CREATED, 5), fact(DIED, 10), fact(DESTROYED, 11, 2)],
        [fact(MIGRATED, 0, 1), fact(CRASHED, 1, 2), fact(CREATED, 3), fact(CRASHED, 4, 3)],
    ],
    ids=lambda facts: "-".join(f.change for f in facts),
)
def test_next_death_of_the_same_domain_is_another(facts: list[DomainFact]) -> None:
    """It should tell two deaths apart by the restart between, the domain's number, or the time."""
    assert len({e.dedup_key for e in deaths(*facts)}) == 2


def test_sign_before_a_death_belongs_to_it() -> None:
    """It should take the time and the reason of the line that makes it certain."""
    why = dataclasses.replace(fact(DOWN, 1), cause="out of memory")
    (event,) = deaths(fact(SUSPECTED), why, fact(CREATED, 9))
    assert (event.at, event.cause, len(event.lines)) == (START + timedelta(seconds=1), "out of memory", 2)


def test_creation_before_the_death_is_no_restart() -> None:
    """It should wait for a restart that came later, when an older log is read behind a newer one."""
    (event,) = deaths(fact(CRASHED, 500), fact(CREATED, 0), fact(CREATED, 505))
    assert event.restarted_at == START + timedelta(seconds=505)


def test_line_without_a_stamp_takes_the_time_of_its_death() -> None:
    """It should be one death when only one of its lines says when, and that line's time counts."""
    undated = dataclasses.replace(fact(DOWN, 90_000), dated=False)
    (event,) = deaths(undated, fact(CRASHED, 1))
    assert (event.at, event.dated, len(event.lines)) == (START + timedelta(seconds=1), True, 2)
    (event,) = deaths(fact(CRASHED, 1), undated)
    assert (event.at, event.dated, len(event.lines)) == (START + timedelta(seconds=1), True, 2)
    assert not deaths(undated)[0].dated


def test_late_lines_of_a_restarted_domain_change_nothing() -> None:
    """It should leave a death alone once the domain was created again."""
    folder = DeathFolder("hv01")
    for f in (fact(CRASHED, 0, 1), fact(CREATED, 5)):
        folder.feed(f)
    assert folder.feed(fact(DESTROYED, 6, 1)) == []


def test_memory_is_bounded() -> None:
    """It should keep at most so many deaths, and give every one of them."""
    count = KNOWN_DOMAINS + 50
    events = list(fold((fact(CRASHED, n, 1, f"d{n}") for n in range(count)), "hv01"))
    assert [e.domain for e in events] == [f"d{n}" for n in range(count)]
    folder = DeathFolder("hv01")
    for n in range(count):
        folder.feed(fact(CRASHED, n, 1, f"d{n}"))
    assert len(folder.state()["domains"]) == KNOWN_DOMAINS


# --- properties ------------------------------------------------------------------------------------------------------

changes = st.sampled_from(list(DomainChange))
steps = st.lists(
    st.tuples(changes, st.integers(0, 200), st.one_of(st.none(), st.integers(1, 3)), st.sampled_from("abc")),
    max_size=18,
)


def history(drawn: list[tuple[DomainChange, int, int | None, str]]) -> list[DomainFact]:
    at, facts = 0, []
    for position, (change, gap, number, domain) in enumerate(drawn):
        at += gap + 1
        facts.append(DomainFact(domain, change, START + timedelta(seconds=at), f"line {position}", number, None))
    return facts


def told(folder: DeathFolder, facts: Iterable[DomainFact]) -> list[CrashEvent]:
    return [event for f in facts for event in folder.feed(f)]


@given(steps, st.data())
def test_splitting_the_stream_anywhere_gives_the_same_deaths(
    drawn: list[tuple[DomainChange, int, int | None, str]], data: st.DataObject
) -> None:
    """It should go on from its kept state as if it had never stopped."""
    facts = history(drawn)
    whole = told(DeathFolder("hv01"), facts)
    at = data.draw(st.integers(0, len(facts)))
    first = DeathFolder("hv01")
    before = told(first, facts[:at])
    second = DeathFolder("hv01", json.loads(json.dumps(first.state())))
    assert before + told(second, facts[at:]) == whole


@given(steps, st.randoms(use_true_random=False))
def test_order_of_unrelated_domains_does_not_matter(
    drawn: list[tuple[DomainChange, int, int | None, str]], chance: object
) -> None:
    """It should tell each domain's deaths from that domain's lines alone."""
    facts = history(drawn)
    regrouped = sorted(facts, key=lambda f: f.domain)
    key = lambda e: (e.domain, e.at)  # noqa: E731
    assert sorted(fold(facts, "hv01"), key=key) == sorted(fold(regrouped, "hv01"), key=key)


@given(steps)
def test_every_crash_line_belongs_to_exactly_one_death(
    drawn: list[tuple[DomainChange, int, int | None, str]],
) -> None:
    """It should neither lose a crash line nor count it twice, and only a crash or a destruction makes certain."""
    facts = history(drawn)
    events = list(fold(facts, "hv01"))
    for f in facts:
        if f.change in {CRASHED, DOWN}:
            assert sum(f.line in e.lines for e in events) == 1
    change_of = {f.line: f.change for f in facts}
    for e in events:
        if e.certainty is Certainty.CERTAIN:
            assert {change_of[line] for line in e.lines} & {CRASHED, DESTROYED, DOWN}
            assert change_of[e.lines[0]] in {CRASHED, DIED, DOWN, SUSPECTED}


# --- logs ------------------------------------------------------------------------------------------------------------


def test_unknown_format_names_the_known_ones() -> None:
    """It should say which formats there are, before it reads anything."""
    with pytest.raises(ConfigError, match=r"'xm'.*auto, xend"):
        parse_log(io.BytesIO(), "xm", "UTC", "hv01", {"xend": XEND})


def whole_lines(stream: io.BytesIO) -> list[str]:
    """The lines of a stream, without their ends."""
    return [line.rstrip("\r") for lines in pieces_of(stream) for line in lines.split("\n")]


def test_huge_lines_are_dropped_torn_text_is_kept() -> None:
    """It should go on behind a line that would fill the memory, and with bytes that are no UTF-8."""
    data = (
        b"one\n" + b"x" * (LONGEST_LINE_BYTES * 2 + 5) + b"\ntw\xff\xc3o\r\n" + b"y" * LONGEST_LINE_BYTES + b"\nthree"
    )
    assert whole_lines(io.BytesIO(data)) == ["one", "tw\ufffd\ufffdo", "three"]


@given(st.binary(max_size=300), st.integers(1, 7))
def test_lines_are_the_same_however_the_bytes_arrive(data: bytes, at_once: int) -> None:
    """It should give the lines of a stream that comes in small pieces, as a pipe's does."""

    class Dribble(io.BytesIO):
        def read1(self, _size: int | None = -1) -> bytes:
            return self.read(at_once)

    assert "".join(whole_lines(Dribble(data))) == "".join(whole_lines(io.BytesIO(data)))
    text = data.replace(b"\r", b"").decode("latin-1").encode()
    assert whole_lines(Dribble(text)) == text.decode().removesuffix("\n").split("\n") or not text


def test_crash_spotter_is_true_once_per_death() -> None:
    """It should ring for the line that makes a death certain, and not for those around it."""
    stamp = "[2014-10-18 05:54:5{} 1] "
    lines = [
        stamp.format(2) + "WARNING (image:490) domain 1_a: device model failure: pid 1: died due to signal 11; see x",
        stamp.format(3) + "WARNING (XendDomainInfo:1907) Domain has crashed: name=1_a id=2.",
        stamp.format(3) + "DEBUG (XendDomainInfo:2732) XendDomainInfo.destroy: domid=2",
        stamp.format(8) + "DEBUG (X:117) XendDomainInfo.create_from_dict({'name_label': '1_a'})",
        stamp.format(9) + "WARNING (XendDomainInfo:1907) Domain has crashed: name=1_a id=3.",
        "junk",
    ]
    tells_crash = CrashSpotter(XEND, "Europe/Zurich", "hv01")
    assert [tells_crash(line) for line in lines] == [False, True, False, False, True, False]


def test_spotter_goes_on_where_the_reader_stopped() -> None:
    """It should ring for a death whose first line was read before, and not again for one that was told."""
    stamp = "[2014-10-18 05:54:5{} 1] "
    died = stamp.format(2) + "WARNING (image:490) domain 1_a: device model failure: pid 1: died due to signal 11; see x"
    destroyed = stamp.format(3) + "INFO (XendDomainInfo:2732) Domain 1_a (2) destroyed"
    crashed = stamp.format(3) + "WARNING (XendDomainInfo:1907) Domain has crashed: name=1_a id=2."
    parse, folder = XEND.line_parser("Europe/Zurich"), DeathFolder("hv01")
    told(folder, parse(died))
    kept = {"deaths": json.loads(json.dumps(folder.state())), "parser": parse.state()}
    assert CrashSpotter(XEND, "Europe/Zurich", "hv01", **kept).hears(["junk", crashed, destroyed])
    told(folder, parse(crashed))
    kept = {"deaths": json.loads(json.dumps(folder.state())), "parser": parse.state()}
    assert not CrashSpotter(XEND, "Europe/Zurich", "hv01", **kept).hears([crashed, destroyed])
    assert not CrashSpotter(XEND, "Europe/Zurich", "hv01").hears(["junk"] * 10)
