"""The command line: verbs, options, and an example for each."""

import argparse
import contextlib
import functools
import os
import re
import sys
from typing import TYPE_CHECKING, Any, Callable, Dict, List, NamedTuple, NoReturn

from unlatch_agent import __version__, identity, pathlists
from unlatch_agent.choices import METHODS, VERIFICATIONS
from unlatch_agent.errors import UsageError
from unlatch_agent.late import late

if TYPE_CHECKING:
    from unlatch_agent import purge
else:
    purge = late("purge")

PROGRAM = "unlatch-agent.pyz"
_LONGEST_S = 86400.0
_HIGHEST_PORT = 65535
_USUAL_COLUMNS = 80


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help as wide as the terminal. argparse asks for each option how wide that is, with modules that load slowly."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


@functools.lru_cache(maxsize=None)
def _columns() -> int:
    with contextlib.suppress(KeyError, ValueError):
        return int(os.environ["COLUMNS"]) or _USUAL_COLUMNS
    with contextlib.suppress(OSError, ValueError):
        return os.get_terminal_size(sys.stdout.fileno()).columns or _USUAL_COLUMNS
    return _USUAL_COLUMNS


class _Parser(argparse.ArgumentParser):
    """A parser whose mistakes become answers like all others."""

    def error(self, message: str) -> NoReturn:
        raise UsageError("usage", message, "see {} --help".format(self.prog))


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= _LONGEST_S:
        raise argparse.ArgumentTypeError("give seconds between 0 and a day")
    return value


def _port(text: str) -> int:
    value = int(text)
    if not 0 < value <= _HIGHEST_PORT:
        raise argparse.ArgumentTypeError("give a port between 1 and 65535")
    return value


def _unit(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9:_.@\\-]*", text):
        raise argparse.ArgumentTypeError("give the name of a systemd unit")
    return text


def _verb(verbs: Any, name: str, what: str, example: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=what,
        description=what,
        epilog="example:\n  python3 {} {} {}".format(PROGRAM, name, example),
        formatter_class=_Help,
    )
    # Python 3.6 hands this option down to no parser of a verb.
    parser.allow_abbrev = False
    _common(parser)
    return parser


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="answer with one JSON document")
    parser.add_argument(
        "--io-timeout",
        type=_seconds,
        default=30.0,
        metavar="SECONDS",
        help="how long one look at a volume may take (default 30)",
    )


def _incident(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--incident", required=True, metavar="ID", help="the incident's id")


def _changing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--stall-timeout",
        type=_seconds,
        default=120.0,
        metavar="SECONDS",
        help="give up after so long without any progress (default 120)",
    )


def _method(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--method", choices=["auto", *METHODS], default="auto", help="how to copy")
    parser.add_argument(
        "--verify",
        choices=list(reversed(VERIFICATIONS)),
        default="full",
        help="how much of a copy to compare (default full)",
    )
    parser.add_argument(
        "--strict-metadata", action="store_true", help="refuse a copy that cannot keep all metadata of its original"
    )
    parser.add_argument(
        "--engine-check",
        action="store_true",
        help="also run innochecksum over copies of InnoDB files",
    )


def _many_paths(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="*", metavar="PATH")
    parser.add_argument(
        "--paths-from", metavar="FILE", help="more paths: one per line, or ended by NUL; - reads standard input"
    )


def _openers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="DIR", help="absolute directory")
    parser.add_argument(
        "--executable", action="append", default=[], metavar="NAME", help="base name of the server's program"
    )


def _openers_alone(parser: argparse.ArgumentParser) -> None:
    _common(parser)
    _openers(parser)


def _nas_list(parser: argparse.ArgumentParser) -> None:
    _common(parser)
    parser.add_argument("directory", metavar="DIRECTORY", help="exported directory, as this NAS names it")


def _nas_clear(parser: argparse.ArgumentParser) -> None:
    _nas_list(parser)
    parser.add_argument(
        "--client", metavar="ID", help="expire this NFSv4 client; without it all NFSv3 locks of the file system go"
    )
    parser.add_argument("--confirmed", action="store_true", help="expire it although its lease is not over")


