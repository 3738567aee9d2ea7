"""BM4D: orthonormal transforms, matching that finds what is alike, known noise taken off, no seams."""

import sys
import types

import numpy as np
import pytest
import torch
from scipy import ndimage

from cryostudy.bm4d import (
    CUBE,
    HARD,
    RADIUS,
    STEP,
    bm4d,
    coefficient_variance,
    cubes,
    dct,
    grid,
    haar,
    kronecker,
    matches,
)
from cryostudy.data import Acquisition, simulated
from cryostudy.errors import InputError
from cryostudy.filters import gaussian_filter
from cryostudy.inference import tiled
from cryostudy.methods import get
from cryostudy.methods.bm4d import white_deviation
from cryostudy.methods.standardise import Standardised
from cryostudy.metrics import psnr


def normal(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def recording(level, side=36):
    return simulated((side,) * 3, "white", level, densities="built-in", seed=1)


@pytest.mark.parametrize("rows", [haar(1), haar(4), haar(32), dct(4), kronecker(haar(4)), kronecker(dct(4))])
def test_transforms_are_orthonormal(rows):
    x = normal(7, len(rows))
    y = x @ rows.T
    assert torch.allclose(y @ rows, x, atol=1e-5)  # round trip
    assert torch.allclose(y.square().sum(1), x.square().sum(1), rtol=1e-5)  # Parseval
    assert torch.allclose(rows[0], torch.full((len(rows),), len(rows) ** -0.5))  # row 0 is the mean


def test_haar_of_four_is_the_periodic_biorthogonal_wavelet():
    a, b, c = 0.01657281518405971, 0.12153397801643787, 0.7071067811865476
    taps = [a, -a, -b, b, c, c, b, -b, -a, a]  # the low-pass filter of bior1.5
    folded = np.zeros(4)
    np.add.at(folded, (np.arange(10) - 4) % 4, taps)
    assert np.allclose(folded, [c, c, 0, 0], atol=1e-7)
    assert np.allclose(haar(4)[2:], [[c, -c, 0, 0], [0, 0, c, -c]])


def test_matching_agrees_with_a_search_by_hand():
    volume = normal(21, 18, 15)
    guide = grid(cubes(volume))
    inside = grid(torch.ones_like(cubes(volume)[..., :1], dtype=torch.bool))[..., 0]
    groups = {int(m[0]): (m, n) for batch in matches(guide, inside, HARD, 0.65) for m, n in zip(*batch, strict=True)}
    valid = np.argwhere(inside.numpy())
    assert len(groups) == np.prod([-(-(n - CUBE) // STEP) + 1 for n in volume.shape])
    for place in list(groups)[::17]:
        members, number = groups[place]
        reference = np.array(np.unravel_index(place, inside.shape))
        assert all((reference - RADIUS) % STEP == 0)
        near = valid[np.abs(valid - reference).max(1) <= RADIUS]
        distances = (guide[tuple(near.T)] - guide[tuple(reference)]).square().mean(1)
        least = distances.sort().values[: HARD.group]
        found = (guide.flatten(0, 2)[members] - guide[tuple(reference)]).square().mean(1)
        assert torch.allclose(found.sort().values, least, atol=1e-5)
        assert number == min((distances <= HARD.distance * 0.65).sum(), HARD.group)


def test_variance_of_coefficients_is_that_of_samples():
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(73, 73, 73)), (0.5, 0.0, 1.0), mode="wrap")
    power = np.abs(np.fft.fftn(noise)) ** 2 / noise.size
    covariance = np.roll(np.fft.ifftn(power).real, (3, 3, 3), (0, 1, 2))[:7, :7, :7]
    transform = kronecker(dct(CUBE)).double()
    found = coefficient_variance(torch.from_numpy(covariance), transform)
    sampled = (cubes(torch.from_numpy(noise)) @ transform.T).square().mean((0, 1, 2))
    assert torch.allclose(found, sampled, rtol=0.05)


def test_noise_around_a_constant_is_taken_off_and_the_constant_kept():
    noise = normal(32, 32, 32)
    restored = bm4d(1000 + 2 * noise, 2.0)
    assert restored.mean() == pytest.approx(1000 + 2 * noise.mean().item(), abs=0.02)
    assert restored.std() < 0.2 * 2
    assert torch.allclose(restored - 1000, bm4d(2 * noise, 2.0), atol=2e-2)  # an offset passes through


def test_no_noise_no_change():
    volume = normal(12, 13, 14)
    assert torch.equal(bm4d(volume, 0.0), volume)
    assert torch.equal(bm4d(volume, torch.zeros(7, 7, 7)), volume)


@pytest.mark.parametrize("shape", [(1, 9, 9), (4, 4, 4), (5, 17, 30)])
def test_any_shape(shape):
    volume = 5 + normal(*shape)
    restored = bm4d(volume, 1.0)
    assert restored.shape == volume.shape and torch.isfinite(restored).all()
    assert (restored - 5).square().mean() < (volume - 5).square().mean()


def test_axes_are_treated_alike():
    a = recording(0.5, 28)
    sigma = float((a.full - a.clean).std())
    turned = bm4d(torch.from_numpy(a.full).permute(2, 0, 1), sigma).permute(1, 2, 0)
    straight = bm4d(torch.from_numpy(a.full), sigma)
    # rounding may turn a near tie, so not to the bit
    assert (turned - straight).square().mean().sqrt() < 1e-3 * straight.std()


@pytest.mark.parametrize("level", [1.0, 0.5])
def test_beats_the_best_gaussian_on_white_noise(level):
    a = recording(level)
    noisy = torch.from_numpy(a.full)
    best = max(psnr(gaussian_filter(noisy, s).numpy(), a.clean) for s in np.geomspace(0.3, 4, 20))
    restored = get("bm4d")().fit(a)(a.full, device="cpu")
    hard = bm4d(noisy, float((a.full - a.clean).std()), wiener=False).numpy()
    assert psnr(restored, a.clean) > max(best, psnr(hard, a.clean)) + 1
    assert psnr(restored, a.clean, fit=False) == pytest.approx(psnr(restored, a.clean), abs=0.1)


def test_knowing_the_colour_of_noise_helps():
    a = simulated((36, 36, 36), "ddw", 0.5, densities="built-in", seed=1)
    alone = Acquisition(full=a.full)
    white = psnr(get("bm4d")().fit(a)(a.full, device="cpu"), a.clean)
    for recording in (a, alone):
        fitted = get("bm4d")(noise="coloured").fit(recording)
        assert psnr(fitted(a.full, device="cpu"), a.clean) > white + 1
    lower = get("bm4d")(noise="coloured", sigma=0.1).fit(a).state
    ratio = lower["covariance"] / get("bm4d")(noise="coloured").fit(a).state["covariance"]
    assert ratio.std() < 1e-4 and lower["covariance"][3, 3, 3].sqrt() == pytest.approx(0.1 / a.full.std(), rel=1e-4)
    with pytest.raises(InputError, match="halves only"):
        get("bm4d")(noise="coloured").fit(Acquisition(full=np.pad(a.full, 8)))


def test_covariance_is_that_of_the_noise():
    clean = recording(1.0, 48).clean
    rng = np.random.default_rng(0)
    even, odd = (ndimage.gaussian_filter(rng.normal(size=clean.shape), (1, 0.5, 0), mode="wrap") for _ in range(2))
    a = Acquisition(full=clean + (even + odd) / 2, halves=(clean + even, clean + odd), name="coloured")
    found = get("bm4d")(noise="coloured").fit(a).state["covariance"] * a.full.std() ** 2
    noise = (even + odd) / 2
    for lag in range(-3, 4):
        for axis in range(3):
            place = tuple(3 + lag * (k == axis) for k in range(3))
            expected = (noise * np.roll(noise, lag, axis)).mean()
            assert float(found[place]) == pytest.approx(expected, abs=0.05 * noise.var())


@pytest.mark.parametrize("level", [4.0, 0.5, 0.1])
def test_white_noise_level_is_estimated(level):
    a = recording(level)
    framed = np.pad(100 + a.full, 12)
    for volume in (a.full, framed):
        standard = Standardised.of(volume)
        assert white_deviation(standard) * standard.deviation == pytest.approx((a.full - a.clean).std(), rel=0.03)


def test_tiles_leave_no_seams():
    a = recording(0.5, 54)
    sigma, noisy = float((a.full - a.clean).std()), a.full[:16]
    whole = bm4d(torch.from_numpy(noisy), sigma).numpy()
    parts = tiled(lambda x: bm4d(x[0, 0], sigma)[None, None], noisy, tile=45, halo=9, blend=9, multiple=3)
    error = np.abs(parts - whole)
    assert np.sqrt(np.square(error).mean()) < 0.05 * sigma
    assert error.max() < 0.5 * sigma
    assert psnr(parts, a.clean[:16]) == pytest.approx(psnr(whole, a.clean[:16]), abs=0.05)


def test_method_takes_sigma_in_grey_values_and_repeats_to_the_bit():
    a = recording(0.5, 28)
    sigma = float((a.full - a.clean).std())
    direct = bm4d(torch.from_numpy(a.full), sigma).numpy()
    scaled = 7 + 3 * a.full
    found = [get("bm4d")(sigma=3 * sigma).fit(Acquisition(full=scaled))(scaled, device="cpu") for _ in range(2)]
    assert np.array_equal(*found)
    assert np.sqrt(np.square((found[0] - 7) / 3 - direct).mean()) < 1e-3 * direct.std()
    same = get("bm4d")(sigma=0.0).fit(a)(a.full, device="cpu")
    assert np.allclose(same, a.full, atol=1e-5)


def test_authors_package_is_used_where_installed_and_named_where_not(monkeypatch):
    a = recording(1.0, 16)
    monkeypatch.setitem(sys.modules, "bm4d", None)
    with pytest.raises(InputError, match="pip install bm4d"):
        get("bm4d")(implementation="authors").fit(a)
    with pytest.raises(InputError, match="white noise only"):
        get("bm4d")(implementation="authors", noise="coloured").fit(a)
    standin = types.SimpleNamespace(bm4d=lambda z, sigma: z * 0 + sigma)
    monkeypatch.setitem(sys.modules, "bm4d", standin)
    restored = get("bm4d")(implementation="authors", sigma=2.0).fit(a)(a.full, device="cpu")
    assert np.allclose(restored, a.full.mean() + 2.0, atol=1e-4)


def test_bad_noise_is_refused():
    for noise in (-1.0, float("nan"), torch.zeros(3, 3, 3)):
        with pytest.raises(InputError, match="noise must be"):
            bm4d(normal(8, 8, 8), noise)
    with pytest.raises(InputError, match="give sigma"):
        get("bm4d")().fit(Acquisition(full=normal(1, 20, 20).numpy()))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_agrees_with_cpu():
    a = recording(0.5)
    noisy, sigma = torch.from_numpy(a.full), float((a.full - a.clean).std())
    there = bm4d(noisy.cuda(), sigma).cpu()
    # near ties may be grouped otherwise; the restored volumes are as good
    assert (there - bm4d(noisy, sigma)).square().mean().sqrt() < 0.02 * sigma
