"""Non-linear anisotropic diffusion: grey values spread, but not across edges."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryostudy.methods.calibrate import Filter

LONGEST_STEP = 1 / 16  # voxel^2, for which the explicit scheme is stable in 3-D


@dataclass(frozen=True)
class AnisotropicDiffusion(Filter):
    """Gradient diffusion (Perona and Malik 1990; for tomograms Frangakis and Hegerl 2001) by SimpleITK.

    `time`: of diffusion, voxel^2; without edges the result is that of a Gaussian filter of width sqrt(2 time); None
    chooses it, see :class:`Filter`. `contrast`: gradient, in standard deviations of the volume per voxel, beyond which
    diffusion ceases; below that of the noise it keeps the noise.
    """

    name: ClassVar[str] = "anisotropic_diffusion"
    summary: ClassVar[str] = "non-linear anisotropic diffusion, time chosen from the data"
    paper: ClassVar[str] = "Perona and Malik 1990, Frangakis and Hegerl 2001"
    scales: ClassVar[dict[str, dict[str, Any]]] = {"smoke": {"sample": (24, 1)}, "laptop": {"sample": (40, 1)}}
    limits: ClassVar[dict[str, tuple[float, float]]] = {**Filter.limits, "time": (0, 1e3), "contrast": (1e-3, 1e3)}
    strength: ClassVar[str] = "time"
    grid: ClassVar[tuple[float, ...]] = tuple(map(float, np.geomspace(0.2, 6.0, 8)))

    time: float | None = None
    contrast: float = 1.0

    def filtered(self, volume: Tensor, strength: float) -> Tensor:
        """The volume (z, y, x) after diffusion."""
        import SimpleITK as sitk

        array = volume.cpu().numpy()
        slope = mean_squared_gradient(array)
        steps = math.ceil(strength / LONGEST_STEP)
        if steps == 0 or slope == 0:
            return volume
        diffusion = sitk.GradientAnisotropicDiffusionImageFilter()
        diffusion.SetNumberOfThreads(torch.get_num_threads())
        diffusion.SetTimeStep(strength / steps)
        diffusion.SetNumberOfIterations(steps)
        # SimpleITK measures conductance in mean gradients of the image it is given, anew at each step if let; a tile's
        # content would then change the filter.
        diffusion.SetConductanceParameter(self.contrast / math.sqrt(slope))
        diffusion.SetConductanceScalingUpdateInterval(steps + 1)
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((1.0, 1.0, 1.0))
        return torch.from_numpy(sitk.GetArrayFromImage(diffusion.Execute(image))).to(volume.device)

    def reach(self, strength: float) -> int:
        """Four times the width of the Gaussian filter that diffuses as long."""
        return math.ceil(4 * math.sqrt(2 * strength))


def mean_squared_gradient(volume: NDArray[np.float32]) -> float:
    """Mean square of the gradient (z, y, x) by central differences, with edges repeated, as ITK computes it."""
    padded = np.pad(volume, 1, mode="edge")
    inner = slice(1, -1)
    ends = [[tuple(np.roll([part, inner, inner], axis)) for part in (slice(2, None), slice(-2))] for axis in range(3)]
    return float(sum(np.mean(np.square((padded[a] - padded[b]) / 2), dtype=float) for a, b in ends))