def _notify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="answer with one JSON document")
    parser.add_argument("--check", action="store_true", help="only say what would be done")


class _RootCommand(NamedTuple):
    """What the file does under the name of a root command: one verb, and nothing else."""

    verb: str
    what: str
    add: Callable[[argparse.ArgumentParser], None]


ROOT_COMMANDS: Dict[str, _RootCommand] = {
    "unlatch-openers": _RootCommand("openers", "processes that are tied to a directory", _openers_alone),
    "unlatch-notify": _RootCommand("notify", "free all NFSv3 locks of this host on every server", _notify),
    "unlatch-nas-list": _RootCommand("nas-list", "locks and NFS clients of an exported file system", _nas_list),
    "unlatch-nas-clear": _RootCommand("nas-clear", "drop stale locks of an exported file system", _nas_clear),
}


def root_command(program: str) -> str:
    """Return the root command that a file's name makes it, "" when it is the whole agent."""
    name = os.path.basename(program)
    return name if name in ROOT_COMMANDS else ""


def _looking(verbs: Any) -> None:
    parser = _verb(verbs, "facts", "boot id, boot time, mounts, tools of this host", "--json /ORA/dbs03/voms")
    parser.add_argument("paths", nargs="*", metavar="PATH", help="also tell the mount that this is on")

    parser = _verb(verbs, "check-locks", "who holds which file; changes nothing", "--only-locked /ORA/dbs03/voms")
    parser.add_argument("paths", nargs="*", metavar="PATH", help="file or directory")
    parser.add_argument("--pidfile", action="append", default=[], metavar="PATH", help="this file is a pid file")
    parser.add_argument("--only-locked", action="store_true", help="leave out free files below directories")

    parser = _verb(
        verbs,
        "openers",
        "processes that have files open or are tied to a directory",
        "/ORA/dbs03/voms --executable mariadbd",
    )
    _openers(parser)

    parser = _verb(verbs, "samples", "how files look now, to see who writes to them", "/ORA/dbs03/voms/ib_logfile0")
    parser.add_argument("paths", nargs="+", metavar="PATH", help="file, pattern, or directory (its newest file)")

    parser = _verb(verbs, "live-locks", "locks that processes of this host hold", "--json /ORA/dbs03")
    parser.add_argument("path", nargs="?", metavar="PATH", help="only those on the mount of PATH (default: on any NFS)")

    parser = _verb(verbs, "connect", "does anything answer on a port of another host", "dbvrtg4038 3306")
    parser.add_argument("host", metavar="HOST")
    parser.add_argument("ports", nargs="+", type=_port, metavar="PORT")

    parser = _verb(verbs, "preflight", "can this user do what a repair needs here", "--os-user mysql /ORA/dbs03/voms")
    parser.add_argument("paths", nargs="+", metavar="PATH", help="file or data directory")
    parser.add_argument("--os-user", metavar="USER", help="the user that repairs run as")
    parser.add_argument("--unit", action="append", default=[], type=_unit, metavar="NAME", help="its systemd unit")

    parser = _verb(verbs, "status", "how far a repair is", "--incident inc-1 /ORA/dbs03/voms")
    _incident(parser)
    parser.add_argument("paths", nargs="+", metavar="DIR")

    parser = _verb(
        verbs, "verify", "are the originals unchanged and the new files in place", "--incident inc-1 /ORA/dbs03/voms"
    )
    _incident(parser)
    parser.add_argument("paths", nargs="+", metavar="DIR")

    parser = _verb(verbs, "precompile", "copy this file with byte code for this Python", "/opt/unlatch")
    parser.add_argument("paths", nargs=1, metavar="DIR", help="where to put the copy; its name tells what is in it")


