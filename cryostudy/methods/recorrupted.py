"""Recorrupted-to-recorrupted with the reconstruction's own noise: one full-dose tomogram, no halves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from cryostudy import noise
from cryostudy.data import Acquisition
from cryostudy.errors import InputError
from cryostudy.methods.base import Denoiser
from cryostudy.methods.networked import Networked
from cryostudy.methods.standardise import Standardised
from cryostudy.training import Batch, Terms


@dataclass(frozen=True)
class Recorrupted(Networked):
    r"""Train on pairs :math:`(y + \alpha n, y - n / \alpha)` of the noisy volume y and fresh samples n of its noise.

    Where n has the covariance of the noise of y, and both are Gaussian, the two have independent noise (`pang2021`,
    Section 3.1): the pair is as good as two recordings, each with the full dose in it. n is not white: it is drawn with
    the spectrum that the reconstruction gives it (:mod:`cryostudy.noise`; chapters 17 and 18).

    `alpha`: how strong the noise added to the input is, in units of the recording's own; 1 / alpha is the target's.

    `source`: where level and spectrum of the noise come from. "tilt_series": the level of each image, pushed through
    the reconstruction. "halves": half of their difference. "volume": from the volume alone, with its tilt angles and
    filter, the level from the highest frequencies. "background": from the volume alone, its quietest patches. "auto":
    the first of these that the acquisition allows.
    `level_scale` multiplies the estimated level, to show what an error costs; `white` gives n a flat spectrum of the
    same variance, likewise. `samples`: noise volumes drawn; crops, signs and mirror images of them are taken at random.
    """

    name: ClassVar[str] = "recorrupted"
    summary: ClassVar[str] = "recorrupted pairs with the reconstruction's own noise"
    paper: ClassVar[str] = "Pang et al. 2021; here"
    cost: ClassVar[str] = "trains a minute"
    limits: ClassVar[dict[str, tuple[float, float]]] = {
        **Networked.limits, "alpha": (0.05, 20), "level_scale": (0.01, 100), "samples": (1, 1000)
    }  # fmt: skip
    choices: ClassVar[dict[str, tuple[str, ...]]] = {
        **Networked.choices, "source": ("auto", "tilt_series", "halves", "volume", "background")
    }  # fmt: skip

    alpha: float = 1.0
    source: str = "auto"
    level_scale: float = 1.0
    white: bool = False
    samples: int = 4

    def fit(
        self,
        acquisition: Acquisition,
        *,
        seed: int = 0,
        device: str = "auto",
        folder: Path | None = None,
        progress: bool | None = None,
    ) -> Denoiser:
        """Train on the full volume; halves and tilt series tell at most what the noise is like."""
        volume = Standardised.of(acquisition.full)
        region = self.region(volume.shape)
        noisy = torch.from_numpy(volume[region])
        source = resolved(acquisition, self.source)
        draw = sampler(acquisition, source, region, volume.content(region))
        noises = []
        for k in range(self.samples):
            sample = draw((seed, 3, k)) * self.level_scale / volume.deviation
            if self.white:
                rng = np.random.default_rng((seed, 4, k))
                sample = rng.standard_normal(sample.shape, dtype=np.float32) * sample.std()
            noises.append(torch.from_numpy(sample))

        def pairs(crops: Batch, generator: Generator) -> Batch:
            (y,) = crops
            n = torch.stack([self.crop(noises, tuple(y.shape[-3:]), generator) for _ in range(len(y))])[:, None]
            first, second = y + self.alpha * n, y - n / self.alpha
            flips = [axis for axis in (2, 3, 4) if flip(generator)]
            return first.flip(flips), second.flip(flips)

        # Mirrored after the noise is added: with an asymmetric tilt range a mirrored crop has mirrored noise.
        return replace(self, source=source).learn(
            acquisition, (noisy,), self.loss, pairs=pairs, mirror=False, seed=seed, device=device, folder=folder,
            progress=progress,
        )  # fmt: skip

    def loss(self, network: nn.Module, batch: Batch) -> Terms:
        """The objective between the network's output for one of the pair and the other."""
        first, second = batch
        return {"total": self.distance(network(first), second, None)}

    @staticmethod
    def crop(noises: list[Tensor], sides: tuple[int, ...], generator: Generator) -> Tensor:
        """A random crop of a random noise volume, with a random sign."""
        sample = noises[int(torch.randint(len(noises), (), generator=generator))]
        limits = (n - s + 1 for n, s in zip(sample.shape, sides, strict=True))
        corner = [int(torch.randint(limit, (), generator=generator)) for limit in limits]
        sign = -1.0 if flip(generator) else 1.0
        return sign * sample[tuple(slice(c, c + s) for c, s in zip(corner, sides, strict=True))]


def flip(generator: Generator) -> bool:
    """Heads or tails."""
    return bool(torch.randint(2, (), generator=generator))


def resolved(acquisition: Acquisition, source: str) -> str:
    """`source`, or where it is "auto" the first that the acquisition allows.

    Raises:
        InputError: the acquisition lacks what `source` needs.
    """
    geometry = acquisition.tilt_angles is not None and acquisition.filter is not None
    has = {
        "tilt_series": acquisition.tilt_series is not None and geometry, "halves": acquisition.halves is not None,
        "volume": geometry, "background": True,
    }  # fmt: skip
    if source == "auto":
        return next(name for name, there in has.items() if there)
    if not has[source]:
        needs = {"tilt_series": "a tilt series with its angles", "halves": "halves", "volume": "tilt angles and filter"}
        raise InputError(f"recorrupted: source {source} needs {needs[source]}, which {acquisition.name} does not have")
    return source


def sampler(
    acquisition: Acquisition, source: str, region: tuple[slice, ...], content: NDArray[np.bool_]
) -> Callable[[tuple[int, ...]], noise.Volume]:
    """A function of a seed that gives fresh noise of a part of the acquisition's full volume, in its grey values.

    `content` is False in that part where the volume is padded; nothing is estimated there.
    """
    full, angles, filter = acquisition.full, acquisition.tilt_angles, acquisition.filter
    z, _, x = full.shape
    rows = region[1].stop - region[1].start
    shape = (z, rows, x)
    inside = (region[0], slice(None), region[2])

    def fbp(level: Any) -> Callable[[tuple[int, ...]], noise.Volume]:
        assert angles is not None and filter is not None
        return lambda seed: np.ascontiguousarray(noise.fbp_noise(shape, angles, filter, level=level, seed=seed)[inside])

    if source == "tilt_series":
        assert acquisition.tilt_series is not None
        return fbp(noise.level_of_series(acquisition.tilt_series))
    if source == "volume":
        unit = np.where(content, fbp(1.0)((0,)), 0).astype(np.float32)
        return fbp(noise.level_of_volume(np.where(content, full[region], full[region][content].mean()), unit))
    sides = tuple(part.stop - part.start for part in region)
    if source == "halves":
        assert acquisition.halves is not None
        even, odd = (np.asarray(half[region], dtype=np.float32) for half in acquisition.halves)
        power = noise.spectrum(np.asarray((even - odd) / 2, np.float32), content=content)
    else:
        power = noise.spectrum(np.asarray(full[region], np.float32), quietest=noise.QUIETEST, content=content)
    return lambda seed: noise.field(sides, power, seed=seed)
