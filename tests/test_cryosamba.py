"""CryoSamba is blind to the slice it restores, finds motion where there is some, and is honest along y alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cryostudy.data import Acquisition
from cryostudy.errors import InputError
from cryostudy.methods import Denoiser, get
from cryostudy.methods import cryosamba as module
from cryostudy.methods.cryosamba import CryoSamba, neighbours
from cryostudy.methods.standardise import Standardised
from cryostudy.models.cryosamba import Interpolator, warp
from cryostudy.noise import fbp_noise

TILTS = tuple(range(-60, 61, 3))
TINY = CryoSamba.at("smoke", steps=3, batch=2)


def phantom(shape, smooth=2.5, seed=0):
    volume = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), smooth)
    return (volume / volume.std()).astype(np.float32)


def noisy(shape=(20, 22, 24), deviation=1.0, seed=1):
    clean = phantom(shape)
    full = clean + np.random.default_rng(seed).normal(0, deviation, shape).astype(np.float32)
    return Acquisition(full=full, clean=clean, name="phantom")


def correlation(a, b):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]


def random_state(method, seed=0):
    """Weights of an untrained network, the last layers' not zero."""
    torch.manual_seed(seed)
    return {name: 0.2 * torch.randn_like(value) for name, value in method.network().state_dict().items()}


# Warping and fusing


def test_warp_looks_up_where_the_flow_leads():
    image = torch.rand(1, 2, 7, 9)
    flow = torch.zeros(1, 2, 7, 9)
    torch.testing.assert_close(warp(image, flow), image)
    flow[:, 0] = 2  # along x
    torch.testing.assert_close(warp(image, flow)[..., :-2], image[..., 2:])
    torch.testing.assert_close(warp(image, flow)[..., -1], image[..., -1])  # the border is repeated
    flow[:, 0], flow[:, 1] = 0, -0.5
    torch.testing.assert_close(warp(image, flow)[..., 1:, :], (image[..., 1:, :] + image[..., :-1, :]) / 2)


def test_warp_keeps_its_places_in_half_precision():
    image = torch.rand(1, 1, 3, 900)
    flow = torch.zeros(1, 2, 3, 900, dtype=torch.bfloat16)
    torch.testing.assert_close(warp(image, flow), image, atol=1e-3, rtol=0)


@pytest.mark.parametrize("sides", [(1, 1), (5, 17), (16, 9)])
def test_untrained_network_gives_the_mean_of_both_slices(sides):
    pair = torch.rand(3, 2, *sides)
    torch.testing.assert_close(Interpolator(4, 2)(pair), pair.mean(1, keepdim=True))


# Which slices are seen


@given(st.integers(3, 40), st.integers(1, 30))
@settings(max_examples=200, deadline=None)
def test_a_slice_is_never_its_own_neighbour(count, max_gap):
    gaps = CryoSamba(max_gap=max_gap).gaps(count)
    assert 1 <= len(gaps) <= max_gap and 2 * gaps[-1] < count
    for n in range(count):
        for gap in gaps:
            pair = neighbours(n, gap, count)
            assert n not in pair and all(0 <= k < count and abs(k - n) == gap for k in pair)
            assert (pair[0] != pair[1]) == (gap <= n < count - gap)


@pytest.mark.parametrize(("axes", "axis"), [("z", 0), ("y", 1), ("x", 2)])
@pytest.mark.parametrize("n", [0, 1, 9, 19])
def test_restored_slice_does_not_change_when_the_slice_does(axes, axis, n):
    method = replace(TINY, axes=axes, max_gap=4)
    state, volume = random_state(method), Standardised.of(noisy((20, 20, 20)).full)
    changed = volume.volume.copy()
    np.moveaxis(changed, axis, 0)[n] = np.random.default_rng(3).normal(0, 100, (20, 20))
    other = replace(volume, volume=changed)  # mean and deviation held fixed: those of the whole volume would tell
    before, after = (np.moveaxis(method.apply(state, v, None, "cpu", False), axis, 0) for v in (volume, other))
    np.testing.assert_array_equal(after[n], before[n])
    seen = {k for k in range(20) if not np.array_equal(after[k], before[k])}
    assert seen == {k for k in range(20) for gap in range(1, 5) if n in neighbours(k, gap, 20)}


