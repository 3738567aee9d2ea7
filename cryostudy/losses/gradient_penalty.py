"""The losses of a Wasserstein critic: the distance it finds, and the penalty that keeps it a distance."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Critic = Callable[[Tensor], Tensor]


def wasserstein(critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
    r"""Estimate of the Wasserstein distance, :math:`\mathrm{mean}\,D(x) - \mathrm{mean}\,D(\tilde x)`.

    The critic maximises it, the generator of `fake` minimises it.

    Source: Gulrajani et al. 2017 (`gulrajani2017`), Equation 3 without the penalty.
    """
    return critic(real).mean() - critic(fake).mean()


def gradient_penalty(critic: Critic, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    r"""How far the critic's slope is from 1, between real and generated samples.

    .. math:: \mathrm{mean}\,(\|\nabla D(\hat x)\| - 1)^2, \quad \hat x = m x + (1 - m) \tilde x

    The distance between samples is the root mean square of their difference rather than the root of its sum, so that
    neither slope nor penalty weight depends on the size of the samples.

    Args:
        real, fake: (batch, 1, z, y, x), grey values. mix: m in [0, 1], (batch, 1, 1, 1, 1).
    Source: `gulrajani2017`, Equation 3.
    """
    between = (mix * real.detach() + (1 - mix) * fake.detach()).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    slope = (gradient.square().flatten(1).sum(1) * between[0].numel()).clamp(min=1e-12).sqrt()
    return (slope - 1).square().mean()
