"""`cryostudy fetch`: list and download the files of the study and the public data sets."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cryostudy import data, datasets
from cryostudy.errors import InputError
from cryostudy.simulate.registry import registry

GROUP = "ribosomes"  # many small files of which nobody wants one alone


def listing() -> Iterator[str]:
    """A line for each thing that can be fetched: small files of the study, then whole data sets."""
    members = _members()
    for name, description in data.data_sets().items():
        if name not in members:
            yield f"{name:14} {description}"
    size, licence = sum(item["size"] for item in members.values()) / 1e6, next(iter(members.values()))["licence"]
    yield f"{GROUP:14} tilt images of 40 real ribosomes: {len(members)} files ({licence}, {size:.1f} MB)"
    for name in datasets.registry():
        yield f"{name:14} {datasets.about(name)}"


def fetch(name: str, item: str | None, *, yes: bool) -> list[Path]:
    """Download a file, the ribosomes, or an item of a data set; the paths of what there is then.

    Raises:
        InputError: unknown name, a surplus item, a large download without `yes`, or one that fails.
    """
    if name in datasets.registry():
        return datasets.fetch(name, item, yes=yes)
    if name not in registry() and name != GROUP:
        single = [known for known in registry() if known not in _members()]
        known = ", ".join([*sorted(single), GROUP, *datasets.registry()])
        raise InputError(f"data set '{name}' is unknown; known are: {known}")
    if item is not None:
        raise InputError(f"item '{item}': {name} has none; leave it out")
    return [data.fetch(member) for member in (_members() if name == GROUP else [name])]


def describe(name: str) -> str:
    """What a data set is, how its files lie, and how to get it, in some lines. Raises InputError for another name."""
    known = datasets.entry(name)
    rows = {
        "what": known["description"],
        "known": known["known"],
        "halves": known["halves"] or "none",
        "items": f"{known['items']} (default: {known['item']})",
        "size": f"{datasets.said_size(name)} for the default item",
        "licence": known["licence"],
        "from": known["page"],
        "files": f"{datasets.folder(name)}/: " + ", ".join(known["layout"]),
        "note": known["notes"],
        "status": "" if known["verified"] else "addresses and layout not verified with the original yet",
    }
    lines = [known["title"]]
    for key, text in rows.items():
        if text:
            lines += textwrap.wrap(
                text, 100, initial_indent=f"  {key:8}", subsequent_indent=" " * 10,
                break_long_words=False, break_on_hyphens=False,
            )  # fmt: skip
    return "\n".join(lines)


def _members() -> dict[str, Mapping[str, Any]]:
    return {name: item for name, item in registry().items() if item["group"] == GROUP}
