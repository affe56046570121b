"""The table, the JSON, and the picture."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from bench.timing import Measured
from bench.tools import UNLATCH


class Row(NamedTuple):
    """One line of the table; the ratio is above 1 for what takes longer than the agent."""

    case: str
    fs: str
    tool: str
    seconds_median: float
    ratio_to_unlatch: float | None
    runs: int
    peak_bytes: int


def rows(case: str, fs: str, measured: Sequence[Measured]) -> list[Row]:
    """Return the lines of one case, the agent's first."""
    ours = next((one.median_s for one in measured if one.tool == UNLATCH), None)
    return [
        Row(case, fs, one.tool, one.median_s, one.median_s / ours if ours else None, len(one.seconds), one.peak_bytes)
        for one in measured
    ]


def table(found: Sequence[Row]) -> str:
    """Return the table in Markdown."""
    lines = ["| case | on | tool | median | x unlatch | runs | peak memory |", "|---|---|---|---:|---:|---:|---:|"]
    for row in found:
        ratio = "" if row.ratio_to_unlatch is None else f"{row.ratio_to_unlatch:.2f}"
        peak = f"{row.peak_bytes / 2**20:.0f} MiB" if row.tool == UNLATCH else ""
        lines.append(
            f"| {row.case} | {row.fs} | {row.tool} | {row.seconds_median:.3f} s | {ratio} | {row.runs} | {peak} |"
        )
    return "\n".join(lines)


def write_json(found: Sequence[Row], path: Path) -> None:
    """Write ``[{case, fs, tool, seconds_median, ratio_to_unlatch}]``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    keys = ("case", "fs", "tool", "seconds_median", "ratio_to_unlatch")
    path.write_text(json.dumps([{key: getattr(row, key) for key in keys} for row in found], indent=1) + "\n")


_BAR_HEIGHT, _GROUP_GAP, _LEFT, _WIDTH, _TOP = 18, 40, 210, 1040, 64
_STYLE = """
    svg { --panel: #ffffff; --edge: #d0d7de; --text: #1f2328; --soft: #57606a; --other: #afb8c1; --ours: #1a7f37; }
    @media (prefers-color-scheme: dark) {
      svg { --panel: #0d1117; --edge: #30363d; --text: #e6edf3; --soft: #9ea7b1; --other: #484f58; --ours: #3fb950; }
    }
    text { font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: var(--text); }
    .panel { fill: var(--panel); stroke: var(--edge); }
    .head { font-weight: 600; font-size: 14px; }
    .name { text-anchor: end; }
    .soft { fill: var(--soft); }
    .other { fill: var(--other); }
    .ours { fill: var(--ours); }
"""


def picture(found: Sequence[Row], title: str) -> str:
    """Return an SVG with one group of bars per case and file system, each group on its own scale."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in found:
        if row.ratio_to_unlatch is not None:
            groups.setdefault((row.case, row.fs), []).append(row)
    parts: list[str] = []
    y = _TOP
    for (case, fs), members in groups.items():
        longest = max(row.seconds_median for row in members)
        parts.append(f'<text class="head" x="24" y="{y}">{escape(case)} on {escape(fs)}</text>')
        y += 10
        for row in members:
            width = max(1.0, row.seconds_median / longest * (_WIDTH - _LEFT - 170))
            kind = "ours" if row.tool == UNLATCH else "other"
            middle = y + _BAR_HEIGHT - 6
            parts.append(f'<text class="name" x="{_LEFT - 8}" y="{middle}">{escape(row.tool)}</text>')
            parts.append(
                f'<rect class="{kind}" x="{_LEFT}" y="{y + 2}" width="{width:.1f}" height="{_BAR_HEIGHT - 4}"/>'
            )
            label = f"{row.seconds_median:.2f} s" + ("" if kind == "ours" else f", {row.ratio_to_unlatch:.2f} x")
            parts.append(f'<text class="soft" x="{_LEFT + width + 6:.1f}" y="{middle}">{label}</text>')
            y += _BAR_HEIGHT
        y += _GROUP_GAP
    height = y - _GROUP_GAP + 24
    body = "\n  ".join(parts)
    size = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
    return f"""<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title">
  <title id="title">{escape(title)}</title>
  <style>{_STYLE}  </style>
  <rect class="panel" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1}" rx="12"/>
  <text class="head" x="24" y="30">{escape(title)}</text>
  {body}
</svg>
"""


def write_png(svg: Path, png: Path) -> str | None:
    """Draw the picture as a PNG too, by Chromium; return why not, when it cannot."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        return "chromium is not installed"
    png.unlink(missing_ok=True)
    size = re.search(r'width="(\d+)" height="(\d+)"', svg.read_text())
    window = "--window-size=" + ",".join(size.groups() if size else ("1000", "1000"))
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-device-scale-factor=2"]
    command = [program, *quiet, window, f"--screenshot={png}", svg.resolve().as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 and png.exists() else done.stderr.strip()[-300:]
