"""What the site shows of run grids: a table each, from what `cryostudy run GRID --table` wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryostudy.records import readable

PAGE = "book/cluster.md"
COLUMNS = {"CC": "cc", "PSNR (dB)": "psnr", "FSC 0.5 (Å)": "fsc_0.5", "CC with the specimen": "cc_specimen",
           "halves, FSC 0.143 (Å)": "halves_0.143", "seconds": "seconds"}  # fmt: skip


def write(stage: Path, folder: Path) -> None:
    """Append the tables of a folder of run grids (`_build/runs/PROFILE/grids`) to their page in the staged site."""
    page = stage / PAGE
    sections = [section(json.loads(path.read_text())) for path in sorted(folder.glob("*.json"))]
    if sections and page.is_file():
        page.write_text("\n".join([page.read_text(encoding="utf-8"), *sections]), encoding="utf-8")


def section(table: Mapping[str, Any]) -> str:
    """A run grid in Markdown: mean (least to largest) of each metric over the seeds, then what failed."""
    columns = {label: key for label, key in COLUMNS.items() if any(key in row["metrics"] for row in table["rows"])}
    lines = [f"## Run grid {table['grid']} at {table['profile']} scale", "", table["about"], ""]
    if table["rows"]:
        lines += ["| data | noise | method | seeds | " + " | ".join(columns) + " |", "|---" * (4 + len(columns)) + "|"]
    for row in table["rows"]:
        noise = row["noise"] if row["level"] is None else f"{row['noise']} {row['level']:g}"
        settings = "".join(f", {key} {value}" for key, value in row["settings"].items())
        cells = [spread(row["metrics"][key]) if key in row["metrics"] else "–" for key in columns.values()]
        name = f"`{row['method']}`{settings}"
        lines.append("| " + " | ".join([row["dataset"], noise, name, str(len(row["seeds"])), *cells]) + " |")
    lines.append("")
    if table["rows"]:
        lines += [f"- {text}" for text in dict.fromkeys(text for row in table["rows"] for text in row["data"])]
    lines += [f"- failed: `{name}`: {one['error']}" for name, one in table["failed"].items()]
    return "\n".join([*lines, ""])


def spread(found: Mapping[str, float]) -> str:
    """A mean, with its range where the seeds differ."""
    mean = readable(found["mean"])
    return mean if found["min"] == found["max"] else f"{mean} ({readable(found['min'])} to {readable(found['max'])})"
