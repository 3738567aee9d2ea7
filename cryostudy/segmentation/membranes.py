"""From a tomogram to a mask of its membranes, with a threshold taken from noise and not from the truth.

Surfaceness at the membrane's scale, kept on the sheets' middle; tensor voting, which joins the pieces; its crest, kept
where the saliency passes a hysteresis threshold and the piece is large enough, and thickened again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from cryostudy.errors import InputError
from cryostudy.io import check_volume
from cryostudy.noise import field, spectrum
from cryostudy.segmentation.surfaceness import SMALLEST_SIGMA, surfaceness
from cryostudy.segmentation.voting import tensor_voting

SCALES = (0.4, 0.55)  # of the thickness: the Gaussians at which two leaflets become one sheet
WEAK = 20  # the lower threshold lets so many times more surrogate voxels pass than the upper one
OUTLIERS = 0.001  # fraction of the darkest and of the brightest voxels that are clipped, so that gold does not rule


@dataclass(frozen=True, eq=False)
class Membranes:
    """Membranes found in a volume (z, y, x).

    `mask`: bool, of the given thickness. `saliency`: float32, 0 off the crest, to be thresholded anew with `at`;
    `normal`: float32 (3, z, y, x), unit vectors of either sign. `high` and `low`: the thresholds of the mask.
    `voxel_size`, `thickness` in Å, `min_area` in Å².
    """

    mask: NDArray[np.bool_]
    saliency: NDArray[np.float32]
    normal: NDArray[np.float32]
    high: float
    low: float
    voxel_size: float
    thickness: float
    min_area: float

    def at(self, high: float, low: float | None = None) -> NDArray[np.bool_]:
        """The mask at another threshold; `low` keeps its ratio to `high` where it is not given."""
        low = high * self.low / self.high if low is None else low
        return _mask(self.saliency, high, low, self.voxel_size, self.thickness, self.min_area)


def segment(
    volume: NDArray[Any],
    voxel_size: float,
    *,
    thickness: float = 60.0,
    voting: float = 80.0,
    false_positives: float = 2.5e-4,
    min_area: float = 60_000.0,
    bright: bool = True,
    seed: int = 0,
    device: str = "cpu",
) -> Membranes:
    """Find the membranes of a tomogram (z, y, x); the same seed gives the same mask.

    The threshold comes from a surrogate: Gaussian noise with the mean power spectrum of the volume's 32^3 patches
    goes through the same steps, and the upper threshold lets the fraction `false_positives` of its voxels pass before
    small pieces are dropped, the lower one twenty times as many. Restored volumes with little noise get a
    surrogate of their own texture, so that a threshold exists there too. Neither the grey scale nor the truth enters.

    The surrogate shares the membranes' power as well, spread over all space, which makes the threshold strict. In a
    volume hardly larger than a patch that one membrane rules, along an axis above all, it may hide that membrane.

    Args:
        voxel_size: Å. thickness: of the mask, Å; 60 is a bilayer with both layers of head groups.
        voting: standard deviation of the voting field, Å; about the least radius of curvature.
        false_positives: fraction of voxels, below 0.05. min_area: of a connected piece, Å²; protein makes small ones.
        bright: membranes are brighter than what surrounds them. seed: of the surrogate.
    Raises:
        InputError: a volume that `check_volume` refuses, a parameter out of range, voxels too large for the
            thickness.
    Source: the steps of Martinez-Sanchez et al. 2014 (`martinezsanchez2014`), whose threshold is set by hand.
    """
    check_volume(np.asarray(volume), "segment: volume")
    for name, value in (("voxel_size", voxel_size), ("thickness", thickness), ("voting", voting)):
        if not 0 < value < np.inf:
            raise InputError(f"segment: {name} {value}; give a positive length in Å")
    if not 0 < false_positives < 1 / WEAK or not min_area >= 0:
        raise InputError(
            f"segment: false_positives {false_positives}, min_area {min_area}; give 0 < fraction < {1 / WEAK:g}"
        )
    if min(SCALES) * thickness < SMALLEST_SIGMA * voxel_size or voting < voxel_size:
        raise InputError(
            f"segment: thickness {thickness:g} Å, voting {voting:g} Å; too small for voxels of {voxel_size:g} Å"
        )
    grey = np.asarray(volume, np.float32)
    grey = np.clip(grey, *np.quantile(grey, (OUTLIERS, 1 - OUTLIERS)))
    deviation = float(grey.std(dtype=np.float64))
    if not deviation > 0:
        raise InputError("segment: volume is constant but for single voxels; give one with content")
    grey = (grey - grey.mean(dtype=np.float64).astype(np.float32)) / np.float32(deviation)
    if not bright:
        grey = -grey
    scales = [scale * thickness / voxel_size for scale in SCALES]
    crest, normal = _crest(torch.from_numpy(grey).to(device), scales, voting / voxel_size)
    noise = field(grey.shape, spectrum(grey), seed=seed)
    null, _ = _crest(torch.from_numpy(noise).to(device), scales, voting / voxel_size)
    low, high = np.quantile(null.cpu().numpy(), (1 - WEAK * false_positives, 1 - false_positives))
    saliency = crest.cpu().numpy()
    mask = _mask(saliency, high, low, voxel_size, thickness, min_area)
    return Membranes(mask, saliency, normal.cpu().numpy(), float(high), float(low), voxel_size, thickness, min_area)


def _crest(volume: Tensor, scales: list[float], voting: float) -> tuple[Tensor, Tensor]:
    """Saliency on the crest of the voted surfaces, 0 elsewhere, and the normal."""
    response, normal = surfaceness(volume, scales)
    saliency, normal = tensor_voting(response * crest_of(response, normal), normal, voting)
    return saliency * crest_of(saliency, normal), normal


def crest_of(response: Tensor, normal: Tensor) -> Tensor:
    """Where a response (z, y, x) above 0 is no lower than one voxel along its normal (3, z, y, x) on either side."""
    grid = torch.stack(
        torch.meshgrid(*(torch.arange(n, device=response.device) for n in response.shape), indexing="ij")
    )
    size = torch.tensor(response.shape, device=response.device).reshape(3, 1, 1, 1)
    keep = response > 0
    for side in (1, -1):
        place = (2 * (grid + side * normal) / (size - 1) - 1).flip(0).permute(1, 2, 3, 0)
        beside = F.grid_sample(response[None, None], place[None], padding_mode="border", align_corners=True)[0, 0]
        keep &= response >= beside
    return keep


def _mask(
    saliency: NDArray[np.float32], high: float, low: float, voxel_size: float, thickness: float, min_area: float
) -> NDArray[np.bool_]:
    """Pieces of the crest above `low` that reach `high` and are large enough, thickened."""
    # An oblique crest one voxel thick hangs together by its corners, hence all 26 neighbours.
    pieces, count = ndimage.label((saliency > low) & (saliency > 0), np.ones((3, 3, 3)))
    if count == 0:
        return np.zeros(saliency.shape, np.bool_)
    numbers = np.arange(count + 1)
    keep = (ndimage.maximum(saliency, pieces, numbers) > high) & (
        np.bincount(pieces.ravel(), minlength=count + 1) * voxel_size**2 >= min_area
    )
    keep[0] = False
    if not keep.any():
        return np.zeros(saliency.shape, np.bool_)
    return ndimage.distance_transform_edt(~keep[pieces], sampling=voxel_size) <= thickness / 2 + 1e-6
