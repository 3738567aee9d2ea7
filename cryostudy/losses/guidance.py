"""The contrast guidance loss."""

from torch import Tensor

from cryostudy.losses.reconstruction import reconstruction_loss


def guidance_loss(estimate: Tensor, smoothed: Tensor) -> Tensor:
    r"""Mean squared difference between the estimate and the Gaussian-filtered noisy volume.

    .. math:: L_\mathrm{guide} = \mathrm{mean}\,(f(V) - G_\sigma V)^2

    Args:
        estimate, smoothed: tensors of one shape; `smoothed` comes from :func:`cryostudy.filters.gaussian_filter`.
    Source: `liu2025`, Equation 8.
    """
    return reconstruction_loss(estimate, smoothed)
