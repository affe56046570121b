"""`load`: from the file to an `Inventory`, with every problem of the file in one error."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from unlatch.inventory import references
from unlatch.inventory.document import Document, KeyPath, read
from unlatch.inventory.entries import GuestEntry, InstanceEntry, ProbeEntry, ServiceEntry, VolumeEntry, WaiverEntry
from unlatch.inventory.hypervisors import (
    FILE_LOG,
    JOURNAL_LOG,
    FileLogEntry,
    HypervisorEntry,
    JournalEntry,
    JournalLogEntry,
)
from unlatch.inventory.policy import MaintenanceEntry, PolicyEntry, SiteEntry, StormEntry
from unlatch.inventory.receivers import ReceiverEntry
from unlatch.inventory.values import NAME, Entry
from unlatch.models import Guest, Hypervisor, Instance, Policy, Receiver, Site, Volume

VERSION = 1

_SECRET = re.compile(r"passw|passphrase|secret|token|credential|private_?key|api_?key", re.IGNORECASE)
_INNER: dict[str, type[Entry]] = {
    "storm": StormEntry,
    "maintenance": MaintenanceEntry,
    FILE_LOG: FileLogEntry,
    JOURNAL_LOG: JournalLogEntry,
    "journal": JournalEntry,
    "service": ServiceEntry,
    "probe": ProbeEntry,
    "waive": WaiverEntry,
}
_KINDS = {FILE_LOG, JOURNAL_LOG}
_SECTIONS: dict[str, type[Entry]] = {
    "volumes": VolumeEntry,
    "hypervisors": HypervisorEntry,
    "guests": GuestEntry,
    "instances": InstanceEntry,
    "notify": ReceiverEntry,
}
_ONE_EACH: dict[str, type[Entry]] = {"site": SiteEntry, "policy": PolicyEntry}
_TOP = ("version", *_ONE_EACH, *_SECTIONS)

_PLAIN_WORDS = {
    "missing": "is required, but not there",
    "string_type": "must be text (in quotes, when it looks like a number)",
    "int_type": "must be a whole number, without quotes",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "model_type": "must be a mapping of keys to values",
    "dict_type": "must be a mapping of keys to values",
    "too_short": "must not be empty",
}

_E = TypeVar("_E", bound=Entry)


@dataclass(frozen=True)
class Inventory:
    """What the site declares, by name. Values of `unlatch.models`, checked, with all references resolvable."""

    site: Site
    policy: Policy
    volumes: Mapping[str, Volume]
    hypervisors: Mapping[str, Hypervisor]
    guests: Mapping[str, Guest]
    instances: Mapping[str, Instance]
    notify: Mapping[str, Receiver]
    _document: Document = field(repr=False, compare=False)

    def guest_of(self, domain: str, hypervisor: str | None = None) -> Guest | None:
        """The guest that a hypervisor's log calls `domain`: by the plain name, or by one of its `names` in full.

        Args:
            domain: the name in the log.
            hypervisor: whose log it is; guests that the inventory places elsewhere are then left out, since two
                hypervisors may each have a domain of the same name.

        Returns:
            The guest; None when there is none, or more than one: a guess could repair the wrong machine.
        """
        found = [
            guest
            for guest in self.guests.values()
            if hypervisor in {None, guest.hypervisor} and guest.is_called(domain)
        ]
        return found[0] if len(found) == 1 else None

    def instances_of(self, guest: str | Guest) -> tuple[Instance, ...]:
        """The guest's instances in the order of the file; none for a guest that is not in the inventory."""
        name = guest if isinstance(guest, str) else guest.name
        return tuple(instance for instance in self.instances.values() if instance.guest == name)

    def check_names(
        self,
        *,
        engines: Collection[str] | None = None,
        checks: Collection[str] | None = None,
        formats: Collection[str] | None = None,
        clearers: Collection[str] | None = None,
        ticketing: Collection[str] | None = None,
        senders: Collection[str] | None = None,
    ) -> None:
        """Check every plug-in that the inventory names against those that are installed; None: not checked.

        Raises:
            ConfigError: some are not installed, each with its line.
        """
        for path, name, known, what in self._plug_ins(engines, checks, formats, clearers, ticketing, senders=senders):
            if known is not None and name not in known:
                self._document.complain(path, f"there is no {what} {name!r}; {_suggestion(name, known, 'installed')}")
        self._document.raise_problems()

    def _plug_ins(
        self,
        engines: Collection[str] | None,
        checks: Collection[str] | None,
        formats: Collection[str] | None,
        clearers: Collection[str] | None,
        ticketing: Collection[str] | None,
        *,
        senders: Collection[str] | None,
    ) -> Iterable[tuple[KeyPath, str, Collection[str] | None, str]]:
        yield ("site", "ticketing"), self.site.ticketing, ticketing, "ticket system"
        for receiver in self.notify.values():
            yield ("notify", receiver.name, "by"), receiver.by, senders, "way to tell"
        for volume in self.volumes.values():
            if volume.clearer is not None:
                yield ("volumes", volume.name, "clearer"), volume.clearer, clearers, "lock clearer"
        for hypervisor in self.hypervisors.values():
            for index, log in enumerate(hypervisor.logs):
                yield ("hypervisors", hypervisor.name, "logs", index, "format"), log.format, formats, "log format"
        for instance in self.instances.values():
            yield ("instances", instance.name, "engine"), instance.engine, engines, "engine"
            for index, waiver in enumerate(instance.waive):
                yield ("instances", instance.name, "waive", index, "check"), waiver.check, checks, "check"


