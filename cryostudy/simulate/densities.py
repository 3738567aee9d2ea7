"""The densities that specimens are built from: real maps of the SHREC structures, or built-in particles offline."""

import warnings
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from scipy.ndimage import center_of_mass

from cryostudy.errors import InputError
from cryostudy.io import read_volume
from cryostudy.simulate.builtin import BUILT_IN, VOXEL_SIZE, built_in_density
from cryostudy.simulate.registry import entry, fetch, local_copy, online, registry

SHREC = tuple(name for name, item in registry().items() if item["group"] == "shrec")
"""The 13 structures of the SHREC 2021 benchmark (paper 004 uses their predecessors of 2020)."""


@dataclass(frozen=True, eq=False)
class Densities:
    """A choice of particle species.

    `maps` holds name -> float32 cube (z, y, x) of odd side, ice 0 and protein about 1; `voxel_size` is in Å;
    `source` is "shrec" (maps computed from PDB models) or "built-in" (made in code, no real proteins).
    """

    maps: dict[str, np.ndarray]
    voxel_size: float
    source: Literal["shrec", "built-in"]


def _centred(density: np.ndarray) -> np.ndarray:
    """Smallest odd cube around the centre of mass that still holds the particle in any rotation about its centre.

    Whole voxels only: nothing is interpolated, so the centre of mass lies within half a voxel of the cube's
    centre.
    """
    centre = np.rint(center_of_mass(density)).astype(int)
    occupied = np.argwhere(density > 0.005 * density.max())
    half = int(np.ceil(np.sqrt(((occupied - centre) ** 2).sum(axis=1).max()))) + 1
    padded = np.pad(density, half)
    return padded[tuple(slice(c, c + 2 * half + 1) for c in centre)]


def load_density(name: str) -> np.ndarray:
    """The density of one registered structure or built-in particle: float32 cube (z, y, x) of odd side, 10 Å voxels.

    Structures come from the registry (downloaded where the data cache lacks them). The files' intensity
    scales differ by a factor of ten, so each map is divided by the 95th percentile of its voxels above a
    tenth of its maximum: the interior of every species then has density 1. The maximum itself would depend on
    single voxels. The rotation centre, voxel (n - 1)/2, lies within half a voxel of the centre of mass.

    Raises InputError for an unknown name, a failed download or a file with the wrong checksum.
    """
    if name in BUILT_IN:
        return built_in_density(name)
    if entry(name)["folder"] != "templates-10A":
        raise InputError(f"data set '{name}' is not the density of a structure; choose one of {', '.join(SHREC)}")
    density = np.asarray(read_volume(fetch(name)).data, dtype=np.float32)
    inside = density[density > 0.1 * density.max()]
    return np.ascontiguousarray(_centred(np.maximum(density, 0) / np.percentile(inside, 95)), dtype=np.float32)


@cache
def _warn_once(message: str) -> None:
    """One notice per process; every result states its source anyway."""
    warnings.warn(message, stacklevel=4)


def specimen_densities(kind: str = "auto") -> Densities:
    """The species for a specimen.

    "shrec": the 13 SHREC structures; "built-in": particles made in code; "auto": the former where all of them are in
    the data cache or can be downloaded, otherwise the latter with one warning. `source` of the result says
    which. Raises InputError for another kind, for a damaged file in the cache, and for "shrec" where it
    cannot be had.
    """
    if kind not in ("auto", "shrec", "built-in"):
        raise InputError(f"densities '{kind}' is unknown; choose auto, shrec or built-in")
    if kind != "built-in":
        missing = [name for name in SHREC if local_copy(name) is None]
        try:
            if missing and not online(entry(missing[0])["url"]):
                raise InputError(
                    f"{len(missing)} of the {len(SHREC)} SHREC densities are not in the data cache and their server "
                    "does not answer; connect to the internet or set CRYOSTUDY_DATA to a folder that holds them"
                )
            for name in missing:
                fetch(name)
        except InputError as error:
            if kind == "shrec":
                raise
            _warn_once(f"using built-in particles, which are no real proteins: {error}")
        else:
            return Densities({name: load_density(name) for name in SHREC}, VOXEL_SIZE, "shrec")
    return Densities({name: built_in_density(name) for name in BUILT_IN}, VOXEL_SIZE, "built-in")