def _repairing(verbs: Any) -> None:
    parser = _verb(verbs, "prepare", "copy and verify beside the originals", "--incident inc-1 /ORA/dbs03/voms/ibdata1")
    _incident(parser)
    _changing(parser)
    _method(parser)
    parser.add_argument("--job", action="store_true", help="go on in the background; ask with status")
    _many_paths(parser)

    parser = _verb(verbs, "commit", "swap all prepared files of a permit", "--incident inc-1 --permit permit.json")
    _incident(parser)
    _changing(parser)
    parser.add_argument("--permit", required=True, metavar="FILE", help="the permit; - reads it from standard input")

    parser = _verb(
        verbs, "set-aside", "move a stale pid file away", "--incident inc-1 --permit - /ORA/dbs03/lxr/postmaster.pid"
    )
    _incident(parser)
    _changing(parser)
    parser.add_argument("--permit", required=True, metavar="FILE", help="the permit; - reads it from standard input")
    parser.add_argument("paths", nargs=1, metavar="PATH")

    parser = _verb(
        verbs, "recreate", "prepare and commit by hand", "--incident inc-1 --confirm inc-1 /ORA/dbs03/voms/ibdata1"
    )
    _incident(parser)
    _changing(parser)
    _method(parser)
    parser.add_argument("--confirm", required=True, metavar="ID", help="type the incident's id once more")
    _many_paths(parser)

    parser = _verb(verbs, "restore", "undo a batch before anything runs on it", "--incident inc-1 /ORA/dbs03/voms")
    _incident(parser)
    _changing(parser)
    parser.add_argument("--confirm", metavar="ID", help="type the incident's id once more")
    parser.add_argument("--discard-temps", action="store_true", help="also throw away copies that were never swapped")
    parser.add_argument("paths", nargs="+", metavar="DIR")

    parser = _verb(
        verbs, "purge", "remove originals that are no longer needed", "--incident inc-1 --dry-run /ORA/dbs03/voms"
    )
    _incident(parser)
    _changing(parser)
    parser.add_argument("--holder-dead", metavar="DIGEST", help="digest of fresh evidence that a lock's holder is dead")
    parser.add_argument("--dry-run", action="store_true", help="only look")
    parser.add_argument("paths", nargs="+", metavar="DIR")


def parse(arguments: List[str], root_name: str = "") -> argparse.Namespace:
    """Parse a command line.

    Args:
        arguments: without the program's name.
        root_name: the root command under whose name the file runs: it knows just that one verb.

    Raises:
        UsageError: it makes no sense.
        SystemExit: help or version was asked for and printed.
    """
    if root_name:
        command = ROOT_COMMANDS[root_name]
        parser: argparse.ArgumentParser = _Parser(
            prog=root_name, allow_abbrev=False, formatter_class=_Help, description=command.what
        )
        parser.add_argument("--version", action="version", version=__version__)
        parser.set_defaults(verb=command.verb)
        command.add(parser)
        if arguments[:1] == [command.verb]:
            arguments = arguments[1:]
    else:
        parser = _Parser(
            prog=PROGRAM,
            allow_abbrev=False,
            formatter_class=_Help,
            description="Looks at locked database files and gives them a new inode, safely.",
            epilog="exit codes: 0 done, 2 usage, 3 refused, 4 check failed after acting,\n  5 environment, 6 try again",
        )
        parser.add_argument("--version", action="version", version=__version__)
        verbs = parser.add_subparsers(dest="verb", metavar="VERB", parser_class=_Parser)
        verbs.required = True
        _looking(verbs)
        _repairing(verbs)
    parsed = parser.parse_args(arguments)
    if getattr(parsed, "incident", None) is not None:
        identity.checked_incident(parsed.incident)
    if getattr(parsed, "holder_dead", None) is not None:
        purge.checked_digest(parsed.holder_dead)
    if "paths_from" in parsed:
        parsed.paths += pathlists.read(parsed.paths_from) if parsed.paths_from is not None else []
        if not parsed.paths:
            raise UsageError("usage", "no file was named", "name a PATH, or --paths-from FILE")
    for path in parsed.paths if "paths" in parsed else []:
        if not path or re.search("\0", path):
            raise UsageError("usage", "an empty path", "name a file or a directory")
    if getattr(parsed, "confirmed", False) and parsed.client is None:
        raise UsageError("usage", "--confirmed goes with --client ID", "name the client")
    return parsed
