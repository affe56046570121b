"""The questions of a drill, by what they are about. None of them changes anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from unlatch.drill import domains, dumps, estimate
from unlatch.drill.asking import Asking, Told
from unlatch.drill.ports import AskedAgent, DrillPorts, Machine
from unlatch.errors import RefusedError
from unlatch.models import (
    DrillCheck,
    FileFact,
    Guest,
    Hypervisor,
    HypervisorLog,
    Instance,
    InstanceDrill,
    Json,
    Remedy,
    Volume,
    VolumeKind,
)
from unlatch.models.drilled import NOT_ASKED
from unlatch.ports import CommandAnswer, Engine, Leave, LockClearer
from unlatch.root_commands import NOTIFY, OPENERS, install_line

"""The root commands: root-owned copies of the agent under names that each allow one thing (ADR 0007)."""

_ROOT_COMMANDS = "/usr/local/sbin/unlatch-"
_SERVICE_ACTIONS = ("start", "stop", "hold", "release")
_STATUS_CODES = (0, 3)
_SEEN_AS_ROOT = "see every process"


def log_in(asking: Asking, machine: Machine, conn_id: str) -> bool:
    """Whether the machine answers over SSH with its pinned host key."""
    return (
        asking.ask(
            "SSH login",
            lambda: f"{machine.login_user()} over {conn_id}, with the pinned host key",
            path=conn_id,
        )
        is True
    )


def deliver_agent(asking: Asking, agent: AskedAgent) -> bool:
    """Whether the agent can be put there and runs."""
    return asking.ask("agent", lambda: f"version {agent.version()}") is True


def ask_hypervisor(asking: Asking, machine: Machine, hypervisor: Hypervisor, guests: Sequence[Guest]) -> None:
    """Its logs, and its command that lists domains, among which its `guests` should be."""
    if not log_in(asking, machine, hypervisor.conn_id):
        return
    for log in hypervisor.logs:
        if log.local:
            continue  # it lies on the worker, and the watch says how it does

        def look(log: HypervisorLog = log) -> Told:
            return _readable(machine, str(log.path)) if log.path else _readable_journal(machine, log)

        asking.ask("read the hypervisor's log", look, path=log.where)
    if hypervisor.domains:
        asking.ask(
            "list running domains",
            lambda: domains.told_by(machine.run(hypervisor.domains), hypervisor, guests, machine.login_user()),
            path=" ".join(hypervisor.domains),
        )
    asking.ask("crash dumps", lambda: dumps.would_be_kept(machine.run(dumps.QUESTION).output), needed=False)


def _readable(machine: Machine, path: str) -> Told:
    answer = machine.run(["head", "-c", "1", "--", path])
    if answer.code == 0:
        return Told(True, f"{machine.login_user()} may read it")
    if "No such file" in answer.output:
        return Told(False, "there is no such file", "correct the path under hypervisors in the inventory")
    return Told(
        False,
        answer.output.strip(),
        f"let {machine.login_user()} read it (and x on its directory), for example through the file's group",
    )


def _readable_journal(machine: Machine, log: HypervisorLog) -> Told:
    # What is hidden is told on standard error only, with an exit code of 0.
    both = ("env", "LC_ALL=C", "sh", "-c", 'exec "$@" 2>&1', "sh")
    answer = machine.run([*both, "journalctl", "--no-pager", "-n", "1", *log.journal])
    if answer.code == 0 and "not seeing messages" not in answer.output:
        if "-- No entries --" in answer.output:
            return Told(None, "it has no such entry, and may have none to show", "see whether the unit is called so")
        return Told(True, f"{machine.login_user()} may read it")
    if "not seeing messages" in answer.output or "insufficient permissions" in answer.output:
        user = machine.login_user()
        return Told(False, f"{user} may not read the journal", f"usermod -aG systemd-journal {user}")
    return Told(False, answer.output.strip()[:200], "install systemd there, or name a log file in the inventory")


def _ended_well(answer: CommandAnswer, words: str) -> Told:
    if answer.code == 0:
        return Told(True, words)
    return Told(False, f"exit code {answer.code}: {answer.output.strip()[:200]}", "correct the command or its rights")


def ask_peer(asking: Asking, machine: Machine, conn_id: str, subject: Instance, engine: Engine) -> None:
    """A host that may mount the volume: can it be asked who uses it?"""
    if log_in(asking, machine, conn_id) and deliver_agent(asking, machine.agent):
        _see_every_process(asking, machine, subject, engine)


def ask_nas(asking: Asking, machine: Machine, volume: Volume, ports: DrillPorts) -> None:
    """The server of a volume that declares a lock clearer: may its locks be listed and cleared?"""

    def listing() -> str:
        clearer = ports.clearer(volume, machine)
        view = clearer.list([])
        return f"{clearer.name} lists {len(view.locks)} locks of {len(view.clients)} clients"

    asking.ask("list locks on the NAS", listing, path=volume.name)
    if Remedy.CLEAR in ports.policy.remedies.forbid:
        return

    asking.ask("clear locks on the NAS", lambda: _may_clear(ports.clearer(volume, machine), machine), path=volume.name)


def _may_clear(clearer: LockClearer, machine: Machine) -> Told | Leave:
    """Asks the clearer itself, or sudo about the command that it would run; a clearer with neither cannot be asked."""
    asks_itself: Callable[[], Leave] | None = getattr(clearer, "may_clear", None)
    if asks_itself is not None:
        return asks_itself()
    command: Callable[[], Sequence[str]] | None = getattr(clearer, "clear_command", None)
    if command is None:
        return Told(None, f"cannot be told without clearing: {clearer.name} has no question for it")
    argv = command()
    root_command = [word for word in argv if word.startswith(_ROOT_COMMANDS)]
    leave = machine.may_run(argv, granted=root_command[:1] or None)
    return Told(leave.ok, leave.why, _root_command(root_command[0], leave)) if root_command else leave


def ask_fence(asking: Asking, may_run: Callable[[Sequence[str]], Leave] | None, guest: Guest) -> None:
    """The commands of the guest's fence."""
    fence = guest.fence
    if fence is None:
        return
    for action, argv in (("apply", fence.apply), ("verify", fence.verify), ("undo", fence.undo)):
        if not argv:
            continue

        def question(argv: Sequence[str] = argv) -> Told | Leave:
            if may_run is None:
                return Told(None, "not tried: it runs on the worker")
            return may_run(argv)

        asking.ask(f"fence: {action}", question, path=" ".join(argv))


