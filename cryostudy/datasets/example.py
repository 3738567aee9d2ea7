"""Small simulated recordings written as the files of a data set, named and laid out as the originals are.

They show that a loader and all that follows it run; they are no data. Headers lack the voxel size where the originals'
are known or suspected to.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cryostudy import data
from cryostudy.acquisition import Acquisition
from cryostudy.datasets import entry, portal
from cryostudy.datasets.shrec import SAMPLE, SLICES
from cryostudy.errors import InputError
from cryostudy.simulate import make_specimen

Options = dict[str, Any]
SHIFT = (2, -3)  # pixels (y, x) by which stacks are out of place where the original comes with an alignment


def write(name: str, folder: Path, shape: tuple[int, int, int] = (40, 64, 64), seed: int = 0) -> Options:
    """Files of the default item of data set `name` below `folder`, of a tomogram of `shape` (z, y, x) voxels.

    Returns the options (`bin`, `thickness`, ...) with which `datasets.get(name, place=folder, ...)` reads them. Raises
    InputError for an unknown name.
    """
    item = str(entry(name)["item"])
    if name.startswith("shrec"):
        return _shrec(name, folder / item, shape, seed)
    return WRITERS[name](folder, item, shape, seed)


def _shrec(name: str, folder: Path, shape: tuple[int, int, int], seed: int) -> Options:
    """One model; of 2020 the truth has the sample's slices alone, of 2021 those of the reconstruction."""
    made = data.simulated(shape, noise="ddw", seed=seed, densities="built-in")
    specimen, series = made.specimen, made.tilt_series
    assert specimen is not None and made.truth is not None and series is not None
    depth = -(-shape[0] * SLICES // SAMPLE[name])
    start = (depth - shape[0]) // 2

    def embedded(volume: NDArray) -> NDArray:
        whole: NDArray = np.zeros((depth, *shape[1:]), np.float32)
        whole[start : start + shape[0]] = volume
        return whole

    # The class of a membrane is the original's "vesicle".
    names = ["vesicle" if name == "membrane" else name for name in specimen.class_names]
    below = np.array([0, 0, 0 if name == "shrec2020" else start])  # (x, y, z)
    truth = {"grandmodel": made.truth, "class_mask": specimen.labels}
    _save(folder / "reconstruction.mrc", embedded(made.full))
    if name == "shrec2020":
        noise = np.random.default_rng([seed, 3]).normal(0, 0.2, shape)
        truth |= {"grandmodel_noisefree": made.truth, "grandmodel": made.truth + noise.astype(np.float32)}
        _save(folder / "projections.mrc", series)
    else:
        truth = {key: embedded(volume) for key, volume in truth.items()}
        _save(folder / "projections_unbinned.mrc", np.roll(_enlarged(series, 2), SHIFT, (1, 2)))
        shift = f"{-SHIFT[1]:15.10f} {-SHIFT[0]:15.10f}"
        rows = [f"{shift} {-angle:15.10f} {0:15.10f} {1:15.10f} p.mrc" for angle in made.tilt_angles or ()]
        head = "AlignmentTransX (px)\nAlignmentTransY (px)\nTiltAngle (degrees)\nInPlaneRotation (degrees)\n"
        (folder / "alignment_simulated.txt").write_text(f"{head}Magnification\nFileName\n" + "\n".join(rows) + "\n")
    for key, volume in truth.items():
        _save(folder / f"{key}.mrc", volume.astype(np.float32))
    lines = []
    for particle in specimen.particles:
        at = np.rint(particle.position)[::-1] + below
        turn = Rotation.from_matrix(particle.rotation[::-1, ::-1]).as_euler("ZXZ", degrees=True)
        lines.append(
            " ".join(
                [
                    particle.name.replace(" ", "-"),
                    *(f"{value:.0f}" for value in at),
                    *(f"{value:.4f}" for value in turn),
                ]
            )
        )
    for bead in specimen.fiducials:
        at = np.rint(bead.position)[::-1] + below
        lines.append(" ".join(["fiducial", *(f"{value:.0f}" for value in at), "NaN NaN NaN"]))
    if specimen.membrane.any():
        at = np.argwhere(specimen.labels == names.index("vesicle"))[0][::-1] + below
        lines.append(" ".join(["vesicle", *map(str, at), "NaN NaN NaN"]))
    (folder / "particle_locations.txt").write_text("\n".join(lines) + "\n")
    return {}


def _ribosomes(folder: Path, item: str, shape: tuple[int, int, int], seed: int) -> Options:
    """An aligned stack of 16-bit integers, in the order of recording, and its angles."""
    made, _ = _pair(shape, 3.0, seed)
    place, tag = folder / f"data/ribosomes/Tomograms/{item}", f"IS002_291013_0{item}"
    order = _recorded(made)
    _save(place / f"{tag}.mrcs", _counts(_enlarged(_series(made), 2))[order], 0.0)
    _angles(place / f"{tag}.tlt", made, order)
    return {"bin": 2, "thickness": shape[0]}


def _vlps(folder: Path, item: str, shape: tuple[int, int, int], seed: int) -> Options:
    """One tomogram, and the record of its tilts as SerialEM writes it."""
    made, _ = _pair(shape, 3.0, seed)
    _save(folder / f"{item}_10.00Apx.mrc", made.full, 10.0)
    place = folder / "data/mdoc-files"
    place.mkdir(parents=True)
    order = _recorded(made)
    angles = made.tilt_angles or ()
    sections = "".join(f"[ZValue = {k}]\nTiltAngle = {angles[j]}\n\n" for k, j in enumerate(order))
    (place / f"TS_{item}.mrc.mdoc").write_text(f"PixelSpacing = 0.675\n\n{sections}")
    return {}


def _chlamydomonas(folder: Path, item: str, shape: tuple[int, int, int], seed: int) -> Options:
    """The tomogram of the default item; and of one tilt series the stacks of all, even and odd frames, out of place."""
    even, odd = _pair(shape, 2.0, seed)
    _save(folder / f"data/ctf3d_bin4/{item}.rec", even.full, 7.84)
    name = "01082023_BrnoKrios_Arctis_WebUI_Position_8"
    place = folder / f"data/chlamy_visual_proteomics/{name}"
    stacks: dict[str, NDArray] = {
        "_EVN": _series(even),
        "_ODD": _series(odd),
        "": (_series(even) + _series(odd)) / 2,
    }
    for end, stack in stacks.items():
        _save(place / f"{name}{end}.st", np.roll(_enlarged(stack, 2), SHIFT, (1, 2)), 1.96)
    _angles(place / f"AreTomo/{name}_dose-filt.tlt", even, range(len(stacks[""])))
    _transforms(place / f"AreTomo/{name}_dose-filt.xf", len(stacks[""]))
    return {"item": name, "bin": 2, "thickness": shape[0]}


def _cryocare(folder: Path, item: str, shape: tuple[int, int, int], seed: int) -> Options:
    """Tomograms of all, even and odd frames, and the angles of the movies."""
    even, odd = _pair(shape, 2.0, seed)
    for which, volume in {"all": (even.full + odd.full) / 2, "even": even.full, "odd": odd.full}.items():
        _save(folder / f"{item}/tomo_{which}_frames.rec", volume, 1.0)
    _angles(folder / "Tomo110/imod/Tomo110.tlt", even, range(len(_series(even))))
    return {}


def _centriole(folder: Path, item: str, shape: tuple[int, int, int], seed: int) -> Options:
    """A raw stack of bytes with its angles in the header, and etomo's alignment."""
    made, _ = _pair(shape, 2.0, seed)
    series = np.roll(_series(made), SHIFT, (1, 2))
    scaled = (series - series.min()) / np.ptp(series) * 250
    place = folder / "tutorialData"
    _save(place / f"{item}.st", (scaled - 125).astype(np.int8), 10.1, header_angles=made.tilt_angles)
    _transforms(place / f"{item}.xf", len(series))
    return {"thickness": shape[0]}


def _portal(folder: Path, item: str, shape: tuple[int, int, int], seed: int) -> Options:
    """One run with its metadata."""
    made, _ = _pair(shape, 2.0, seed)
    known = portal.values(item)
    run = folder / known["dataset"] / known["run"]
    place = run / "Reconstructions/VoxelSpacing{spacing}/Tomograms/{tomogram}".format(**known)
    _save(place / f"{known['run']}.mrc", made.full.astype(np.float16), 0.0)
    about = {"voxel_spacing": float(known["spacing"]), "reconstruction_method": "WBP", "run_name": known["run"]}
    (place / "tomogram_metadata.json").write_text(json.dumps(about))
    _angles(run / f"TiltSeries/100/{known['run']}.rawtlt", made, range(len(_series(made))))
    return {}


WRITERS: Mapping[str, Callable[[Path, str, tuple[int, int, int], int], Options]] = {
    "empiar-10045": _ribosomes,
    "empiar-10164": _vlps,
    "empiar-11830": _chlamydomonas,
    "cryocare": _cryocare,
    "imod-centriole": _centriole,
    "cryoet-portal": _portal,
}


def _pair(shape: tuple[int, int, int], step: float, seed: int) -> tuple[Acquisition, Acquisition]:
    """Two recordings of one specimen that differ in their noise, like even and odd frames."""
    specimen = make_specimen(shape, densities="built-in", seed=seed)
    first, second = (data.simulated(specimen=specimen, tilt_step=step, seed=seed + k) for k in range(2))
    return first, second


def _series(made: Acquisition) -> NDArray[np.float32]:
    if made.tilt_series is None:
        raise InputError(f"{made.name}: no tilt series")
    return made.tilt_series


def _recorded(made: Acquisition) -> NDArray[np.intp]:
    """The order of a dose-symmetric recording: from 0° outwards."""
    return np.argsort(np.abs(made.tilt_angles or ()), kind="stable")


def _enlarged(series: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Pixels `factor` times smaller, whose means are the series again."""
    return series.repeat(factor, 1).repeat(factor, 2)


def _counts(series: NDArray[np.float32]) -> NDArray[np.int16]:
    return np.round(series / series.std() * 1000 + 5000).astype(np.int16)


def _angles(path: Path, made: Acquisition, order: Sequence[int] | range | NDArray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    angles = made.tilt_angles or ()
    path.write_text("".join(f"{angles[k]:8.2f}\n" for k in order))


def _transforms(path: Path, count: int) -> None:
    """Shifts that bring a stack back into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"   1.0   0.0   0.0   1.0   {-SHIFT[1]:.3f}   {-SHIFT[0]:.3f}\n" * count)


def _save(path: Path, volume: NDArray, voxel_size: float = 0.0, header_angles: Sequence[float] | None = None) -> None:
    """An MRC file in the type of `volume`; `header_angles` (degrees) as SerialEM keeps them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with mrcfile.new(path) as mrc:
        mrc.set_data(volume)
        mrc.voxel_size = voxel_size
        if header_angles is not None:
            mrc.set_extended_header(np.array([round(angle * 100) for angle in header_angles], "<i2"))
            raw = bytearray(mrc.header["extra2"].tobytes())
            raw[16:20] = np.array([2, 1], "<i2").tobytes()  # two bytes an image, and they are its angle
            mrc.header["extra2"] = np.void(bytes(raw))
