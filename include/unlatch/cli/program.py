"""How a command runs and ends: exit codes, and errors as two lines on standard error."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence

from unlatch.cli.output import clean
from unlatch.cli.verbs import parser
from unlatch.errors import UnlatchError

_QUIT_BY_INTERRUPT = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments without the program's name; by default those of the process.

    Returns:
        The exit code.
    """
    options = parser().parse_args(argv)
    try:
        with _environment(UNLATCH_INVENTORY=options.inventory, UNLATCH_STORE_URL=options.store_url):
            code: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        _close_standard_output()
        return 0
    except KeyboardInterrupt:
        return _QUIT_BY_INTERRUPT
    except UnlatchError as error:
        _tell(error, as_json=getattr(options, "json", False))
        return error.exit_code
    return code


@contextlib.contextmanager
def _environment(**given: str | None) -> Iterator[None]:
    """Let options speak louder than the environment, for one command."""
    before = {name: os.environ.get(name) for name in given}
    os.environ.update({name: value for name, value in given.items() if value is not None})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _tell(error: UnlatchError, *, as_json: bool) -> None:
    if as_json:
        said = {"code": error.exit_code, "message": error.what, "next": error.next_step}
        print(json.dumps({"ok": False, "error": said}))
    print(f"unlatch: {clean(error.what)}", file=sys.stderr)
    if error.next_step:
        print(f"next: {clean(error.next_step)}", file=sys.stderr)


def _close_standard_output() -> None:
    """Send what is still buffered to nowhere, or Python complains about it when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
