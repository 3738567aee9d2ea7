"""`cryostudy match`: a tomogram and a template in; scores, orientations and particles out."""

from __future__ import annotations

import os
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cryostudy import io, matching, records
from cryostudy.commands.restore import given_tilts
from cryostudy.errors import InputError
from cryostudy.files import stem
from cryostudy.io.aside import alone, write_aside, write_csv
from cryostudy.io.destination import SPARE, check_space, disk_errors
from cryostudy.io.star import euler_angles, write_particles
from cryostudy.matching import checkpoint
from cryostudy.matching.checkpoint import NAME as CHECKPOINT
from cryostudy.matching.search import WEDGES, Wedge, sized
from cryostudy.matching.template import centred, extent, own_mask
from cryostudy.matching.threshold import check_rate
from cryostudy.poses import check_symmetry
from cryostudy.tomography.wedge_check import check_wedge
from cryostudy.training import choose_device

RECORD = "record.json"
ALIKE = 0.8  # correlation of a symmetric template with itself turned; less at corners and by interpolation than 1
WRITTEN = ("scores.mrc", "orientations.mrc", "noise.mrc", "orientations.csv", "particles.star", RECORD, CHECKPOINT)


def match_files(
    tomogram: Path,
    template: Path,
    *,
    step: float = 10.0,
    symmetry: str = "C1",
    tilt_file: Path | None = None,
    tilt_range: tuple[float, float] | None = None,
    wedge: Wedge = "template",
    defocus: float | None = None,
    flipped: bool = True,
    mask: Path | None = None,
    black: bool = False,
    whiten: bool = False,
    resample: bool = False,
    voxel_size: float | None = None,
    radius: float | None = None,
    rate: float = 1.0,
    noise_reference: bool = True,
    out: Path | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: bool | None = None,
) -> Path:
    """Search a template in a tomogram and write what :class:`cryostudy.matching.Match` and `Found` hold.

    `OUT/scores.mrc`, `orientations.mrc` (numbers of rows of `orientations.csv`, RELION's angles), `noise.mrc` (scores
    of the phase-randomised template), `particles.star` and `record.json`. A checkpoint lies there meanwhile: the
    same call goes on from it.

    Args:
        black: particles are darker than the background. whiten: see :func:`cryostudy.matching.whitened`. resample:
            bring template and mask to the tomogram's voxel size.
        radius: Å, or voxels where no voxel size is known. rate: false peaks to accept in the tomogram. The others as
            for :func:`cryostudy.matching.search` and :func:`cryostudy.matching.rotations`.
    Returns:
        The folder.
    Raises:
        InputError: as its one line says, before anything is written.
    """
    tilts = given_tilts(tilt_file, tilt_range)
    if wedge not in WEDGES:
        raise InputError(f"--wedge {wedge}: unknown; give {', '.join(WEDGES)}")
    if wedge == "both" and tilts is None:
        raise InputError("--wedge both needs the tilt angles; give --tilt-file or --tilt-range too")
    if defocus is not None and not 100 <= defocus <= 1e6:
        raise InputError(f"--defocus {defocus:g}: give the underfocus in Å, positive; 3 µm are 30000")
    if not flipped and defocus is None:
        raise InputError("--unflipped is about the CTF; give --defocus too")
    if voxel_size is not None and not 0 < voxel_size < np.inf:
        raise InputError(f"--voxel-size {voxel_size:g}: give a positive size in Å")
    if tomogram.suffix.lower() in (".st", ".ali"):
        raise InputError(f"{tomogram}: by its name a tilt stack; give a tomogram, or rename one to .mrc")
    check_rate(rate)
    symmetry = symmetry.upper()
    rotations = matching.rotations(step, symmetry)
    choose_device(device)
    inputs = [path for path in (tomogram, template, mask, tilt_file) if path is not None]
    angles = io.read_tilt_angles(tilts) if isinstance(tilts, Path) else tilts
    volume, size = read(tomogram)
    size = voxel_size or size
    particle, template_size = read(template)
    cover = None if mask is None else read(mask)[0]
    if cover is not None and cover.shape != particle.shape:
        raise InputError(f"{mask}: {sized(cover)} voxels, {template} has {sized(particle)}; give a mask of that shape")
    if size and template_size and abs(size - template_size) > 1e-3 * size:
        if not resample:
            raise InputError(
                f"{template}: voxel size {template_size:g} Å, but {tomogram} has {size:g} Å; add --resample, or "
                f"{'--voxel-size if its header is wrong' if voxel_size is None else 'mend --voxel-size'}"
            )
        particle = matching.resampled(particle, template_size, size)
        cover = None if cover is None else np.clip(matching.resampled(cover, template_size, size), 0, 1)
    if defocus is not None and not size:
        raise InputError(f"--defocus: {tomogram} states no voxel size; give --voxel-size")
    if any(t > v for t, v in zip(particle.shape, volume.shape, strict=True)):
        cropped = within(particle)
        if cover is not None or any(t > v for t, v in zip(cropped.shape, volume.shape, strict=True)):
            raise InputError(
                f"{template}: {sized(particle)} voxels, larger than {tomogram} with {sized(volume)}; crop the template"
            )
        particle = cropped
    stated, size = size, size or template_size
    particle = -centred(particle) if black else centred(particle)
    reach = extent(particle) if radius is None else radius / (size or 1)
    if not reach >= 1:
        raise InputError(f"--radius {radius}: less than a voxel; give the particle's radius in Å")
    if reach > max(volume.shape) / 2:
        raise InputError(f"--radius {radius}: more than half of {tomogram}; give the particle's radius in Å")
    folder = check_folder(out or tomogram.with_name(f"{stem(tomogram)}_{stem(template)}"), inputs)
    needed = 4 * volume.size * (2 + noise_reference) + SPARE
    with disk_errors(folder, needed):
        check_space(folder.resolve(), needed)
    with records.noting(inputs) as notes:
        if not size:
            warn(f"neither {tomogram} nor {template} states a voxel size; lengths are in voxels, written as 1 Å each")
        elif not stated or not template_size:
            warn(f"{template if stated else tomogram} states no voxel size; it is taken to be that of the other")
        if angles is None:
            warn("no tilt angles: the whole template is matched, as fits a tomogram without a missing wedge only")
        elif wedge != "none" and (doubt := check_wedge(volume, angles)):
            warn(f"{tomogram}: {doubt}")
        if (like_itself := self_likeness(particle, symmetry)) < ALIKE:
            warn(
                f"{template} turned by {symmetry} correlates with itself by {like_itself:.2f} only: lay its main axis "
                "along z, or give another --symmetry"
            )
    if (folder / CHECKPOINT).exists():
        print(f"cryostudy: note: a search was cut short in {folder}; if it was this one, it goes on", file=sys.stderr)
    elif (folder / RECORD).exists():
        print(f"cryostudy: note: the earlier result in {folder} is replaced", file=sys.stderr)
    print(f"cryostudy: {len(rotations)} orientations, {sized(volume)} voxels", file=sys.stderr)

    record = records.start(
        "match", profile="-", seed=seed, device=device, inputs=inputs,
        parameters={"step": step, "symmetry": symmetry, "wedge": wedge if angles else "none", "defocus": defocus,
                    "flipped": flipped, "black": black, "whiten": whiten, "resample": resample,
                    "radius_voxels": round(reach, 3), "rate": rate, "noise_reference": noise_reference,
                    "orientations": len(rotations),
                    "tilt_range": None if angles is None else [min(angles), max(angles)]},
    )  # fmt: skip
    record.content["notes"] += notes
    if whiten:
        particle = matching.resampled(particle, 1, 1)  # in a cube of odd side, where it has a mask of its own
        cover = own_mask(particle) if cover is None else matching.resampled(cover, 1, 1).clip(0, 1)
        volume, particle = matching.whitened(volume, particle)
    with alone(folder):
        found = matching.search(
            volume, particle, rotations, mask=cover, tilt_angles=angles, wedge=wedge, voxel_size=size, defocus=defocus,
            flipped=flipped, noise_reference=noise_reference, seed=seed, device=device, folder=folder,
            progress=progress,
        )  # fmt: skip
        like = io.read_volume(tomogram, mmap=True)
        maps = {"scores": found.scores, "orientations": found.orientations, "noise": found.noise}
        for name, data in maps.items():
            if data is not None:
                io.write_volume(
                    folder / f"{name}.mrc", np.asarray(data, np.float32), like=like, voxel_size=size or None,
                    label=f"cryostudy match: {name}", protect=inputs,
                )  # fmt: skip
        rows = [
            {"index": k, "rlnAngleRot": f"{rot:.4f}", "rlnAngleTilt": f"{tilt:.4f}", "rlnAnglePsi": f"{psi:.4f}"}
            for k, (rot, tilt, psi) in enumerate(euler_angles(rotations))
        ]
        write_aside(folder / "orientations.csv", lambda aside: write_csv(aside, rows))
        try:
            particles = matching.find(found, reach, rate)
        except InputError as error:  # too few peaks of the reference to tell its tail; the search itself is sound
            if found.noise is None:
                raise
            with records.noting() as few:
                reason = str(error).split(";")[0].removeprefix("false-positive rate: ")
                warn(f"{reason}: the threshold knows noise only")
            record.content["notes"] += few
            particles = matching.find(replace(found, noise=None), reach, rate)
        write_particles(
            folder / "particles.star", particles.positions, particles.rotations, particles.scores,
            tomogram=stem(tomogram), shape=volume.shape, voxel_size=size or 1.0,
        )  # fmt: skip
        record.add("match", {"particles": len(particles.scores), "threshold": round(particles.threshold, 4),
                             "best": round(float(found.scores.max()), 4), "deviation": found.deviation})  # fmt: skip
        records.write_json(folder / RECORD, record.closed())
        checkpoint.remove(folder)
    count, best = len(particles.scores), float(found.scores.max())
    print(
        f"{count} particle{'s' * (count != 1)} above {particles.threshold:.3f}, where noise alone would give {rate:g} "
        f"(best score {best:.3f}); other kinds of particles may pass too"
    )
    return folder


