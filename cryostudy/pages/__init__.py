"""Pages of the site that are made from records whenever it is built, so that no number in them is typed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryostudy.pages import data_sets, reproduction, which_method
from cryostudy.pages.facts import Site, stage_records
from cryostudy.pages.rules import read_records

PAGES: dict[str, Callable[[Site], str]] = {
    "book/which_method": which_method.write,
    "book/reproduction": reproduction.write,
} | data_sets.PAGES


def write(stage: Path, record_dir: Path, wanted: Sequence[str], root: Path) -> None:
    """Write those of the `wanted` pages that are generated to the staged site, with the records that they link.

    Records are those of `record_dir`; what was not run there is taken from what is published in `data/results`, as the
    chapters do with the grids.
    """
    generated = [page for page in wanted if page in PAGES]
    if not generated:
        return
    published = root / "data" / "results"
    records = read_records(published) | read_records(record_dir)
    chapters = [Path(page).name for page in wanted if page.startswith("book/chapters/")]
    site = Site(records, chapters, root)
    for page in generated:
        path = stage / f"{page}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        title, _, text = PAGES[page](replace(site, up="../" * (page.count("/") - 1))).partition("\n")
        path.write_text(f"{title}\n{_warning(records)}{text}", encoding="utf-8")
    for folder in (published, record_dir):
        stage_records(folder, list(read_records(folder)), stage / "book")


def _warning(records: Mapping[str, Mapping[str, Any]]) -> str:
    """What stands above everything where records of the smallest scale are among those that a page is made from."""
    tests = [name for name, record in records.items() if record["profile"] == "smoke"]
    if not tests:
        return ""
    listed = ", ".join(f"`{name}`" for name in sorted(tests))
    return f"\n:::{{warning}}\nMade to test the programs, not to be believed: {listed} ran at `smoke` scale.\n:::\n"
