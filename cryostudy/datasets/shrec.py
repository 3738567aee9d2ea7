"""SHREC 2020 and 2021: simulated tomograms with the specimen, the class of every voxel and the pose of every particle.

Both come from one generator (Gubins et al. 2020, 2021). Of a model, `reconstruction.mrc` has 512 slices, in the middle
of which lies the sample; truth volumes have 512 slices or only those of the sample, and are concentric with it.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cryostudy.acquisition import Acquisition
from cryostudy.datasets import stacks
from cryostudy.datasets.volumes import Region, Slices, box, cut, find, need, shape_of, shifted, voxel_size
from cryostudy.errors import InputError
from cryostudy.io import read_volume
from cryostudy.simulate.densities import Densities
from cryostudy.simulate.placement import Fiducial, Particle
from cryostudy.simulate.specimen import Specimen
from cryostudy.tomography import reconstruct

VOXEL = 10.0  # Å, of the reconstruction; the projections of 2021 have 5
SLICES, SAMPLE = 512, {"shrec2020": 200, "shrec2021": 180}  # of a reconstruction, and those that hold the sample
BEAD = 50.0  # Å; radius entered for gold beads, of which the files give the places alone
UNPOSED = ("vesicle", "fiducial")
ROWS = 8  # to either side of the middle, that tell the sign of the tilts


def rotation(z1: float, x: float, z2: float) -> NDArray[np.float64]:
    """The matrix (3, 3) of a line's three angles (degrees), for (z, y, x) vectors, particle to tomogram.

    The generator hands the three columns to voltools as static z-x-z angles; voltools turns them to their negatives and
    uses the matrix to look up where each voxel of the turned map comes from. So the map itself is turned by the
    inverse, Rz(z1) Rx(x) Rz(z2) on column vectors (x, y, z): about z by z2 first, about z by z1 last.
    """
    matrix = Rotation.from_euler("ZXZ", [z1, x, z2], degrees=True).as_matrix()
    return np.ascontiguousarray(matrix[::-1, ::-1])


def read_locations(path: Path) -> list[tuple[str, tuple[float, float, float], NDArray[np.float64]]]:
    """Lines "class x y z rotZ1 rotX rotZ2": class, position (z, y, x) in voxels, rotation as :func:`rotation`.

    Vesicles and gold beads have NaN for angles, here the identity. Raises InputError, with the line's number, for what
    is no such line.
    """
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        try:
            x, y, z, *angles = (float(word) for word in words[1:])
            if len(angles) != 3 or not np.isfinite([x, y, z]).all():
                raise ValueError
        except ValueError:
            raise InputError(
                f"{path}, line {number}: not 'class x y z rotZ1 rotX rotZ2'; fetch the file again"
            ) from None
        turn = rotation(*angles) if np.isfinite(angles).all() else np.eye(3)
        found.append((words[0].lower(), (z, y, x), turn))
    return found


def read_alignment(path: Path) -> NDArray[np.float64]:
    """`alignment_simulated.txt` as (tilt, 3): shifts along x and y that align an image (pixels), its tilt (degrees).

    Its header lines name the columns: AlignmentTransX, AlignmentTransY, TiltAngle, InPlaneRotation, Magnification,
    FileName. Raises InputError where there is no such line.
    """
    lines = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    rows = [words[:3] for words in lines if len(words) >= 3 and all(map(_number, words[:3]))]
    if not rows:
        raise InputError(f"{path}: no tilt angle in it; fetch the file again")
    return np.array(rows, dtype=np.float64)


def load(name: str, folder: Path, item: str, region: Region, rebuilt: bool = False) -> Acquisition:
    """One model; `item` is "model_0" to "model_9". `region` counts from the sample's own first slice.

    `truth` is the grand model, without its structural noise where that is given separately (2020); `specimen` has
    particles, labels of every voxel (`class_mask.mrc`) and their names. With `rebuilt` the tomogram is reconstructed
    here from the projections, and with it its halves of even and odd tilts; the tilt series comes too where `region`
    leaves z and x whole.

    Raises:
        InputError: a file is missing or cannot be used, or particles do not lie where the class mask has them.
    """
    if not (item[:-1] == "model_" and item[-1].isdigit()):
        raise InputError(f"item {item!r}: give model_0 to model_9")
    path = need(folder, f"{item}/reconstruction.mrc")
    place, whole = path.parent, shape_of(path)
    depth = whole[0] * SAMPLE[name] // SLICES
    part = box(region, (depth, *whole[1:]))
    size, remark = voxel_size(read_volume(path, mmap=True).voxel_size, VOXEL)
    truth_path = find(place, "grandmodel_noisefree.mrc", "grandmodel.mrc")
    truth = None if truth_path is None else _sample(truth_path, depth, part)
    description = f"{name.upper().replace('SHREC', 'SHREC ')}, {item.replace('_', ' ')}, simulated{remark}"
    listed = find(place, "alignment_simulated.txt")
    alignment = read_alignment(listed) if listed else np.array([(0, 0, angle) for angle in range(-60, 61, 2)], float)
    parts: dict[str, Any] = {"tilt_angles": tuple(sorted(alignment[:, 2].tolist()))}
    if rebuilt:
        parts, how = _rebuilt(place, alignment, truth_path, (depth, *whole[1:]), part)
        description += how
    else:
        parts["full"] = cut(path, shifted(part, (whole[0] - depth) // 2))
    return Acquisition(
        **parts,
        voxel_size=size,
        truth=truth,
        specimen=None if truth is None else _specimen(place, depth, part, truth, size, int(item[-1])),
        name=f"{name}-{item}{'-rebuilt' if rebuilt else ''}",
        description=description,
    )


def _rebuilt(
    place: Path, alignment: NDArray[np.float64], truth: Path | None, shape: tuple[int, int, int], part: Slices
) -> tuple[dict[str, Any], str]:
    """Full tomogram, halves, tilt series, angles and filter from the projections, and how it was done.

    The sign of the file's tilts is another than this study's in one of the editions, and programs disagree about it: of
    the two, that is taken which agrees better with the truth, in a few rows. Model 9 of 2021 has a misspelt file.
    """
    path = need(place, "projections_unbinned.mrc", "projections_unbinne.mrc", "projections.mrc")
    images, opened = stacks.of_stack(path)
    shifts = np.array([(1, 0, 0, 1, x, y) for x, y, _ in alignment], dtype=np.float64)
    factor = opened.data.shape[2] // shape[2]
    chosen, best = 1, -np.inf
    if truth is not None:
        middle = shape[1] // 2
        rows = (slice(0, shape[0]), slice(max(0, middle - ROWS), middle + ROWS), slice(0, shape[2]))
        known = _sample(truth, shape[0], rows)
        few = stacks.series(images, alignment[:, 2].tolist(), shifts, factor, str(path))
        for sign in (1, -1):
            angles = [sign * angle for angle in few[1]]
            there = reconstruct(few[0][:, rows[1]], angles, shape[0], filter="sirt-like")
            score = abs(float(np.corrcoef(there.ravel(), known.ravel())[0, 1]))
            chosen, best = (sign, score) if score > best else (chosen, best)
    found = stacks.recording(
        images, (chosen * alignment[:, 2]).tolist(), transforms=shifts, factor=factor, thickness=shape[0], pixel=1.0,
        region=part, name=str(path), description="",
    )  # fmt: skip
    parts = {key: getattr(found, key) for key in ("full", "halves", "tilt_series", "tilt_angles", "filter")}
    return parts, f"; reconstructed here from its projections{found.description}"


def _sample(path: Path, depth: int, part: Slices) -> NDArray[np.float32]:
    """A part of a truth volume, whose slices are those of the sample or more, with the sample in the middle."""
    slices = read_volume(path, mmap=True)
    start = (slices.data.shape[0] - depth) // 2
    if start < 0:
        raise InputError(f"{path}: {slices.data.shape[0]} slices, but the sample has {depth}; fetch the file again")
    return np.array(slices.data[shifted(part, start)], dtype=np.float32)


def _specimen(place: Path, depth: int, part: Slices, truth: NDArray, size: float, seed: int) -> Specimen:
    """Particles inside the region, with positions from its first voxel, and the class of every voxel."""
    mask_path, listed = need(place, "class_mask.mrc"), read_locations(need(place, "particle_locations.txt"))
    mask = read_volume(mask_path, mmap=True).data
    start = (mask.shape[0] - depth) // 2
    frame = _frame(mask, start, [(name, position) for name, position, _ in listed], mask_path)
    labels = np.array(mask[shifted(part, start)], dtype=np.int16)
    corner = np.array([side.start for side in part])
    inside = []
    votes: dict[int, Counter[str]] = {}
    for name, position, turn in listed:
        z, y, x = np.rint(np.array(position) + np.array([frame, 0, 0])).astype(int)
        value = int(mask[np.clip(z, 0, len(mask) - 1), y, x])
        votes.setdefault(value, Counter())[name] += value > 0
        moved = np.array(position) + np.array([frame - start, 0, 0]) - corner
        if (moved >= 0).all() and (moved <= np.array(truth.shape) - 1).all():
            inside.append((name, tuple(map(float, moved)), turn))
    names = ["background"] + [
        votes[k].most_common(1)[0][0] if k in votes else f"class {k}"
        for k in range(1, max(int(labels.max(initial=0)), *votes, 0) + 1)
    ]
    membrane = np.isin(labels, [k for k, name in enumerate(names) if name == "vesicle"])
    return Specimen(
        density=truth,
        voxel_size=size,
        particles=tuple(Particle(name, at, turn) for name, at, turn in inside if name not in UNPOSED),  # type: ignore[arg-type]
        labels=labels,
        class_names=tuple(names),
        membrane=membrane,
        fiducials=tuple(Fiducial(at, BEAD) for name, at, _ in inside if name == "fiducial"),  # type: ignore[arg-type]
        densities=Densities({}, size, "shrec"),
        seed=seed,
    )


def _frame(mask: NDArray, start: int, listed: list[tuple[str, tuple[float, ...]]], path: Path) -> int:
    """What to add to a listed z to get a slice of the class mask: z counts in the sample or in the whole volume.

    The years differ in it, and the files do not say; where the particles lie does.
    """
    compact = [position for name, position in listed if name not in UNPOSED][:300]
    if not compact:
        return 0
    points = np.rint(compact).astype(int)
    shares = {}
    for shift in (0, start, -start):
        moved = points + np.array([shift, 0, 0])
        valid = moved[((moved >= 0) & (moved < mask.shape)).all(1)]
        shares[shift] = sum(int(mask[z, y, x]) > 0 for z, y, x in valid) / len(points)
    best = max(shares, key=lambda shift: shares[shift])
    if shares[best] < 0.4:  # rings and barrels are hollow, so never all
        raise InputError(
            f"{path.with_name('particle_locations.txt')}: {1 - shares[best]:.0%} of its particles lie outside the "
            f"classes of {path.name}; fetch both files again"
        )
    return best


def _number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
