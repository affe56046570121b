"""Runs the built agent many times from one warm interpreter, and cuts it where a test asks for it.

    python warm_agent.py AGENT.pyz

Reads one JSON request per line and answers with one JSON line. Each request runs the program's main
function, as loaded from the shipped file, in a fork: the same code as a fresh start, without the
interpreter's start-up time. All faults are put in from here; the shipped file knows nothing of them.

Runs under Python 3.6. Request: {"argv", "environment", "stdin", "uid", "faults"}; faults:
  kill: [n, "before"|"after"|"torn"]  SIGKILL the agent (both its processes) at its n-th durable call
  log: FILE                           write the names of the durable calls there
  pause: [call, n, fifo]              before the n-th such durable call, wait for the FIFO to be opened
  run, second: [call, n, argv]        before the n-th such durable call, run a command
  slow_copy: fifo                     before a copy, wait for the FIFO to be opened
  stop: [text, module, function]      stop (SIGSTOP) when that function's first argument contains the text
  set: [module, name, value]          change a constant, or, as a list of such lists, some
  open_files: n                       allow only so many at first
  mounts: text                        take this for the mount table
  errno: number                       every lock probe fails with it
"""
# What is loaded, and when, is the point here; paths are strings as the agent has them.
# ruff: noqa: PTH123, PLC0415, C901

import importlib
import json
import os
import pkgutil
import resource
import signal
import subprocess
import sys
import tempfile

CALLS = ("create", "link", "rename", "unlink", "append", "cut", "sync_directory")
FAULTS = {}
counts = {"": 0}


def die():
    """Kill the agent's supervising process and then its working process: this one."""
    os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for(fifo):
    """Tell the test that this point is reached, and wait until it lets go."""
    with open(fifo + ".reached", "w") as told:
        told.write("1")
    with open(fifo) as source:
        source.read()


def cut(name, original):
    """Wrap one durable call."""

    def wrapped(*arguments):
        number = counts[""] = counts[""] + 1
        of_kind = counts[name] = counts.get(name, 0) + 1
        if "log" in FAULTS:
            with open(FAULTS["log"], "a") as log:
                log.write(name + "\n")
        at, when = FAULTS.get("kill", (0, ""))
        if number == at and when == "before":
            die()
        if number == at and when == "torn":
            os.write(arguments[0], arguments[1][: len(arguments[1]) // 2])
            os.fsync(arguments[0])
            die()
        if FAULTS.get("pause", [])[:2] == [name, of_kind]:
            wait_for(FAULTS["pause"][2])
        for key in ("run", "second"):
            if FAULTS.get(key, [])[:2] == [name, of_kind]:
                subprocess.check_call(FAULTS[key][2])
        result = original(*arguments)
        if number == at and when == "after":
            die()
        return result

    return wrapped


def put_in(faults):
    """Put the faults of a request into the loaded modules of this fork."""
    FAULTS.update(faults)
    durable = importlib.import_module("unlatch_agent.durable")
    for name in CALLS:
        setattr(durable, name, cut(name, getattr(durable, name)))
    if "slow_copy" in faults:
        copying = importlib.import_module("unlatch_agent.copying")
        stream = copying.METHODS["stream"]

        def slow(request, advance):
            wait_for(faults["slow_copy"])
            stream(request, advance)

        copying.METHODS["stream"] = slow
    if "stop" in faults:
        text, module_name, function = faults["stop"]
        module = importlib.import_module("unlatch_agent." + module_name)
        original = getattr(module, function)

        def stopping(first, *others):
            if text in str(first):
                os.kill(os.getpid(), signal.SIGSTOP)
            return original(first, *others)

        setattr(module, function, stopping)
    changed = faults.get("set") or []
    for module_name, name, value in changed if isinstance((changed or [[]])[0], list) else [changed]:
        setattr(importlib.import_module("unlatch_agent." + module_name), name, value)
    if "open_files" in faults:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (faults["open_files"], hard))
    if "mounts" in faults:
        mounts = importlib.import_module("unlatch_agent.mounts")
        mounts.read_mounts = lambda: mounts.parse_mountinfo(faults["mounts"])
    if "errno" in faults:
        locks = importlib.import_module("unlatch_agent.locks")

        def refused(*_):
            raise OSError(faults["errno"], os.strerror(faults["errno"]))

        locks._standing = refused


def run(request, output, errors, agent):
    """Be the agent: in a fork, with its own standard streams."""
    os.dup2(output, 1)
    os.dup2(errors, 2)
    with tempfile.TemporaryFile() as text:
        text.write((request.get("stdin") or "").encode())
        text.seek(0)
        os.dup2(text.fileno(), 0)
    os.closerange(3, 64)
    sys.stdin = os.fdopen(0)
    sys.stdout = os.fdopen(1, "w")
    sys.stderr = os.fdopen(2, "w")
    os.chdir("/")
    if request.get("uid"):
        os.setgroups([])
        os.setgid(request["uid"])
        os.setuid(request["uid"])
    os.environ.update(request.get("environment") or {})
    if request.get("faults"):
        put_in(request["faults"])
    from unlatch_agent import cli

    return cli.main([request.get("name") or agent] + request["argv"])


def gathered(reader):
    """Read until every process of the run has closed its end."""
    data = b""
    while True:
        part = os.read(reader, 1 << 16)
        if not part:
            os.close(reader)
            return data.decode()
        data += part


def serve(agent):
    """Answer requests until standard input ends."""
    sys.path.insert(0, agent)
    import unlatch_agent

    # All of them: a run as another user can no longer read the file.
    for found in pkgutil.iter_modules(unlatch_agent.__path__):
        if found.name != "__main__":
            importlib.import_module("unlatch_agent." + found.name)
    for line in sys.stdin:
        request = json.loads(line)
        reader, output = os.pipe()
        with open(request["errors"], "w+") as errors:
            pid = os.fork()
            if pid == 0:
                code = 99
                try:
                    code = run(request, output, errors.fileno(), agent)
                except SystemExit as end:
                    code = end.code or 0
                finally:
                    sys.stdout.flush()
                    sys.stderr.flush()
                    os._exit(code)
            os.close(output)
            text = gathered(reader)
            status = os.waitpid(pid, 0)[1]
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
        sys.stdout.write(json.dumps({"code": code, "stdout": text}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve(sys.argv[1])
