"""One recording, whatever it came from, and its reconstructions."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from cryostudy.simulate.specimen import Specimen
from cryostudy.tomography import Filter, as_filter, reconstruct, split_even_odd

__all__ = ["FILTERS", "Acquisition", "Halves", "as_filter", "geometry", "reconstructions"]

FILTERS = ("ramp", "hamming", "sirt-like", "none")
Halves = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Acquisition:
    """What one recording gives; volumes are float32 (z, y, x) of one shape.

    - `full`: the tomogram. `halves`: two tomograms (even, odd) of the same specimen with independent noise,
      or None.
    - `tilt_series`: noisy images (tilt, y, x), or None; `tilt_angles` in degrees, or None where unknown.
    - `filter`: that of the reconstruction ("ramp", "hamming", "sirt-like", "none"), or None where unknown.
    - `voxel_size` in Å; 0.0 where unknown.
    - `truth`: the specimen itself, or None. `clean`: the reconstruction of the tilt series without noise,
      that is what a perfect denoiser which leaves the missing wedge empty would give, or None.
    - `specimen`: all truth of a simulated specimen, or None.
    - `name` and `description` (noise model, level, seed, densities in words) for records and captions.
    """

    full: np.ndarray
    halves: Halves | None = None
    tilt_series: np.ndarray | None = None
    tilt_angles: tuple[float, ...] | None = None
    filter: str | None = None
    voxel_size: float = 0.0
    truth: np.ndarray | None = None
    clean: np.ndarray | None = None
    specimen: Specimen | None = None
    name: str = ""
    description: str = ""

    def __repr__(self) -> str:
        there = [f.name for f in fields(self) if isinstance(getattr(self, f.name), np.ndarray | tuple | Specimen)]
        size = " x ".join(map(str, np.shape(self.full)))
        return f"Acquisition({self.name!r}, {size} voxels of {self.voxel_size:g} Å, has {', '.join(there)})"


def geometry(angles: Sequence[float], filter: Filter | None) -> str:
    """Tilts and reconstruction in words, for a description."""
    how = f"{filter} back-projection" if filter else "plain back-projection"
    return f"{len(angles)} tilts from {min(angles):g}° to {max(angles):g}°, {how}"


def reconstructions(
    series: np.ndarray, angles: Sequence[float], thickness: int, filter: Filter | None
) -> tuple[np.ndarray, Halves]:
    """Tomograms of all tilts, and of the even and the odd ones."""
    (even, even_angles), (odd, odd_angles) = split_even_odd(series, angles)
    return reconstruct(series, angles, thickness, filter=filter), (
        reconstruct(even, even_angles, thickness, filter=filter),
        reconstruct(odd, odd_angles, thickness, filter=filter),
    )
