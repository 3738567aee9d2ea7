"""The questions that the benchmarks' records answer: who is best at what, where that was measured, and how clearly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from statistics import fmean

from cryostudy.pages.facts import Site

NETWORKS = ("volume_shuffle", "noise2void", "noise2self", "scnet", "nmsg")
FILTERS = ("gaussian", "lowpass", "wiener", "bilateral", "anisotropic_diffusion", "nlm", "tv", "bm4d")
SINGLE = (*FILTERS, *NETWORKS, "recorrupted")
FILLING = ("isonet", "deepdewedge", "recorrupted_wedge", "blind_wedge")
TASKS = (
    "noisy", "gaussian", "bm4d", "volume_shuffle", "recorrupted", "cryosamba", "noise2inverse", "noise2noise", *FILLING
)  # fmt: skip
SIMULATED = ("grid/shrec-*", "grid/built-in-*", "grid/microtubule-*")
PAIRED = ("grid/paired-*",)
DOWNSTREAM = ("grid/downstream-*",)
# What a method is told beside its name, because the benchmark told it so.
OPTIONS = {"isonet": " -p deconvolve True"}


@dataclass(frozen=True)
class Case:
    """One question of the page: what the reader wants and has, who competes, and where it is measured.

    Fields: key: of its place on the page. candidates: methods, "noisy" among them where raw may win. records: patterns
    of those that hold `metric`, which the page calls `unit`. command: with `{method}`, `{options}` and `{wedge}`.
    chapter: to read. better: 1 if more is better, -1 if less is.
    """

    key: str
    want: str
    have: str
    candidates: tuple[str, ...]
    records: tuple[str, ...]
    metric: str
    unit: str
    command: str
    chapter: str
    better: int = 1


LOOK = "look at it, less noise"
FILL = "look at it, wedge filled"
CC = "correlation with the truth (CC)"
RESTORE = "cryostudy restore tomogram.mrc --tilt-range -60 60 --method {method}{options}"
HALVES = "cryostudy restore --even even.mrc --odd odd.mrc"
STACK = "cryostudy restore --tilt-series stack.st --tilt-file stack.tlt --thickness 300"
CASES = (
    Case("one-tomogram", LOOK, "one tomogram and its tilt angles", SINGLE, SIMULATED, "cc", CC,
         f"{RESTORE} --out restored.mrc", "19_single_volume_benchmark"),
    Case("halves", LOOK, "two halves", (*SINGLE, "noise2noise"), SIMULATED, "cc", CC,
         f"{HALVES} --method {{method}}{{options}} --out restored.mrc", "20_noise2noise"),
    Case("tilt-stack", LOOK, "the tilt stack", (*SINGLE, "noise2noise", "noise2inverse"), SIMULATED, "cc", CC,
         f"{STACK} --method {{method}}{{options}} --out restored.mrc", "15_noise2inverse"),
    Case("no-training", LOOK, "one tomogram, no time to train", FILTERS, SIMULATED, "cc", CC,
         "cryostudy restore tomogram.mrc --method {method} --out restored.mrc", "10_filters"),
    Case("wedge-one", FILL, "one tomogram and its tilt angles", ("isonet", "recorrupted_wedge", "blind_wedge"),
         PAIRED, "cc", CC, f"{RESTORE} --wedge-content --out filled.mrc", "22_isonet"),
    Case("wedge-halves", FILL, "two halves and the tilt angles", FILLING, PAIRED, "cc", CC,
         f"{HALVES} --tilt-range -60 60 --method {{method}}{{options}} --wedge-content --out filled.mrc",
         "29_paired_benchmark"),
    Case("picking", "pick particles by template", "a tomogram and its tilt angles", TASKS, DOWNSTREAM, "ap",
         "average precision",
         f"{RESTORE} --out restored.mrc\ncryostudy match restored.mrc particle.mrc {{wedge}} --out matched",
         "30_template_matching"),
    Case("membranes", "segment membranes", "a tomogram and its tilt angles", TASKS, DOWNSTREAM, "dice",
         "Dice overlap with the true membranes", f"{RESTORE} --out restored.mrc", "32_membranes"),
    Case("averaging", "align and average particles", "a tomogram and particles", TASKS, DOWNSTREAM, "angle",
         "error of the poses in degrees", "", "31_averaging", -1),
)  # fmt: skip
LITTLE = 0.05  # of raw's own score
Ranking = Sequence[tuple[str, dict[str, float]]]


def cells(site: Site, case: Case, method: str) -> dict[str, float]:
    """The score of a method in each cell (a record, or a seed of one) of a benchmark."""
    found = {}
    for name in used(site, case):
        for thing, metrics in site.records[name]["metrics"].items():
            if (thing == method or thing.startswith(f"{method}.seed")) and case.metric in metrics:
                found[f"{name} {thing.removeprefix(method)}"] = float(metrics[case.metric])
    return found


def used(site: Site, case: Case) -> list[str]:
    """The names of the records of a benchmark."""
    return [name for name in site.records if any(fnmatchcase(name, pattern) for pattern in case.records)]


def ranking(site: Site, case: Case) -> Ranking:
    """The candidates that were measured in every cell in which any was, best mean first."""
    scores = {method: cells(site, case, method) for method in case.candidates}
    every = {cell for found in scores.values() for cell in found}
    complete = [(method, found) for method, found in scores.items() if found and set(found) == every]
    return sorted(complete, key=lambda pair: -case.better * fmean(pair[1].values()))


def ahead(case: Case, scores: dict[str, float], others: dict[str, float]) -> int:
    """In how many cells the first is better than the second."""
    return sum(case.better * (scores[cell] - others[cell]) > 0 for cell in scores if cell in others)


def level(case: Case, ranked: Ranking) -> list[str]:
    """The names of the best method, of those that beat it in a third of the cells or more, and of raw where the best
    gains less than `LITTLE` on it."""
    best, scores = ranked[0]
    names = [best, *(name for name, found in ranked[1:] if 3 * ahead(case, found, scores) >= len(scores))]
    if (raw := dict(ranked).get("noisy")) and "noisy" not in names:
        before = fmean(raw.values())
        names += ["noisy"] if abs(fmean(scores.values()) - before) < LITTLE * abs(before) else []
    return names


def command(case: Case, method: str) -> str:
    """What to type to restore with `method`; for picking, also to search what it restored."""
    wedge = "--wedge none" if method in FILLING else "--tilt-file stack.tlt"
    if method == "noisy":  # raw: nothing to restore, only to search
        search = case.command.partition("\n")[2].replace("restored.mrc", "tomogram.mrc")
        return search.format(wedge=wedge)
    text = case.command.format(method=method, options=OPTIONS.get(method, ""), wedge=wedge)
    if method in ("noise2noise", "deepdewedge"):  # they train on halves
        text = text.replace("cryostudy restore tomogram.mrc", HALVES)
    if method == "noise2inverse":  # on a tilt stack
        text = text.replace("cryostudy restore tomogram.mrc --tilt-range -60 60", STACK)
    return text
