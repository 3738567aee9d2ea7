"""What a page says of the records that it uses: profile, seeds, date, device, and a link to each file."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

RESULTS = "results"  # folder of the records among the site's sources


@dataclass(frozen=True)
class Site:
    """What the pages are made from and where they go.

    Fields: records: by name, those of the grid as `grid/NAME`. chapters: names of those that the site holds.
    root: the checkout. up: the way from the page to the folder `book`, "" or "../".
    """

    records: Mapping[str, Mapping[str, Any]]
    chapters: Sequence[str]
    root: Path
    up: str = ""

    def chapter(self, name: str) -> str:
        """A link to a chapter, or its name where the site lacks it."""
        return f"[]({self.up}chapters/{name})" if name in self.chapters else f"`{name}` (not on this site)"

    def numbered(self, name: str) -> str:
        """The same by its number, where many stand together."""
        number = name.partition("_")[0]
        return f"[{number}]({self.up}chapters/{name})" if name in self.chapters else number

    def record(self, name: str) -> str:
        """A link to the JSON file of a record."""
        return f"{{download}}`{name}.json <{self.up}{RESULTS}/{name}.json>`"

    def told(self, names: Sequence[str]) -> str:
        """Links to records, those of one scale, device, seed and day together."""
        groups: dict[str, list[str]] = {}
        for name in names:
            groups.setdefault(how(self.records[name]), []).append(self.record(name))
        return "; ".join(f"{', '.join(links)} ({told})" for told, links in groups.items())


def how(record: Mapping[str, Any]) -> str:
    """Scale, seeds, day and device of a record, in words."""
    numbers = seeds(record)
    which = f"seed {numbers[0]}" if len(numbers) == 1 else f"seeds {', '.join(map(str, numbers))}"
    return f"`{record['profile']}`, {which}, {day(record)}, {record['device']}"


def seeds(record: Mapping[str, Any]) -> list[int]:
    """The seeds that a record holds results of."""
    found = {int(match[1]) for thing in record["metrics"] if (match := re.search(r"\.seed(\d+)$", thing))}
    return sorted(found) or [record["seed"]]


def day(record: Mapping[str, Any]) -> str:
    """The date of a record, as 21 November 2026."""
    started = datetime.fromisoformat(record["started"])
    return f"{started.day} {started:%B %Y}"


def stage_records(folder: Path, names: Sequence[str], target: Path) -> None:
    """Copies the files of records to where the site's pages link them."""
    for name in names:
        place = target / RESULTS / f"{name}.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / f"{name}.json", place)
