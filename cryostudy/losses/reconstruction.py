"""The structural reconstruction loss."""

from torch import Tensor


def reconstruction_loss(estimate: Tensor, noisy: Tensor) -> Tensor:
    r"""Mean squared difference between the blind estimate and the noisy volume it was made from.

    .. math:: L_\mathrm{rec} = \mathrm{mean}\,(f(V) - V)^2

    Its minimum over J-invariant f is the best estimate of the clean volume when the noise is independent between
    voxels (Batson and Royer 2019, Proposition 1), and only then.

    Args:
        estimate, noisy: tensors of one shape, units of the volume.
    Source: `liu2025`, Equation 7.
    """
    return (estimate - noisy).square().mean()