def ask_instance(asking: Asking, machine: Machine, instance: Instance, ports: DrillPorts) -> InstanceDrill:
    """Everything that a repair of one instance needs on its guest, and from here."""
    engine, agent = ports.engines[instance.engine], machine.agent
    volume = ports.inventory.volumes[instance.volume]
    rows = asking.ask_many(f"work as {instance.os_user}", lambda: agent.preflight(instance), _is_not_asked_here)
    _see_every_process(asking, machine, instance, engine)
    files = _list_locks(asking, agent, instance, engine)
    _service(asking, machine, instance)
    nfs_version = _mount(asking, agent, instance) if volume.kind is VolumeKind.NFS else None
    if volume.kind is VolumeKind.NFS and Remedy.NOTIFY not in ports.policy.remedies.forbid:
        _notify(asking, machine, nfs_version)
    _login(asking, instance, engine)
    if instance.error_log is not None:
        log = instance.error_log
        asking.ask("read the error log", lambda: _log_words(agent.tail(instance, log, 1)), path=log)
    if instance.probe is not None:
        argv = instance.probe.argv
        asking.ask("application probe", lambda: _ended_well(machine.run(argv), "it passed"), path=" ".join(argv))
    parts: dict[str, float] = {}
    copy = None if files is None else estimate.copying(files, rows, takes_locks=bool(engine.lock_paths(instance)))
    if copy is not None:
        parts = estimate.parts_of(copy, volume, ports.policy, nfs_version=nfs_version)
    _objective(asking, parts, ports.policy.objective_s)
    estimate_s = round(sum(parts.values()), 1) if parts else None
    return InstanceDrill(instance.name, tuple(asking.checks), estimate_s, ports.policy.objective_s, parts)


def _is_not_asked_here(row: Json) -> bool:
    """Not what the instance's user cannot know of root commands: those are asked for below, with the exact grant."""
    return row["privilege"] != _SEEN_AS_ROOT and NOTIFY not in str(row.get("grant"))


def _see_every_process(asking: Asking, machine: Machine, instance: Instance, engine: Engine) -> None:
    def question() -> Told:
        if machine.login_user() != "root":
            leave = machine.may_run(("sudo", "-n", OPENERS, "--json", str(instance.datadir)), granted=(OPENERS,))
            if leave.ok is False:
                return Told(False, leave.why, _root_command(OPENERS, leave))
        scan = machine.agent.openers(instance, engine.executables(instance))
        if scan.unchecked:
            return Told(False, scan.unchecked[0].why, install_line(OPENERS))
        return Told(True, f"every process was looked at; {len(scan.openers)} belong to {instance.name}")

    asking.ask(_SEEN_AS_ROOT, question, path=OPENERS)


def _root_command(command: str, leave: Leave) -> str | None:
    return leave.grant if leave.there else f"{install_line(command)}\n{leave.grant}"


