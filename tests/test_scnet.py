"""SC-Net: blind spots hold nothing of what they hide, folded convolutions are the whole ones, guides are sound."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch.nn import functional as F

from cryostudy.data import Acquisition, simulated
from cryostudy.errors import InputError
from cryostudy.losses.expectancy import expectancy_loss
from cryostudy.losses.sparsity import sparsity_loss, sparsity_map
from cryostudy.methods import Denoiser, get
from cryostudy.methods.scnet import ScNet, replace_blocks, smooth_image, smooth_images
from cryostudy.models.scnet import FoldedConv, SCNet, double


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def white(shape=(40, 42, 44), deviation=1.0, seed=0):
    """A smooth density of variance 1 with white noise; returns the recording and the density."""
    rng = np.random.default_rng(seed)
    clean = ndimage.gaussian_filter(rng.normal(size=shape), 2.0)
    clean = (clean / clean.std()).astype(np.float32)
    return Acquisition(full=(clean + rng.normal(0, deviation, shape)).astype(np.float32), name="phantom"), clean


def correlation(a, b):
    return np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]


# Blind spots

sides = st.tuples(*[st.integers(8, 30)] * 3)


@given(sides, st.integers(1, 4), st.sampled_from([0.02, 0.1, 0.3]), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_what_the_network_sees_says_nothing_about_blind_voxels(shape, side, ratio, seed):
    noisy = torch.randn(shape, generator=generator(1))
    replaced, mask = replace_blocks(noisy, side, ratio, generator(seed))
    other = torch.where(mask, 100 * torch.randn(shape, generator=generator(2)), noisy)
    again, same = replace_blocks(other, side, ratio, generator(seed))
    assert torch.equal(mask, same) and mask.any()
    assert torch.equal(replaced, again)  # whatever was there, the network is shown the same
    assert torch.equal(replaced[~mask], noisy[~mask]) and (replaced[mask] != noisy[mask]).all()
    assert torch.isin(replaced[mask], noisy[~mask]).all()  # every value comes from a voxel that stays in sight


def test_blind_spots_are_whole_blocks_from_next_door_and_a_tenth_of_the_volume():
    shape = (30, 33, 36)
    place = torch.arange(30 * 33 * 36).view(shape)
    replaced, mask = replace_blocks(place, 3, 0.1, generator(3))
    assert mask.float().mean() == pytest.approx(0.1, abs=0.001)
    blocks, count = ndimage.label(mask)
    assert all(size % 27 == 0 for size in np.bincount(blocks.ravel())[1:]) and count > 1
    here = torch.stack(torch.unravel_index(place[mask], shape))
    there = torch.stack(torch.unravel_index(replaced[mask], shape))
    shift = (there - here).abs()
    assert set(shift.unique().tolist()) == {0, 3} and (shift.amax(0) == 3).all()


def test_blind_spots_fall_everywhere():
    seen = sum(replace_blocks(torch.rand(20, 20, 20), 3, 0.1, generator(s))[1].int() for s in range(200))
    assert (seen[2:-2, 2:-2, 2:-2] > 0).all() and (seen[0] > 0).any() and (seen[:, :, -1] > 0).any()
    assert seen[2:-2, 2:-2, 2:-2].float().mean() == pytest.approx(20, rel=0.1)


def test_a_fitted_network_sees_the_voxel_it_restores():
    """Blindness is of training alone: at rest the paper's network is shown the volume as it is."""
    torch.manual_seed(0)
    network = SCNet(4).double().eval()
    x = torch.randn(1, 1, 16, 16, 16, dtype=torch.float64, generator=generator()).requires_grad_()
    network(x)[0, 0, 8, 8, 8].backward()
    assert x.grad[0, 0, 8, 8, 8] != 0


# The network


def test_folded_convolution_is_one_of_stride_two_on_the_doubled_volume():
    torch.manual_seed(0)
    layer, x = FoldedConv(3, 4).double(), torch.randn(2, 3, 5, 6, 7, dtype=torch.float64)
    torch.testing.assert_close(layer(x), F.conv3d(double(x), layer.weight, stride=2, padding=1))


def test_network_is_the_paper_s_on_the_fine_grid():
    torch.manual_seed(0)
    network, x = SCNet(3).double().eval(), torch.randn(1, 1, 8, 12, 16, dtype=torch.float64)

    def fine(stage, x, stride):  # the same layers with an unfolded first convolution
        x = F.conv3d(x, stage[0].weight, stride=stride, padding=1)
        return stage[2](stage[1](x))

    kept = [double(x)]
    kept.append(network.down[0][1](fine(network.down[0][0], kept[0], 2)))
    kept.append(network.down[1](kept[1]))
    y = network.down[2](kept[2])
    y = network.up[2](torch.cat([kept[2], double(y)], 1))
    y = network.up[1](torch.cat([kept[1], double(y)], 1))
    y = network.last(fine(network.up[0], torch.cat([kept[0], double(y)], 1), 1))
    torch.testing.assert_close(network(x), y[..., ::2, ::2, ::2])  # nearest down-sampling


