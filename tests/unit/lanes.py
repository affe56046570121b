"""Runs an incident step by step as the DAG does: one lane per instance, and a step that died is run again."""

from __future__ import annotations

from collections.abc import Callable

from tests.unit.fakes import World
from tests.unit.world_parts import DIED_AT, GUEST, Killed
from unlatch import casebook, runbook
from unlatch.casebook import Incident, Request
from unlatch.deliveries import deliver_everything, ticket_post
from unlatch.errors import CheckFailedError, RefusedError, UnlatchError
from unlatch.models import Json, incident_id
from unlatch.ports import StepRow
from unlatch.store.deliveries import CLAIM

LANE = (
    runbook.check_locks,
    runbook.hold_service,
    runbook.verdict,
    runbook.clear_locks,
    runbook.recreate_files,
    runbook.restart_database,
    runbook.confirm_access,
)
NAMES = tuple(step.__name__ for step in LANE)


class Run:
    """One run of `remediate_guest`."""

    def __init__(self, world: World, *, dry_run: bool = False, guest: str = GUEST.name, **request: object) -> None:
        """Take what the run is asked for."""
        self.world = world
        self.incident = incident_id(DIED_AT, guest)
        self.request = Request(guest, dry_run=dry_run, incident=self.incident, crashed_at=DIED_AT, **request)  # type: ignore[arg-type]
        self.opened: Json = {}

    def open(self) -> Json:
        """`detect_crash`, with the event that the watch has kept."""
        self.world.store.real.record_event(self.world.event, GUEST.name)
        self.opened = casebook.detect_crash(self.request, self.world.incident_ports)
        return self.opened

    @property
    def whole(self) -> Incident:
        """The subject of the steps on the incident as a whole."""
        names = tuple(self.opened["instances"])
        return Incident(self.incident, GUEST, names, self.world.event, self.opened["dry_run"])

    def step(self, name: str, of: str = "voms") -> Json:
        """One step of one lane."""
        case = self.world.case(self.incident, of, dry_run=self.opened["dry_run"])
        return LANE[NAMES.index(name)](case, self.world.ports)

    def lane(self, of: str = "voms", *, start: str = "check_locks", end: str = "confirm_access") -> Json:
        """The steps of a lane from one to another; the last one's result."""
        wanted = NAMES[NAMES.index(start) : NAMES.index(end) + 1]
        return [self.step(name, of) for name in wanted][-1]

    def question(self, of: str = "voms") -> str | None:
        """What a person is asked."""
        case = self.world.case(self.incident, of, dry_run=self.opened["dry_run"])
        return runbook.question(case, self.world.ports)

    def answer(self, *, approved: bool, of: str = "voms") -> Json:
        """A person's answer."""
        case = self.world.case(self.incident, of)
        return runbook.approve(case, self.world.ports, approved=approved, by="eva", comment="seen it")

    def finish(self) -> Json:
        """`update_ticket`."""
        return casebook.update_ticket(self.whole, self.world.incident_ports)

    def finish_fails(self) -> CheckFailedError:
        """`update_ticket` of a run that did not end well: its error."""
        try:
            self.finish()
        except CheckFailedError as error:
            return error
        raise AssertionError("update_ticket did not fail")

    def all(self) -> Json:
        """The whole run; every step that dies is run again, as Airflow's retries do."""
        again(self.world, self.open)
        again(self.world, lambda: casebook.wait_for_guest(self.whole, self.world.incident_ports))
        for of in self.opened["instances"]:
            for name in NAMES:
                again(self.world, lambda name=name, of=of: self.step(name, of))
        ended = again(self.world, self.finish)
        tell_the_rest(self.world)
        return ended

    def attempt(self) -> UnlatchError | None:
        """The whole run as the DAG does it: a lane that fails ends, `update_ticket` runs always; its error."""
        if not self.opened:
            self.open()
        for of in self.opened["instances"]:
            try:
                self.lane(of)
            except UnlatchError:
                continue
        try:
            self.finish()
        except UnlatchError as error:
            return error
        return None

    def row(self, name: str, of: str = "voms") -> StepRow:
        """What the store says of a step."""
        row = self.world.store.step(self.incident, of, name)
        assert row is not None, f"{name} was never begun"
        return row

    @property
    def state(self) -> str:
        """The incident's state."""
        return str(self.world.store.incident(self.incident).state)


def tell_the_rest(world: World, later_s: float = CLAIM.total_seconds() + 1) -> int:
    """What the scheduled task does later, when what a killed worker had in hand is free again."""
    world.clock.pause(later_s)
    ports = world.incident_ports
    return deliver_everything(ports, lambda _: ticket_post(ports))


def again(world: World, step: Callable[[], Json]) -> Json:
    """Run a step, and once more when it was killed."""
    try:
        return step()
    except Killed:
        world.dead = False
        return step()


def refused(step: Callable[[], object]) -> RefusedError:
    """The refusal that a step must end with."""
    try:
        step()
    except RefusedError as error:
        return error
    raise AssertionError("it was not refused")
