"""`notify` of the inventory: what may be said of receivers, and that mistakes are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.inventory import inventory
from unlatch.errors import ConfigError
from unlatch.inventory import load


def loaded(tmp_path: Path, notify: Any, **policy: Any) -> Any:
    file = tmp_path / "inventory.yaml"
    given = {**inventory({}), "notify": notify}
    given["policy"] = {**given.get("policy", {}), **policy}
    file.write_text(yaml.safe_dump(given))
    return load(file)


def test_receivers(tmp_path: Path) -> None:
    """It should say who wants what, by severity and by event."""
    known = loaded(
        tmp_path,
        {
            "dbas": {"by": "log"},
            "on_call": {"by": "mail", "to": ["a@example.org"], "severity": "critical"},
            "chief": {"by": "log", "on": ["ended", "deadline"], "severity": "warning", "after_s": 60},
        },
        service_hours=["Mon-Fri 08:00-18:00"],
    ).notify
    wants = {name: {e for e in ("opened", "waiting", "ended", "deadline") if r.wants(e)} for name, r in known.items()}
    assert wants == {
        "dbas": {"opened", "waiting", "ended", "deadline"}, "on_call": {"waiting", "deadline"}, "chief": {"deadline"},
    }  # fmt: skip
    assert known["chief"].after_s == 60


def test_the_hours_are_on_the_site_s_clock(tmp_path: Path) -> None:
    """It should give the policy its zone."""
    known = loaded(tmp_path, {}, service_hours=["Mon-Fri 08:00-18:00"], act_outside_hours=False)
    assert known.policy.timezone == known.site.timezone
    assert not known.policy.act_outside_hours


@pytest.mark.parametrize(
    ("receiver", "words"),
    [
        ({"by": "mail"}, "at least one address"),
        ({"to": ["a"]}, "notify.dbas.by"),
        ({"by": "log", "on": ["lunch"]}, "notify.dbas.on"),
        ({"by": "log", "severity": "high"}, "notify.dbas.severity"),
        ({"by": "log", "hours": ["always"]}, "must be days and hours"),
        ({"by": "log", "after_s": -1}, "notify.dbas.after_s"),
        ({"by": "log", "password": "x"}, "notify.dbas.password"),
    ],
)
def test_mistakes(tmp_path: Path, receiver: dict[str, Any], words: str) -> None:
    """It should name the key."""
    with pytest.raises(ConfigError, match=words):
        loaded(tmp_path, {"dbas": receiver})


def test_a_way_that_does_not_exist(tmp_path: Path) -> None:
    """It should be refused like any other plug-in that is not installed."""
    with pytest.raises(ConfigError, match="there is no way to tell 'pigeon'"):
        loaded(tmp_path, {"dbas": {"by": "pigeon"}}).check_names(senders={"log", "mail"})
