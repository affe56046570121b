"""xend's lines: time zones and hostile input. What its messages mean is in the samples of the contract tests."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from unlatch.crash_sources.xend import KEPT_CHARS, KNOWN_DOMAINS, LONGEST_LINE_CHARS, PLUGIN
from unlatch.models import DomainChange

ZONE = "Europe/Zurich"  # summer time ends on 2014-10-26 at 03:00, begins on 2014-03-30 at 02:00


def crashed(stamp: str, name: str = "1_a", number: int = 1) -> str:
    return f"[{stamp} 4572] WARNING (XendDomainInfo:1907) Domain has crashed: name={name} id={number}."


def noise(stamp: str) -> str:
    return f"[{stamp} 4572] DEBUG (DevController:151) Waiting for devices vif."


def moments(*lines: str, zone: str = ZONE) -> list[datetime]:
    return [fact.at for fact in PLUGIN.facts(lines, zone)]


def test_incident_of_2014_in_utc() -> None:
    """It should read the stamps in the hypervisor's zone."""
    assert moments(crashed("2014-10-18 05:54:53")) == [datetime(2014, 10, 18, 3, 54, 53, tzinfo=UTC)]
    assert moments(crashed("2014-10-18 05:54:53"), zone="Asia/Kolkata") == [
        datetime(2014, 10, 18, 0, 24, 53, tzinfo=UTC)
    ]


def test_repeated_hour_goes_on_forward() -> None:
    """It should take the second pass of the hour only when the stream went back to its beginning."""
    first, second = moments(
        crashed("2014-10-26 02:30:00", "1_a"), noise("2014-10-26 02:59:59"), crashed("2014-10-26 02:10:00", "2_b")
    )
    assert first == datetime(2014, 10, 26, 0, 30, tzinfo=UTC)
    assert second == datetime(2014, 10, 26, 1, 10, tzinfo=UTC)


def test_repeated_hour_allows_for_threads_out_of_order() -> None:
    """It should not jump an hour ahead when one line is a second older than the one before it."""
    assert moments(crashed("2014-10-26 02:30:01"), crashed("2014-10-26 02:30:00", "2_b")) == [
        datetime(2014, 10, 26, 0, 30, 1, tzinfo=UTC),
        datetime(2014, 10, 26, 0, 30, tzinfo=UTC),
    ]


@pytest.mark.parametrize(
    ("read_before", "expected"), [((0, 35), (0, 30)), ((1, 20), (1, 30)), ((1, 29, 59), (1, 30))], ids=str
)
def test_repeated_hour_is_settled_by_the_time_of_the_last_reading(
    read_before: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    """It should know which pass it is when the lines are known to be younger than the reading before."""
    parse = PLUGIN.line_parser(ZONE, datetime(2014, 10, 26, *read_before, tzinfo=UTC) - timedelta(minutes=5))
    (fact,) = parse(crashed("2014-10-26 02:30:00"))
    assert fact.at == datetime(2014, 10, 26, *expected, tzinfo=UTC)


def test_hour_that_does_not_exist_is_shifted_forward() -> None:
    """It should take 02:30 in the night of the change for 03:30."""
    assert moments(crashed("2014-03-30 02:30:00")) == [datetime(2014, 3, 30, 1, 30, tzinfo=UTC)]


def test_moments_never_go_back_over_a_whole_night_of_change() -> None:
    """It should give ever later moments for a clock that ran through the end of summer time."""
    start = datetime(2014, 10, 25, 23, 0, tzinfo=UTC)
    truth = [start + timedelta(minutes=7 * i) for i in range(40)]
    stamps = [t.astimezone(ZoneInfo(ZONE)).strftime("%Y-%m-%d %H:%M:%S") for t in truth]
    assert moments(*(crashed(s) for s in stamps)) == truth


def test_overlong_line_is_not_xends() -> None:
    """It should not look at lines of a megabyte, and keep only the beginning of long ones."""
    created = "[2014-10-18 05:54:58 1] DEBUG (X:117) XendDomainInfo.create_from_dict({'name_label': '1_a', 'x': '%s'})"
    assert list(PLUGIN.facts([created % ("y" * LONGEST_LINE_CHARS)], ZONE)) == []
    (fact,) = PLUGIN.facts([created % ("y" * 50_000)], ZONE)
    assert len(fact.line) == KEPT_CHARS


def test_patterns_take_linear_time() -> None:
    """It should not be held up by lines made to make patterns backtrack; a slow one would hit the test's time limit."""
    prefix = "[2014-10-18 05:54:53 1] DEBUG (X:1) "
    long = LONGEST_LINE_CHARS - 100
    hostile = [
        *(prefix + start + "a" * long for start in ("domain ", "Domain ", "Domain has crashed: name=")),
        prefix + "Storing domain details: {" + "'name': '" * (long // 9),
        prefix + "XendDomainInfo.create(" + "'name_label': '" * (long // 15),
        prefix + "XendDomainInfo.create(" + "['name', '" + "a" * long,
        prefix + "[xc_save]: " + "a" * long,
        prefix + "[xc_save]: x " + "1" * long,
        "[" * long,
        "[2014-10-18 05:54:53 " + "a." * (long // 2),
        prefix + "domain a: device model failure: " + "died due to signal " * (long // 19),
    ]
    for _, line in itertools.product(range(20), hostile):
        list(PLUGIN.facts([line], ZONE))


def test_memory_is_bounded() -> None:
    """It should forget the domains that it has not met for the longest time."""
    unpaused = "[2014-10-18 05:54:53 1] INFO (XendDomain:1) Domain d{n} ({n}) unpaused."
    destroyed = "[2014-10-18 05:54:53 1] DEBUG (X:1) XendDomainInfo.destroy: domid={n}"
    lines = [unpaused.format(n=n) for n in range(KNOWN_DOMAINS + 10)]
    lines += [destroyed.format(n=0), destroyed.format(n=KNOWN_DOMAINS + 9)]
    assert [f.domain for f in PLUGIN.facts(lines, ZONE)] == [f"d{KNOWN_DOMAINS + 9}"]


def test_failed_destruction_is_told_of_the_last_domain() -> None:
    """It should say that the domain may still run when xend could not destroy it."""
    lines = [
        "[2014-10-18 05:54:51 1] INFO (XendDomain:1) Domain db1 (17) unpaused.",
        "[2014-10-18 05:54:53 1] DEBUG (X:1) XendDomainInfo.destroy: domid=17",
        "[2014-10-18 05:54:53 1] ERROR (X:1) XendDomainInfo.destroy: xc.domain_destroy failed.",
    ]
    assert [(f.domain, f.change) for f in PLUGIN.facts(lines, ZONE)] == [
        ("db1", DomainChange.DESTROYED),
        ("db1", DomainChange.DESTROY_FAILED),
    ]
    assert list(PLUGIN.facts(lines[2:], ZONE)) == []
