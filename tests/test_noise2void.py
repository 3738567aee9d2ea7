"""Hidden voxels stay hidden, masks are fair, the J-invariant output is blind to the bit, and the plain one is not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cryostudy.data import Acquisition
from cryostudy.errors import InputError
from cryostudy.masking import donut_mean, lattices, replace_by_neighbours, stratified_mask
from cryostudy.methods.learned import generator
from cryostudy.methods.noise2self import Noise2Self
from cryostudy.methods.noise2void import Noise2Void
from cryostudy.methods.standardise import Standardised
from cryostudy.metrics import correlation, leak
from cryostudy.models import unet

METHODS = [Noise2Void, Noise2Self]
SIDES = st.tuples(st.integers(1, 3), st.just(1), *[st.integers(4, 14)] * 3)
CORNERS = [(0, 0, 0), (15, 7, 0), (6, 7, 8), (15, 15, 15)]


def noise(*shape, seed=0, **options):
    return torch.randn(shape, generator=generator(seed), **options)


@pytest.fixture(scope="module")
def recording():
    clean = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(32, 36, 34)), 2.0)
    clean = (clean / clean.std()).astype(np.float32)
    noisy = clean + np.random.default_rng(1).normal(size=clean.shape).astype(np.float32)
    return Acquisition(full=noisy, clean=clean, name="phantom")


# Masks and replacements


@pytest.mark.parametrize("share", [0.00198, 0.01, 0.1])
def test_share_of_hidden_voxels_is_met_everywhere_alike(share):
    mask = stratified_mask((40, 1, 33, 30, 41), share, generator(1)).float()
    assert mask.mean() == pytest.approx(share, rel=0.1)
    for axis in (2, 3, 4):  # no plane is preferred, those at the border included
        ends = mask.movedim(axis, 0)[[0, 1, -2, -1]].mean()
        assert ends == pytest.approx(share, rel=0.35)


@given(st.integers(2, 4), st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_one_hidden_voxel_in_every_box(edge, seed):
    mask = stratified_mask((2, 1, 3 * edge, 2 * edge, 4 * edge), edge**-3 * (1 + 1e-6), generator(seed)).double()
    boxes = torch.nn.functional.avg_pool3d(mask, edge) * edge**3
    assert torch.allclose(boxes, torch.ones_like(boxes))


@given(SIDES, st.sampled_from([1e-5, 0.002, 0.1, 0.5]), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_every_volume_however_small_has_something_hidden(shape, share, seed):
    assert stratified_mask(shape, share, generator(seed)).flatten(1).any(1).all()


@given(SIDES, st.sampled_from([0.01, 0.5]), st.integers(1, 3), st.booleans(), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_nothing_of_a_hidden_value_is_left_and_the_rest_is_untouched(shape, share, radius, median, seed):
    volume, mask = noise(*shape, seed=seed), stratified_mask(shape, share, generator(seed))
    hidden = replace_by_neighbours(volume, mask, generator(seed, 1), radius=radius, median=median)
    other = torch.where(mask, torch.full_like(volume, 1e6), volume)
    assert torch.equal(hidden, replace_by_neighbours(other, mask, generator(seed, 1), radius=radius, median=median))
    assert torch.equal(hidden[~mask], volume[~mask])
    for b, _, *where in mask.nonzero().tolist():
        window = volume[b, 0][tuple(slice(max(c - radius, 0), c + radius + 1) for c in where)]
        seen = window[~mask[b, 0][tuple(slice(max(c - radius, 0), c + radius + 1) for c in where)]]
        value = hidden[(b, 0, *where)]
        assert value == (seen.median() if median else seen[(seen - value).abs().argmin()]) if len(seen) else value == 0


def test_every_neighbour_is_chosen_equally_often():
    volume = torch.arange(125.0).reshape(1, 1, 5, 5, 5).expand(20_000, -1, -1, -1, -1)
    mask = torch.zeros(volume.shape, dtype=torch.bool)
    mask[..., 2, 2, 2] = True
    counts = torch.bincount(replace_by_neighbours(volume, mask, generator(0))[mask].long(), minlength=125)
    assert counts[62] == 0
    others = torch.cat([counts[:62], counts[63:]]).double()
    expected = 20_000 / 124
    assert ((others - expected) ** 2 / expected).sum() < 123 + 5 * (2 * 123) ** 0.5  # chi square, 5 sigma


@given(SIDES, st.integers(2, 4))
@settings(max_examples=20, deadline=None)
def test_lattices_hold_every_voxel_once(shape, spacing):
    count = torch.zeros(shape)
    for lattice in lattices(spacing):
        count[lattice] += 1
    assert (count == 1).all()


def test_donut_mean_keeps_planes_and_ignores_its_centre():
    z, y, x = torch.meshgrid(*[torch.arange(8, dtype=torch.float64)] * 3, indexing="ij")
    plane = (2 * z - y + 3 * x + 5)[None, None]
    inside = (..., *[slice(1, -1)] * 3)
    assert torch.allclose(donut_mean(plane)[inside], plane[inside])
    assert torch.allclose(donut_mean(torch.ones(2, 1, 3, 4, 5)), torch.ones(()))  # borders are no darker
    assert leak(donut_mean, noise(1, 1, 8, 8, 8), [(0, 0, 0), (7, 3, 0), (4, 4, 4)]) == 0.0


def test_the_loss_is_at_hidden_voxels_alone():
    method = Noise2Void(channels=2, levels=1)
    network, hidden, noisy = method.network(), noise(2, 1, 8, 8, 8), noise(2, 1, 8, 8, 8, seed=1)
    for share in (0.002, 0.3):  # so few that the network computes no others, and many
        mask = stratified_mask((2, 1, 8, 8, 8), share, generator(0))
        expected = ((network(hidden) - noisy)[mask] ** 2).mean()
        for target in (noisy, torch.where(mask, noisy, torch.nan)):
            assert method.loss(network, (hidden, target, mask))["total"].item() == pytest.approx(expected.item())


# Blindness


@pytest.mark.parametrize(
    "method",
    [Noise2Void(share=0.05), Noise2Void(share=0.05, replacement="median"), Noise2Self(spacing=2), Noise2Self()],
    ids=["uniform", "median", "spacing 2", "spacing 3"],
)
def test_no_hidden_value_reaches_the_network(method):
    noisy = noise(2, 1, 16, 14, 17)
    hidden, target, mask = method.hide((noisy,), generator(5))
    assert torch.equal(target, noisy) and mask.any() and not torch.equal(hidden[mask], noisy[mask])
    other, _, again = method.hide((noisy + 9.0 * mask,), generator(5))
    assert torch.equal(mask, again) and torch.equal(hidden, other)


@pytest.mark.parametrize("spacing", [2, 3, 4])
def test_blind_output_has_a_jacobian_diagonal_of_zero(spacing):
    method = Noise2Self.at("smoke", channels=2, spacing=spacing)
    torch.manual_seed(0)
    network, x = method.network().double(), noise(1, 1, 16, 16, 16, dtype=torch.float64)
    assert leak(lambda v: method.restore(network, v), x, CORNERS) == 0.0
    assert leak(lambda v: replace(method, output="plain").restore(network, v), x, CORNERS) > 1e-3


@pytest.mark.parametrize("where", [(18, 20, 22), (0, 0, 33)])
def test_restored_voxel_does_not_depend_on_its_noisy_value(recording, where):
    method = Noise2Self.at("smoke", steps=2)
    denoiser, volume = method.fit(recording), Standardised.of(recording.full)
    changed = recording.full.copy()
    changed[where] += 5.0
    other = replace(volume, volume=changed)  # mean and deviation held fixed: those of the whole volume would tell
    before, after = (method.apply(denoiser.state, v, None, "cpu", False) for v in (volume, other))
    assert after[where] == before[where]
    assert not np.array_equal(before, after)  # its neighbours do see it


def test_trained_noise2void_is_not_blind(recording):
    method = Noise2Void.at("smoke")
    network = method.network().double()
    network.load_state_dict(method.fit(recording).state)
    assert leak(network, noise(1, 1, 16, 16, 16, dtype=torch.float64), CORNERS) > 1e-3


# Restoring


@pytest.mark.parametrize("method", METHODS)
def test_short_training_beats_the_raw_volume(method, recording):
    denoiser = method.at("smoke", steps=60).fit(recording)
    found = correlation(denoiser(recording.full), recording.clean)
    assert correlation(recording.full, recording.clean) < 0.75 and found > 0.85


@pytest.mark.parametrize("method", METHODS)
def test_pure_noise_becomes_flatter_and_gains_no_structure(method, recording):
    volume = np.random.default_rng(3).normal(size=recording.full.shape).astype(np.float32)
    restored = method.at("smoke", steps=40).fit(Acquisition(full=volume))(volume)
    assert restored.var() < 0.2 * volume.var()
    shifts = np.random.default_rng(4).integers(0, 32, (20, 3))  # of the truth: what smooth volumes have by chance
    by_chance = [correlation(restored, np.roll(recording.clean, s, (0, 1, 2))) for s in shifts]
    assert abs(correlation(restored, recording.clean)) < 4 * np.std(by_chance)


def test_few_hidden_voxels_train_the_same_network_as_the_whole_would(recording, monkeypatch):
    method = Noise2Void.at("smoke", steps=6, share=0.002)
    one, again = (method.fit(recording, device="cpu").state for _ in range(2))
    monkeypatch.setattr(unet, "FEW", 0.0)
    whole = method.fit(recording, device="cpu").state
    start = method.untrained(0).state_dict()
    for name, weight in whole.items():
        assert torch.equal(one[name], again[name])
        assert (one[name] - weight).norm() < 1e-2 * (weight - start[name]).norm() + 1e-6
    assert any(not torch.equal(one[name], whole[name]) for name in whole)  # another way it was


@pytest.mark.parametrize("method", METHODS)
def test_same_seed_same_bits(method, recording):
    method = method.at("smoke", steps=3)
    state = torch.get_rng_state()
    denoisers = [method.fit(recording, seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), state)  # nobody else's random numbers are touched
    one, two, other = (denoiser(recording.full) for denoiser in denoisers)
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("spacing", [2, 3])
def test_sub_lattices_go_on_from_tile_to_tile(spacing, monkeypatch):
    monkeypatch.setattr(Noise2Self, "tile", 84)
    volume = np.random.default_rng(0).normal(size=(8, 10, 101)).astype(np.float32)
    method = Noise2Self.at("smoke", channels=2, spacing=spacing)
    torch.manual_seed(1)
    network = method.network()
    standardised = Standardised.of(volume)
    tiles = method.apply(network.state_dict(), standardised, None, "cpu", False)
    with torch.inference_mode():
        whole = method.restore(network, torch.from_numpy(standardised[:, :, :])[None, None])[0, 0]
    np.testing.assert_allclose(tiles, whole, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "wrong", "says"),
    [
        (Noise2Void, {"share": 0.0}, "share cannot be 0.0; it goes from 1e-05 to 0.5"),
        (Noise2Void, {"replacement": "mean"}, "use uniform, median"),
        (Noise2Void, {"radius": 0}, "radius cannot be 0"),
        (Noise2Self, {"spacing": 1}, "spacing cannot be 1; it goes from 2 to 8"),
        (Noise2Self, {"output": "both"}, "use blind, plain"),
    ],
)
def test_wrong_hyper_parameters_are_one_line(method, wrong, says):
    with pytest.raises(InputError, match=says):
        method.at("smoke", **wrong)
