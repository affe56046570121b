"""Acting on one instance: hold its service, copy and swap its files, start it, log in. Each act checks what it did."""

from __future__ import annotations

from datetime import timedelta
from pathlib import PurePosixPath

from unlatch.assessment import (
    is_running,
    look_at_files,
    scan_processes,
    take_lease,
    write_permit,
)
from unlatch.errors import CheckFailedError, RefusedError, TransientError
from unlatch.models import FileFact, Json, LockKind, RepairStatus, SwappedFile, Verdict
from unlatch.ports import Ports
from unlatch.recording import Case, refuse_while_stopped, result_of

STATUS_PERIOD_S = 0.5
STOP_PERIOD_S = 5.0
"""How often a long copy asks whether a person has set the global stop."""

ACCESS_LIMIT_S = 180.0
"""How long a started server may take to accept logins: a crash recovery reads its whole log first."""


def hold(case: Case, ports: Ports) -> None:
    """Hold the service and see that no process of the instance is left.

    Raises:
        TransientError: another incident repairs the instance.
        CheckFailedError: the service cannot be held, or still runs.
    """
    take_lease(case, ports)
    held = ports.agent.service(case.instance, "hold")
    if held.code != 0:
        raise CheckFailedError(
            f"The service of {case.instance.name} on {case.guest.name} could not be held: {held.output.strip()}",
            next_step=f"try it by hand as the connection's user: {' '.join(case.instance.service.hold)}",
        )
    left = [o for o in scan_processes(case, ports).openers if o.fds or o.why]
    if left and is_running(case, ports):
        raise CheckFailedError(
            f"{case.instance.name} still runs after its service was held (pid {left[0].pid}).",
            next_step=f"stop it on {case.guest.name}: {' '.join(case.instance.service.stop)}, then clear this task.",
        )


def set_aside_files(
    case: Case, ports: Ports, targets: tuple[PurePosixPath, ...], conclusion: Verdict
) -> tuple[PurePosixPath, ...]:
    """Set pid files aside; their quarantine names.

    One that is gone goes to the agent all the same, as check_locks saw it, when the agent's journal has it: a try that
    was killed after the rename is ended there and answered. One that went by itself is no concern.
    """
    present = {f.path: f for f in look_at_files(case, ports)}
    if any(path not in present for path in targets):
        status = ports.agent.status(case.incident, case.instance, _directories(targets))
        begun = {f.path for f in status.files}
        first = map(FileFact.from_dict, result_of(ports.store, case, "check_locks")["files"])
        present = {f.path: f for f in first if f.path in begun} | present
    wanted = [present[path] for path in targets if path in present]
    return ports.agent.set_aside(case.instance, write_permit(case, ports, conclusion, wanted)) if wanted else ()


def copy_files(case: Case, ports: Ports, targets: tuple[PurePosixPath, ...]) -> None:
    """Start or join the agent's copy job and follow it to its end; it goes on when this worker dies.

    Raises:
        RefusedError: the agent refused a file; or the global stop was set meanwhile. The job on the guest then ends by
            itself and nothing is swapped.
        TransientError: the job ended before all was copied; the next one goes on where it was.
    """
    started, told = False, -1
    ask_again = ports.clock.now() + timedelta(seconds=STOP_PERIOD_S)
    while True:
        status = ports.agent.status(case.incident, case.instance, _directories(targets))
        quarter = int(4 * status.bytes_done / status.bytes_total) if status.bytes_total else 0
        if quarter != told:
            told = quarter
            ports.store.note(
                case.incident,
                case.instance.name,
                "recreate_files",
                "copying",
                actor=ports.actor,
                detail=status.as_dict(),
            )
        if status.running:
            ports.clock.pause(STATUS_PERIOD_S)
            if ports.clock.now() >= ask_again:
                refuse_while_stopped(ports)
                ask_again = ports.clock.now() + timedelta(seconds=STOP_PERIOD_S)
        elif _all_copied(status, targets):
            return
        elif not started:
            ports.agent.prepare(case.incident, case.instance, targets)
            started = True
        elif status.error:
            raise _from_agent(status.error)
        else:
            raise TransientError(
                f"The copy job of {case.instance.name} on {case.guest.name} ended in the state {status.state!r}.",
                next_step="it is started again by the retry and goes on where it was.",
            )


_COPIED = frozenset({"prepared", "swapping", "committed"})


def _all_copied(status: RepairStatus, targets: tuple[PurePosixPath, ...]) -> bool:
    states = {f.path: f.state for f in status.files}
    return all(states.get(path) in _COPIED for path in targets)


