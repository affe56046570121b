"""What the runbook needs from the world, as Protocols. Adapters live in transport, store, engines, evidence, ticketing.

Errors that every port raises: `TransientError` (out of reach or busy: try again), `RefusedError` (a safety rule, also
one that the agent found), `ConfigError` (a privilege, tool or setting is missing, with what grants it),
`CheckFailedError` (it acted, and what should hold now does not).
"""

from __future__ import annotations

from unlatch.ports.alerts import Alerts
from unlatch.ports.bundles import IncidentPorts, InventoryView, Neighbour, PeerHost, Ports
from unlatch.ports.deliveries import TICKET, DeliveryRow, Message, Outbox
from unlatch.ports.machines import Clock, CommandAnswer, GuestView, HostAgent, HypervisorWatch, Leave, LogReader
from unlatch.ports.plugins import Engine, EvidenceCheck, LockClearer, Peer, Scene, Ticketing
from unlatch.ports.records import IncidentRow, StepRow, Store

__all__ = [
    "TICKET",
    "Alerts",
    "Clock",
    "CommandAnswer",
    "DeliveryRow",
    "Engine",
    "EvidenceCheck",
    "GuestView",
    "HostAgent",
    "HypervisorWatch",
    "IncidentPorts",
    "IncidentRow",
    "InventoryView",
    "Leave",
    "LockClearer",
    "LogReader",
    "Message",
    "Neighbour",
    "Outbox",
    "Peer",
    "PeerHost",
    "Ports",
    "Scene",
    "StepRow",
    "Store",
    "Ticketing",
]
