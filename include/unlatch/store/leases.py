"""Leases: one repair at a time per instance, and slots, of which there are a few. A lease has no expiry.

The incident that holds one must have ended. An owner is an incident, or one instance of it: `INCIDENT/INSTANCE`.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, Connection, delete, func, select, update

from unlatch.lifecycle import WORKING_STATES, IncidentState
from unlatch.store.part import Part
from unlatch.store.schema import INCIDENTS, LEASES


class Leases(Part):
    """The part of the store that says who may work on what."""

    def take_lease(self, name: str, owner: str) -> str | None:
        """Take the lease `name`, or keep it: None. Otherwise the owner that has it.

        An incident that is no longer working (closed, refused, failed, confirmed) loses its leases, and those of its
        instances, to whoever asks; that is audited for the new owner. An owner that is no incident of this store, nor
        an instance of one, keeps what it has.
        """
        now = self._clock.now()
        with self._database.writing() as connection:
            holder, lost_by = self._claim(connection, name, owner, now)
            if lost_by is not None:
                self._taken_over(connection, name, owner, *lost_by)
            return None if holder == owner else holder

    def release_lease(self, name: str, owner: str) -> None:
        """Give a lease back; nothing when it is another's."""
        with self._database.writing() as connection:
            connection.execute(delete(LEASES).where(LEASES.c.name == name, LEASES.c.owner == owner))

    def take_slot(self, pool: str, size: int, owner: str) -> tuple[str, ...]:
        """Take one of the leases `POOL:1` to `POOL:SIZE`, or keep the one that `owner` has: `()`.

        Otherwise the owners of all of them. An owner never has two slots of a pool, however often it asks and
        wherever it was killed; one whose incident has ended loses its slot as any lease. A pool that was made smaller
        lets those go on who are in it already.
        """
        now = self._clock.now()
        names = [f"{pool}:{number}" for number in range(1, size + 1)]
        holders: list[str] = []
        with self._database.writing() as connection:
            if self._has_one(connection, pool, owner):
                return ()
            # In one order for all who ask at once, so that two of them can never wait for each other.
            for name in names:
                holder, lost_by = self._claim(connection, name, owner, now)
                if lost_by is not None:
                    self._taken_over(connection, name, owner, *lost_by)
                if holder == owner:
                    return ()
                holders.append(holder)
        return tuple(holders)

    def release_slot(self, pool: str, owner: str) -> None:
        """Give back the slot that `owner` has in the pool; nothing when it has none."""
        with self._database.writing() as connection:
            connection.execute(delete(LEASES).where(_of_pool(pool), LEASES.c.owner == owner))

    def lease_owner(self, name: str) -> str | None:
        """Who has the lease; None when nobody has."""
        with self._database.reading() as connection:
            query = select(LEASES.c.owner).where(LEASES.c.name == name)
            owner: str | None = connection.execute(query).scalar_one_or_none()
            return owner

    def slots(self, pool: str) -> dict[str, str]:
        """The owners of a pool's slots that are taken, by the slot's name."""
        with self._database.reading() as connection:
            found = connection.execute(select(LEASES.c.name, LEASES.c.owner).where(_of_pool(pool)))
            return {row.name: row.owner for row in found}

    def _has_one(self, connection: Connection, pool: str, owner: str) -> bool:
        mine = select(LEASES.c.name).where(_of_pool(pool), LEASES.c.owner == owner).with_for_update()
        return connection.execute(mine).first() is not None

    def _claim(
        self, connection: Connection, name: str, owner: str, now: datetime
    ) -> tuple[str, tuple[str, IncidentState] | None]:
        """Who has the lease now; and whose it was, with the state of that incident, when it was taken over."""
        # A conflict locks the row, whoever's it is: with DO NOTHING it could be given back before it is read.
        claim = self._database.insert(LEASES).values(name=name, owner=owner, taken_at=now)
        holder: str = connection.execute(
            claim.on_conflict_do_update(index_elements=["name"], set_={"name": name}).returning(LEASES.c.owner)
        ).scalar_one()
        if holder == owner:
            return owner, None
        # The share lock keeps the holder from being reopened before this take-over is committed.
        query = select(INCIDENTS.c.state).where(INCIDENTS.c.incident == _incident(holder)).with_for_update(read=True)
        state = connection.execute(query).scalar_one_or_none()
        if state is None or IncidentState(state) in WORKING_STATES:
            return holder, None
        connection.execute(update(LEASES).where(LEASES.c.name == name).values(owner=owner, taken_at=now))
        return owner, (holder, IncidentState(state))

    def _taken_over(self, connection: Connection, name: str, owner: str, holder: str, state: IncidentState) -> None:
        detail = {"lease": name, "from": holder, "its_state": state.value}
        instance = owner.partition("/")[2]
        self._record(connection, _incident(owner), "lease_taken_over", detail, instance=instance)


def _incident(owner: str) -> str:
    return owner.partition("/")[0]


def _of_pool(pool: str) -> ColumnElement[bool]:
    """Which rows are slots of a pool. No LIKE: SQLite's takes capital letters for small ones."""
    prefix = f"{pool}:"
    return func.substr(LEASES.c.name, 1, len(prefix)) == prefix
