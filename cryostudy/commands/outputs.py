"""Names of what `cryostudy restore` writes, and whether they are free to be written."""

from __future__ import annotations

import json
from pathlib import Path

from cryostudy.errors import InputError
from cryostudy.io.destination import PACKED


def beside(target: Path, name: str) -> Path:
    """OUT_NAME.mrc beside OUT.mrc."""
    packed = target.suffix if target.suffix.lower() in PACKED else ""
    plain = Path(target.name.removesuffix(packed))
    return target.with_name(f"{plain.stem}_{name}{plain.suffix}{packed}")


def check_earlier(target: Path, method: str) -> None:
    """Refuse a target that is not an earlier output of this command with this method.

    One without a record passes beside a denoiser of the method: a run was killed between the two.
    """
    if not target.exists():
        return
    try:
        before = json.loads(target.with_name(f"{target.name}.json").read_text())["parameters"]["method"]
    except (OSError, ValueError, KeyError, TypeError):
        if any(target.with_name(f"{target.name}.cryostudy").glob(f"{method}-*/denoiser.pt")):
            return
        raise InputError(f"{target}: exists, and is no earlier output of this command; choose another --out") from None
    if before != method:
        raise InputError(f"{target}: exists, restored by {before}; choose another --out")


def default_output(path: Path, method: str) -> Path:
    """INPUT_METHOD.mrc beside the input."""
    stem = path.name.removesuffix(".gz").removesuffix(".bz2").rsplit(".", 1)[0]
    return path.with_name(f"{stem}_{method}.mrc")
