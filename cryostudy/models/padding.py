"""Any sides for networks that need multiples of a number."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

Multiples = tuple[int, int, int]


def padded(function: Callable[[Tensor], Tensor], x: Tensor, multiples: Multiples) -> Tensor:
    """`function` of x (batch, channels, z, y, x) :func:`extended`; what was added is cut off again."""
    sides = x.shape[-3:]
    return function(extended(x, multiples))[..., : sides[0], : sides[1], : sides[2]]


def extended(x: Tensor, multiples: Multiples) -> Tensor:
    """x (batch, channels, z, y, x) with its sides repeated at their end up to multiples of `multiples`."""
    sides = x.shape[-3:]
    pad = [p for side, multiple in zip(sides[::-1], multiples[::-1], strict=True) for p in (0, -side % multiple)]
    return F.pad(x, pad, mode="replicate") if any(pad) else x
