"""Filters against known answers; their strength, chosen without the truth, against the best there is."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from cryostudy import cli, io
from cryostudy.data import Acquisition, simulated
from cryostudy.errors import InputError
from cryostudy.filters import gaussian_filter
from cryostudy.fourier import radius
from cryostudy.methods import available, get
from cryostudy.methods.anisotropic_diffusion import AnisotropicDiffusion, mean_squared_gradient
from cryostudy.methods.calibrate import (
    Filter,
    calibrate,
    errors_of_halves,
    errors_of_prediction,
    scale_of_mean,
    smallest,
)
from cryostudy.methods.lowpass import Lowpass
from cryostudy.methods.standardise import Standardised
from cryostudy.methods.tv import TotalVariation
from cryostudy.methods.wiener import Wiener
from cryostudy.tomography.ctf import ctf_radial

NAMES = ["gaussian", "lowpass", "bilateral", "anisotropic_diffusion", "nlm", "tv", "wiener"]
STRONG = {"gaussian": 1.0, "lowpass": 0.2, "bilateral": 1.0, "anisotropic_diffusion": 2.0, "nlm": 1.0, "tv": 1.0,
          "wiener": 36.0}  # fmt: skip
EVERYTHING = torch.ones(32, 32, 32, dtype=torch.bool)


def phantom(shape=(32, 32, 32), smooth=2.0, seed=0):
    """Smooth density with sharp blocks, of variance 1."""
    volume = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), smooth)
    volume = np.where(volume > 0.7 * volume.std(), 1.0, 0.0)
    return ((volume - volume.mean()) / volume.std()).astype(np.float32)


def noisy_pair(clean, deviation, seed=1):
    """Halves with white noise; `deviation` is that of their mean."""
    rng = np.random.default_rng(seed)
    even, odd = ((clean + rng.normal(0, deviation * 2**0.5, clean.shape)).astype(np.float32) for _ in range(2))
    return Acquisition(full=(even + odd) / 2, halves=(even, odd), voxel_size=10.0, name="phantom")


def true_errors(method, acquisition, clean, strengths):
    """Mean squared error at each strength, in variances of the volume."""
    volume = Standardised.of(acquisition.full)
    y = torch.from_numpy(volume[(slice(None),) * 3])
    s = torch.from_numpy(((clean - volume.mean) / volume.deviation).astype(np.float32))
    return np.array([(method.denoised(y, strength) - s).square().mean().item() for strength in strengths])


def test_these_are_the_filters():
    assert set(NAMES) == {name for name, method in available().items() if issubclass(method, Filter)}
    for name in NAMES:
        grid = get(name).grid
        assert list(grid) == sorted(grid) and len(grid) > 5 and hasattr(get(name)(), get(name).strength)


# The choice of the strength


@pytest.fixture
def coarse(name, monkeypatch):
    """Every other strength, to save time; the error of non-local means turns too sharply for that."""
    if name != "nlm":
        monkeypatch.setattr(get(name), "grid", get(name).grid[1::2])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("noise", ["white", "projection"])
def test_strength_from_halves_is_nearly_as_good_as_the_truths(name, noise, coarse):
    if noise == "white":
        clean = phantom((26, 26, 26))
        acquisition = noisy_pair(clean, 1.0)
    else:
        acquisition = simulated((24, 32, 32), "ddw", 0.5, densities="built-in", seed=1)
        clean = acquisition.clean
    method = get(name).at("smoke", sample=(40, 1))
    true = true_errors(method, acquisition, clean, method.grid)
    state = method.fit(acquisition).state
    (chosen,) = true_errors(method, acquisition, clean, [state[method.strength].item()])
    assert chosen < 1.2 * true.min()
    # In absolute terms too: nothing but the halves tells how far from the truth a filtered volume is.
    near = true < 3 * true.min()
    np.testing.assert_allclose(state["errors"].numpy()[near], true[near], rtol=0.3, atol=0.03)
    np.testing.assert_allclose(state["tried"], method.grid, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_strength_from_one_volume_is_good_where_noise_is_white(name, coarse):
    clean = phantom((28, 28, 28))
    acquisition = replace(noisy_pair(clean, 1.0), halves=None)
    method = get(name).at("smoke", sample=(32, 1))
    true = true_errors(method, acquisition, clean, method.grid)
    state = method.fit(acquisition).state
    (chosen,) = true_errors(method, acquisition, clean, [state[method.strength].item()])
    assert chosen < 1.6 * true.min()


def test_error_of_a_linear_filter_is_the_cross_term():
    pair = noisy_pair(phantom(), 1.5)
    even, odd = (torch.from_numpy(half) for half in pair.halves)
    strengths = (0.5, 1.0, 2.0)
    found, count = errors_of_halves(gaussian_filter, strengths, even, odd, EVERYTHING)
    expected = []
    for s in strengths:
        e, o, f = gaussian_filter(even, s), gaussian_filter(odd, s), gaussian_filter((even + odd) / 2, s)
        expected.append((f.square() - e * odd - o * even + even * odd).double().sum().item())
    assert count == 32**3
    np.testing.assert_allclose(found, expected, atol=1e-3 * count)


def test_hidden_voxels_are_not_seen():
    volume = torch.from_numpy(noisy_pair(phantom(), 1.0).full)
    seen = []

    def spy(x, strength):
        seen.append(x)
        return x * strength

    errors_of_prediction(spy, (1.0,), volume, EVERYTHING)
    hidden = seen[0] != volume
    assert 0.03 < hidden.float().mean() < 0.05  # one of 27
    changed = volume + 1e3 * hidden
    errors_of_prediction(spy, (1.0,), changed, EVERYTHING)
    assert torch.equal(seen[1], seen[0])


def test_prediction_from_white_noise_alone_finds_nothing_to_keep():
    noise = torch.randn(30, 31, 32, generator=torch.Generator().manual_seed(0))
    found, _ = errors_of_prediction(lambda x, s: s * x, (0.0, 0.5, 1.0), noise, torch.ones_like(noise).bool())
    np.testing.assert_allclose(found / found[0], [1.0, 1.25, 2.0], rtol=0.08)


@pytest.mark.parametrize("vertex", [0.5, 1.1, 2.0])
def test_lowest_point_of_a_parabola(vertex):
    grid = (0.4, 0.6, 1.0, 1.3, 2.2, 3.5)
    assert smallest(grid, [5 + np.log(s / vertex) ** 2 for s in grid]) == pytest.approx(vertex, rel=1e-6)
    assert smallest(grid, [1.0, 2, 3, 4, 5, 6]) == 0.4 and smallest(grid, [6.0, 5, 4, 3, 2, 1]) == 3.5
    assert smallest(grid, [1.0] * 6) in grid


@pytest.mark.parametrize("noise", [0.3, 2.0])
def test_mean_of_standardised_halves_is_brought_to_unit_variance(noise):
    pair = noisy_pair(phantom(), noise)
    even, odd = (Standardised.of(10 + half) for half in pair.halves)
    everything = (slice(None),) * 3
    mean = (even[everything] + odd[everything]) / 2
    assert (scale_of_mean(even, odd) * mean).std() == pytest.approx(1, rel=1e-4)


def test_strength_ignores_the_halves_grey_scale():
    pair = noisy_pair(phantom((20, 20, 20)), 1.0)
    scaled = replace(pair, halves=tuple(50 + half / 7 for half in pair.halves))
    method = TotalVariation.at("smoke", sample=(20, 1))
    one, two = (method.fit(a).state["weight"].item() for a in (pair, scaled))
    assert one == pytest.approx(two, rel=1e-3)


def test_a_given_strength_is_taken_and_the_rest_is_not_tried():
    state = Lowpass(cutoff=0.2).fit(noisy_pair(phantom(), 1.0)).state
    assert set(state) == {"cutoff"} and state["cutoff"].item() == pytest.approx(0.2)


def test_sub_volumes_without_content_are_passed_over():
    volume = np.zeros((64, 32, 32), np.float32)
    volume[:32] = noisy_pair(phantom(), 1.0).full + 10
    errors = calibrate(gaussian_filter, (1.0, 2.0), Acquisition(full=volume), (16, 4))
    assert np.isfinite(errors).all() and min(errors) > 0.3


# What every filter must do


def strong(name, **changes):
    method = get(name)
    return method.at("smoke", **{method.strength: STRONG[name]}, **changes)


@pytest.mark.parametrize("name", NAMES)
def test_noise_goes_grey_values_and_border_stay(name):
    clean = np.pad(phantom(), 6)
    noise = np.random.default_rng(3).normal(0, 1, clean.shape).astype(np.float32)
    volume = np.pad((100 + 7 * (clean + noise))[6:-6, 6:-6, 6:-6], 6).astype(np.float32)
    acquisition = Acquisition(full=volume, voxel_size=10.0)
    restored = strong(name).fit(acquisition)(volume)
    inside = volume != 0
    assert (restored[~inside] == 0).all() and restored.dtype == np.float32
    assert restored[inside].mean() == pytest.approx(volume[inside].mean(), rel=0.01)
    assert restored[inside].std() < volume[inside].std()
    raw, found = (np.corrcoef(v[inside], clean[inside])[0, 1] for v in (volume, restored))
    assert found > raw + 0.05


@pytest.mark.parametrize("name", NAMES)
def test_tiles_leave_no_seam(name):
    volume = noisy_pair(phantom((10, 12, 420)), 1.0).full
    method = strong(name)
    standard = Standardised.of(volume)
    whole = method.filtered(torch.from_numpy(standard[(slice(None),) * 3]), STRONG[name]).numpy()
    state = {method.strength: torch.tensor(STRONG[name])}
    assert 128 + 2 * method.reach(STRONG[name]) < 420  # more than one tile
    tiles = method.apply(state, standard, None, "cpu", False)
    tolerance = 5e-3 if name in ("tv", "wiener") else 1e-3
    assert np.abs(tiles - whole).max() < tolerance


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 20, 21), (9, 5, 30)])
def test_thin_volumes(name, shape):
    volume = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    restored = get(name).at("smoke").fit(Acquisition(full=volume))(volume)
    assert restored.shape == shape and np.isfinite(restored).all()


@pytest.mark.parametrize("name", NAMES)
def test_restore_on_the_command_line(name, tmp_path):
    volume = noisy_pair(phantom((20, 24, 28)), 1.0).full
    io.write_volume(tmp_path / "in.mrc", volume, voxel_size=13.0, label="noisy")
    out = tmp_path / "out.mrc"
    command = ["restore", str(tmp_path / "in.mrc"), "--method", name, "--profile", "smoke", "--out", str(out)]
    assert cli.main(command) == 0
    restored = io.read_volume(out)
    assert restored.voxel_size == pytest.approx(13.0) and 0 < restored.data.std() <= 1.01 * volume.std()


# Known answers


def wave(frequency, shape=(20, 20, 80)):
    """A cosine along x, in cycles per voxel, symmetric about the mirrored edges."""
    x = np.cos(2 * np.pi * frequency * np.arange(shape[2]))
    return torch.from_numpy(np.broadcast_to(x, shape).astype(np.float32).copy())


def test_lowpass_passes_low_and_stops_high_frequencies():
    method = Lowpass(edge=0.02)
    inner = (..., slice(30, 50))
    for frequency, factor in ((0.05, 1.0), (0.2, 0.5), (0.4, 0.0)):
        x = wave(frequency)
        assert torch.allclose(method.filtered(x, 0.2)[inner], factor * x[inner], atol=0.03)


def test_wiener_without_defocus_is_a_low_pass_filter():
    method = Wiener(snr=100.0)
    c, w = method.transfer(torch.tensor([0.0, 0.1, 0.5]), 46.05)
    np.testing.assert_allclose(w, [100 / 101, 0.5, 1 / (1 + np.exp(23.025) / 100)], rtol=1e-3, atol=1e-8)
    assert torch.equal(c, torch.ones(3))


def test_wiener_undoes_the_ctf():
    clean = torch.from_numpy(np.pad(phantom(), 16))
    options = {"defocus": 20_000.0, "pixel": 12.0, "snr": 1e5, "highpass": 0.0, "amplitude_contrast": 0.3}
    for flipped in (True, False):
        c = ctf_radial(radius(clean.shape) / 12.0, 20_000.0, amplitude_contrast=0.3)
        c = c.abs() if flipped else c
        recorded = torch.fft.irfftn(torch.fft.rfftn(clean) * c, s=clean.shape)
        method = Wiener(phase_flipped=flipped, **options)
        inner = (slice(8, -8),) * 3

        def agreement(x, inner=inner):
            return np.corrcoef(x[inner].ravel(), clean[inner].ravel())[0, 1]

        assert agreement(method.filtered(recorded, 5.0)) > max(0.99, agreement(recorded) + 0.05)
        # What the strength is chosen by keeps the CTF, so that it can be set against the recorded volume.
        kept = method.denoised(recorded, 5.0)
        assert np.corrcoef(kept.ravel(), recorded.ravel())[0, 1] > 0.97


def test_wiener_with_defocus_needs_a_voxel_size():
    volume = noisy_pair(phantom((16, 16, 16)), 1.0).full
    with pytest.raises(InputError, match="wiener: a defocus needs a voxel size, which nameless"):
        Wiener(defocus=3e4).fit(Acquisition(full=volume, name="nameless"))
    denoiser = Wiener(defocus=3e4, falloff=30.0).fit(Acquisition(full=volume, voxel_size=8.0))
    assert denoiser.method.pixel == 8.0 and np.isfinite(denoiser(volume)).all()


def test_diffusion_without_edges_is_a_gaussian_filter():
    volume = torch.from_numpy(noisy_pair(phantom(), 1.0).full)
    found = AnisotropicDiffusion(contrast=1e3).filtered(volume, 2.0)
    inner = (slice(8, -8),) * 3  # at the edges one repeats, the other mirrors
    assert (found - gaussian_filter(volume, 2.0))[inner].abs().max() < 0.05


def test_diffusion_stops_at_an_edge():
    x = torch.zeros(16, 16, 16)
    x[..., 8:] = 10.0
    x += 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    found = AnisotropicDiffusion(contrast=1.0).filtered(x, 2.0)
    assert found[..., 8].mean() - found[..., 7].mean() > 9.5 and found[..., 9:].std() < 0.5 * x[..., 9:].std()
    assert torch.equal(AnisotropicDiffusion().filtered(torch.ones(4, 4, 4), 2.0), torch.ones(4, 4, 4))


def test_mean_squared_gradient_of_a_ramp():
    z, _, x = np.indices((9, 9, 9)).astype(np.float32)
    ramp = 3 * z + 2 * x
    # Repeated edges halve the slope in the two outermost of nine planes.
    assert mean_squared_gradient(ramp) == pytest.approx((9 + 4) * (7 + 2 / 4) / 9)


def test_total_variation_of_a_step_shrinks_it_by_what_theory_says():
    x = torch.zeros(8, 8, 40)
    x[..., 20:] = 1.0
    found = TotalVariation(iterations=2000).filtered(x, 2.0)  # each half moves by weight / its width
    assert found[..., :18].mean().item() == pytest.approx(2 / 20, abs=0.01)
    assert found[..., 22:].mean().item() == pytest.approx(1 - 2 / 20, abs=0.01)
