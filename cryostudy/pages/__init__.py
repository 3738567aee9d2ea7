"""Pages of the site that are made from records whenever it is built, so that no number in them is typed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

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
        path.write_text(PAGES[page](replace(site, up="../" * (page.count("/") - 1))), encoding="utf-8")
    for folder in (published, record_dir):
        stage_records(folder, list(read_records(folder)), stage / "book")
