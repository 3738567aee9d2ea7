"""How far an estimate is from its target: squared, absolute, or by Fourier shell correlation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cryostudy.fourier import multiplicity, shell_index

Objective = Callable[[Tensor, Tensor, Tensor | None], Tensor]
AXES = (-3, -2, -1)


def l2(estimate: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    r"""Mean squared difference, :math:`\mathrm{mean}\,|F^{-1} W F (f - t)|^2`.

    Args:
        estimate, target: (batch, 1, z, y, x), units of the volume.
        weight: W, of each Fourier voxel in rfftn layout, broadcastable to (batch, 1, z, y, x // 2 + 1); None is 1.
    """
    if weight is None:
        return (estimate - target).square().mean()
    # By Parseval's theorem no inverse transform is needed.
    spectrum = torch.fft.rfftn(estimate.float() - target.float(), dim=AXES) * weight
    sides = estimate.shape[-3:]
    total = (spectrum.real.square() + spectrum.imag.square()) * multiplicity(tuple(sides), device=estimate.device)
    return total.sum() / sides.numel() / estimate.numel()


def l1(estimate: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    r"""Mean absolute difference, :math:`\mathrm{mean}\,|F^{-1} W F (f - t)|`; arguments as in :func:`l2`."""
    difference = estimate - target
    if weight is not None:
        spectrum = torch.fft.rfftn(difference.float(), dim=AXES) * weight
        difference = torch.fft.irfftn(spectrum, s=difference.shape[-3:], dim=AXES)
    return difference.abs().mean()


def fsc(estimate: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    r"""One minus the mean Fourier shell correlation,

    .. math:: 1 - \frac{1}{S} \sum_s \frac{\mathrm{Re} \sum_{k \in s} W_k^2 f_k t_k^*}
        {\sqrt{\sum_{k \in s} W_k^2 |f_k|^2 \sum_{k \in s} W_k^2 |t_k|^2}}

    over all shells up to Nyquist, averaged over the batch. It is blind to the scale of the estimate, shell by shell,
    so a network trained on it alone leaves grey values undetermined (paper 003, Section 2.2.2). Arguments as in
    :func:`l2`.
    """
    sides = tuple(estimate.shape[-3:])
    index, frequency = shell_index(sides, device=estimate.device)
    count = len(frequency)
    first, second = (torch.fft.rfftn(v.float(), dim=AXES) for v in (estimate, target))
    scale = multiplicity(sides, device=estimate.device) * (1.0 if weight is None else weight.float().square())

    def shells(values: Tensor) -> Tensor:
        flat = (values * scale).flatten(0, -4).flatten(1)
        out = torch.zeros(len(flat), count + 1, device=flat.device)
        return out.index_add(1, index.flatten(), flat)[:, :count]

    cross = shells((first * second.conj()).real)
    powers = shells(first.abs().square()) * shells(second.abs().square())
    return 1 - (cross / powers.clamp(min=1e-20).sqrt()).mean()


OBJECTIVES: dict[str, Objective] = {"l2": l2, "l1": l1, "fsc": fsc}