def warn(text: str) -> None:
    """A note on stderr, for the record too where it is caught."""
    warnings.warn(text, stacklevel=3)


def within(template: NDArray[np.float32]) -> NDArray[np.float32]:
    """A template without its empty margins, about the same centre."""
    keep = int(np.ceil(extent(template))) + 2
    cut = [max((n - 2 * keep - n % 2) // 2, 0) for n in template.shape]
    return template[tuple(slice(c, n - c) for c, n in zip(cut, template.shape, strict=True))]


def self_likeness(template: NDArray[np.float32], symmetry: str) -> float:
    """The least correlation of a template (z, y, x) with itself turned by a point group's rotations."""
    centre = (np.array(template.shape) - 1) / 2
    turned = (
        ndimage.affine_transform(template, turn, centre - turn @ centre, order=1) for turn in check_symmetry(symmetry)
    )
    return min(float(np.corrcoef(template.ravel(), other.ravel())[0, 1]) for other in turned)


def read(path: Path) -> tuple[NDArray[np.float32], float]:
    """A checked volume and its voxel size, 0 where it states none."""
    found = io.read_volume(path)
    io.check_volume(found.data, str(path))
    return np.ascontiguousarray(found.data, np.float32), found.voxel_size


def check_folder(folder: Path, inputs: list[Path]) -> Path:
    """A folder that is new, empty, or holds nothing but what this command writes.

    Raises:
        InputError: it holds other files, or an input, or cannot be written.
    """
    if folder.is_dir():
        there = [path.name for path in folder.iterdir() if not path.name.startswith(".")]  # nor half-written ones
        foreign = sorted(name for name in there if name not in WRITTEN)
        if foreign:
            raise InputError(f"--out {folder}: holds {foreign[0]}, which this command did not write; choose another")
        if there and not (folder / RECORD).exists() and not (folder / CHECKPOINT).exists():
            raise InputError(f"--out {folder}: holds files, but no record or checkpoint of a search; choose another")
        for path in inputs:
            if path.resolve().parent == folder.resolve():
                raise InputError(f"--out {folder}: holds the input {path.name}; choose another")
    elif folder.exists():
        raise InputError(f"--out {folder}: not a folder; choose another")
    place = folder if folder.exists() else folder.absolute().parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"--out {folder}: {place} does not exist or is not writable; choose another")
    return folder
