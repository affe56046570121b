"""The inventory: what is right is read exactly."""

from __future__ import annotations

import textwrap
from pathlib import Path, PurePosixPath

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.inventory_texts import GOOD, ROOT, SECOND, loaded, problems
from unlatch.errors import ConfigError
from unlatch.inventory import load
from unlatch.models import Policy, Site, Storm, VolumeKind, Waiver


def test_the_example_is_valid() -> None:
    """It should load the file that users copy, with every value where it belongs."""
    found = load(ROOT / "inventory.example.yaml")
    assert found.site == Site("Europe/Zurich", "CH", region="GE", holidays=("2026-12-24", "12-31"))
    assert found.policy == Policy(storm=Storm(5, 600))
    assert found.volumes["dbs03"].kind is VolumeKind.NFS
    assert found.volumes["dbs03"].peers == ("dbvrtg4038",)
    assert found.hypervisors["hv01"].logs[0].path == PurePosixPath("/var/log/xen/xend.log")
    assert [instance.name for instance in found.instances_of("dbvrtg4037")] == ["voms", "lxr", "archive"]
    assert found.instances["lxr"].probe is not None
    assert found.instances["lxr"].probe.http == "https://lxr.example.org/health"
    assert found.instances["archive"].waive == (
        Waiver("port", "Eva Dafonte", "the port is behind a proxy that always answers"),
    )


def test_the_sudo_rules_of_the_example_are_the_commands_of_a_unit() -> None:
    """It should document exactly what a unit's service runs as root: a rule less and a repair stops half-way."""
    service = load(ROOT / "inventory.example.yaml").instances["voms"].service
    commands = (service.start, service.stop, service.hold, service.release)
    assert all(command[:2] == ("sudo", "-n") for command in commands)
    documented = [
        line.partition("NOPASSWD: ")[2]
        for line in (ROOT / "inventory.example.yaml").read_text().splitlines()
        if "NOPASSWD" in line
    ]
    assert documented == [" ".join(command[2:]) for command in commands]
    assert service.status == ("/usr/bin/systemctl", "--no-pager", "status", "dbod-mysql@voms")


def test_defaults_are_filled_in(tmp_path: Path) -> None:
    """It should name connections after what they lead to, and leave the rest to the models' defaults."""
    found = loaded(tmp_path, GOOD)
    assert found.policy == Policy()
    assert found.site.ticketing == "file"
    assert found.hypervisors["hv01"].conn_id == "unlatch_hv_hv01"
    assert found.guests["dbvrtg4037"].conn_id == "unlatch_guest_dbvrtg4037"
    voms = found.instances["voms"]
    assert (voms.name, voms.port, voms.datadir) == ("voms", 3306, PurePosixPath("/ORA/dbs03/voms"))
    assert (voms.login_conn_id, voms.probe, voms.waive, voms.files) == (None, None, (), ())
    assert loaded(tmp_path, "version: 1").instances == {}


def test_country_codes_are_text(tmp_path: Path) -> None:
    """It should not take Norway for false."""
    assert loaded(tmp_path, GOOD.replace("country: CH", "country: NO")).site.country == "NO"


def test_defaults_may_be_shared_by_yaml_anchors(tmp_path: Path) -> None:
    """It should let entries share values, and still name the line of what is wrong in them."""
    shared = GOOD.replace("  voms:", "  voms: &defaults") + textwrap.indent(
        "lxr:\n  <<: *defaults\n  datadir: /ORA/dbs03/lxr\n  port: 5432\n  service: {unit: x}\n", "  "
    )
    assert loaded(tmp_path, shared).instances["lxr"].os_user == "mysql"
    wrong = problems(tmp_path, shared.replace("os_user: mysql", "os_user: 5"))
    assert wrong.count("inventory.yaml:18: instances.") == 2


def test_a_domain_finds_its_guest(tmp_path: Path) -> None:
    """It should match names in full, on the right hypervisor, and rather find nobody than one of two."""
    text = GOOD.replace(
        "guests:",
        "  hv02: {logs: [{format: xend, path: /x, timezone: UTC}]}\nguests:\n"
        "  web: {hypervisor: hv01, names: ['web.*', 'w-[0-9]+']}\n  wide: {hypervisor: hv01, names: ['w-1.']}",
    )
    found = loaded(tmp_path, text)
    guest = found.guests["dbvrtg4037"]
    assert found.guest_of("2130_dbvrtg4037", "hv01") == guest
    assert found.guest_of("2130_dbvrtg4037") == guest
    assert found.guest_of("dbvrtg4037") == guest
    assert found.guest_of("2130_dbvrtg4037", "hv02") is None
    assert found.guest_of("x2130_dbvrtg4037") is None
    assert found.guest_of("2130_dbvrtg4037x") is None
    assert found.guest_of("w-1") == found.guests["web"]
    assert found.guest_of("w-12") is None
    assert found.instances_of(guest) == found.instances_of("dbvrtg4037") == (found.instances["voms"],)
    assert found.instances_of("nobody") == ()


# --- plug-ins --------------------------------------------------------------------------------------------------------


def test_names_of_plug_ins_are_checked_against_what_is_installed(tmp_path: Path) -> None:
    """It should name the line of each engine, check, format, clearer and ticket system that does not exist."""
    text = GOOD.replace("kind: lab", "kind: nfs, server: nas, clearer: ontap") + (
        "    waive:\n      - {check: prot, by: Eva, reason: because}\n"
    )
    found = loaded(tmp_path, text)
    found.check_names(engines={"mariadb"}, checks={"prot"}, formats={"xend"}, clearers={"ontap"}, ticketing={"file"})
    found.check_names()
    with pytest.raises(ConfigError) as raised:
        found.check_names(engines={"x"}, checks={"port"}, formats=(), clearers={"linux_nfsd"}, ticketing={"snow"})
    told = raised.value.what.replace(f"{tmp_path}/", "")
    for expected in (
        "2: site.ticketing: there is no ticket system 'file'; installed: snow",
        "4: volumes.dbs03.clearer: there is no lock clearer 'ontap'; installed: linux_nfsd",
        "8: hypervisors.hv01.logs[0].format: there is no log format 'xend'; installed: none",
        "16: instances.voms.engine: there is no engine 'mariadb'; installed: x",
        "24: instances.voms.waive[0].check: there is no check 'prot'; did you mean port?",
    ):
        assert f"inventory.yaml:{expected}" in told


# --- anything at all -------------------------------------------------------------------------------------------------

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), anything=ANYTHING)
def test_no_value_anywhere_ends_in_another_error(tmp_path: Path, data: st.DataObject, anything: object) -> None:
    """It should answer any value under any key with a ConfigError that names a line, or accept it."""
    content = yaml.safe_load(GOOD + SECOND)
    place, path = content, []
    while isinstance(place, (dict, list)) and (not path or data.draw(st.booleans())):
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        path.append(data.draw(st.sampled_from(keys)))
        parent, place = place, place[path[-1]]
    parent[path[-1]] = anything
    try:
        complaint = ""
        loaded(tmp_path, yaml.safe_dump(content))
    except ConfigError as error:
        complaint = error.what
    assert not complaint or "inventory.yaml:" in complaint
