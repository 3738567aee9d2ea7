"""Claims about numbers, checked against records and the papers' tables: `a[x.y] > b[x.y] + 0.5`.

A term is `NAME[ADDRESS]` or a plain number. NAME is a record (`13_scnet`, `grid/shrec-awgn-0.2`) with the address of a
metric (`white.scnet.psnr`), or a table of the papers (`000_table2`) with the address `row; column; metric`. `*` in
either stands for anything, and several matches count as their mean. Terms are joined by ` + ` and ` - `, `abs(a - b)`
is the magnitude of a difference, and ` > ` and ` < ` join as many sides as a claim needs.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from cryostudy.errors import InputError

TERM = re.compile(r"([\w./*-]+)\[([^\[\]]+)\]")
NUMBER = re.compile(r"\d+(\.\d+)?")
TABLE = re.compile(r"\d{3}_(table|figure)\d+")


class NoRecord(Exception):
    """The record that a claim needs is not there."""


@dataclass(frozen=True)
class Outcome:
    """A claim checked: whether it holds, and the value of each side, in the order of the claim."""

    holds: bool
    values: tuple[float, ...]
    signs: tuple[str, ...]  # as claimed

    @property
    def shown(self) -> str:
        """The values with the relations that they really have."""
        text = _short(self.values[0], self.values)
        for k, sign in enumerate(self.signs):
            left, right = self.values[k], self.values[k + 1]
            kept = left > right if sign == ">" else left < right
            opposite = {">": "<", "<": ">"}[sign]
            text += f" {sign if kept else '=' if left == right else opposite} {_short(right, self.values)}"
        return text


@dataclass(frozen=True)
class Sources:
    """Where terms are looked up: `records` by name (the grid's as `grid/NAME`), the papers' tables in `papers`."""

    records: Mapping[str, Mapping[str, Any]]
    papers: Path

    def matching(self, name: str) -> list[str]:
        """The names of the records that `name`, perhaps with `*`, stands for."""
        return [known for known in self.records if fnmatchcase(known, name)]


def read_records(folder: Path) -> dict[str, dict[str, Any]]:
    """Every record of a folder by name; those in its sub-folder `grid` as `grid/NAME`."""
    paths = [*sorted(folder.glob("*.json")), *sorted(folder.glob("grid/*.json"))]
    return {path.relative_to(folder).with_suffix("").as_posix(): json.loads(path.read_text()) for path in paths}


def check(claim: str, sources: Sources) -> Outcome:
    """Evaluate a claim.

    Raises:
        NoRecord: a record is absent. InputError: the claim cannot be read, or what it names is not in its record.
    """
    parts = re.split(r"\s+([<>])\s+", " ".join(claim.split()))
    if len(parts) < 3:
        raise InputError(f"rule '{claim}': compares nothing; write a > b")
    values = tuple(_side(side, sources) for side in parts[::2])
    signs = tuple(parts[1::2])
    pairs = zip(values, values[1:], signs, strict=False)
    return Outcome(all(a > b if sign == ">" else a < b for a, b, sign in pairs), values, signs)


def records_of(claim: str, sources: Sources) -> list[str]:
    """The names of the records that a claim reads; of an absent one the name as the claim has it."""
    names = [name for name, _ in TERM.findall(claim) if not TABLE.fullmatch(name)]
    return list(dict.fromkeys(known for name in names for known in (sources.matching(name) or [name])))


def _side(text: str, sources: Sources) -> float:
    magnitude = re.fullmatch(r"abs\((.+)\)", text)
    parts = re.split(r"\s+([+-])\s+", magnitude[1] if magnitude else text)
    total = _term(parts[0], sources)
    for sign, part in zip(parts[1::2], parts[2::2], strict=True):
        total += _term(part, sources) * (1 if sign == "+" else -1)
    return abs(total) if magnitude else total


def _term(text: str, sources: Sources) -> float:
    if NUMBER.fullmatch(text):
        return float(text)
    found = TERM.fullmatch(text)
    if not found:
        raise InputError(f"rule: '{text}' is neither NAME[ADDRESS] nor a number")
    name, address = found.groups()
    values = _printed(name, address, sources) if TABLE.fullmatch(name) else _measured(name, address, sources)
    if not values:
        raise InputError(f"rule: {name} has no number at '{address}'")
    return sum(values) / len(values)


def _printed(name: str, address: str, sources: Sources) -> list[float]:
    wanted = [part.strip() for part in address.split(";")]
    with (sources.papers / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        rows = [((row["row"], row["column"], row["metric"]), row["value"]) for row in csv.DictReader(file)]
    return [float(value) for key, value in rows if all(fnmatchcase(k, w) for k, w in zip(key, wanted, strict=True))]


def _measured(name: str, address: str, sources: Sources) -> list[float]:
    names = sources.matching(name)
    if not names:
        raise NoRecord(name)
    values: list[float] = []
    for known in names:
        things = sources.records[known]["metrics"]
        numbers = {
            f"{t}.{k}": v for t, metrics in things.items() for k, v in metrics.items() if isinstance(v, int | float)
        }
        found = [float(value) for path, value in numbers.items() if fnmatchcase(path, address)]
        if not found:  # a mean over some of the records would compare methods on different data
            raise InputError(f"rule: {known} has no number at '{address}'")
        values += found
    return values


def _short(value: float, among: tuple[float, ...]) -> str:
    """A number with the decimals that its size deserves and more where they tell it from another of the same claim."""
    sizes = [abs(v) for v in among if v]
    if not sizes or max(sizes) < 1e-3 or min(sizes) < 1e-3 * max(sizes):
        return f"{value:.3g}".replace("e-0", "e-").replace("-", "−")
    decimals = 1 if max(sizes) >= 100 else 2 if max(sizes) >= 10 else 3
    while decimals < 6 and len({f"{v:.{decimals}f}" for v in among}) < len(set(among)):
        decimals += 1
    return f"{value:.{decimals}f}".replace("-", "−")
