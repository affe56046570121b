"""Measure the watch over many hypervisors: ``python -m bench.watch``. See docs/bench.md.

One process is all hypervisors: an SSH server that answers the watch's own commands, with a log file for each. This
process is the triggerer: the real followers, in one event loop, over one SSH connection per hypervisor.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import hashlib
import json
import os
import random
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path

import asyncssh

ZONE = "UTC"
CRASH = "[2026-03-07 05:54:53 4572] WARNING (XendDomainInfo:1907) Domain has crashed: name={}_db id=2.\n"
HEAD_BYTES = 512
NOISE = "[2026-03-07 05:54:52 4572] DEBUG (DevController:151) Waiting for devices vif.\n"


# --- the hypervisors -------------------------------------------------------------------------------------------------


class Hypervisors:
    """All of them: files, and who waits for which to change."""

    def __init__(self, directory: Path, poll_s: float) -> None:
        """Take where their logs are, and how often the real waiting command looks."""
        self.directory, self.poll_s = directory, poll_s
        self.changed: dict[str, asyncio.Event] = {}

    def write(self, number: int, text: str) -> None:
        """Add to one log."""
        path = log_of(self.directory, number)
        with path.open("a") as log:
            log.write(text)
        self.changed.pop(str(path), asyncio.Event()).set()

    async def answer(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        """Answer a command as its shell would, without the processes that hundreds of machines run for themselves."""
        argv = shlex.split(str(process.command))
        output, code = b"", 0
        if argv[3] == "unlatch-wait":
            await self._wait(int(argv[4]), dict(zip(argv[6::2], argv[7::2], strict=True)))
        elif argv[3] == "unlatch-log":
            output = _news(Path(argv[4]), int(argv[6]))
        else:
            code = 127
        with contextlib.suppress(OSError):  # nobody listens any more: asyncssh would end the whole connection for that
            process.stdout.write(output)
            process.exit(code)

    async def _wait(self, looks: int, seen: dict[str, str]) -> None:
        ((path, before),) = seen.items()
        status = os.stat(path)  # noqa: PTH116  # of a local file, in the process that is not measured
        if f"{status.st_ino} {status.st_size}" == before:
            event = self.changed.setdefault(path, asyncio.Event())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(looks * self.poll_s):
                    await event.wait()
                await asyncio.sleep(random.random() * self.poll_s)  # noqa: S311  # when the next look would have been


def _news(path: Path, offset: int) -> bytes:
    """Return what the reading command prints of a file that was not rotated."""
    text, begin = path.read_bytes(), b"UNLATCH-LOG-1\n"
    if len(text) == offset:
        return begin + b"U\n"
    head = text[:HEAD_BYTES]
    total = hashlib.sha256(head).hexdigest()
    segment = f"S {path.stat().st_ino} {len(text)} {offset} {len(text) - offset} {len(head)} {total}\n"
    return begin + segment.encode() + text[offset:] + f"\nE {total}\n".encode()


def log_of(directory: Path, number: int) -> Path:
    """Return the log of one hypervisor."""
    return directory / f"hv{number:03d}.log"


async def serve(directory: Path, count: int, poll_s: float) -> None:
    """Be all hypervisors until standard input ends; each of its lines is the number of one to let a guest crash on."""
    hypervisors = Hypervisors(directory, poll_s)
    for number in range(count):
        log_of(directory, number).write_text(NOISE)
    async with asyncssh.listen(
        "127.0.0.1",
        0,
        server_host_keys=[str(directory / "host_key")],
        authorized_client_keys=str(directory / "client_key.pub"),
        process_factory=hypervisors.answer,
        encoding=None,
        login_timeout=0,
    ) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            numbers = [int(word) for word in line.split()]
            for number in numbers:
                hypervisors.write(number, CRASH.format(time.monotonic_ns()))
            print(" ".join(str(number) for number in numbers), time.monotonic_ns(), flush=True)


# --- the triggerer ---------------------------------------------------------------------------------------------------


class Lag:
    """How late the event loop comes back to a task that sleeps 10 ms."""

    def __init__(self) -> None:
        """Nothing measured yet."""
        self.seconds: list[float] = []

    async def measure(self) -> None:
        """Measure until cancelled."""
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.01)
            self.seconds.append(time.perf_counter() - before - 0.01)


def percentiles(seconds: Sequence[float], factor: float, unit: str) -> str:
    """Return p50, p95, p99 and the largest."""
    if not seconds:
        return "nothing measured"
    cuts = statistics.quantiles([*seconds, *seconds], n=100)
    named = {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98], "max": max(seconds)}
    return ", ".join(f"{name} {value * factor:.2f} {unit}" for name, value in named.items())


def memory_bytes() -> int:
    """Return how much memory this process has."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Watch:
    """The trigger, again and again, as the DAG defers it; positions move as the reader would move them."""

    def __init__(self, directory: Path, port: int, count: int, poll_s: float) -> None:
        """Describe every hypervisor as an Airflow connection and a log."""
        from unlatch.models import HypervisorLog  # noqa: PLC0415  # the other process needs none of it

        self.poll_s = poll_s
        extra = {
            "key_file": str(directory / "client_key"),
            "host_key": " ".join((directory / "host_key.pub").read_text().split()[:2]),
        }
        connection = json.dumps(
            {"conn_type": "ssh", "host": "127.0.0.1", "port": port, "login": "bench", "extra": extra}
        )
        self.logs = []
        for number in range(count):
            name = f"hv{number:03d}"
            os.environ[f"AIRFLOW_CONN_UNLATCH_HV_{name.upper()}"] = connection
            log = HypervisorLog.from_dict({"format": "xend", "path": str(log_of(directory, number)), "timezone": ZONE})
            self.logs.append(
                {
                    "hypervisor": name,
                    "conn_id": f"unlatch_hv_{name}",
                    "log": log.as_dict(),
                    "cursor": self._end_of(log_of(directory, number)),
                    "state": "ok",
                }
            )

    def _end_of(self, path: Path) -> dict[str, object]:
        """Return the cursor that a reader would keep; without its commands, which would be measured too."""
        text, status = path.read_bytes(), path.stat()
        head = text[:HEAD_BYTES]
        return {
            "inode": status.st_ino,
            "offset": len(text),
            "head_bytes": len(head),
            "head_sha256": hashlib.sha256(head).hexdigest(),
            "read_at": datetime.now(UTC).isoformat(),
        }

    async def rings(self, longest_wait_s: float = 60.0) -> list[str]:
        """Wait for the bell; the hypervisors that it names, whose positions are moved to their ends."""
        from unlatch import wiring_watch  # noqa: PLC0415

        bell = await wiring_watch.wait_for_bell(
            self.logs, poll_s=self.poll_s, longest_wait_s=longest_wait_s, most_noise_bytes=64 << 20
        )
        names = list(bell["hypervisors"])
        for log in self.logs:
            if log["hypervisor"] in names:
                log["cursor"] = self._end_of(Path(log["log"]["path"]))
        return names


