"""The page that lists every table and figure of the papers, with a verdict computed from the records."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cryostudy.errors import InputError
from cryostudy.pages import rules
from cryostudy.pages.facts import Site

SOURCE = "data/papers/reproduction.yml"
BADGES = {
    "reproduced": "success",
    "in part": "warning",
    "differs": "danger",
    "no record yet": "info",
    "cannot be tested here": "muted",
}
HEAD = """# What reproduces, and what does not

Every table and figure of the four papers, what it claims, and whether the study finds the same. A claim is written down
once as a comparison, and is then evaluated in the papers' printed numbers and in this study's records whenever the site
is built; no verdict is typed. A claim is about an order or a size, not about the papers' decimals: their specimens are
not to be had as they used them. An order counts however small the difference, unless the claim names a margin; most
records hold one seed, and the chapters say how much another seed changes.

| | meaning |
|---|---|
| {bdg-success}`reproduced` | every claim holds here |
| {bdg-warning}`in part` | some claims hold |
| {bdg-danger}`differs` | none holds |
| {bdg-info}`no record yet` | a chapter tests it, and has not been run |
| {bdg-muted}`cannot be tested here` | a drawing, or data that the study does not have; the reason is given |
"""


@dataclass(frozen=True)
class Verdict:
    """The verdict on one table or figure: its word, and each claim with its outcome (None: no record)."""

    word: str
    outcomes: tuple[tuple[Mapping[str, str], rules.Outcome | None], ...] = ()


def papers(root: Path) -> list[dict[str, Any]]:
    """The papers with their tables and figures, as `data/papers/reproduction.yml` has them."""
    return yaml.safe_load((root / SOURCE).read_text(encoding="utf-8"))


def judge(item: Mapping[str, Any], sources: rules.Sources) -> Verdict:
    """Evaluate the claims of one table or figure.

    Raises:
        InputError: a rule cannot be read, or names what its record does not hold.
    """
    if "reason" in item:
        return Verdict("cannot be tested here")
    outcomes = []
    for claim in item["checks"]:
        try:
            outcome = rules.check(claim["here"], sources)
        except rules.NoRecord:
            outcome = None
        except InputError:
            used = [sources.records[name] for name in rules.records_of(claim["here"], sources)]
            if "scale" not in item or all(record["profile"] == item["scale"] for record in used):
                raise
            outcome = None
        outcomes.append((claim, outcome))
    held = [outcome.holds for _, outcome in outcomes if outcome]
    word = "no record yet" if not held else "reproduced" if all(held) else "in part" if any(held) else "differs"
    return Verdict(word, tuple(outcomes))


def write(site: Site) -> str:
    """The page in MyST Markdown."""
    sources = rules.Sources(site.records, site.root / "data" / "papers")
    verdicts = {}
    for paper in papers(site.root):
        for item in paper["items"]:
            try:
                verdicts[paper["key"], item["item"]] = judge(item, sources)
            except InputError as error:  # a record of other parameters may lack a number; tests see to the published
                verdicts[paper["key"], item["item"]] = Verdict("no record yet")
                print(f"NOTE: {paper['key']} {item['item']}: {error}")
    text = [HEAD, _counts(papers(site.root), verdicts)]
    for paper in papers(site.root):
        text.append(f"## Paper {paper['key']}: {paper['title']}\n\n{{cite:t}}`{paper['cite']}`\n")
        text += [
            _item(paper["key"], item, verdicts[paper["key"], item["item"]], sources, site) for item in paper["items"]
        ]
    return "\n".join(text)


def _counts(found: list[dict[str, Any]], verdicts: Mapping[tuple[str, str], Verdict]) -> str:
    totals = {
        paper["key"]: Counter(verdicts[paper["key"], item["item"]].word for item in paper["items"]) for paper in found
    }
    lines = ["|" + "".join(f" | {key}" for key in totals) + " | all |", "|---" * (len(totals) + 2) + "|"]
    for word in BADGES:
        row = [counts[word] for counts in totals.values()]
        lines.append(f"| {word} | " + " | ".join(map(str, [*row, sum(row)])) + " |")
    return "Tables and figures by paper and verdict:\n\n" + "\n".join(lines) + "\n"


def _item(key: str, item: Mapping[str, Any], verdict: Verdict, sources: rules.Sources, site: Site) -> str:
    lines = [
        f"::::{{dropdown}} **{item['item']}** {{bdg-{BADGES[verdict.word]}}}`{verdict.word}` {item['shows']}",
        f":name: {anchor(key, item['item'])}",
        "",
    ]
    if "reason" in item:
        lines += [f"{item['reason'][0].upper()}{item['reason'][1:]}.", ""]
    if verdict.outcomes:
        lines += list(itertools.chain(*(_claim(claim, outcome, sources) for claim, outcome in verdict.outcomes)))
    if "note" in item:
        lines += [f"Not tested: {item['note']}.", ""]
    if item.get("scale") and verdict.word == "no record yet":
        lines += [f"The chapter measures this at `{item['scale']}` scale.", ""]
    if "chapter" in item:
        lines += [f"Chapter: {site.chapter(item['chapter'])}", ""]
    wanted = [name for claim, _ in verdict.outcomes for name in rules.records_of(claim["here"], sources)]
    there = [name for name in dict.fromkeys(wanted) if name in site.records]
    if there:
        lines += [f"Records: {site.told(there)}", ""]
    return "\n".join([*lines, "::::", ""])


def _claim(claim: Mapping[str, str], outcome: rules.Outcome | None, sources: rules.Sources) -> list[str]:
    unit = f" ({claim['unit']})" if "unit" in claim else ""
    printed = f"paper: {rules.check(claim['paper'], sources).shown}\\\n  " if "paper" in claim else ""
    sign = "–" if outcome is None else "✓" if outcome.holds else "✗"
    word = "no record yet" if outcome is None else "holds" if outcome.holds else "does not hold"
    ours = f"here: {outcome.shown}, {word}" if outcome else f"here: {word}"
    return [f"- {sign} {claim['says'][0].upper()}{claim['says'][1:]}{unit}", "", f"  {printed}{ours}", ""]


def anchor(key: str, item: str) -> str:
    """The place of a table or figure on the page."""
    return f"reproduction-{key}-{item.lower().replace(' ', '-')}"