@pytest.mark.parametrize("upsampling", [True, False])
@pytest.mark.parametrize("shape", [(8, 8, 8), (9, 14, 21)])
def test_network_keeps_every_shape(upsampling, shape):
    assert SCNet(2, upsampling).eval()(torch.zeros(1, 1, *shape)).shape == (1, 1, *shape)


def test_upsampling_block_costs_no_weights():
    sizes = {sum(p.numel() for p in SCNet(8, on).parameters()) for on in (True, False)}
    assert len(sizes) == 1


# The losses


def ramp(axis):
    shape = [1] * 5
    shape[axis] = -1
    return torch.arange(9.0).view(shape).expand(1, 1, 9, 9, 9).contiguous()


def test_sparsity_map_is_eight_times_the_slope_in_the_plane():
    assert torch.equal(sparsity_map(ramp(4)), torch.full((1, 1, 9, 7, 7), 8.0))
    assert torch.equal(sparsity_map(-0.5 * ramp(3)), torch.full((1, 1, 9, 7, 7), 4.0))
    assert torch.equal(sparsity_map(ramp(4) - ramp(3)), torch.full((1, 1, 9, 7, 7), 16.0))
    assert sparsity_map(ramp(2)).abs().max() == 0  # no z in Equation 4


def test_sparsity_loss_is_zero_for_the_guide_itself_whatever_its_offset_and_sign():
    x = torch.randn(2, 1, 6, 7, 8, generator=generator())
    assert sparsity_loss(x, sparsity_map(x)) == 0
    assert sparsity_loss(3.0 - x, sparsity_map(x)) < 1e-10
    assert sparsity_loss(ramp(4), torch.zeros(1, 1, 9, 7, 7)) == 64


def test_expectancy_loss_compares_means_alone():
    guide = torch.randn(2, 1, 9, 9, 9, generator=generator())
    offset = torch.tensor([1.0, 3.0]).view(2, 1, 1, 1, 1)
    assert expectancy_loss(guide + offset, guide).item() == pytest.approx((1 + 9) / 2, rel=1e-5)
    zero_mean = torch.zeros_like(guide)
    zero_mean[:, :, 3, 4, 4], zero_mean[:, :, 5, 4, 4] = 7.0, -7.0
    assert expectancy_loss(guide + zero_mean, guide) < 1e-10
    assert expectancy_loss(torch.ones(1, 1, 2, 2, 2), torch.zeros(1, 1, 2, 2, 2)) == 1  # thinner than the box


# The guide


@pytest.mark.parametrize("deviation", [0.5, 2.0])
def test_images_get_the_width_that_suits_the_truth(deviation):
    rng = np.random.default_rng(0)
    clean = np.stack([ndimage.gaussian_filter(rng.normal(size=(64, 64)), 3.0) for _ in range(4)]) * 3 * 3.5
    noisy = torch.from_numpy((clean + rng.normal(0, deviation, clean.shape)).astype(np.float32))
    errors = [
        np.square(torch.stack([smooth_image(image, width)[0] for image in noisy]).numpy() - clean).mean()
        for width in np.geomspace(0.4, 4.0, 13)
    ]
    assert np.square(smooth_images(noisy).numpy() - clean).mean() < 1.1 * min(errors)


def test_weight_of_a_pixel_in_its_own_mean():
    image = torch.zeros(31, 31)
    image[15, 15] = 1.0
    filtered, centre = smooth_image(image, 1.7)
    assert filtered[15, 15].item() == pytest.approx(centre, rel=1e-5) and filtered.sum() == pytest.approx(1, rel=1e-5)


@pytest.fixture(scope="module")
def tilts():
    return simulated((32, 48, 48), "ddw", 0.25, densities="built-in", seed=1)


def test_guide_from_projections_beats_the_raw_volume_and_keeps_the_grey_scale(tilts):
    guide = ScNet(smoothing="projections").guide(tilts)
    assert guide.shape == tilts.full.shape and guide.dtype == np.float32
    assert correlation(tilts.full, tilts.clean) < 0.4 and correlation(guide, tilts.clean) > 0.8
    assert np.array_equal(ScNet().guide(tilts), guide)  # auto
    slope = np.polyfit(guide.ravel(), tilts.clean.ravel(), 1)[0]
    assert 0.5 < slope < 1.5


