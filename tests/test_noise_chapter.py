"""Autocovariances and the best linear filters against known answers: white, smoothed and reconstructed noise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cryostudy.errors import InputError
from cryostudy.metrics import autocorrelation as ac
from cryostudy.tomography import reconstruct

ANGLES = [2.0 * k for k in range(-30, 31)]
REACH = 8


def noise(shape=(40, 44, 48), seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def delta(reach=REACH):
    found = np.zeros((2 * reach + 1,) * 3)
    found[reach, reach, reach] = 1
    return found


def box(reach=REACH):
    """Autocovariance of white noise averaged over three voxels along x: the triangle (1, 2, 3, 2, 1) / 9."""
    found = np.zeros((2 * reach + 1,) * 3)
    found[reach, reach, reach - 2 : reach + 3] = np.array([1, 2, 3, 2, 1]) / 9
    return found


@pytest.fixture(scope="module")
def ramp():
    return ac.reconstruction_autocovariance(ANGLES, "ramp", REACH, thickness=64)


@pytest.fixture(scope="module")
def ramp_noise():
    return reconstruct(noise((61, 64, 128)), ANGLES, 64, filter="ramp", width=64)


# Autocovariance


def test_autocovariance_is_the_mean_product_of_all_pairs():
    volume = noise((7, 6, 9))
    found = ac.autocovariance(volume, 4)
    v = volume - volume.mean(dtype=float)
    for z, y, x in [(0, 0, 0), (1, 0, 0), (0, 2, 3), (4, 1, 4), (2, 4, 0)]:
        expected = np.mean(v[z:, y:, x:] * v[: 7 - z, : 6 - y, : 9 - x])
        assert found[4 + z, 4 + y, 4 + x] == pytest.approx(expected, abs=1e-6)
        assert found[4 - z, 4 - y, 4 - x] == pytest.approx(expected, abs=1e-6)


def test_autocovariance_of_smoothed_noise_is_that_of_its_kernel():
    smooth = ndimage.uniform_filter1d(noise((60, 60, 60)), 3, axis=2)
    np.testing.assert_allclose(ac.autocovariance(smooth, REACH), box(), atol=0.012)
    np.testing.assert_allclose(ac.autocovariance(noise((60, 60, 60)), REACH), delta(), atol=0.012)


@pytest.mark.parametrize("filter", ["ramp", "hamming", "sirt-like"])
def test_exact_autocovariance_is_that_of_samples(filter):
    exact = ac.reconstruction_autocovariance(ANGLES, filter, REACH, thickness=64)
    sample = reconstruct(noise((61, 64, 128)), ANGLES, 64, filter=filter, width=64)
    measured = ac.autocovariance(sample, REACH)
    np.testing.assert_allclose(measured, exact, atol=0.03 * exact.max())
    assert exact[REACH, REACH, REACH] == exact.max() == pytest.approx(sample.var(), rel=0.05)
    np.testing.assert_allclose(exact, exact[::-1, ::-1, ::-1], atol=1e-12)
    np.testing.assert_allclose(exact, exact[:, :, ::-1], atol=0.02 * exact.max())  # the tilts are symmetric
    assert not exact[:, np.arange(2 * REACH + 1) != REACH].any()  # slices across the tilt axis do not meet


# What a blind spot sees


def test_shapes_hide_what_they_say():
    hidden = {name: set(map(tuple, np.argwhere(~ac.visible(name, 7)) - 3)) for name in ac.SHAPES}
    assert hidden["voxel"] == {(0, 0, 0)} and len(hidden["cube"]) == 27 and len(hidden["line_x"]) == 7
    assert all(y == 0 for _, y, _ in hidden["plane"]) and len(hidden["plane"]) == 49
    assert all(z % 3 == y % 3 == x % 3 == 0 for z, y, x in hidden["sublattice"]) and len(hidden["sublattice"]) == 27
    assert len(hidden["kernel"]) == 7**3 - (5**3 - 3**3) and ac.visible("none", 7).all()
    assert all((0, 0, 0) in voxels for voxels in hidden.values())


def test_the_volume_shuffle_network_sees_all_but_its_sublattice():
    """The shape claimed for it, against the derivative of an untrained one."""
    torch = pytest.importorskip("torch")
    from cryostudy.models import VolumeShuffleBSN

    torch.manual_seed(0)
    network = VolumeShuffleBSN(4, 1, "none").double()
    x = torch.randn(1, 1, 27, 27, 27, dtype=torch.float64, requires_grad=True)
    (row,) = torch.autograd.grad(network(x)[0, 0, 13, 13, 13], x)
    seen = (row[0, 0, 11:16, 11:16, 11:16] != 0).numpy()
    np.testing.assert_array_equal(seen, ac.visible("sublattice", 5))


# What can be predicted


@pytest.mark.parametrize("shape", list(ac.SHAPES))
def test_nothing_of_white_noise(shape):
    seen = ac.visible(shape, 5)
    assert ac.predictable_share(delta(), seen) == pytest.approx(0, abs=1e-12)
    assert abs(ac.regressed_share(noise(), seen, samples=10_000)) < 0.04


def test_share_of_an_autoregressive_noise_is_known():
    """n_x = a n_(x-1) + e: from the voxels k away on both sides the error is (1 - a^2k) / (1 + a^2k)."""
    a = 0.6
    lags = np.abs(np.arange(-REACH, REACH + 1))
    covariance = np.zeros((2 * REACH + 1,) * 3)
    covariance[REACH, REACH] = a**lags
    assert ac.predictable_share(covariance, ac.visible("voxel", 7)) == pytest.approx(1 - (1 - a**2) / (1 + a**2))
    two_away = 1 - (1 - a**4) / (1 + a**4)
    assert ac.predictable_share(covariance, ac.visible("cube", 7)) == pytest.approx(two_away)
    assert ac.predictable_share(covariance, ac.visible("line_x", 7)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("shape", ["voxel", "cube", "sublattice", "line_z", "plane"])
def test_prediction_is_what_regression_finds(ramp, ramp_noise, shape):
    seen = ac.visible(shape, 5)
    assert ac.regressed_share(ramp_noise, seen) == pytest.approx(ac.predictable_share(ramp, seen), abs=0.03)


def test_reconstructed_noise_is_predictable_unless_its_plane_is_hidden(ramp):
    share = {name: ac.predictable_share(ramp, ac.visible(name, 7)) for name in ac.SHAPES}
    assert share["voxel"] > 0.9 and share["sublattice"] > 0.9 and share["cube"] > 0.1
    assert share["plane"] == pytest.approx(0, abs=1e-9)
    assert share["voxel"] >= max(share.values())  # it sees all that the others see
    wider = [ac.predictable_share(ramp, ac.visible("cube", window)) for window in (5, 7, 9)]
    assert wider == sorted(wider)


# The best filter


def test_wiener_filter_of_white_signal_in_white_noise_is_a_factor():
    weights = ac.best_weights(5 * delta(), delta(), ac.visible("none", 3))
    expected = np.zeros((3, 3, 3))
    expected[1, 1, 1] = 0.2
    np.testing.assert_allclose(weights, expected, atol=1e-8)
    assert ac.filter_error(weights, delta(), 4 * delta()) == pytest.approx(0.8)


@given(st.floats(0.1, 10), st.sampled_from(["none", "voxel", "cube", "plane"]), st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_no_other_filter_does_better(level, shape, seed):
    signal, other = box(4), level * delta(4)
    seen = ac.visible(shape, 5)
    weights = ac.best_weights(signal + other, signal, seen)
    least = ac.filter_error(weights, signal, other)
    assert 0 < least <= 1 / 3 + 1e-9  # that of an empty volume
    changed = weights + 0.05 * np.random.default_rng(seed).normal(size=seen.shape) * seen
    assert ac.filter_error(changed, signal, other) >= least


def test_error_of_a_filter_is_what_filtering_gives():
    signal = ndimage.uniform_filter1d(noise((60, 60, 60), 1), 3, axis=2)
    weights = ac.best_weights(box() + delta(), box(), ac.visible("none", 5))
    found = ndimage.correlate(signal + noise((60, 60, 60), 2), weights.astype(np.float32))
    error = np.mean((found - signal)[4:-4, 4:-4, 4:-4] ** 2)
    assert error == pytest.approx(ac.filter_error(weights, box(), delta()), rel=0.05)


def test_wrong_input_is_one_line(ramp):
    with pytest.raises(InputError, match="reach 8 needs sides longer"):
        ac.autocovariance(noise((8, 20, 20)), 8)
    with pytest.raises(InputError, match="use one of none, voxel, cube"):
        ac.visible("sphere", 5)
    with pytest.raises(InputError, match="odd window"):
        ac.visible("cube", 4)
    with pytest.raises(InputError, match="too short for this window"):
        ac.predictable_share(ramp, ac.visible("voxel", 11))
    with pytest.raises(InputError, match="too far for a thickness"):
        ac.reconstruction_autocovariance(ANGLES, "ramp", 30, thickness=64)
    with pytest.raises(InputError, match="too small for a window"):
        ac.regressed_share(noise((4, 20, 20)), ac.visible("voxel", 5))
