"""Run every benchmark and print one table of ratios: `make bench`.

    python benchmarks/table.py [NAME ...]

NAMEs are scripts without `bench_` and `.py`; default: all. Each runs as its own process, whose text is passed on. A
script that fails is named in the table and the others run all the same; the exit status is then 1.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
HEADER = ("What", "Peer", "Peer's", "Ours", "Ratio", "Goal", "Verdict")


def cells(row: Mapping[str, Any]) -> list[str]:
    """The cells of one row, as `timing.row` left it."""
    if row["skipped"]:
        return [row["what"], row["peer"], "", "", "", row["goal"], f"skipped: {row['skipped']}"]
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.3g}"
    judged = "" if row["met"] is None else "met" if row["met"] else "missed"
    return [row["what"], row["peer"], row["theirs"], row["ours"], ratio, row["goal"], judged]


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """A Markdown table of rows."""
    lines = [HEADER, ["---"] * len(HEADER), *(cells(row) for row in rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def run(script: Path) -> tuple[list[dict[str, Any]], bool]:
    """The rows that a script left, one more that names it where it failed, and whether it did."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "rows")
        place.touch()
        done = subprocess.run([sys.executable, script], env=os.environ | {"BENCH_ROWS": str(place)}, check=False)
        rows = [json.loads(line) for line in place.read_text(encoding="utf-8").splitlines()]
    if done.returncode:
        blank = {"peer": "", "goal": ""}
        rows.append({"what": script.name, **blank, "skipped": f"the script failed with exit status {done.returncode}"})
    return rows, done.returncode != 0


def main(names: list[str]) -> int:
    scripts = [FOLDER / f"bench_{name}.py" for name in names] or sorted(FOLDER.glob("bench_*.py"))
    rows: list[dict[str, Any]] = []
    failed: list[str] = []
    start = time.monotonic()
    for script in scripts:
        print(f"== {script.name}", flush=True)
        found, broken = run(script)
        rows += found
        failed += [script.name] * broken
    from cryostudy.records import device_name

    minutes = (time.monotonic() - start) / 60
    print(f"\n{datetime.now(UTC):%Y-%m-%d}, {device_name('cpu')}, {os.cpu_count()} cores, Python "
          f"{platform.python_version()}, {minutes:.0f} min\n")  # fmt: skip
    print(table(rows))
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
