"""How fast `unlatch parse-log` is, beside `grep -E` for the same words, and how soon a line becomes an event."""

from __future__ import annotations

import json
import os
import random
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from unlatch.discovery import crash_sources

LINES = (
    "Mar {d:2d} {t} hv03 kernel: [{u}.{v}] device vif{n}.0 entered promiscuous mode",
    "Mar {d:2d} {t} hv03 sshd[{p}]: Accepted publickey for root from 10.0.{n}.7 port {p} ssh2: RSA SHA256:abc{u}",
    "Mar {d:2d} {t} hv03 systemd[1]: Started Session {p} of user root.",
    "Mar {d:2d} {t} hv03 libvirtd[{p}]: host doesn't support hyperv 'relaxed' feature",
    "Mar {d:2d} {t} hv03 CRON[{p}]: pam_unix(cron:session): session opened for user root by (uid=0)",
    "[2026-03-{d:02d} {t} 4572] DEBUG (DevController:151) Waiting for devices vif{n}.",
    "[2026-03-{d:02d} {t} 4572] DEBUG (XendDomainInfo:1881) XendDomainInfo.handleShutdownWatch",
    "2026-03-{d:02d} {t}.{v} 2931 INFO nova.compute.resource_tracker [req-{u}-{v} - -] usable vcpus: 16, used: {n}",
    "2026-03-{d:02d}T{t}.{v}Z info hostd[{p}] [Originator@6876 sub=Vimsvc.TaskManager opID={u}] Task Completed : {p}",
    '{{"component":"virt-launcher","level":"info","msg":"Synced vmi {u}","timestamp":"2026-03-{d:02d}T{t}.{v}Z"}}',
)
"""What fills logs and has none of the words."""

SEEMING = (
    "2026-03-{d:02d} {t},{v}Z INFO [org.ovirt.engine.core.dal] (t-{n}) EVENT_ID: USER_VDC_LOGIN(30), u{u} logged in.",
    "[2026-03-{d:02d} {t} 4572] DEBUG (XendDomainInfo:103) XendDomainInfo.initDomain: {n} 256",
    "Mar {d:2d} {t} hv03 kernel: postgres[{p}]: segfault at 0 ip 0000563b14cfeb97 sp 00007fffbe91dfe0 error 4",
    "Mar {d:2d} {t} hv03 libvirtd[{p}]: internal error: End of file from qemu monitor",
)
"""What has one of the words, and is no crash."""

CRASHES = (
    "[2026-03-{d:02d} {t} 4572] WARNING (XendDomainInfo:1907) Domain has crashed: name=db{u} id={n}.",
    "Mar {d:2d} {t} hv03 kernel: Out of memory: Killed process {u} (qemu-kvm) total-vm:2486184kB",
    "2026-03-{d:02d} {t},{v}Z ERROR [dal] EVENT_ID: VM_DOWN_ERROR(119), VM db{u} is down. Exit message: qemu exited",
)

SEEMING_EVERY = 1000
CRASH_EVERY = 100_000


class Log(NamedTuple):
    """A generated log; `words` are those that `grep` looks for."""

    path: Path
    size_bytes: int
    crashes: int
    words: Path


class Run(NamedTuple):
    """One run of one program."""

    wall_s: float
    cpu_s: float


def write_log(directory: Path, size_bytes: int, seed: int = 1) -> Log:
    """Write a log of about that size, and the words of all formats as one pattern for `grep -E`."""
    directory.mkdir(parents=True, exist_ok=True)
    path, dice, written, crashes = directory / "generated.log", random.Random(seed), 0, 0  # noqa: S311  # lines, no secrets
    with path.open("wb") as log:
        for number, line in enumerate(_lines(dice)):
            crashes += number % CRASH_EVERY == CRASH_EVERY - 1
            written += log.write(line.encode() + b"\n")
            if written >= size_bytes:
                break
    words = sorted({hint for source in crash_sources().values() for hint in source.hints} - {"-name\0"})
    pattern = directory / "words.ere"
    pattern.write_text("|".join(re.sub(r"([][.*^$+?(){}|\\])", r"\\\1", word) for word in words) + "\n")
    return Log(path, written, crashes, pattern)