def test_guide_without_projections_is_the_filter_on_one_volume(tilts):
    alone = Acquisition(full=tilts.full)
    expected = get("gaussian")().fit(alone)(tilts.full)
    both = Acquisition(full=tilts.full, halves=tilts.halves)
    for method, recording in ((ScNet(), both), (ScNet(smoothing="gaussian"), tilts)):
        np.testing.assert_array_equal(method.guide(recording), expected)  # halves are not looked at
    with pytest.raises(InputError, match="needs a tilt series, which alone does not have"):
        ScNet(smoothing="projections").fit(Acquisition(full=tilts.full, name="alone"))


# The method

SMALL = ScNet.at("smoke", steps=4)


@pytest.fixture(scope="module")
def noisy():
    return white((36, 40, 44))[0]


@pytest.fixture(scope="module")
def fitted(noisy):
    return SMALL.fit(noisy, seed=3)


def test_same_seed_same_weights_and_volume(noisy, fitted, tmp_path):
    state = torch.get_rng_state()
    again, other = SMALL.fit(noisy, seed=3), SMALL.fit(noisy, seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, again.state[name]) for name, value in fitted.state.items())
    restored = fitted(noisy.full)
    np.testing.assert_array_equal(restored, again(noisy.full))
    assert not np.array_equal(restored, other(noisy.full))
    fitted.save(tmp_path / "denoiser.pt")
    np.testing.assert_array_equal(Denoiser.load(tmp_path / "denoiser.pt")(noisy.full), restored)


def test_short_training_beats_the_raw_volume_and_lowers_its_variance():
    recording, clean = white((40, 40, 40), deviation=1.5)
    method = ScNet.at("smoke", channels=8, patch=24, steps=50)
    restored = method.fit(recording)(recording.full)
    assert correlation(recording.full, clean) < 0.6 and correlation(restored, clean) > 0.8
    assert restored.var() < recording.full.var()


def test_tiles_leave_no_seam(noisy, fitted, monkeypatch):
    volume = np.tile(noisy.full, (3, 1, 1))
    whole = fitted(volume)
    monkeypatch.setattr(ScNet, "tile", 72)
    np.testing.assert_allclose(fitted(volume), whole, atol=1e-4)


@pytest.mark.parametrize("shape", [(9, 30, 41), (20, 8, 27)])
@pytest.mark.parametrize("upsampling", [True, False])
def test_volumes_smaller_than_a_patch_of_even_and_odd_sides(shape, upsampling):
    volume = white(shape)[0]
    restored = ScNet.at("smoke", steps=2, upsampling=upsampling).fit(volume)(volume.full)
    assert restored.shape == shape and np.isfinite(restored).all() and restored.std() > 0


@pytest.mark.parametrize(("expectancy", "weights"), [(True, (0.6, 0.1, 0.2, 0.01)), (False, (0.8, 0.1, 0.0, 0.01))])
def test_both_sets_of_weights_are_the_paper_s(expectancy, weights):
    noisy, smoothed = (torch.randn(2, 1, 12, 12, 12, generator=generator(s)) for s in (0, 1))
    method = ScNet(expectancy=expectancy)
    terms = method.loss(lambda x: 0.5 * x + 0.3, method.pairs((noisy, smoothed), generator(2)))
    assert list(terms) == ["reconstruction", "sparsity", "expectancy", "regularisation", "total"]
    parts = [term.item() for term in terms.values()]
    assert parts[-1] == pytest.approx(np.dot(weights, parts[:4]), rel=1e-5)


def test_reconstruction_looks_at_blind_voxels_alone():
    noisy = torch.randn(1, 1, 12, 12, 12, generator=generator())
    batch = ScNet().pairs((noisy, noisy), generator(1))
    replaced, mask, *_ = batch
    terms = ScNet().loss(lambda x: torch.where(mask, noisy, 1e3), batch)
    assert terms["reconstruction"] == 0 and not torch.equal(replaced, noisy)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"smoothing": "topaz"}, "use auto, projections, gaussian"),
        ({"ratio": 0.9}, "ratio cannot be 0.9; it goes from 0.001 to 0.5"),
        ({"blind_spot": 0}, "blind_spot cannot be 0"),
        ({"upsampling": 1}, "upsampling cannot be 1"),
        ({"expectancy": "off"}, "expectancy cannot be 'off'"),
    ],
)
def test_wrong_hyper_parameters_are_one_line(wrong, says):
    with pytest.raises(InputError) as refusal:
        ScNet.at("smoke", **wrong)
    assert says in str(refusal.value) and "\n" not in str(refusal.value)