def _from_agent(error: Json) -> RefusedError | TransientError:
    words, following = str(error.get("message", error)), str(error.get("next", ""))
    kind = RefusedError if error.get("exit_code") in {3, 5} else TransientError
    return kind(words, next_step=following)


def swap_files(
    case: Case, ports: Ports, targets: tuple[PurePosixPath, ...], conclusion: Verdict
) -> tuple[SwappedFile, ...]:
    """Write the permit from a fresh look and commit; what an earlier, killed try has swapped stays as it is."""
    facts = {f.path: f for f in ports.agent.check_locks(case.instance, targets, ())}
    missing = [str(p) for p in targets if p not in facts]
    if missing:
        raise TransientError(
            f"{', '.join(missing)} could not be looked at before the swap.", next_step="the retry looks again."
        )
    return ports.agent.commit(case.instance, write_permit(case, ports, conclusion, [facts[p] for p in targets]))


def _directories(paths: tuple[PurePosixPath, ...]) -> tuple[PurePosixPath, ...]:
    return tuple(sorted({p.parent for p in paths}))


def start_service(case: Case, ports: Ports) -> None:
    """Release and start the service once; what its error log says is in the error.

    Raises:
        CheckFailedError: it did not start. It is not tried again: the cause is another than the lock.
    """
    released = ports.agent.service(case.instance, "release")
    started = ports.agent.service(case.instance, "start") if released.code == 0 else released
    if started.code == 0:
        return
    log = case.instance.error_log
    tail = ports.agent.tail(case.instance, log, 20) if log else ""
    meaning = ports.engine.explain_failure(tail + started.output)
    raise CheckFailedError(
        f"{case.instance.name} did not start on {case.guest.name}"
        + (f": {meaning}" if meaning else f" (exit code {started.code})")
        + f"\n{(tail or started.output).strip()}",
        next_step="repair that cause, then clear this task; recreated files are in place and need no second repair.",
        detail={"error_log": tail, "output": started.output},
    )


def main_process_on_new_files(case: Case, ports: Ports) -> int | None:
    """The pid that has the recreated files open; their old inodes must be open nowhere (rule 6)."""
    scan = scan_processes(case, ports)
    swapped = [SwappedFile.from_dict(f) for f in result_of(ports.store, case, "recreate_files").get("files", [])]
    if not swapped:
        return scan.openers[0].pid if scan.openers else None
    held = {fd.inode: o.pid for o in scan.openers for fd in o.fds}
    if scan.unchecked:
        # A person let the repair go on without the scan of all processes: then the server's own locks are the witness.
        locked = ports.agent.check_locks(case.instance, [s.path for s in swapped], ())
        held |= {f.inode: f.lock.pid for f in locked if f.lock.kind is LockKind.LOCAL and f.lock.pid is not None}
    on_old = [s for s in swapped if s.inode_before in held]
    if on_old:
        raise CheckFailedError(
            f"pid {held[on_old[0].inode_before]} has the quarantined original of {on_old[0].path} open.",
            next_step=f"stop {case.instance.name} at once: {' '.join(case.instance.service.stop)}",
        )
    if not any(s.inode_after in held for s in swapped):
        raise CheckFailedError(
            f"{case.instance.name} was started, but no process of {case.guest.name} has its recreated files open.",
            next_step="see whether it runs from another directory or machine than the inventory says.",
        )
    return next(held[s.inode_after] for s in swapped if s.inode_after in held)


def log_in(case: Case, ports: Ports) -> Json:
    """Try until the server has recovered or the limit is reached."""
    deadline = ports.clock.now() + timedelta(seconds=ACCESS_LIMIT_S)
    while True:
        try:
            return ports.engine.login(case.instance, write_probe=case.instance.write_probe).as_dict()
        except TransientError as error:
            if ports.clock.now() >= deadline:
                raise CheckFailedError(
                    f"{case.instance.name} accepts no login {ACCESS_LIMIT_S:.0f} s after its start: {error.what}",
                    next_step="read its error log; then clear this task.",
                ) from error
            ports.clock.pause(STATUS_PERIOD_S)


def application_probe(case: Case, ports: Ports) -> str:
    """Ask the application's probe, when the inventory names one, from the guest."""
    probe = case.instance.probe
    if probe is None:
        return ""
    answer = ports.agent.command(probe.argv)
    if answer.code != 0:
        raise CheckFailedError(
            f"The application probe of {case.instance.name} failed ({' '.join(probe.argv)}): {answer.output.strip()}",
            next_step="the database accepts logins; look at the application.",
        )
    return f"Application probe passed: {' '.join(probe.argv)}"
