"""The cells of a grid: one that fails is named at the end and stops none of the others."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from cryostudy.errors import CryostudyError
from cryostudy.io.destination import FULL
from cryostudy.records import Record

NAMED = 3  # failed cells whose errors are told at the end


@contextmanager
def tried(name: str, failed: dict[str, str], record: Record | None = None) -> Iterator[None]:
    """A block whose error goes into `failed` under the cell's name, and into the notes of a record, and is no more.

    The traceback of what is no CryostudyError, a defect, is printed. Ctrl-C and a full disk, on which no other cell
    could be kept either, stop the grid.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        if not isinstance(error, CryostudyError):
            traceback.print_exc()
        failed[name] = said(error)
        if record is not None:
            record.content["notes"].append(f"{name} failed: {failed[name]}")


def said(error: Exception) -> str:
    """An error in one line, with its kind where that is no error of this study."""
    text = " ".join(str(error).split("\n", 1)[0].split())
    return text if isinstance(error, CryostudyError) else f"{type(error).__name__}: {text}".removesuffix(": ")


def conclude(failed: dict[str, str], count: int) -> None:
    """Raise CryostudyError, when a grid of `count` cells is done, if any of them failed."""
    if failed:
        told = [f"{name}: {text}" for name, text in failed.items()]
        rest = f"; and {len(told) - NAMED} more" if len(told) > NAMED else ""
        raise CryostudyError(
            f"{len(told)} of {count} cells failed, the others are recorded; the same command tries these again; "
            + "; ".join(told[:NAMED]) + rest
        )  # fmt: skip