@contextlib.asynccontextmanager
async def hypervisors(directory: Path, count: int, poll_s: float) -> AsyncIterator[asyncio.subprocess.Process]:
    """The other process, after it has said on which port it listens."""
    for name in ("host_key", "client_key"):
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(str(directory / name))
        key.write_public_key(str(directory / f"{name}.pub"))
    arguments = ["--serve", str(directory), "--hypervisors", str(count), "--poll", str(poll_s)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.watch", *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


async def crash(process: asyncio.subprocess.Process, numbers: Sequence[int]) -> int:
    """Let guests crash; when the last line was written, in nanoseconds of the machine's monotonic clock."""
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the other process has no pipes")
    process.stdin.write((" ".join(str(number) for number in numbers) + "\n").encode())
    return int((await process.stdout.readline()).split()[-1])


class Measurement:
    """One run; what was found is in `found`."""

    def __init__(self, watch: Watch, process: asyncio.subprocess.Process, count: int) -> None:
        """Take both sides."""
        self.watch, self.process, self.count = watch, process, count
        self.found: dict[str, object] = {"hypervisors": count, "load": round(os.getloadavg()[0], 1)}

    async def timed(self, name: str, work: Coroutine[None, None, None]) -> None:
        """Do it, and measure meanwhile how late the loop is."""
        lag = Lag()
        task = asyncio.create_task(lag.measure())
        try:
            await work
        finally:
            task.cancel()
        self.found[f"event loop lag, {name}"] = percentiles(lag.seconds, 1000, "ms")

    async def connect(self) -> None:
        """Until a bell that the last hypervisor rings: by then all are connected."""
        begun = time.perf_counter()
        waiting = asyncio.create_task(self.watch.rings())
        await crash(self.process, [self.count - 1])
        await waiting
        self.found["first bell, with all handshakes"] = f"{time.perf_counter() - begun:.2f} s"

    async def quiet(self, seconds: float) -> None:
        """While nothing happens."""
        cpu, wall = time.process_time(), time.perf_counter()
        await self.watch.rings(seconds)
        share = (time.process_time() - cpu) / (time.perf_counter() - wall)
        self.found["processor time while nothing happens"] = f"{share:.1%} of a core"

    async def one_by_one(self, crashes: int) -> None:
        """Crash after crash, each on another hypervisor."""
        latencies = []
        for number in random.sample(range(self.count), min(crashes, self.count)):
            waiting = asyncio.create_task(self.watch.rings())
            await asyncio.sleep(1)
            written = await crash(self.process, [number])
            while f"hv{number:03d}" not in await waiting:
                waiting = asyncio.create_task(self.watch.rings())
            latencies.append((time.monotonic_ns() - written) / 1e9)
        self.found["crash line to bell"] = percentiles(latencies, 1, "s")

    async def all_at_once(self) -> None:
        """A crash on every hypervisor."""
        waiting = asyncio.create_task(self.watch.rings())
        await asyncio.sleep(1)
        written = await crash(self.process, range(self.count))
        heard: dict[str, float] = {}
        bells = 0
        while len(heard) < self.count:
            names = await waiting
            seconds = (time.monotonic_ns() - written) / 1e9
            heard = {**dict.fromkeys(names, seconds), **heard}
            bells += 1
            waiting = asyncio.create_task(self.watch.rings(5))
        seconds = max(heard.values())
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        self.found[f"{self.count} crashes at once, until the last is heard"] = f"{seconds:.2f} s, {bells} bells"
        self.found["crash line to bell then"] = percentiles(list(heard.values()), 1, "s")
        self.found["crashes heard per second then"] = round(self.count / seconds)


async def measure(directory: Path, count: int, crashes: int, quiet_s: float, poll_s: float) -> dict[str, object]:
    """Measure all."""
    from unlatch import wiring_watch  # noqa: PLC0415, F401  # what a triggerer has loaded anyway
    from unlatch.transport import kept_shells, log_follow  # noqa: PLC0415, F401

    loaded = memory_bytes()
    async with hypervisors(directory, count, poll_s) as process:
        if process.stdout is None:
            raise RuntimeError("the other process has no pipes")
        watch = Watch(directory, int(await process.stdout.readline()), count, poll_s)
        run = Measurement(watch, process, count)
        await run.timed("connecting", run.connect())
        await run.timed("quiet", run.quiet(quiet_s))
        added = memory_bytes() - loaded
        run.found["memory of the followers"] = f"{added / 2**20:.0f} MiB, {added / count / 1024:.0f} KiB each"
        await run.timed("crashes", run.one_by_one(crashes))
        await run.timed("all at once", run.all_at_once())
        return run.found


def main() -> int:
    """Measure, or be the hypervisors."""
    parser = argparse.ArgumentParser(prog="python -m bench.watch", description=__doc__)
    parser.add_argument("--hypervisors", type=int, default=200)
    parser.add_argument("--crashes", type=int, default=50, help="measured one after the other")
    parser.add_argument("--quiet", type=float, default=20.0, metavar="SECONDS", help="how long nothing happens")
    parser.add_argument("--poll", type=float, default=0.5, metavar="SECONDS", help="how often a log is looked at")
    parser.add_argument("--output", type=Path, help="write the results there as JSON")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.serve, options.hypervisors, options.poll))
        return 0
    with tempfile.TemporaryDirectory(prefix="unlatch-bench-") as directory:
        found = asyncio.run(measure(Path(directory), options.hypervisors, options.crashes, options.quiet, options.poll))
    for name, value in found.items():
        print(f"| {name} | {value} |")
    if options.output:
        options.output.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
