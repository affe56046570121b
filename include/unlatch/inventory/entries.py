"""Volumes, guests and instances of the inventory, turned into models."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from unlatch import models
from unlatch.inventory.values import (
    Absolute,
    Address,
    Argv,
    ConnId,
    Entry,
    Host,
    Name,
    Pattern,
    Port,
    Program,
    Regex,
    Table,
    Text,
    Unit,
    User,
    WebAddress,
)


class NasEntry(Entry):
    """`nas` of a volume."""

    export: Absolute | None = None
    svm: Text | None = None
    volume: Text | None = None
    list: Argv | None = None
    clear: Argv | None = None


class VolumeEntry(Entry):
    """One of `volumes`."""

    kind: Literal["lab", "nfs"]
    path: Absolute
    server: Host | None = None
    clearer: Name | None = None
    peers: list[Host] | None = None
    nas: NasEntry = NasEntry()

    @model_validator(mode="after")
    def _clearer_has_a_server(self) -> Self:
        if self.clearer is not None and self.server is None:
            raise ValueError("clearer needs server: the NAS on which it clears locks")
        return self

    def model(self, name: str) -> models.Volume:
        """The volume."""
        return models.Volume.from_dict(
            {**self.model_dump(), "name": name, "nas": self.nas.model_dump(exclude_none=True)}
        )


class FenceEntry(Entry):
    """`fence` of a guest."""

    on: Literal["hypervisor", "nas", "worker"]
    apply: Argv
    verify: Argv
    undo: Argv | None = None


class GuestEntry(Entry):
    """One of `guests`."""

    hypervisor: Name
    conn_id: ConnId | None = None
    names: list[Regex] = Field(default_factory=list)
    approvers: list[Text] = Field(default_factory=list)
    fence: FenceEntry | None = None

    def model(self, name: str) -> models.Guest:
        """The guest."""
        conn_id = self.conn_id or f"unlatch_guest_{name}"
        given = self.model_dump(exclude_none=True)
        return models.Guest.from_dict({**given, "name": name, "conn_id": conn_id})


class ServiceEntry(Entry):
    """`service` of an instance: a systemd unit, or five commands of the site's own."""

    unit: Unit | None = None
    start: Argv | None = None
    stop: Argv | None = None
    status: Argv | None = None
    hold: Argv | None = None
    release: Argv | None = None

    @model_validator(mode="after")
    def _unit_or_commands(self) -> Self:
        commands = self.model_dump(exclude={"unit"})
        missing = [verb for verb, argv in commands.items() if argv is None]
        if self.unit is not None and len(missing) < len(commands):
            raise ValueError("needs either unit or the five commands, not both")
        if self.unit is None and missing:
            raise ValueError(
                f"needs unit, or the commands start, stop, status, hold and release ({missing[0]} is missing)"
            )
        return self

    def model(self) -> models.Service:
        """The commands; those of a unit need the sudo rules that inventory.example.yaml shows.

        `status` needs no root, and gets none: run by root on a terminal, its pager would be a root shell.
        """
        if self.unit is None:
            return models.Service.from_dict(self.model_dump(exclude={"unit"}))
        root = ("sudo", "-n", "/usr/bin/systemctl")
        return models.Service(
            start=(*root, "start", self.unit),
            stop=(*root, "stop", self.unit),
            status=("/usr/bin/systemctl", "--no-pager", "status", self.unit),
            hold=(*root, "mask", "--runtime", "--now", self.unit),
            release=(*root, "unmask", "--runtime", self.unit),
        )


class ProbeEntry(Entry):
    """`probe` of an instance."""

    tcp: Address | None = None
    http: WebAddress | None = None
    command: Argv | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if len(self.model_dump(exclude_none=True)) != 1:
            raise ValueError("needs exactly one of tcp, http, command")
        return self

    def model(self) -> models.Probe:
        """The probe."""
        return models.Probe.from_dict(self.model_dump(exclude_none=True))


class WaiverEntry(Entry):
    """One of an instance's `waive`."""

    check: Name
    by: Text
    reason: Text


class InstanceEntry(Entry):
    """One of `instances`."""

    guest: Name
    engine: Name
    volume: Name
    os_user: User
    datadir: Absolute
    host: Host
    port: Port
    service: ServiceEntry
    login_conn_id: ConnId | None = None
    read_table: Table | None = None
    write_probe: bool = False
    owner_confirms: bool = False
    error_log: Absolute | None = None
    probe: ProbeEntry | None = None
    waive: list[WaiverEntry] = Field(default_factory=list)
    files: list[Pattern] = Field(default_factory=list)
    pid_files: list[Pattern] = Field(default_factory=list)
    executables: list[Program] = Field(default_factory=list)

    def model(self, name: str) -> models.Instance:
        """The instance."""
        plain = self.model_dump(exclude={"service", "probe"})
        probe = None if self.probe is None else self.probe.model().as_dict()
        return models.Instance.from_dict(
            {**plain, "name": name, "service": self.service.model().as_dict(), "probe": probe}
        )
