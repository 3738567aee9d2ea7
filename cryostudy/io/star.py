"""STAR files: the tables in which RELION and Warp keep poses and geometry."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryostudy.errors import InputError


@dataclass(frozen=True)
class Star:
    """A STAR file: `blocks` by name, each column (without its underscore) -> values as text."""

    path: str | Path
    blocks: dict[str, dict[str, list[str]]]

    def column(self, block: str, name: str) -> list[str]:
        """The values of a column. Raises InputError where block or column are missing."""
        try:
            return self.blocks[block][name]
        except KeyError:
            raise InputError(
                f"{self.path}: no column _{name} in a block data_{block}; give a file that has it"
            ) from None


def read_star(path: str | Path) -> Star:
    """A STAR file; a block of single values reads as a table of one row.

    Raises InputError for a missing file, one without blocks, or a row with another number of values than columns.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a STAR file ({type(error).__name__}); check the path") from None
    blocks: dict[str, dict[str, list[str]]] = {}
    table: dict[str, list[str]] = {}
    for number, line in enumerate(lines, 1):
        words = line.split("#", 1)[0].split()
        if not words or words[0] == "loop_":
            continue
        if words[0].startswith("data_"):
            table = blocks.setdefault(words[0][5:], {})
        elif words[0].startswith("_"):
            table[words[0][1:]] = words[1:]
        elif len(words) != len(table):
            raise InputError(f"{path}: line {number} has {len(words)} values for {len(table)} columns; mend it")
        else:
            for column, word in zip(table.values(), words, strict=True):
                column.append(word)
    if not blocks:
        raise InputError(f"{path}: no block data_...; give a STAR file")
    return Star(path, blocks)


def vector(text: str) -> list[float]:
    """The numbers of a text such as "[0,1.5,0]"."""
    return [float(word) for word in text.strip("[]").split(",")]
