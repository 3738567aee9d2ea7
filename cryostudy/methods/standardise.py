"""A volume as methods see it: zero mean, unit variance, and a zero border that tells nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from cryostudy.errors import InputError
from cryostudy.io import statistics, valid_mask
from cryostudy.io.checks import slabs


@dataclass(frozen=True, eq=False)
class Standardised:
    """A volume (z, y, x) with zero mean and unit variance, computed piece by piece where it is sliced.

    Its zero border (see :func:`cryostudy.io.valid_mask`) stays out of the statistics, reads as 0, the mean, and is
    zero again in what is restored. Zeros inside, a bead clipped to black, are content. `bits`: the mask of the content,
    eight voxels a byte along x; None without a border.
    """

    volume: NDArray[Any]
    mean: float
    deviation: float
    bits: NDArray[np.uint8] | None

    @classmethod
    def of(cls, volume: NDArray[Any]) -> Standardised:
        """A volume, also a memory map, with its statistics.

        Raises:
            InputError: the volume is constant.
        """
        mean, deviation = statistics(volume)
        if not deviation > 0:
            raise InputError("the volume is constant inside its zero border; give a volume with content")
        bits, border = [], False
        for slab in slabs(volume.shape):
            mask = valid_mask(np.asarray(volume[slab]))
            bits.append(np.packbits(mask, axis=2))
            border |= not mask.all()
        return cls(volume, mean, deviation, np.concatenate(bits) if border else None)

    def array(self) -> NDArray[Any]:
        """This object, for a reader of arrays that needs no more than a shape and slices."""
        return cast(NDArray[Any], self)

    @property
    def shape(self) -> tuple[int, ...]:
        """Sides (z, y, x)."""
        return self.volume.shape

    def __getitem__(self, where: tuple[slice, ...]) -> NDArray[np.float32]:
        piece = (np.asarray(self.volume[where], np.float32) - self.mean) / self.deviation
        if self.bits is not None:
            piece[~self.content(where)] = 0
        return piece

    def content(self, where: tuple[slice, ...]) -> NDArray[np.bool_]:
        """True where a piece of the volume is not border."""
        z, y, x = where
        if self.bits is None:
            return np.ones(self.volume[where].shape, bool)
        return np.unpackbits(self.bits[z, y], axis=2, count=self.shape[2]).astype(bool)[..., x]

    def undo(self, restored: NDArray[np.float32]) -> None:
        """Bring a restored volume back to the grey values of this one, in place."""
        for slab in slabs(self.shape):
            restored[slab] *= self.deviation
            restored[slab] += self.mean
            if self.bits is not None:
                restored[slab][~self.content((slab, slice(None), slice(None)))] = 0
