"""Gaussian and bilateral filters against known answers and against scipy and SimpleITK."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from cryostudy.errors import InputError
from cryostudy.filters import bilateral_filter, gaussian_filter


def noise(shape=(12, 15, 17), seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


@pytest.mark.parametrize("sigma", [0.6, 1.5, 3.0])
def test_gaussian_equals_scipy(sigma):
    v = noise()
    expected = ndimage.gaussian_filter(v.numpy(), sigma, mode="mirror", radius=int(np.ceil(3 * sigma)))
    assert np.allclose(gaussian_filter(v, sigma).numpy(), expected, atol=1e-5)


def test_gaussian_keeps_a_constant_and_the_variances_add():
    assert torch.allclose(gaussian_filter(torch.full((9, 9, 9), 2.5), 2.0), torch.tensor(2.5))
    point = torch.zeros(41, 41, 41)
    point[20, 20, 20] = 1
    twice, once = gaussian_filter(gaussian_filter(point, 1.5), 2.0), gaussian_filter(point, 2.5)
    assert (twice - once).abs().max() < 0.02 * once.max()


def test_omitting_the_centre_makes_the_filter_blind():
    v = noise().requires_grad_()
    gaussian_filter(v, 1.0, omit_centre=True)[6, 7, 8].backward()
    assert abs(v.grad[6, 7, 8].item()) < 1e-7
    assert v.grad.sum().item() == pytest.approx(1.0, abs=1e-5)


def test_thinner_than_the_kernel_works():
    v = noise((2, 30, 30))
    out = gaussian_filter(v, 3.0)
    assert torch.isfinite(out).all() and out.std() < v.std()


def test_bilateral_with_a_wide_range_is_a_gaussian_window():
    v = noise()
    out = bilateral_filter(v, 1.0, 1e4, radius=3)
    assert torch.allclose(out, gaussian_filter(v, 1.0), atol=1e-4)


def test_bilateral_keeps_an_edge_that_a_gaussian_blurs():
    v = torch.zeros(12, 12, 12)
    v[..., 6:] = 10.0
    assert (bilateral_filter(v, 1.5, 1.0) - v).abs().max() < 1e-3
    assert (gaussian_filter(v, 1.5) - v).abs().max() > 1.0


def test_bilateral_agrees_with_simpleitk():
    sitk = pytest.importorskip("SimpleITK", reason="the yardstick SimpleITK is not installed")
    v = noise((14, 16, 18))
    v[:, :, 9:] += 4.0
    image = sitk.GetImageFromArray(v.numpy())
    theirs = sitk.GetArrayFromImage(
        sitk.Bilateral(image, domainSigma=1.0, rangeSigma=2.0, numberOfRangeGaussianSamples=1000)
    )
    ours = bilateral_filter(v, 1.0, 2.0, radius=3).numpy()
    inside = (slice(4, -4),) * 3
    assert np.abs(ours - theirs)[inside].max() < 0.02 * np.ptp(v.numpy())
    assert np.corrcoef(ours[inside].ravel(), theirs[inside].ravel())[0, 1] > 0.999


def test_bad_sigmas_are_refused():
    with pytest.raises(InputError, match="sigma"):
        gaussian_filter(noise(), -1.0)
    with pytest.raises(InputError, match="sigma"):
        bilateral_filter(noise(), 1.0, 0.0)