def _list_locks(asking: Asking, agent: AskedAgent, instance: Instance, engine: Engine) -> tuple[FileFact, ...] | None:
    found: list[FileFact] = []

    def question() -> str:
        found.extend(agent.check_locks(instance, engine.lock_paths(instance), engine.pid_files(instance)))
        size_mb = sum(f.size_bytes for f in found) / 1e6
        return f"{len(found)} files are locked or hold a pid now, {size_mb:.1f} MB"

    return tuple(found) if asking.ask("list locks", question, path=instance.datadir) else None


def _service(asking: Asking, machine: Machine, instance: Instance) -> None:
    def status() -> Told:
        answer = machine.agent.service(instance, "status")
        if answer.code in _STATUS_CODES:
            return Told(True, "it runs" if answer.code == 0 else "it is stopped")
        words = f"exit code {answer.code} (0 is running, 3 stopped): {answer.output.strip()[:200]}"
        return Told(False, words, "correct service in the inventory")

    asking.ask("service status", status, path=" ".join(instance.service.status))
    for action in _SERVICE_ACTIONS:
        argv: tuple[str, ...] = getattr(instance.service, action)

        def question(argv: tuple[str, ...] = argv) -> Leave:
            return machine.may_run(argv)

        asking.ask(f"service {action}", question, path=" ".join(argv))


def _mount(asking: Asking, agent: AskedAgent, instance: Instance) -> str | None:
    """The version of the NFS mount that the instance's files are on; None when it is none, or not known."""
    found: list[str] = []

    def question() -> Told:
        mounts = agent.facts([instance.datadir]).paths
        if not mounts or mounts[0].nfs_version is None:
            return Told(False, "it is no NFS mount", "mount the volume, or correct kind and path in the inventory")
        found.append(mounts[0].nfs_version)
        return Told(True, f"NFSv{mounts[0].nfs_version} at {mounts[0].mountpoint}")

    asking.ask("NFS mount", question, path=instance.datadir)
    return found[0] if found else None


def _notify(asking: Asking, machine: Machine, nfs_version: str | None) -> None:
    """May the guest tell the NAS that its old locks are void? Only NFSv3 has such a notice."""

    def question() -> Told:
        if nfs_version is not None and nfs_version.startswith("4"):
            return Told(True, f"not needed: NFSv{nfs_version} frees the locks of the dead by its lease")
        if machine.login_user() != "root":
            leave = machine.may_run(("sudo", "-n", NOTIFY, "--json"), granted=(NOTIFY,))
            if leave.ok is not True:
                return Told(leave.ok, leave.why, _root_command(NOTIFY, leave))
        try:
            answer = machine.agent.notify(check=True)
        except RefusedError as error:
            return Told(True, f"allowed; now it would be refused, as it has to be: {error.what}")
        return Told(True, f"allowed; it would reach {', '.join(answer.servers) or 'no server'}")

    asking.ask("notify the NAS", question, path=NOTIFY)


def _login(asking: Asking, instance: Instance, engine: Engine) -> None:
    def question() -> str:
        proof = engine.login(instance, write_probe=False)
        read = f", {instance.read_table} read" if instance.read_table else ""
        return f"{proof.user}, server {proof.server_version}{read}"

    asking.ask("database login", question, path=instance.login_conn_id, host=None, waits_for_host=False)
    if instance.write_probe:
        untried = Told(None, "not tried, as it writes: that the login may make, fill and drop a table is not proven")
        asking.ask("write probe", lambda: untried, path=instance.login_conn_id, host=None, waits_for_host=False)


def _log_words(text: str) -> Told:
    if text:
        return Told(True, "its end can be read")
    return Told(None, "it is empty, or there is no such file; the inventory names it in error_log")


def _objective(asking: Asking, parts: dict[str, float], objective_s: int) -> None:
    if not parts:
        asking.note("recovery objective", None, "the size of the files that it locks is not known")
        return
    ok = sum(parts.values()) <= objective_s
    advice = "use a volume that can clone files (NFSv4.2, XFS), or raise policy.objective_s"
    asking.note("recovery objective", ok, estimate.in_words(parts, objective_s), advice)


def ask_ticketing(asking: Asking, ticketing: object) -> None:
    """Would the ticket system take a ticket?"""
    name = getattr(ticketing, "name", "?")

    def question() -> str | Told:
        check: Callable[[], str] | None = getattr(ticketing, "check", None)
        if check is None:
            return Told(None, f"not tried: {name} can only be asked by writing a ticket")
        return check()

    asking.ask("write tickets", question, path=name, waits_for_host=False)


def unreached(instance: Instance, guest: str, objective_s: int, *, reached: bool) -> InstanceDrill:
    """An instance whose guest could not be asked: it was not `reached`, or the agent does not run there."""
    why = f"the agent does not run on {guest}" if reached else f"{guest} was not reached"
    check = DrillCheck("everything", None, f"{NOT_ASKED}: {why}", path=instance.name, host=guest)
    return InstanceDrill(instance.name, (check,), None, objective_s)
