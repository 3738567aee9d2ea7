"""How well the particles of a restored tomogram are resolved."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from cryostudy.fourier import multiplicity, shell_index
from cryostudy.metrics.fsc import FSC, taper
from cryostudy.metrics.scaling import Volume, same_shape
from cryostudy.tomography import wedge_mask


def particle_fsc(
    estimate: Volume,
    truth: Volume,
    positions: Sequence[Sequence[float]],
    *,
    side: int = 32,
    voxel_size: float = 0.0,
) -> FSC:
    """Mean Fourier shell correlation of the particles of two volumes (z, y, x), cut out where they are.

    Args:
        positions: centres of particles (z, y, x), voxels; boxes of `side` voxels around them are moved inwards where
            they would leave the volume.
        voxel_size: Å; 0 gives frequencies in cycles per voxel.
    Source: `wiedemann2024`, Section 2.2.3, which reads a resolution off every particle's curve and takes the mean;
    here the mean of the curves is taken first, for a curve of one small box may never reach a threshold.
    """
    same_shape(estimate, truth)
    sides = tuple(min(side, n) for n in truth.shape)
    index, frequency = shell_index(sides)
    weight = multiplicity(sides).expand(index.shape).double()
    total = np.zeros(len(frequency))

    def shells(product: torch.Tensor) -> np.ndarray:
        return torch.bincount(index.flatten(), (weight * product).flatten())[: len(frequency)].numpy()

    for position in positions:
        corner = [
            int(np.clip(round(p - s / 2), 0, n - s)) for p, s, n in zip(position, sides, truth.shape, strict=True)
        ]
        box = tuple(slice(c, c + s) for c, s in zip(corner, sides, strict=True))
        a, b = (torch.fft.rfftn(torch.from_numpy(taper(volume[box]))) for volume in (estimate, truth))
        norm = np.sqrt(shells(a.abs() ** 2) * shells(b.abs() ** 2))
        cross = shells((a * b.conj()).real)
        total += np.divide(cross, norm, out=np.zeros_like(cross), where=norm > 1e-12 * max(norm.max(), 1e-300))
    return FSC(frequency.numpy().astype(np.float64) / (voxel_size or 1.0), total / max(1, len(positions)))


def inside_wedge(volume: Volume, angles: Sequence[float]) -> Volume:
    """The part of a volume (z, y, x) in the missing wedge of these tilts (degrees): what only filling puts there."""
    sides = tuple(volume.shape)
    spectrum = torch.fft.rfftn(torch.from_numpy(np.asarray(volume, np.float64)))
    return torch.fft.irfftn(spectrum * ~wedge_mask(sides, angles, rfft=True), s=sides).numpy()
