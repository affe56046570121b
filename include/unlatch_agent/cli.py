"""The program: parses, runs one verb, prints one answer."""

import argparse
import gc
import json
import os
import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING, List, Optional

from unlatch_agent import arguments, manyfiles, verbs
from unlatch_agent.errors import AgentError, Json, TryAgainError, of_system
from unlatch_agent.late import late

if TYPE_CHECKING:
    from unlatch_agent import background, report
else:
    background, report = late("background"), late("report")

# Seldom: each look for rings of objects goes through all that is known of many files, and finds none.
_OBJECTS_BETWEEN_LOOKS = 100000


def _interrupt(number: int, _: Optional[FrameType]) -> None:
    raise TryAgainError(
        "interrupted",
        "ended by {}".format(signal.Signals(number).name),
        "run the same command again: it goes on where it stopped",
    )


def _tell_as_json(progress: Json) -> None:
    sys.stderr.write(json.dumps({"progress": progress}) + "\n")
    sys.stderr.flush()


def _run(options: argparse.Namespace) -> Json:
    told = _tell_as_json if options.json else report.show_progress
    if options.verb == "prepare" and options.job:
        return background.detached(options, told)
    if options.verb == "prepare":
        return background.recorded(options, told, lambda: None)
    return verbs.VERBS[options.verb](options, told)


def _finished(verb: str, as_json: bool, result: Json, error: Optional[AgentError]) -> int:
    document, exit_code = verbs.answer(verb, result, error)
    if as_json:
        sys.stdout.writelines(manyfiles.written(document))
        print()
    else:
        if sys.stderr.isatty() and verb in ("prepare", "commit", "recreate"):
            sys.stderr.write("\r\x1b[K")
        print(report.text(document), file=sys.stdout if error is None else sys.stderr)
    sys.stdout.flush()
    return exit_code


def main(argv: List[str]) -> int:
    """Run the program.

    Args:
        argv: with the program's name first; under the name of a root command only that one's verb runs.

    Returns:
        the exit code: 0 done, 2 usage, 3 refused, 4 check failed after acting, 5 environment, 6 try again.
    """
    gc.set_threshold(_OBJECTS_BETWEEN_LOOKS)
    root_name = arguments.root_command(argv[0])
    as_json = "--json" in argv[1:]
    verb = arguments.ROOT_COMMANDS[root_name].verb if root_name else "".join(argv[1:2])
    verb = "" if verb.startswith("-") else verb
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        options = arguments.parse(argv[1:], root_name)
        verb, as_json = options.verb, options.json
        for arguments_again in (argv, getattr(sys, "orig_argv", [])):  # thousands of paths, once is enough
            del arguments_again[1:]
        return _finished(verb, as_json, _run(options), None)
    except AgentError as error:
        return _finished(verb, as_json, {}, error)
    except BrokenPipeError:
        os._exit(TryAgainError.exit_code)  # nobody listens any more
    except OSError as error:
        return _finished(verb, as_json, {}, of_system(error))
