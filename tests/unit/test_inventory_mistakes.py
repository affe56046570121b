"""The inventory: what is wrong is named with its line and key, all of it at once."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.unit.inventory_texts import GOOD, SECOND, loaded, problems
from unlatch.errors import ConfigError
from unlatch.inventory import load


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("port: 3306", "prot: 3306", "21: instances.voms.prot: unknown key; did you mean port?"),
        ("version: 1", "version: 2", "1: version: must be 1, the only version of this file so far"),
        ("version: 1", "version: true", "1: version: must be 1, the only version of this file so far"),
        ("version: 1\n", "", "1: version: must be 1, the only version of this file so far"),
        ("instances:", "instance:", "13: instance: unknown key; did you mean instances?"),
        ("    port: 3306\n", "", "14: instances.voms.port: is required, but not there"),
        ("port: 3306", 'port: "3306"', "21: instances.voms.port: must be a whole number, without quotes"),
        ("port: 3306", "port: true", "21: instances.voms.port: must be a whole number, without quotes"),
        ("port: 3306", "port: 70000", "21: instances.voms.port: must be less than or equal to 65535"),
        ("port: 3306", "port: 33:06", "21: instances.voms.port: must be a whole number, without quotes"),
        ("os_user: mysql", "os_user: 27", "18: instances.voms.os_user: must be text (in quotes, when it looks like a"),
        ("os_user: mysql", "os_user: -u root", "18: instances.voms.os_user: must be the name of an operating system"),
        ("kind: lab", "kind: zfs", "4: volumes.dbs03.kind: must be 'lab' or 'nfs'"),
        ("path: /ORA/dbs03}", "path: ORA/dbs03}", "4: volumes.dbs03.path: must be an absolute path"),
        ("/ORA/dbs03/voms", "ORA/dbs03/voms", "19: instances.voms.datadir: must be an absolute path"),
        ("/ORA/dbs03/voms", "/ORA/dbs03/../voms", "19: instances.voms.datadir: must be a plain path, without '..'"),
        ("path: /var/log", "path: var/log", "8: hypervisors.hv01.logs[0].path: must be an absolute path"),
        (
            "/ORA/dbs03/voms",
            "/ORA/dbs030/voms",
            "19: instances.voms.datadir: /ORA/dbs030/voms is outside the path /ORA/dbs03 of volume dbs03",
        ),
        (
            "port: 3306",
            "port: 3306\n    files: [/etc/*]",
            "22: instances.voms.files[0]: /etc/* is outside the path /ORA",
        ),
        ("port: 3306", "port: 3306\n    pid_files: [/run/x]", "22: instances.voms.pid_files[0]: /run/x is outside the"),
        ("timezone: Europe/Zurich}", "timezone: Zurich}", "8: hypervisors.hv01.logs[0].timezone: 'Zurich' is no time"),
        (
            "{timezone: Europe/Zurich,",
            "{timezone: ../UTC,",
            "2: site.timezone: '../UTC' is no time zone; write an IANA",
        ),
        (", timezone: Europe/Zurich}", "}", "8: hypervisors.hv01.logs[0].timezone: is required, but not there"),
        ("country: CH", "country: Switzerland", "2: site.country: must be two capital letters, as in CH"),
        ("hypervisor: hv01", "hypervisor: hv02", "11: guests.dbvrtg4037.hypervisor: hypervisors has no 'hv02'; it has"),
        ("volume: dbs03", "volume: dbs04", "17: instances.voms.volume: volumes has no 'dbs04'; it has: dbs03"),
        ("guest: dbvrtg4037", "guest: dbvrtg4038", "15: instances.voms.guest: guests has no 'dbvrtg4038'; it has: dbv"),
        ("['^\\d+_dbvrtg4037$']", "['(']", "12: guests.dbvrtg4037.names[0]: is no regular expression: missing )"),
        ("['^\\d+_dbvrtg4037$']", "x", "12: guests.dbvrtg4037.names: must be a list"),
        (
            "{unit: dbod-mysql@voms}",
            "{}",
            "22: instances.voms.service: needs unit, or the commands start, stop, status,",
        ),
        ("{unit: dbod-mysql@voms}", "{start: [x]}", "22: instances.voms.service: needs unit, or the commands start"),
        ("{unit: dbod-mysql@voms}", "{unit: x, start: [x]}", "22: instances.voms.service: needs either unit or the"),
        ("{unit: dbod-mysql@voms}", "{unti: x}", "22: instances.voms.service.unti: unknown key; did you mean unit?"),
        ("{unit: dbod-mysql@voms}", "{unit: --all}", "22: instances.voms.service.unit: must be the name of a systemd"),
        ("{unit: dbod-mysql@voms}", "mysqld", "22: instances.voms.service: must be a mapping of keys to values"),
        (
            "port: 3306",
            "port: 3306\n    password: hunter2",
            "22: instances.voms.password: secrets do not belong here; put it into the Airflow connection",
        ),
        ("port: 3306", "port: 3306\n    port: 3307", "22: instances.voms.port: is there twice: line 21 has it already"),
        (
            "port: 3306",
            "port: 3306\n    probe: {}",
            "22: instances.voms.probe: needs exactly one of tcp, http, command",
        ),
        ("port: 3306", "port: 3306\n    probe: {tcp: x}", "22: instances.voms.probe.tcp: must be host:port"),
        (
            "port: 3306",
            "port: 3306\n    probe: {http: 'http://u:p@x'}",
            "22: instances.voms.probe.http: must not hold a",
        ),
        (
            "port: 3306",
            "port: 3306\n    read_table: 't; drop'",
            "22: instances.voms.read_table: must be a table's name",
        ),
        (
            "port: 3306",
            "port: 3306\n    waive:\n      - {check: port, by: Eva, reason: ''}",
            "23: instances.voms.waive[0].reason: must be readable text, not empty",
        ),
        ("  voms:", "  2014:", '14: instances.2014: a name must be text: write "2014" in quotes'),
        ("  voms:", "  ../voms:", "14: instances.../voms: a name is letters, digits, '.', '_', '-', at most 60"),
        ("kind: lab", "kind: nfs, clearer: linux_nfsd", "4: volumes.dbs03: clearer needs server: the NAS on which"),
        ("site: {timezone: Europe/Zurich, country: CH}", "site: CERN", "2: site: must be a mapping of keys to values"),
        ("country: CH}", "country: XX}", "2: site: country XX: its public holidays are not known; leave it out"),
        ("country: CH}", "country: CH, region: XX}", "2: site: region XX: CH has AG, AI, AR, BE,"),
        ("country: CH}", "region: GE}", "2: site: region needs country"),
        ("country: CH}", "holidays: [2026-02-30]}", "2: site.holidays[0]: must be a day, as in 2026-12-24"),
        ("country: CH}", "holidays: [Christmas]}", "2: site.holidays[0]: must be a day, as in 2026-12-24"),
        ("country: CH}", "clean_up_at: '25:00'}", "2: site.clean_up_at: must be a time of the day, as in 09:00"),
        (
            "site: {",
            "policy: {stuck_after_s: {closed: 3}}\nsite: {",
            "2: policy.stuck_after_s.closed: must be 'detected'",
        ),
        ("site: {", "policy: {storm: {event: 3}}\nsite: {", "2: policy.storm.event: unknown key; did you mean events?"),
        ("site: {", "policy: {objective_s: 0}\nsite: {", "2: policy.objective_s: must be greater than or equal to 1"),
        (
            "site: {",
            "policy: {repairs_at_once: 0}\nsite: {",
            "2: policy.repairs_at_once: must be greater than or equal",
        ),
    ],
)
def test_a_mistake_is_named_with_line_and_key(tmp_path: Path, old: str, new: str, expected: str) -> None:
    """It should say where, what, and what would be right."""
    assert old in GOOD
    assert f"inventory.yaml:{expected}" in problems(tmp_path, GOOD.replace(old, new))


WINDOW = """\
policy:
  maintenance:
    - guests: [dbvrtg4037]
      from: 2026-11-22T02:00:00+01:00
      until: 2026-11-22T04:00:00Z
      why: a new kernel
    - {volumes: [dbs03], hypervisors: [hv01], weekly: "Sun 02:00-04:00", why: the NAS is updated}
