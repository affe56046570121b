"""`ports.HostAgent` over SSH: each verb of the agent is one command on the guest, run as the instance's OS user."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from unlatch.errors import CheckFailedError, ConfigError
from unlatch.models import (
    FileFact,
    HostFacts,
    Instance,
    Json,
    KeptFile,
    LiveLock,
    NotifyAnswer,
    OpenerScan,
    OurFile,
    Permit,
    PurgedFile,
    RepairStatus,
    SwappedFile,
    Unchecked,
)
from unlatch.ports import CommandAnswer
from unlatch.root_commands import NOTIFY, OPENERS, install_line
from unlatch.transport import agent_answers, allowed, sudo
from unlatch.transport.agent_file import CHANGED, AgentFile, deliver
from unlatch.transport.ssh import RemoteAnswer, SshSession

_QUICK_S, _PROBE_S, _SWAP_S = 60.0, 180.0, 1800.0
_SERVICE_S = 900.0  # a server's start reads its whole log after a crash
_COMMAND_S = 120.0
_TAIL_BYTES = 64 << 10
_NOT_FOUND = (126, 127)


class SshHostAgent:
    """The agent on one guest. The first call puts it there."""

    def __init__(
        self,
        session: SshSession,
        guest_name: str,
        agent_pyz: Path,
        *,
        on_progress: Callable[[Json], None] | None = None,
    ) -> None:
        """Take an SSH session to the guest and the built agent; `on_progress` gets the agent's progress objects."""
        self._session = session
        self._guest = guest_name
        self._pyz = agent_pyz
        self._on_progress = on_progress
        self._file: AgentFile | None = None

    def facts(self, paths: Sequence[PurePosixPath] = ()) -> HostFacts:
        """See `ports.HostAgent.facts`."""
        return agent_answers.host_facts(self._ask(None, "facts", *map(str, paths), limit_s=_QUICK_S))

    def version(self) -> str:
        """The version of the agent that runs on the guest."""
        return str(self._ask(None, "facts", limit_s=_QUICK_S)["facts"]["agent_version"])

    def preflight(self, instance: Instance) -> tuple[Json, ...]:
        """What the instance's OS user may do there: `{"privilege", "path", "ok", "why", "grant"}` each.

        Changes nothing. `ok` is None for what could not be told, or is good to know but not needed.
        """
        words = [word for unit in _masked(instance) for word in ("--unit", unit)]
        found = self._ask(instance.os_user, "preflight", *words, str(instance.datadir), limit_s=_PROBE_S)
        return tuple(found["privileges"])

    def check_locks(
        self, instance: Instance, paths: Sequence[PurePosixPath], pid_files: Sequence[PurePosixPath]
    ) -> tuple[FileFact, ...]:
        """See `ports.HostAgent.check_locks`."""
        if not paths and not pid_files:
            return ()
        named = [word for path in pid_files for word in ("--pidfile", str(path))]
        found = self._ask(instance.os_user, "check-locks", "--only-locked", *named, *map(str, paths), limit_s=_PROBE_S)
        return agent_answers.file_facts(found)

    def openers(self, instance: Instance, executables: Sequence[str]) -> OpenerScan:
        """See `ports.HostAgent.openers`. A scan that root does not let us do is unchecked, with what would grant it."""
        words = ["--json", str(instance.datadir), *(word for name in executables for word in ("--executable", name))]
        answer, refused = self._as_root(OPENERS, words, limit_s=_PROBE_S)
        if refused is not None:
            why = f"the scan of all processes is not possible: {refused}; {self._how(OPENERS)}"
            return OpenerScan((), (Unchecked(-1, why),))
        found = agent_answers.document(answer, host=self._guest, verb="openers")
        agent_answers.raise_for(found, answer.code, host=self._guest)
        return agent_answers.opener_scan(found)

    def samples(self, instance: Instance, paths: Sequence[PurePosixPath]) -> tuple[FileFact, ...]:
        """See `ports.HostAgent.samples`. A directory stands for its newest file, a pattern for those that match."""
        if not paths:
            return ()
        return agent_answers.file_facts(self._ask(instance.os_user, "samples", *map(str, paths), limit_s=_PROBE_S))

    def live_locks(self, mountpoint: PurePosixPath | None = None) -> tuple[LiveLock, ...]:
        """See `ports.HostAgent.live_locks`. Every user may ask; it touches no volume."""
        words = [] if mountpoint is None else [str(mountpoint)]
        return agent_answers.live_locks(self._ask(None, "live-locks", *words, limit_s=_QUICK_S))

    def connects(self, host: str, port: int) -> str:
        """See `ports.HostAgent.connects`."""
        return agent_answers.connection_state(self._ask(None, "connect", host, str(port), limit_s=_QUICK_S))

    def notify(self, *, check: bool = False) -> NotifyAnswer:
        """See `ports.HostAgent.notify`."""
        words = ["--json", *(["--check"] if check else [])]
        answer, refused = self._as_root(NOTIFY, words, limit_s=_PROBE_S)
        if refused is not None:
            raise ConfigError(
                f"{self._guest}: the servers cannot be told that this host's locks are stale: {refused}",
                next_step=self._how(NOTIFY),
            )
        found = agent_answers.document(answer, host=self._guest, verb="notify")
        agent_answers.raise_for(found, answer.code, host=self._guest)
        return agent_answers.notify_answer(found)

    def prepare(self, incident: str, instance: Instance, paths: Sequence[PurePosixPath]) -> None:
        """See `ports.HostAgent.prepare`."""
        words = ("--incident", incident, "--job", *map(str, paths))
        self._ask(instance.os_user, "prepare", *words, limit_s=_PROBE_S)

    def status(self, incident: str, instance: Instance, directories: Sequence[PurePosixPath]) -> RepairStatus:
        """See `ports.HostAgent.status`."""
        words = ("--incident", incident, *map(str, directories))
        return agent_answers.repair_status(self._ask(instance.os_user, "status", *words, limit_s=_QUICK_S))

    def commit(self, instance: Instance, permit: Permit) -> tuple[SwappedFile, ...]:
        """See `ports.HostAgent.commit`. The permit travels through standard input."""
        words = ("--incident", permit.incident, "--permit", "-")
        found = self._ask(instance.os_user, "commit", *words, limit_s=_SWAP_S, stdin=_permit(permit))
        return agent_answers.swapped_files(found)

    def set_aside(self, instance: Instance, permit: Permit) -> tuple[PurePosixPath, ...]:
        """See `ports.HostAgent.set_aside`."""
        moved: list[PurePosixPath] = []
        for file in permit.files:  # the agent takes one at a time, each with a permit of its own
            leave = _permit(dataclasses.replace(permit, files=(file,)))
            words = ("--incident", permit.incident, "--permit", "-", str(file.path))
            found = self._ask(instance.os_user, "set-aside", *words, limit_s=_PROBE_S, stdin=leave)
            moved += agent_answers.quarantines(found)
        return tuple(moved)

    def verify(self, incident: str, instance: Instance, directories: Sequence[PurePosixPath]) -> tuple[str, ...]:
        """See `ports.HostAgent.verify`."""
        return agent_answers.problems(self._verified(incident, instance, directories))

    def _verified(self, incident: str, instance: Instance, directories: Sequence[PurePosixPath]) -> Json:
        words = ("verify", "--incident", incident, *map(str, directories))
        answer = self._run(instance.os_user, words, limit_s=_PROBE_S)
        found = agent_answers.document(answer, host=self._guest, verb="verify")
        if answer.code != CheckFailedError.exit_code:
            agent_answers.raise_for(found, answer.code, host=self._guest)
        return found

    def kept(self, incident: str, instance: Instance, directories: Sequence[PurePosixPath]) -> tuple[KeptFile, ...]:
        """See `ports.HostAgent.kept`."""
        return agent_answers.kept_files(self._verified(incident, instance, directories))

    def purge(
        self,
        incident: str,
        instance: Instance,
        directories: Sequence[PurePosixPath],
        *,
        holder_dead: str | None = None,
        dry_run: bool = False,
    ) -> tuple[PurgedFile, ...]:
        """See `ports.HostAgent.purge`."""
        words = ["--incident", incident, *(["--holder-dead", holder_dead] if holder_dead else [])]
        words += [*(["--dry-run"] if dry_run else []), *map(str, directories)]
        return agent_answers.purged_files(self._ask(instance.os_user, "purge", *words, limit_s=_SWAP_S))

    def our_files(self, instance: Instance, paths: Sequence[PurePosixPath]) -> tuple[OurFile, ...]:
        """See `ports.HostAgent.our_files`."""
        found = self._ask(instance.os_user, "check-locks", "--only-locked", *map(str, paths), limit_s=_PROBE_S)
        return agent_answers.our_files(found)

    def service(self, instance: Instance, action: str) -> CommandAnswer:
        """See `ports.HostAgent.service`.

        Raises:
            ConfigError: sudo does not let the login user run that command, or it is not there.
        """
        argv: tuple[str, ...] = getattr(instance.service, action)
        return self._command(argv, limit_s=_SERVICE_S)

    def tail(self, instance: Instance, path: PurePosixPath, lines: int) -> str:
        """See `ports.HostAgent.tail`. Never more than the last 64 KiB.

        Raises:
            ConfigError: the instance's user may not read that file.
        """
        rise = [] if self._placed().login_user == instance.os_user else ["sudo", "-n", "-u", instance.os_user, "--"]
        argv = ["env", "LC_ALL=C", *rise, "tail", "-c", str(_TAIL_BYTES), "--", str(path)]
        answer = self._session.run(argv, timeout_s=_QUICK_S)
        if answer.code == 0:
            return "\n".join(answer.stdout.decode("utf-8", "replace").splitlines()[-lines:])
        if b"No such file" in answer.stderr:
            return ""
        self._insist_on_sudo(answer, instance.os_user)
        raise ConfigError(
            f"{instance.os_user} cannot read {path} on {self._guest}: {answer.text.strip()[:200]}",
            next_step=f"correct error_log of {instance.name} in the inventory, or the file's mode.",
        )

    def command(self, argv: Sequence[str]) -> CommandAnswer:
        """See `ports.HostAgent.command`."""
        return self._command(argv, limit_s=_COMMAND_S)

    # --- one command ---------------------------------------------------------------------------------------------

    def _ask(self, os_user: str | None, *words: str, limit_s: float, stdin: bytes | None = None) -> Json:
        answer = self._run(os_user, words, limit_s=limit_s, stdin=stdin)
        found = agent_answers.document(answer, host=self._guest, verb=words[0])
        agent_answers.raise_for(found, answer.code, host=self._guest)
        return found

    def _run(
        self, os_user: str | None, words: Sequence[str], *, limit_s: float, stdin: bytes | None = None
    ) -> RemoteAnswer:
        arguments = [words[0], "--json", *words[1:]]
        for _ in range(2):  # a cleaner of /var/tmp may have taken the file away; then it is put there again
            placed = self._placed()
            argv = placed.checked(os_user=os_user, arguments=arguments)
            answer = self._session.run(argv, timeout_s=limit_s, stdin=stdin, on_stderr_line=self._progress)
            if answer.code != CHANGED:
                break
            self._file = None
        else:
            raise CheckFailedError(
                f"The agent's file on {self._guest} was changed twice between its upload and its run; it was not run.",
                next_step=f"see who else works as {placed.login_user} there.",
            )
        if os_user and not answer.stdout.strip():
            self._insist_on_sudo(answer, os_user)
        return answer

    def _command(self, argv: Sequence[str], *, limit_s: float) -> CommandAnswer:
        answer = self._session.run(["env", "LC_ALL=C", *argv] if argv[0] == "sudo" else argv, timeout_s=limit_s)
        allowed.insist(self._session, argv, answer, host=self._guest)
        return CommandAnswer(answer.code, answer.text)

    def _placed(self) -> AgentFile:
        if self._file is None:
            self._file = deliver(self._session, self._pyz)
        return self._file

    def _progress(self, line: str) -> None:
        if self._on_progress is None:
            return
        try:
            found = json.loads(line)
        except ValueError:
            return
        if isinstance(found, dict) and isinstance(found.get("progress"), dict):
            self._on_progress(found["progress"])

    def _insist_on_sudo(self, answer: RemoteAnswer, run_as: str) -> None:
        """Working as another user takes the right to run anything as that one."""
        refused = sudo.refusal(answer.stderr)
        if refused is None:
            return
        line = sudo.grant(self._placed().login_user, ["ALL"], run_as=run_as)
        raise ConfigError(
            f"sudo on {self._guest} does not let Unlatch work as {run_as}: {refused}",
            next_step=f"see that this user and program exist, and grant with visudo on {self._guest}: {line}",
        )

    def _as_root(self, command: str, words: Sequence[str], *, limit_s: float) -> tuple[RemoteAnswer, str | None]:
        """Run a root command; with it why it could not be run, None when it was."""
        rise = [] if self._placed().login_user == "root" else ["sudo", "-n"]
        answer = self._session.run(["env", "LC_ALL=C", *rise, command, *words], timeout_s=limit_s)
        refused = sudo.refusal(answer.stderr)
        if refused is None and answer.code in _NOT_FOUND:
            refused = answer.text.strip()[:200]
        return answer, refused

    def _how(self, command: str) -> str:
        line = sudo.grant(self._placed().login_user, [command])
        return f"install it on {self._guest} ({install_line(command)}) and grant with visudo: {line}"


def _masked(instance: Instance) -> Sequence[str]:
    """The systemd unit that the instance's `hold` masks; none when it holds in a way of its own."""
    words = list(instance.service.hold)
    return words[-1:] if "mask" in words and any(word.rsplit("/", 1)[-1] == "systemctl" for word in words) else []


def _permit(permit: Permit) -> bytes:
    return json.dumps(permit.as_dict()).encode()
