"""Any sides for networks that need multiples of a number."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F


def padded(function: Callable[[Tensor], Tensor], x: Tensor, multiples: tuple[int, int, int]) -> Tensor:
    """`function` of x (batch, channels, z, y, x) with its sides repeated at their end up to multiples of `multiples`.

    What was added is cut off again.
    """
    sides = tuple(x.shape[-3:])
    pad = [p for side, multiple in zip(sides[::-1], multiples[::-1], strict=True) for p in (0, -side % multiple)]
    y = function(F.pad(x, pad, mode="replicate") if any(pad) else x)
    return y[..., : sides[0], : sides[1], : sides[2]]
