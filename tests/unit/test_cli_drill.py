"""`unlatch drill`: what it prints, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from lab.inventory import inventory
from unlatch import wiring_drill
from unlatch.cli import drill as cli_drill
from unlatch.cli import main
from unlatch.models import Drill, DrillCheck, GuestDrill, InstanceDrill

AT = datetime(2026, 3, 7, 5, 54, 52, tzinfo=UTC)
RULE = "dbod ALL=(root) NOPASSWD: /usr/local/sbin/dbservice hold voms"
INSTALL = "install -o root -g root -m 0755 unlatch-agent.pyz /usr/local/sbin/unlatch-notify"
HV_LOG = DrillCheck("read the hypervisor's log", True, "logreader may read it", path="/x.log", host="hv01")


def drilled(
    *checks: DrillCheck, guest: str = "dbvrtg4037", reached: bool = True, of_guest: Sequence[DrillCheck] = ()
) -> GuestDrill:
    return GuestDrill(guest, reached, (HV_LOG, *of_guest), (InstanceDrill("voms", checks, 81.0, 900, {"copy": 81.0}),))


def of(*guests: GuestDrill, site: tuple[DrillCheck, ...] = ()) -> Drill:
    return Drill(AT, guests, site)


def check(privilege: str, ok: bool | None, grant: str | None = None, host: str | None = "dbvrtg4037") -> DrillCheck:
    return DrillCheck(privilege, ok, f"why {privilege}", grant, None, host)


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs the command on a drill that was found: exit code, standard output, standard error."""
    file = tmp_path / "inventory.yaml"
    file.write_text(yaml.safe_dump(inventory({})))
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")

    def run(found: Drill, *argv: str) -> tuple[int, str, str]:
        def drill(_names: Sequence[str], *, tell: Callable[[str], None]) -> Drill:
            tell("dbvrtg4037: \x1b[31masking")
            print("a library logs")
            return found

        monkeypatch.setattr(wiring_drill, "run_drill", drill)
        code = main(["drill", "--inventory", str(file), *argv])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


Run = Callable[..., tuple[int, str, str]]


def test_all_there_is_0(run: Run) -> None:
    """It should end with 0 and say how many privileges are there."""
    code, out, err = run(of(drilled(check("service hold", True))))
    assert code == 0
    assert "2 ok, 0 missing, 0 could not be checked" in out
    assert "drill: dbvrtg4037: " in err
    assert "\x1b" not in err


def test_missing_is_4_with_what_to_paste(run: Run) -> None:
    """It should group what grants the missing by host: sudoers lines once, commands with what they are for."""
    found = of(
        drilled(check("service hold", False, RULE), check("service start", True), check("space", None)),
        drilled(check("notify the NAS", False, f"{INSTALL}\n{RULE}", host="db2"), guest="db2"),
        site=(check("write tickets", False, "make it a directory", host=None),),
    )
    code, out, _ = run(found)
    assert code == 4
    assert "3 missing, 1 could not be checked" in out
    assert f"on dbvrtg4037, with visudo -f /etc/sudoers.d/unlatch:\n{RULE}\n" in out
    assert f"on db2, with visudo -f /etc/sudoers.d/unlatch:\n{RULE}\n" in out
    assert f"on db2:\n{INSTALL}    # notify the NAS\n" in out
    assert "on the worker, in Airflow, or in the inventory:\nmake it a directory    # write tickets\n" in out
    assert out.count("hypervisor's log (hv01)") == 1, "what guests share is shown once when all is well"


def test_good_to_have(run: Run) -> None:
    """It should advise crash dumps without missing them, and be silent where there is nothing to do."""
    rows = [
        DrillCheck("crash dumps", None, "no kdump", "apt install kdump-tools", None, "dbvrtg4037", needed=False),
        DrillCheck("clone support", None, "ext4", "nothing to do: …", None, "dbvrtg4037", needed=False),
    ]
    code, out, _ = run(of(drilled(*rows)))
    assert code == 0
    assert "0 missing, 0 could not be checked" in out
    assert "good to have on dbvrtg4037:\napt install kdump-tools    # crash dumps\n" in out
    assert "# clone support" not in out


def test_what_would_let_the_next_drill_tell(run: Run) -> None:
    """It should print of what could not be checked how it could be, as the document does, and miss nothing for it."""
    open_rows = [
        check("service hold", None, RULE),
        check("extended attributes", None, "nothing to do unless the files have some"),
        check("clear locks on the NAS", None, "on ONTAP: security login rest-role create", host="nas"),
    ]
    code, out, _ = run(of(drilled(*open_rows)))
    assert code == 0
    assert f"\nto have it checked, on dbvrtg4037:\n{RULE}    # service hold\n" in out
    assert "\nto have it checked, on nas:\non ONTAP: security login rest-role create" in out
    assert "nothing to do" not in out


def test_lines_are_never_broken(run: Run) -> None:
    """It should print a long sudoers line whole: a broken one could not be pasted."""
    long = RULE + " x" * 200
    _, out, _ = run(of(drilled(check("service hold", False, long))))
    assert f"\n{long}\n" in out


def test_json_is_one_document_and_nothing_else(run: Run) -> None:
    """It should keep whatever libraries print away from standard output."""
    code, out, err = run(of(drilled(check("service hold", False, RULE))), "--json")
    document = json.loads(out)
    assert (code, document["schema"], document["missing"]) == (4, 1, 1)
    assert Drill.from_dict(document).missing[0].grant == RULE
    assert "a library logs" in err


def test_out_of_reach_is_6(run: Run) -> None:
    """It should end with 6 while any guest could not be asked; what is missing goes first, if some could."""
    silent = drilled(check("everything", None), guest="gone", reached=False)
    missing = drilled(check("service hold", False, RULE))
    assert run(of(silent))[0] == 6
    assert run(of(drilled(check("service hold", True)), silent))[0] == 6
    assert run(of(missing, silent))[0] == 4
    tickets = (check("write tickets", False, host=None),)
    assert run(of(silent, site=tickets))[0] == 6


def test_a_guest_that_refuses_us_is_4(run: Run) -> None:
    """It should not call silence what is a wrong key or login."""
    refused = check("SSH login", False, "check the machine")
    assert run(of(drilled(reached=False, of_guest=[refused])))[0] == 4


def test_nothing_steers_the_terminal(run: Run) -> None:
    """It should print what machines say as text."""
    evil = DrillCheck("space", False, "\x1b]0;owned\x07 [bold]x[/bold]", "\x1b[31mrm -rf", None, "dbvrtg4037")
    _, out, _ = run(of(drilled(evil)))
    assert "\x1b" not in out
    assert "[bold]x[/bold]" in out


def test_unknown_guest_is_2(run: Run) -> None:
    """It should name the guests that there are."""
    code, out, err = run(of(), "--guest", "dbvrtg4073")
    assert (code, out) == (2, "")
    assert "dbvrtg4037" in err


def test_no_inventory_is_5(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It should say that there is no inventory."""
    monkeypatch.setenv("UNLATCH_INVENTORY", str(tmp_path / "none.yaml"))
    assert main(["drill"]) == 5
    assert "none.yaml" in capsys.readouterr().err


def test_grants_are_told_once() -> None:
    """It should print one line for several checks that the same rule grants."""
    lines = list(cli_drill.grants([check("service hold", False, RULE), check("service stop", False, RULE)]))
    assert lines.count(RULE) == 1
