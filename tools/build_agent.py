#!/usr/bin/env python3
"""Build dist/unlatch-agent.pyz: the agent as one file.

Needs nothing but Python 3.6 or later. The same sources give the same file, byte for byte.
"""

import argparse
import os
import pathlib
import stat
import sys
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCES = ROOT / "include" / "unlatch_agent"
# Isolated: no PYTHON* variables, no user site, nothing from the current directory.
SHEBANG = b"#!/usr/bin/python3 -I\n"
MAIN = b"import sys\n\nfrom unlatch_agent.cli import main\n\nsys.exit(main(sys.argv))\n"
# The earliest time that a zip file can say.
WHEN = (1980, 1, 1, 0, 0, 0)


def _added(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, WHEN)
    entry.compress_type = zipfile.ZIP_STORED  # a compressor's version would change the bytes
    entry.create_system = 3
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    archive.writestr(entry, content)


def build(target: pathlib.Path) -> None:
    """Write the agent to ``target``; the file is replaced as a whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{target.name}.{os.getpid()}")
    with temporary.open("wb") as output:
        output.write(SHEBANG)
        with zipfile.ZipFile(output, "w") as archive:
            _added(archive, "__main__.py", MAIN)
            for path in sorted(SOURCES.glob("*.py")):
                _added(archive, f"unlatch_agent/{path.name}", path.read_bytes())
    temporary.chmod(0o755)
    temporary.replace(target)


def main() -> int:
    """Build, and say where."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "dist" / "unlatch-agent.pyz")
    options = parser.parse_args()
    build(options.output)
    print(options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
