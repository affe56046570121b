"""Which hosts belong to a volume or a fence, and the Airflow connections that lead to them.

The drill and the repair ask here, so that they mean the same ones.
"""

from __future__ import annotations

from unlatch.models import Guest, Volume
from unlatch.ports import InventoryView


def nas_connection(server: str) -> str:
    """The Airflow connection of a NAS."""
    return f"unlatch_nas_{server}"


def peer_connection(known: InventoryView, peer: str) -> str:
    """The Airflow connection of a host that may mount a volume; it need not be a guest of the inventory."""
    return known.guests[peer].conn_id if peer in known.guests else f"unlatch_guest_{peer}"


def peers_of(known: InventoryView, guest: Guest, volume: Volume) -> tuple[str, ...] | None:
    """Every other host that may mount the volume: those that it names, and the guests whose instances are on it.

    None: the inventory does not say.
    """
    if volume.peers is None:
        return None
    users = {name for name in known.guests for i in known.instances_of(name) if i.volume == volume.name}
    return tuple(sorted({*volume.peers, *users} - {guest.name}))


def place_of(known: InventoryView, guest: Guest, where: str) -> tuple[str, str] | None:
    """Connection and name of the guest's `hypervisor`, or of the `nas` of its volumes; None: it has none."""
    if where == "hypervisor":
        hypervisor = known.hypervisors.get(guest.hypervisor)
        return (hypervisor.conn_id, hypervisor.name) if hypervisor else None
    servers = (known.volumes[i.volume].server for i in known.instances_of(guest.name))
    server = next((server for server in servers if server is not None), None)
    return (nas_connection(server), server) if where == "nas" and server else None
