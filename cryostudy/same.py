"""Are two folders of records the same but for times? `python -m cryostudy.same A B` says where they are not."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# What differs from run to run of the same code on the same data: when, how long, in how much memory, from which commit.
PASSING = ("started", "wall_seconds", "peak_memory", "commit", "memory_mib")


def differences(one: Path, other: Path) -> list[str]:
    """Where the JSON files below two folders differ, a line each; empty where they are equal but for times and memory.

    A file that only one folder has is a difference. Numbers must be equal to the last bit.
    """
    found = []
    files = [{path.relative_to(folder): path for path in folder.rglob("*.json")} for folder in (one, other)]
    for name in sorted(files[0].keys() | files[1].keys()):
        there = [folder for folder, known in zip((one, other), files, strict=True) if name in known]
        if len(there) == 1:
            found.append(f"{name}: only in {there[0]}")
        else:
            first, second = (json.loads(known[name].read_text()) for known in files)
            found += [f"{name}: {line}" for line in compared(first, second)]
    return found


def compared(one: Any, other: Any, where: str = "") -> Iterator[str]:
    """The places at which two contents of JSON differ, entries of :data:`PASSING` and those in seconds left out."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            if key in PASSING or key.split("_")[-1] == "seconds":
                continue
            if key not in one or key not in other:
                yield f"{where}{key} is in one only"
            else:
                yield from compared(one[key], other[key], f"{where}{key}.")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for n, pair in enumerate(zip(one, other, strict=True)):
            yield from compared(*pair, f"{where}{n}.")
    elif one != other:
        yield f"{where.rstrip('.')}: {one!r} and {other!r}"


def main(one: str, other: str) -> int:
    """Prints the differences and a count; returns 0 where there are none."""
    found = differences(Path(one), Path(other))
    count = len(list(Path(one).rglob("*.json")))
    print("\n".join([*found, f"{count} records, {len(found)} differences"]))
    return 1 if found or not count else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
