"""Metrics on volumes whose score is known in advance."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryostudy.errors import InputError
from cryostudy.metrics import (
    FSC,
    affine_fit,
    against_truth,
    correlation,
    correlation_outside_wedge,
    fsc,
    fsc_even_odd,
    leak,
    psnr,
    ssim,
)

TILTS = [float(a) for a in range(-60, 61, 2)]


def white(shape=(24, 24, 24), seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_psnr_of_a_known_error():
    truth = np.zeros((10, 10, 10), np.float32)
    truth[0, 0, 0] = 4.0  # range 4: an error of 0.4 everywhere is 0.1 of it, 20 dB
    assert psnr(truth + 0.4, truth, fit=False) == pytest.approx(20.0, abs=1e-4)
    assert psnr(truth, truth, fit=False) == math.inf and psnr(truth, truth) > 100


@given(scale=st.floats(0.1, 10), offset=st.floats(-5, 5))
@settings(max_examples=20, deadline=None)
def test_fitted_metrics_ignore_the_grey_scale(scale, offset):
    truth, noisy = white(), white() + 0.3 * white(seed=1)
    assert psnr(scale * noisy + offset, truth) == pytest.approx(psnr(noisy, truth), abs=1e-3)
    assert ssim(scale * noisy + offset, truth) == pytest.approx(ssim(noisy, truth), abs=1e-3)
    assert correlation(scale * noisy + offset, truth) == pytest.approx(correlation(noisy, truth), abs=1e-5)


def test_the_fit_is_the_best_one():
    truth, noisy = white(), 2 * white() + 1 + 0.5 * white(seed=1)
    best = np.mean((affine_fit(noisy, truth) - truth) ** 2)
    for a, b in [(0.5, 0.0), (0.5, -0.5), (0.45, -0.45), (0.48, -0.5)]:
        assert np.mean((a * noisy + b - truth) ** 2) >= best
    assert psnr(noisy, truth) > psnr(noisy, truth, fit=False)


def test_correlation_of_known_mixtures():
    a, b = white((40, 40, 40)), white((40, 40, 40), 1)
    assert correlation(a, a) == pytest.approx(1.0) and correlation(a, -a) == pytest.approx(-1.0)
    assert correlation(a, a + b) == pytest.approx(1 / math.sqrt(2), abs=0.01)
    assert correlation(a, np.zeros_like(a)) == 0.0


def test_ssim_of_itself_is_one_and_of_noise_near_zero():
    assert ssim(white(), white()) == pytest.approx(1.0)
    assert abs(ssim(white(seed=1), white(), fit=False)) < 0.05


@pytest.mark.parametrize("shape", [(24, 24, 24), (20, 31, 26)])
def test_fsc_of_itself_is_one_and_of_its_negative_minus_one(shape):
    a = white(shape)
    assert np.allclose(fsc(a, a).correlation, 1.0) and np.allclose(fsc(a, -2 * a + 3).correlation, -1.0)


def test_fsc_of_independent_noise_is_chance_and_follows_the_snr():
    a, b, c = (white((48, 48, 48), s) for s in range(3))
    assert np.abs(fsc(a, b).correlation[5:]).max() < 0.12
    assert fsc(a + b, a + c).correlation[5:].mean() == pytest.approx(0.5, abs=0.02)  # SNR 1: SNR / (SNR + 1)
    assert fsc_even_odd(a + b, a + c).correlation[5:].mean() == pytest.approx(2 / 3, abs=0.03)


def test_fsc_finds_a_sharp_cut_off():
    a, b, c = (white((64, 64, 64), s) for s in range(3))
    radius = np.sqrt(sum(f**2 for f in np.meshgrid(*[np.fft.fftfreq(64)] * 3, indexing="ij")))

    def low(x):
        return np.fft.ifftn(np.fft.fftn(x) * (radius < 0.25)).real

    curve = fsc(low(a) + 0.4 * b, low(a) + 0.4 * c, voxel_size=10.0)
    assert curve.resolution(0.5) == pytest.approx(40.0, rel=0.05)  # 10 Å voxels, 0.25 cycles per voxel
    assert curve.frequency[-1] == pytest.approx(0.05, rel=0.02)  # Nyquist: 20 Å


def test_a_gaussian_filter_leaves_the_fsc_as_it_was():
    """Also where the volume does not repeat itself: edges must not pass for resolution."""
    import torch

    from cryostudy.filters import gaussian_filter

    smooth = gaussian_filter(torch.from_numpy(white((40, 40, 40))), 1.0).numpy()
    clean = np.linspace(0, 1, 40)[:, None, None] + 10 * smooth
    noisy = (clean + white((40, 40, 40), 1)).astype(np.float32)
    filtered = gaussian_filter(torch.from_numpy(noisy), 0.8).numpy()
    assert fsc(filtered, clean).resolution(0.5) == pytest.approx(fsc(noisy, clean).resolution(0.5), rel=0.1)
    assert fsc(filtered, clean).correlation[-3:].max() < 0.3


def test_resolution_interpolates_and_knows_its_ends():
    f = np.array([0.01, 0.02, 0.03])
    assert FSC(f, np.array([1.0, 0.6, 0.4])).resolution(0.5) == pytest.approx(1 / 0.025)
    assert FSC(f, np.array([1.0, 0.9, 0.8])).resolution(0.5) == pytest.approx(1 / 0.03)
    assert FSC(f, np.array([0.1, 0.9, 0.8])).resolution(0.5) == math.inf


def test_correlation_outside_the_wedge_ignores_what_is_inside():
    import torch

    from cryostudy.tomography import wedge_mask

    a, b = white((32, 32, 32)), white((32, 32, 32), 1)
    mask = wedge_mask(a.shape, TILTS, rfft=True)

    def part(x, where):
        return torch.fft.irfftn(torch.fft.rfftn(torch.from_numpy(x)) * where, s=x.shape).numpy()

    filled = part(a, mask) + part(b, ~mask)
    assert correlation_outside_wedge(a, filled, TILTS) == pytest.approx(1.0, abs=1e-3)
    assert correlation(a, filled) < 0.9
    assert abs(correlation_outside_wedge(a, b, TILTS)) < 0.03


def test_all_at_once():
    scores = against_truth(white() + 0.1 * white(seed=1), white(), voxel_size=10.0, angles=TILTS)
    assert set(scores) >= {"cc", "psnr", "ssim", "fsc_0.5", "cc_outside_wedge"} and scores["cc"] > 0.99


@pytest.mark.parametrize("metric", [psnr, ssim, correlation, fsc])
def test_volumes_of_different_shape_are_refused(metric):
    with pytest.raises(InputError, match="shapes"):
        metric(white(), white((24, 24, 25)))


def test_a_constant_truth_is_refused():
    with pytest.raises(InputError, match="constant"):
        psnr(white(), np.ones((24, 24, 24)))


def test_leak_of_known_functions():
    import torch

    x = torch.randn(1, 1, 5, 5, 5, dtype=torch.float64)
    where = [(2, 2, 2), (0, 0, 0)]
    assert leak(lambda v: 3 * v, x, where) == 1.0
    assert leak(lambda v: v.roll(1, -1) + 0.25 * v, x, where) == pytest.approx(0.25)
    assert leak(lambda v: v.roll(1, -1), x, where) == 0.0