"""


def test_maintenance_windows(tmp_path: Path) -> None:
    """It should read both kinds of windows, the weekly one in the site's time zone."""
    once, weekly = loaded(tmp_path, GOOD + WINDOW).policy.maintenance
    assert (once.guests, once.why, once.weekly) == (("dbvrtg4037",), "a new kernel", None)
    assert (once.since, once.until) == (
        datetime(2026, 11, 22, 1, tzinfo=UTC),
        datetime(2026, 11, 22, 4, tzinfo=UTC),
    )
    assert (weekly.volumes, weekly.hypervisors, weekly.since) == (("dbs03",), ("hv01",), None)
    assert (weekly.weekly, weekly.timezone) == ("Sun 02:00-04:00", "Europe/Zurich")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("from: 2026", "form: 2026", "26: policy.maintenance[0].form: unknown key; did you mean from?"),
        ("from: 2026", "since: 2026", "26: policy.maintenance[0].since: unknown key; known: from, guests, hypervisors"),
        ("02:00:00+01:00", "02:00:00", "26: policy.maintenance[0].from: must be a moment with its offset, as in 2026-"),
        ("2026-11-22T04", "2026-02-30T04", "27: policy.maintenance[0].until: must be a moment with its offset"),
        ("T04:00:00Z", "T01:00:00Z", "25: policy.maintenance[0]: needs an until that is later than its from"),
        ("      until: 2026-11-22T04:00:00Z\n", "", "25: policy.maintenance[0]: needs from and until, or weekly"),
        ("      why: a new kernel\n", "", "25: policy.maintenance[0].why: is required, but not there"),
        ("guests: [dbvrtg4037]", "guests: []", "25: policy.maintenance[0]: needs guests, hypervisors or volumes"),
        (
            "[dbvrtg4037]",
            "[dbvrtg4O37]",
            "25: policy.maintenance[0].guests[0]: guests has no 'dbvrtg4O37'; it has: dbv",
        ),
        ("[dbs03]", "[dbs04]", "29: policy.maintenance[1].volumes[0]: volumes has no 'dbs04'; it has: dbs03"),
        ("[hv01]", "[hv02]", "29: policy.maintenance[1].hypervisors[0]: hypervisors has no 'hv02'; it has: hv01"),
        (
            "Sun 02:00",
            "Sunday 02:00",
            "29: policy.maintenance[1].weekly: must be days and hours, as in Sun 02:00-04:00",
        ),
        (
            "volumes: [dbs03]",
            "volumes: [dbs03], until: 2026-11-22T02:00:00Z",
            "29: policy.maintenance[1]: needs either from and until, or weekly, not both",
        ),
    ],
)
def test_a_mistake_in_a_window_is_named(tmp_path: Path, old: str, new: str, expected: str) -> None:
    """It should say where, what, and what would be right: a window that is not understood holds nothing."""
    assert old in WINDOW
    assert f"inventory.yaml:{expected}" in problems(tmp_path, GOOD + WINDOW.replace(old, new))


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    """It should list all problems in the order of the file, and what to do."""
    text = GOOD.replace("kind: lab", "kind: zfs").replace("os_user: mysql", "osuser: mysql").replace("3306", "x")
    with pytest.raises(ConfigError) as raised:
        loaded(tmp_path, text)
    lines = raised.value.what.strip().splitlines()
    assert lines[0] == f"{tmp_path}/inventory.yaml has 4 problems:"
    assert [line.split(":")[1] for line in lines[1:]] == ["4", "14", "18", "21"]
    assert "unlatch inventory check" in raised.value.next_step


