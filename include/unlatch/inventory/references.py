"""What the entries say of each other: references that must resolve, and things that only one entry may claim."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from unlatch.inventory.document import Document, KeyPath
from unlatch.models import Guest, Hypervisor, Instance, Policy, Volume


def check(
    document: Document,
    volumes: Mapping[str, Volume],
    hypervisors: Mapping[str, Hypervisor],
    guests: Mapping[str, Guest],
    instances: Mapping[str, Instance],
) -> None:
    """Note every problem between entries. Only entries that are valid by themselves are given."""
    for guest in guests.values():
        _known(document, ("guests", guest.name, "hypervisor"), guest.hypervisor, "hypervisors", hypervisors)
    for instance in instances.values():
        path: KeyPath = ("instances", instance.name)
        _known(document, (*path, "guest"), instance.guest, "guests", guests)
        _known(document, (*path, "volume"), instance.volume, "volumes", volumes)
        if instance.volume in volumes:
            _inside(document, path, instance, volumes[instance.volume])
        waived = [waiver.check for waiver in instance.waive]
        for index, name in enumerate(waived):
            if name in waived[:index]:
                document.complain((*path, "waive", index, "check"), f"{name} is waived twice")
    _names(document, guests)
    _claims(document, hypervisors, guests, instances)
    _datadirs(document, tuple(instances.values()))


def check_policy(
    document: Document,
    policy: Policy,
    volumes: Mapping[str, Volume],
    hypervisors: Mapping[str, Hypervisor],
    guests: Mapping[str, Guest],
) -> None:
    """Note every name in the policy that leads nowhere: a window on a mistyped guest would hold nothing."""
    for index, window in enumerate(policy.maintenance):
        path: KeyPath = ("policy", "maintenance", index)
        for key, names, known in (
            ("guests", window.guests, guests),
            ("hypervisors", window.hypervisors, hypervisors),
            ("volumes", window.volumes, volumes),
        ):
            for position, name in enumerate(names):
                _known(document, (*path, key, position), name, key, known)


def _known(document: Document, path: KeyPath, name: str, section: str, known: Mapping[str, object]) -> None:
    declared = document.data.get(section)
    if name in known or (isinstance(declared, dict) and name in declared):
        return  # one that is declared, but wrong, has its own problem already
    if declared is None or isinstance(declared, dict):
        document.complain(path, f"{section} has no {name!r}; it has: {', '.join(sorted(known)) or 'none'}")


def _inside(document: Document, path: KeyPath, instance: Instance, volume: Volume) -> None:
    where = f"the path {volume.path} of volume {volume.name}"
    if not instance.datadir.is_relative_to(volume.path):
        document.complain((*path, "datadir"), f"{instance.datadir} is outside {where}")
        return
    for key, patterns in (("files", instance.files), ("pid_files", instance.pid_files)):
        for index, pattern in enumerate(patterns):  # a relative one is below the datadir
            if not (instance.datadir / pattern).is_relative_to(volume.path):
                document.complain((*path, key, index), f"{pattern} is outside {where}")


def _names(document: Document, guests: Mapping[str, Guest]) -> None:
    """Patterns under which two guests of one hypervisor would answer; only the obvious ones can be seen here."""
    for guest in guests.values():
        for index, pattern in enumerate(guest.names):
            for other in guests.values():
                if other.name == guest.name or other.hypervisor != guest.hypervisor:
                    continue
                path = ("guests", guest.name, "names", index)
                at = f"line {document.line(('guests', other.name))}"
                if re.fullmatch(pattern, other.name):
                    document.complain(path, f"also matches the guest {other.name} ({at})")
                elif pattern in other.names and list(guests).index(other.name) < list(guests).index(guest.name):
                    document.complain(path, f"the guest {other.name} ({at}) has the same pattern")


def _claims(
    document: Document,
    hypervisors: Mapping[str, Hypervisor],
    guests: Mapping[str, Guest],
    instances: Mapping[str, Instance],
) -> None:
    """Things that belong to one entry only: with a copied one, a repair would act on the wrong machine."""
    every = instances.values()
    _once(
        document,
        ((("hypervisors", h.name, "conn_id"), h.conn_id, f"connection {h.conn_id}") for h in hypervisors.values()),
    )
    _once(document, ((("guests", g.name, "conn_id"), g.conn_id, f"connection {g.conn_id}") for g in guests.values()))
    _once(
        document,
        (
            (("instances", i.name, "login_conn_id"), i.login_conn_id, f"connection {i.login_conn_id}")
            for i in every
            if i.login_conn_id is not None
        ),
    )
    _once(
        document, ((("instances", i.name, "port"), (*_host_key(i), i.port), f"{i.host} port {i.port}") for i in every)
    )
    _once(
        document,
        (
            (("instances", i.name, "service"), (i.guest, i.service.start), "the same start command on the same guest")
            for i in every
        ),
    )


def _host_key(instance: Instance) -> tuple[str, str]:
    """Who answers at the host: a loopback address is another machine on every guest."""
    try:
        loopback = ipaddress.ip_address(instance.host).is_loopback
    except ValueError:
        loopback = instance.host == "localhost"
    return (instance.guest, "loopback") if loopback else ("", instance.host)


def _once(document: Document, claims: Iterable[tuple[KeyPath, object, str]]) -> None:
    first: dict[object, KeyPath] = {}
    for path, claim, words in claims:
        if claim in first:
            owner = first[claim]
            document.complain(path, f"{words}: {owner[1]} has it already (line {document.line(owner)})")
        else:
            first[claim] = path


def _datadirs(document: Document, instances: tuple[Instance, ...]) -> None:
    for number, instance in enumerate(instances):
        for other in instances[:number]:
            if instance.volume != other.volume and instance.guest != other.guest:
                continue  # the same path on another machine's mount of another volume
            if _overlap(instance.datadir, other.datadir):
                line = document.line(("instances", other.name, "datadir"))
                words = "is" if instance.datadir == other.datadir else "overlaps with"
                problem = f"{instance.datadir} {words} the data directory of {other.name} (line {line})"
                document.complain(("instances", instance.name, "datadir"), problem)


def _overlap(one: PurePosixPath, other: PurePosixPath) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)