def load(path: Path | str) -> Inventory:
    """Read and check the inventory.

    Raises:
        ConfigError: the file cannot be read, or something in it is wrong; every problem with its line and key.
    """
    document = read(Path(path))
    top = document.data
    if not isinstance(top, dict):
        document.complain((), "the inventory must be a mapping of keys to values, beginning with version: 1")
        top = {}
    elif top.get("version") != VERSION or isinstance(top["version"], bool):
        document.complain(("version",), f"must be {VERSION}, the only version of this file so far")
    for key in top:
        if key not in _TOP:
            document.complain((key,), _unknown_key(str(key), _TOP))
    site, policy = (_one(document, top, key, model) for key, model in _ONE_EACH.items())
    sections = {key: _section(document, top, key, model) for key, model in _SECTIONS.items()}
    declared = site.model() if isinstance(site, SiteEntry) else Site()
    found = Inventory(
        site=declared,
        policy=policy.model(declared.timezone) if isinstance(policy, PolicyEntry) else Policy(),
        volumes={name: e.model(name) for name, e in sections["volumes"].items() if isinstance(e, VolumeEntry)},
        hypervisors={
            name: e.model(name) for name, e in sections["hypervisors"].items() if isinstance(e, HypervisorEntry)
        },
        guests={name: e.model(name) for name, e in sections["guests"].items() if isinstance(e, GuestEntry)},
        instances={name: e.model(name) for name, e in sections["instances"].items() if isinstance(e, InstanceEntry)},
        notify={name: e.model(name) for name, e in sections["notify"].items() if isinstance(e, ReceiverEntry)},
        _document=document,
    )
    references.check(document, found.volumes, found.hypervisors, found.guests, found.instances)
    references.check_policy(document, found.policy, found.volumes, found.hypervisors, found.guests)
    document.raise_problems()
    return found


def _section(document: Document, top: dict[str, Any], key: str, model: type[_E]) -> dict[str, _E]:
    """The valid entries of a section; the others are noted."""
    section = top.get(key)
    if section is None:
        return {}
    if not isinstance(section, dict):
        document.complain((key,), "must be a mapping of names to entries")
        return {}
    entries: dict[str, _E] = {}
    for name, content in section.items():
        path = (key, str(name))
        if not re.fullmatch(NAME, str(name)):
            document.complain(path, "a name is letters, digits, '.', '_', '-', at most 60, the first no sign")
        entry = _entry(document, path, model, content)
        if entry is not None:
            entries[str(name)] = entry
    return entries


def _one(document: Document, top: dict[str, Any], key: str, model: type[_E]) -> _E | None:
    content = top.get(key)
    return _entry(document, (key,), model, {} if content is None else content)


def _entry(document: Document, path: KeyPath, model: type[_E], content: Any) -> _E | None:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            place = tuple(part for part in problem["loc"] if part != "[key]")
            inner = tuple(part for part in place if part not in _KINDS)
            document.complain((*path, *inner), _words(model, problem["type"], place, problem["msg"]))
        return None


def _words(model: type[Entry], kind: str, inner: KeyPath, message: str) -> str:
    if kind == "extra_forbidden":
        names = [part for part in inner[:-1] if isinstance(part, str)]
        parent = _INNER.get(names[-1], model) if names else model
        return _unknown_key(str(inner[-1]), [field.alias or name for name, field in parent.model_fields.items()])
    if kind in _PLAIN_WORDS:
        return _PLAIN_WORDS[kind]
    message = message.removeprefix("Value error, ").removeprefix("Input should be ")
    return message if message.startswith(("must", "is ", "needs")) or kind == "value_error" else f"must be {message}"


def _unknown_key(key: str, known: Collection[str]) -> str:
    if _SECRET.search(key):
        return "secrets do not belong here; put it into the Airflow connection"
    return f"unknown key; {_suggestion(key, known, 'known')}"


def _suggestion(name: str, known: Collection[str], all_of_them: str) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"{all_of_them}: {', '.join(sorted(known)) or 'none'}"
