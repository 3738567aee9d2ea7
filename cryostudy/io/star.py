"""STAR files: the tables in which RELION and Warp keep poses and geometry."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cryostudy.errors import InputError
from cryostudy.io.aside import write_aside


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
        if Path(path).exists() and not Path(path).is_file():  # a pipe would never end
            raise InputError(f"{path}: not a file; give a STAR file")
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
    for name, columns in blocks.items():
        if len({len(values) for values in columns.values()}) > 1:
            raise InputError(f"{path}: the columns of data_{name} have unequal numbers of values; mend it")
    return Star(path, blocks)


def vector(text: str) -> list[float]:
    """The numbers of a text such as "[0,1.5,0]"."""
    return [float(word) for word in text.strip("[]").split(",")]


def write_particles(
    path: str | Path,
    positions: NDArray[np.floating],
    rotations: NDArray[np.floating],
    scores: NDArray[np.floating],
    *,
    tomogram: str,
    shape: Sequence[int],
    voxel_size: float,
) -> None:
    """Write particles as RELION 5 reads them: blocks `optics` and `particles`.

    - `rlnCoordinateX`, `Y`, `Z`: voxels of the tomogram, counted from the centre of voxel 0.
    - `rlnCenteredCoordinateXAngst`, `Y`, `Z`: the same less half the tomogram's sides, in Å. RELION 5 prefers these.
    - `rlnAngleRot`, `Tilt`, `Psi`: the transpose of RELION's Euler matrix takes (x, y, z) of the particle to the
      tomogram, as in :func:`cryostudy.particles.read_particles`.
    - `rlnAutopickFigureOfMerit`: the score.

    Args:
        positions: (n, 3), voxels (z, y, x). rotations: (n, 3, 3) for (z, y, x) vectors, particle to tomogram.
        scores: (n,). shape: (z, y, x) of the tomogram. voxel_size: its, Å.
    """
    import pandas
    import starfile

    places = np.asarray(positions, np.float64).reshape(-1, 3)[:, ::-1]
    angles = euler_angles(rotations)
    half = np.array(shape[::-1]) / 2
    columns: dict[str, object] = {"rlnTomoName": [tomogram] * len(places)}
    columns |= {f"rlnCoordinate{a}": places[:, k] for k, a in enumerate("XYZ")}
    columns |= {f"rlnCenteredCoordinate{a}Angst": (places - half)[:, k] * voxel_size for k, a in enumerate("XYZ")}
    columns |= {f"rlnAngle{a}": angles[:, k] for k, a in enumerate(("Rot", "Tilt", "Psi"))}
    columns |= {"rlnAutopickFigureOfMerit": np.asarray(scores, np.float64), "rlnOpticsGroup": [1] * len(places)}
    optics = {"rlnOpticsGroup": [1], "rlnOpticsGroupName": ["opticsGroup1"], "rlnTomoTiltSeriesPixelSize": [voxel_size]}
    blocks = {"optics": pandas.DataFrame(optics), "particles": pandas.DataFrame(columns)}
    write_aside(Path(path), lambda aside: starfile.write(blocks, aside, overwrite=True))


def euler_angles(rotations: NDArray[np.floating]) -> NDArray[np.float64]:
    """RELION's rot, tilt and psi in degrees, (n, 3), of rotations (n, 3, 3) for (z, y, x), particle to tomogram."""
    matrices = np.asarray(rotations, np.float64).reshape(-1, 3, 3)[:, ::-1, ::-1].transpose(0, 2, 1)
    if not len(matrices):
        return np.zeros((0, 3))
    with warnings.catch_warnings():  # at tilt 0 rot and psi are not told apart, and either will do
        warnings.simplefilter("ignore", UserWarning)
        return Rotation.from_matrix(matrices).as_euler("ZYZ", degrees=True)


def rotations_of(angles: NDArray[np.floating]) -> NDArray[np.float64]:
    """The inverse of :func:`euler_angles`."""
    return Rotation.from_euler("ZYZ", angles, degrees=True).as_matrix().transpose(0, 2, 1)[:, ::-1, ::-1]
