"""Noise2Inverse: pairs whose noise is independent, on the scale of the full tomogram, and nothing made of nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cryostudy.data import Acquisition, simulated
from cryostudy.errors import InputError
from cryostudy.methods.noise2inverse import Noise2Inverse, mean_of_folds, sub_tomograms
from cryostudy.methods.standardise import Standardised
from cryostudy.tomography import project, reconstruct

ANGLES = tuple(np.arange(-60.0, 61.0, 3.0).tolist())


def recorded(series, angles=ANGLES, filter="ramp", thickness=32):
    """An acquisition reconstructed from a tilt series."""
    full = reconstruct(series, angles, thickness, filter=None if filter == "none" else filter)
    return Acquisition(full=full, tilt_series=series, tilt_angles=tuple(angles), filter=filter, name="recorded")


def noise(seed=0, angles=ANGLES, sides=(40, 48), **options):
    series = np.random.default_rng(seed).standard_normal((len(angles), *sides), dtype=np.float32)
    return recorded(series, angles, **options)


def correlation(a, b):
    return np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]


@pytest.fixture(scope="module")
def specimen():
    return simulated((40, 40, 40), "ddw", 0.5, densities="built-in", seed=2)


@pytest.fixture(scope="module")
def fitted(specimen):
    return Noise2Inverse.at("smoke").fit(specimen, seed=1, progress=False)


# The pairs


@pytest.mark.parametrize("filter", ["ramp", "sirt-like", "none"])
@pytest.mark.parametrize("folds", [2, 4, 7])
@pytest.mark.parametrize("strategy", ["X:1", "1:X"])
def test_noise_of_input_and_target_is_uncorrelated(filter, folds, strategy):
    acquisition = noise(filter=filter)
    volumes = [acquisition.full, *sub_tomograms(acquisition, folds)]
    crops = tuple(torch.from_numpy(volume)[None, None] for volume in volumes)
    method = Noise2Inverse(folds=folds, strategy=strategy)
    given, target = method.pairs(crops, torch.Generator().manual_seed(0))
    # Noise of a filterless back-projection is smooth: far fewer independent values than voxels.
    assert abs(correlation(given, target)) < (0.05 if filter == "none" else 0.02)
    full = correlation(given, acquisition.full)
    assert full == pytest.approx(np.sqrt((folds - 1) / folds if strategy == "X:1" else 1 / folds), abs=0.1)


def test_pair_leaves_out_another_part_for_each_crop():
    rng = np.random.default_rng(0)
    crops = tuple(torch.from_numpy(rng.normal(size=(32, 1, 2, 2, 2))) for _ in range(5))
    given, target = Noise2Inverse().pairs(crops, torch.Generator().manual_seed(0))
    chosen = [[k for k in range(4) if torch.equal(target[b], crops[1 + k][b])] for b in range(32)]
    assert all(len(found) == 1 for found in chosen) and {found[0] for found in chosen} == {0, 1, 2, 3}
    for b, (k,) in enumerate(chosen):
        torch.testing.assert_close(given[b], sum(crops[1 + j][b] for j in range(4) if j != k) / 3)


@pytest.mark.parametrize("filter", ["ramp", "hamming", "none"])
@pytest.mark.parametrize("folds", [2, 3, 5])
def test_parts_average_to_the_full_tomogram(filter, folds):
    acquisition = noise(filter=filter)
    parts = sub_tomograms(acquisition, folds)
    assert len(parts) == folds and all(part.shape == acquisition.full.shape for part in parts)
    if filter != "none":  # equal steps: every tilt has K times its share in the one part that holds it
        np.testing.assert_allclose(np.mean(parts, 0), acquisition.full, atol=1e-5)
        assert np.mean([part.var() for part in parts]) == pytest.approx(folds * acquisition.full.var(), rel=0.05)
    constant = recorded(np.ones((len(ANGLES), 40, 48), np.float32), filter=filter)
    for part in sub_tomograms(constant, folds):  # all on one scale, though the tilts do not divide evenly
        assert part[16, 20, 24] == pytest.approx(constant.full[16, 20, 24], rel=0.01 if filter == "none" else 0.1)


def test_order_of_recording_does_not_matter():
    acquisition = noise()
    order = np.random.default_rng(1).permutation(len(ANGLES))
    shuffled = replace(
        acquisition, tilt_series=acquisition.tilt_series[order], tilt_angles=tuple(ANGLES[i] for i in order)
    )
    for a, b in zip(sub_tomograms(acquisition, 4), sub_tomograms(shuffled, 4), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_more_folds_make_streaks_of_the_specimen():
    z, y, x = np.mgrid[:32, :24, :64]
    ball = (np.hypot(np.hypot(z - 15.5, y - 12), x - 31.5) < 3).astype(np.float32)
    acquisition = recorded(project(ball, ANGLES))
    streaks = []
    for folds in (2, 4, 8):
        parts = sub_tomograms(acquisition, folds)
        streaks.append(float(np.mean([np.var(part - acquisition.full) for part in parts])))
    assert 0 < streaks[0] < streaks[1] < streaks[2]


# The method


def test_it_learns_what_it_should(specimen):
    method = Noise2Inverse.at("smoke", steps=60)
    denoiser = method.fit(specimen, progress=False)
    restored = denoiser(specimen.full, progress=False)
    raw = correlation(specimen.full, specimen.clean)
    assert correlation(restored, specimen.clean) > raw + 0.25
    averaged = mean_of_folds(denoiser, specimen)
    assert correlation(averaged, specimen.clean) == pytest.approx(correlation(restored, specimen.clean), abs=0.03)
    assert averaged.mean() == pytest.approx(float(restored.mean()), abs=0.1 * float(specimen.full.std()))
    steps, criterion = denoiser.history.column("validation")
    assert len(steps) == 20 and np.isfinite(criterion).all() and denoiser.history.column("cc_clean")[0] == steps


def test_pure_noise_in_less_variance_out():
    acquisition = noise(sides=(40, 40), thickness=40)
    restored = Noise2Inverse.at("smoke", steps=40).fit(acquisition, progress=False)(acquisition.full, progress=False)
    assert restored.var() < 0.1 * acquisition.full.var()


def test_mean_of_folds_is_the_mean_over_the_inputs_of_training(specimen, fitted):
    whole = Standardised.of(specimen.full)
    parts = np.stack(sub_tomograms(specimen, 4))
    inputs = [(parts.sum(0) - one) / 3 for one in parts]
    outputs = [fitted.method.apply(fitted.state, replace(whole, volume=i), None, "cpu", False) for i in inputs]
    expected = np.mean(outputs, 0) * whole.deviation + whole.mean
    np.testing.assert_allclose(mean_of_folds(fitted, specimen), expected, atol=1e-4 * whole.deviation)


def test_same_seed_same_bits(specimen, fitted):
    before = torch.get_rng_state()
    again = Noise2Inverse.at("smoke").fit(specimen, seed=1, progress=False)
    other = Noise2Inverse.at("smoke").fit(specimen, seed=2, progress=False)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, again.state[name]) for name, value in fitted.state.items())
    assert any(not torch.equal(value, other.state[name]) for name, value in fitted.state.items())


def test_halves_and_truth_change_nothing(specimen, fitted):
    blind = replace(specimen, halves=None, truth=None, clean=None, specimen=None)
    again = Noise2Inverse.at("smoke").fit(blind, seed=1, progress=False)
    assert all(torch.equal(value, again.state[name]) for name, value in fitted.state.items())


# What it refuses


def test_white_noise_has_no_tilt_series():
    white = simulated((24, 24, 24), "white", 0.5, densities="built-in")
    with pytest.raises(InputError, match="noise2inverse needs tilt series"):
        Noise2Inverse().fit(white)
    with pytest.raises(InputError, match="no tilt series"):
        sub_tomograms(white, 2)


def test_wrong_input_is_one_line(specimen, fitted):
    few = noise(angles=(-10.0, 0.0, 10.0))
    with pytest.raises(InputError, match="folds cannot be 4; this tilt series has 3 tilts"):
        Noise2Inverse().fit(few)
    with pytest.raises(InputError, match="folds cannot be 1; it goes from 2"):
        Noise2Inverse(folds=1)
    with pytest.raises(InputError, match="use X:1, 1:X"):
        Noise2Inverse(strategy="half")
    with pytest.raises(InputError, match="filter 'cosine' is unknown; use ramp"):
        sub_tomograms(replace(specimen, filter="cosine"), 2)
    with pytest.raises(InputError, match="do not make a tomogram"):
        sub_tomograms(replace(specimen, full=specimen.full[:, :20]), 2)
    from cryostudy.methods.gaussian import Gaussian

    with pytest.raises(InputError, match="not with gaussian"):
        mean_of_folds(Gaussian(sigma=1.0).fit(specimen), specimen)