def test_volume_is_the_mean_over_gaps_and_axes(monkeypatch):
    acquisition = noisy((12, 13, 14))
    method = replace(TINY, axes="zx", max_gap=3)
    state, volume = random_state(method), Standardised.of(acquisition.full)
    network = method.network()
    network.load_state_dict(state)
    content = torch.from_numpy(volume[:, :, :])
    expected = np.zeros(volume.shape, np.float32)
    for axis in (0, 2):
        stack, target = content.movedim(axis, 0), np.moveaxis(expected, axis, 0)
        for n in range(len(stack)):
            for gap in (1, 2, 3):
                with torch.no_grad():
                    target[n] += network(stack[list(neighbours(n, gap, len(stack)))][None])[0, 0].numpy() / 6
    np.testing.assert_allclose(method.apply(state, volume, None, "cpu", False), expected, atol=1e-5)
    monkeypatch.setattr(module, "SLAB", 5)
    monkeypatch.setattr(module, "PIXELS", 1)
    np.testing.assert_allclose(method.apply(state, volume, None, "cpu", False), expected, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_training_triples_are_one_place_of_three_slices(axis):
    """Voxels that carry their own index tell from where they were taken."""
    index = torch.arange(20 * 21 * 22).reshape(20, 21, 22).float()
    method = replace(TINY, axes="zyx", max_gap=3, patch=8)
    stack = index.movedim(axis, 0)
    apart = stack[1, 0, 0] - stack[0, 0, 0]
    pair, target, negative = method.triples([stack, -stack], 200, np.random.default_rng(0))
    assert pair.shape == (200, 2, 8, 8) and target.shape == (200, 1, 8, 8) and torch.equal(target, -negative)
    ways = (pair - target) / apart
    assert (ways == ways[:, :, :1, :1]).all()  # the same place and mirroring
    taken = {(int(first), int(second)) for first, second in ways[:, :, 0, 0]}
    both_sides = {(way, -way) for way in (-3, -2, -1, 1, 2, 3)}
    assert both_sides <= taken <= both_sides | {(way, way) for way, _ in both_sides}


# Thin volumes


def test_too_few_slices_are_one_line():
    thin = noisy((2, 30, 30))
    assert replace(TINY, axes="zx").usable((2, 30, 30)) == [2]  # the other axis is enough
    with pytest.raises(InputError, match="axes z cannot be used, for slices are 2 along z; it needs 3") as refusal:
        TINY.fit(thin)
    assert "\n" not in str(refusal.value)
    denoiser = TINY.fit(noisy((20, 30, 30)))
    with pytest.raises(InputError, match="2 along z"):
        denoiser(thin.full)


@pytest.mark.parametrize("shape", [(3, 20, 33), (7, 40, 5), (4, 36, 9)])
def test_thin_volumes_take_smaller_gaps(shape):
    volume = noisy(shape)
    method = replace(TINY, axes="zyx", max_gap=6, patch=30)
    assert method.gaps(3) == range(1, 2) and method.gaps(7) == range(1, 4) and method.gaps(13) == range(1, 7)
    restored = method.fit(volume)(volume.full)
    assert restored.shape == shape and np.isfinite(restored).all() and restored.std() > 0


def test_wrong_axes_and_gaps_are_one_line():
    for wrong, says in (({"axes": "w"}, "axes 'w' is unknown; use z, y, x"), ({"max_gap": 0}, "goes from 1")):
        with pytest.raises(InputError, match=says):
            get("cryosamba").at("smoke", **wrong)


# Fitting


def test_same_seed_same_bits_and_nobody_elses_random_numbers(tmp_path):
    acquisition = noisy((20, 40, 24))
    rng, method = torch.get_rng_state(), replace(TINY, axes="zyx")
    one, two, other = (method.fit(acquisition, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), rng)
    restored = one(acquisition.full)
    np.testing.assert_array_equal(restored, two(acquisition.full))
    assert not np.array_equal(restored, other(acquisition.full))
    one.save(tmp_path / "denoiser.pt")
    out = np.memmap(tmp_path / "out", np.float32, "w+", shape=restored.shape)
    mapped = np.memmap(tmp_path / "in", np.float32, "w+", shape=restored.shape)
    mapped[:] = acquisition.full
    assert Denoiser.load(tmp_path / "denoiser.pt")(mapped, out=out) is out
    np.testing.assert_array_equal(out, restored)
    assert one.history.column("cc_clean")[1] and one.history.column("validation")[1]


def test_zero_border_stays_zero():
    content = noisy((20, 22, 24)).full + 50
    volume = np.pad(content, ((3, 2), (0, 4), (5, 0)))
    restored = TINY.fit(Acquisition(full=volume))(volume)
    assert (restored[volume == 0] == 0).all() and restored[volume != 0].mean() == pytest.approx(50, rel=0.02)


def test_short_training_beats_the_noisy_volume_and_the_mean_of_neighbours():
    acquisition = noisy((40, 40, 40), 2.0)
    full, clean = acquisition.full, acquisition.clean
    method = CryoSamba.at("smoke", channels=8, steps=40, patch=32, max_gap=1)
    restored = method.fit(acquisition)(full)
    mean = correlation((full[:-2] + full[2:]) / 2, clean[1:-1])
    assert correlation(full, clean) < mean < correlation(restored, clean) - 0.1


def test_motion_between_slices_is_found():
    """A pattern that moves 2 pixels a slice: the mean of both neighbours blurs it, motion does not."""
    rng = np.random.default_rng(0)
    pattern = ndimage.gaussian_filter(rng.normal(size=(48, 48)), 1.5, mode="wrap")
    clean = np.stack([np.roll(pattern / pattern.std(), 2 * n, 1) for n in range(40)]).astype(np.float32)
    full = clean + rng.normal(0, 0.1, clean.shape).astype(np.float32)
    method = CryoSamba.at("smoke", max_gap=1, steps=300, channels=8, patch=32)
    denoiser = method.fit(Acquisition(full=full))
    assert correlation((full[:-2] + full[2:]) / 2, clean[1:-1]) < 0.9
    assert correlation(denoiser(full)[1:-1], clean[1:-1]) > 0.97
    network = method.network()
    network.load_state_dict(denoiser.state)
    with torch.no_grad():
        flow = network.flow(torch.from_numpy(full[[19, 21]])[None])[0].flatten(1).median(1).values
    # Slice 19 is the middle moved by -2 along x, slice 21 by +2.
    torch.testing.assert_close(flow, torch.tensor([-2.0, 0, 2, 0]), atol=0.5, rtol=0)


def test_projection_noise_is_predicted_across_z_and_not_across_y():
    """On noise alone a blind method finds nothing; where the noise of slices hangs together it finds noise."""
    pure = fbp_noise((40, 40, 40), TILTS, "ramp", seed=5)
    fresh = fbp_noise((40, 40, 40), TILTS, "ramp", seed=6)
    kept = {}
    for axes in ("z", "y"):
        method = CryoSamba.at("smoke", axes=axes, channels=8, steps=80, max_gap=1)
        kept[axes] = correlation(method.fit(Acquisition(full=pure))(fresh), fresh)
    assert kept["z"] > 0.25 and abs(kept["y"]) < 0.05