@pytest.mark.parametrize(
    ("first", "old", "new", "expected"),
    [
        (GOOD, "  lxr:", "  voms:", "23: instances.voms: is there twice: line 14 has it already"),
        (GOOD, "5432", "3306", "30: instances.lxr.port: 127.0.0.1 port 3306: voms has it already (line 21)"),
        (
            GOOD,
            "/ORA/dbs03/lxr",
            "/ORA/dbs03/voms",
            "28: instances.lxr.datadir: /ORA/dbs03/voms is the data directory of voms (line 19)",
        ),
        (
            GOOD,
            "/ORA/dbs03/lxr",
            "/ORA/dbs03/voms/lxr",
            "28: instances.lxr.datadir: /ORA/dbs03/voms/lxr overlaps with the data directory of voms (line 19)",
        ),
        (
            GOOD,
            "dbod-pg@lxr",
            "dbod-mysql@voms",
            "31: instances.lxr.service: the same start command on the same guest: vom",
        ),
        (
            f"{GOOD}    login_conn_id: db\n",
            "    service:",
            "    login_conn_id: db\n    service:",
            "32: instances.lxr.login_conn_id: connection db: voms has it already (line 23)",
        ),
    ],
)
def test_what_belongs_to_one_instance_is_not_given_to_two(
    tmp_path: Path, first: str, old: str, new: str, expected: str
) -> None:
    """It should name both lines: a copied entry would make a repair act on the wrong database."""
    assert expected in problems(tmp_path, first + SECOND.replace(old, new))


