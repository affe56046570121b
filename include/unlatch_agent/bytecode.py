"""precompile: a copy of this program's file that also has byte code for the Python that runs it.

From a zip file Python compiles every module anew at each start, unless byte code with its magic number lies beside
the source. Of another magic number it takes no notice: so the copy runs under every Python, and starts faster under
this one.
"""

import contextlib
import hashlib
import importlib.util
import io
import marshal
import os
import stat
import struct
import sys
import time
import zipfile
import zipimport
from typing import Callable, Dict, Optional, Tuple

import unlatch_agent
from unlatch_agent import durable
from unlatch_agent.errors import HostError, Json, UsageError

_UNCHECKED_HASH = 1  # PEP 552: Python does not compare the byte code with the source
_MODE = 0o555  # other users run it, and nobody writes it


def run(directory: str, beat: Callable[[Optional[Json]], None]) -> Json:
    """Put the copy into a directory, whole or not at all. Run again it replaces an equal one, and no other.

    Its name has the contents of the original and of the copy, and the Python between them.

    Raises:
        UsageError: this program does not run from one file.
        HostError: this Python has no byte code, or does not take it from a zip file.
        OSError: the copy could not be written; nothing is left of it.
    """
    archive = getattr(getattr(unlatch_agent, "__loader__", None), "archive", None)
    if archive is None:
        raise UsageError(
            "not_one_file",
            "this program runs from a directory, not from its one file",
            "build that (make agent), and run it",
        )
    tag = sys.implementation.cache_tag
    if tag is None:
        raise HostError("no_byte_code", "this Python keeps no byte code", "use the agent's file as it is")
    with open(archive, "rb") as source:
        original = source.read()
    content, modules = _compiled(original, archive, beat)
    name = "unlatch-agent-{}-{}-{}.pyz".format(_digest(original)[:12], tag, _digest(content)[:12])
    path = os.path.join(directory, name)
    _put(path, content, modules)
    beat(None)
    return {
        "precompiled": {
            "path": path,
            "size_bytes": len(content),
            "sha256": _digest(content),
            "modules": len(modules),
            "python": tag,
        }
    }


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _compiled(original: bytes, archive: str, beat: Callable[[Optional[Json]], None]) -> Tuple[bytes, Dict[str, str]]:
    """Return the copy's content, and for each module's name in it the file that its byte code says it comes from.

    That is the file which the original's own tracebacks name.
    """
    first_line = original[: original.index(b"\n") + 1] if original.startswith(b"#!") else b""
    modules: Dict[str, str] = {}
    copy = io.BytesIO()
    copy.write(first_line)
    with zipfile.ZipFile(io.BytesIO(original)) as source, zipfile.ZipFile(copy, "w") as target:
        for entry in source.infolist():
            if not entry.filename.endswith(".py"):
                continue
            beat(None)
            text = source.read(entry)
            modules[entry.filename] = os.path.join(archive, entry.filename)
            code = compile(text, modules[entry.filename], "exec", dont_inherit=True, optimize=0)
            _add(target, entry.filename, entry, text)
            _add(target, entry.filename + "c", entry, _header(text, entry) + marshal.dumps(code))
    return copy.getvalue(), modules


def _header(text: bytes, entry: zipfile.ZipInfo) -> bytes:
    if sys.version_info >= (3, 7):
        return importlib.util.MAGIC_NUMBER + struct.pack("<I", _UNCHECKED_HASH) + importlib.util.source_hash(text)
    # Compared with the source's time, which a zip file has in local time: in another time zone the source is compiled.
    written_s = int(time.mktime((*entry.date_time, -1, -1, -1)))
    return importlib.util.MAGIC_NUMBER + struct.pack("<II", written_s & 0xFFFFFFFF, len(text))


def _add(target: zipfile.ZipFile, name: str, like: zipfile.ZipInfo, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, like.date_time)
    entry.create_system = 3
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    target.writestr(entry, content)


def _put(path: str, content: bytes, modules: Dict[str, str]) -> None:
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, ".{}.{}".format(name, os.urandom(4).hex()))
    descriptor = durable.create(temporary)
    try:
        try:
            os.fchmod(descriptor, _MODE)
            durable.add(descriptor, content)
            durable.sync(descriptor)
        finally:
            os.close(descriptor)
        _insist_on_byte_code(temporary, modules)
        durable.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            durable.unlink(temporary)
        raise
    durable.sync_directory(directory)


def _insist_on_byte_code(path: str, modules: Dict[str, str]) -> None:
    """Load each module as Python will. Compiled from the source there it would name another file."""
    for name, compiled_from in modules.items():
        folder, base = os.path.split(name)
        importer = zipimport.zipimporter(os.path.join(path, folder) if folder else path)
        code = importer.get_code(os.path.splitext(base)[0])
        if code.co_filename != compiled_from:
            raise HostError(
                "byte_code_not_taken",
                "this Python takes no byte code for {} from a zip file".format(name),
                "use the agent's file as it is",
            )