def _lines(dice: random.Random) -> Iterator[str]:
    number = 0
    while True:
        number += 1
        kinds = LINES
        if number % CRASH_EVERY == 0:
            kinds = CRASHES
        elif number % SEEMING_EVERY == 0:
            kinds = SEEMING
        yield dice.choice(kinds).format(
            d=dice.randint(1, 28),
            t=f"{dice.randint(0, 23):02d}:{dice.randint(0, 59):02d}:{dice.randint(0, 59):02d}",
            n=dice.randint(0, 200),
            p=dice.randint(1, 99_999),
            u=number,
            v=dice.randint(100_000, 999_999),
        )


def _run(argv: Sequence[str], wanted: int) -> Run:
    begun = time.perf_counter()
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env={**os.environ, "LC_ALL": "C"}) as process:
        if process.stdout is None:
            raise RuntimeError("no pipe")
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
    found = output.count(b"\n") if wanted else wanted
    if process.returncode or found != wanted:
        raise RuntimeError(f"{argv[0]} ended with {process.returncode} and {found} events instead of {wanted}")
    return Run(wall_s, usage.ru_utime + usage.ru_stime)


def _peak_bytes(log: Log) -> int:
    """Return what `parse-log` had at most, as it says itself: what the kernel tells of a child has its parent in it."""
    script = "import sys, unlatch.cli as c; c.main(sys.argv[1:]); sys.stderr.write(open('/proc/self/status').read())"
    ran = subprocess.run(
        [sys.executable, "-c", script, "parse-log", str(log.path)], check=True, capture_output=True, text=True
    )
    found = re.search(r"VmHWM:\s+(\d+) kB", ran.stderr)
    return int(found[1]) * 1024 if found else 0


def beside_grep(log: Log, rounds: int) -> dict[str, object]:
    """Run both in turns, each round beginning with the other; one round before is not counted."""
    programs = {
        "grep -E": (["grep", "-E", "-c", "-f", str(log.words), str(log.path)], 0),
        "parse-log": ([sys.executable, "-m", "unlatch.cli", "parse-log", str(log.path)], log.crashes),
    }
    runs: dict[str, list[Run]] = {name: [] for name in programs}
    for turn in range(rounds + 1):
        for name in list(programs)[:: 1 if turn % 2 else -1]:
            run = _run(*programs[name])
            if turn:
                runs[name].append(run)
    pairs = list(zip(runs["grep -E"], runs["parse-log"], strict=True))
    found: dict[str, object] = {
        f"{name}, MB/s": round(log.size_bytes / 1e6 / statistics.median(run.wall_s for run in its))
        for name, its in runs.items()
    }
    found |= {
        f"{name}, MB per second of processor time": round(
            log.size_bytes / 1e6 / statistics.median(run.cpu_s for run in its)
        )
        for name, its in runs.items()
    }
    return found | {
        "parse-log / grep -E, by the clock": [round(grep.wall_s / ours.wall_s, 2) for grep, ours in pairs],
        "parse-log / grep -E, by processor time": [round(grep.cpu_s / ours.cpu_s, 2) for grep, ours in pairs],
        "parse-log, peak memory in MiB": _peak_bytes(log) >> 20,
        "log, bytes": log.size_bytes,
        "crashes in it, all found": log.crashes,
    }


def latencies_s(count: int) -> list[float]:
    """Write deaths and restarts into a pipe to `parse-log -`: how soon each event comes out, in seconds."""
    crash, created = (
        "[2026-03-07 05:{:02d}:{:02d} 4572] WARNING (XendDomainInfo:1907) Domain has crashed: name=db{} id=2.\n",
        "[2026-03-07 05:{:02d}:{:02d} 4572] DEBUG (X:1) XendDomainInfo.create(['vm', ['name', 'db{}']])\n",
    )
    argv = [sys.executable, "-m", "unlatch.cli", "parse-log", "-"]
    found = []
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("no pipes")
        for number in range(count + 1):
            place = (number // 60 % 60, number % 60, number)
            begun = time.perf_counter()
            process.stdin.write((crash.format(*place) + created.format(*place)).encode())
            process.stdin.flush()
            event = json.loads(process.stdout.readline())
            found.append(time.perf_counter() - begun)
            if event["domain"] != f"db{number}":
                raise RuntimeError(f"asked for db{number}, told {event}")
        process.stdin.close()
    return found[1:]  # the first one waits for the program's start