def test_loopback_is_another_machine_on_every_guest(tmp_path: Path) -> None:
    """It should accept the same loopback port on two guests, and refuse it for localhost beside 127.0.0.1 on one."""
    two = GOOD.replace("instances:", "  other: {hypervisor: hv01}\ninstances:") + SECOND.replace("5432", "3306")
    assert len(loaded(tmp_path, two.replace("lxr:\n    guest: dbvrtg4037", "lxr:\n    guest: other")).instances) == 2
    assert "localhost port 3306: voms" in problems(
        tmp_path, GOOD + SECOND.replace("5432", "3306").replace("127.0.0.1", "localhost")
    )


@pytest.mark.parametrize(
    ("guest", "expected"),
    [
        ("{hypervisor: hv01, names: ['^\\d+_dbvrtg4037$']}", "the guest dbvrtg4037 (line 10) has the same pattern"),
        ("{hypervisor: hv01, names: ['dbvrtg.*']}", "also matches the guest dbvrtg4037 (line 10)"),
        (
            "{hypervisor: hv01, conn_id: unlatch_guest_dbvrtg4037}",
            "connection unlatch_guest_dbvrtg4037: dbvrtg4037 has",
        ),
    ],
)
def test_two_guests_are_not_mistaken_for_each_other(tmp_path: Path, guest: str, expected: str) -> None:
    """It should refuse names and connections under which two guests answer."""
    assert expected in problems(tmp_path, GOOD.replace("instances:", f"  other: {guest}\ninstances:"))


def test_an_entry_that_is_wrong_makes_no_second_problem(tmp_path: Path) -> None:
    """It should not say that a volume is missing when it is there and wrong."""
    assert problems(tmp_path, GOOD.replace("kind: lab", "kind: zfs")).count("inventory.yaml:") == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "1: version: must be 1"),
        ("- version: 1", "1: the inventory must be a mapping"),
        ("version: 1\nsite: [", "2: this is no YAML: while parsing a flow node"),
        ("version: 1\nsite: {timezone: \tUTC", "this is no YAML"),
        ("version: 1\n---\nversion: 1", "2: this is no YAML: expected a single document"),
        ("version: 1\nsite: !!python/object:os.system {}", "2: this is no YAML: could not determine a constructor"),
        ("version: 1\nguests: &a {b: *a}", "2: this is no YAML: an alias that contains itself"),
        ("version: 1\nguests: {? [a]: b}", "2: this is no YAML: while constructing a mapping, found unhashable key"),
        ("version: 1\nguests: [a]", "2: guests: must be a mapping of names to entries"),
        (
            GOOD.replace("volumes:\n  dbs03: {kind: lab, path: /ORA/dbs03}", "volumes: 5"),
            "3: volumes: must be a mapping",
        ),
        ("version: 1\nguests: {a: null}", "2: guests.a: must be a mapping of keys to values"),
        ("version: 1\nsite: \x00", "this is no YAML"),
    ],
)
def test_broken_files_are_told(tmp_path: Path, text: str, expected: str) -> None:
    """It should name the line of the YAML mistake."""
    assert expected in problems(tmp_path, text)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """It should say which file, and which setting names it."""
    with pytest.raises(
        ConfigError, match=r"nowhere.yaml: the inventory cannot be read: No such file.*UNLATCH_INVENTORY"
    ):
        load(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path)
    file = tmp_path / "latin1.yaml"
    file.write_bytes("site: {country: Zürich}".encode("latin-1"))
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load(file)
