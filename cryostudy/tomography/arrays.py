"""NumPy or torch in, the same kind out; float32 in between."""

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from cryostudy.errors import InputError

Array = TypeVar("Array", np.ndarray, Tensor)


def to_tensor(array: np.ndarray | Tensor, name: str, axes: str) -> Tensor:
    """``array`` as a float32 tensor, on its own device if it is a tensor, on the CPU if it is NumPy.

    name and axes word the error: InputError unless it has as many axes as ``axes`` names ("z, y, x") and no
    axis is empty, or if it is complex.
    """
    tensor = array if isinstance(array, Tensor) else torch.as_tensor(np.asarray(array))
    if tensor.ndim != len(axes.split(",")) or 0 in tensor.shape:
        raise InputError(f"{name}: shape {tuple(tensor.shape)} given; give an array of axes ({axes})")
    if tensor.is_complex():
        raise InputError(f"{name}: complex values given; give real ones")
    return tensor.float()


def like(tensor: Tensor, original: Array) -> Array:
    """``tensor`` as NumPy if ``original`` is NumPy, else as it is."""
    return tensor if isinstance(original, Tensor) else tensor.numpy()


def check_size(value: int | None, default: int, name: str) -> int:
    """A number of voxels, ``default`` if None. Raises InputError unless it is a whole number of at least 1."""
    size = default if value is None else value
    if size != int(size) or size < 1:
        raise InputError(f"{name}: {value} given; give a whole number of voxels, at least 1")
    return int(size)
