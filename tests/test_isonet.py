"""IsoNet: what was measured stays, the wedge is filled from what was learnt, and a run cut short ends the same."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch import nn

from cryostudy.acquisition import Acquisition
from cryostudy.content import Centres, content_mask
from cryostudy.errors import InputError
from cryostudy.fourier import multiplicity, radius
from cryostudy.methods import Denoiser
from cryostudy.methods.isonet import IsoNet, drawn
from cryostudy.methods.wiener import Wiener
from cryostudy.metrics import correlation, correlation_outside_wedge
from cryostudy.tomography import wedge_mask

ANGLES = tuple(range(-60, 61, 3))
SMALL = IsoNet.at("smoke", steps=8, patch=16, train_voxels=2**18)


def through_wedge(volume):
    spectrum = torch.fft.rfftn(torch.as_tensor(volume)) * wedge_mask(volume.shape, ANGLES, rfft=True)
    return torch.fft.irfftn(spectrum, s=volume.shape).numpy()


@pytest.fixture(scope="module")
def recording():
    """Blobs of random shapes without their wedge, with some noise, and halves that nobody should look at."""
    rng = np.random.default_rng(0)
    truth = ndimage.gaussian_filter(rng.normal(size=(34, 36, 40)), 2.0)
    truth = (np.maximum(truth / truth.std() - 1, 0)).astype(np.float32)
    clean = through_wedge(truth)
    full = clean + 0.2 * clean.std() * through_wedge(rng.standard_normal(clean.shape, dtype=np.float32))
    return Acquisition(
        full=full, halves=(full + 1, 2 * full), tilt_angles=ANGLES, truth=truth, clean=clean, name="blobs"
    )


@pytest.fixture(scope="module")
def fitted(recording):
    return SMALL.fit(recording, seed=3, device="cpu", progress=False)


# The schedule


@pytest.mark.parametrize(
    ("iteration", "level"),
    [(1, 0), (10, 0), (11, 0.05), (15, 0.05), (16, 0.1), (30, 0.2), (45, 0.35), (50, 0.4)],
)
def test_noise_schedule_of_the_paper(iteration, level):
    assert IsoNet().level(iteration) == pytest.approx(level)


def test_batches_follow_the_schedule_and_the_last_iteration_takes_the_rest(recording, monkeypatch):
    turns, seen = [], []
    refilled = IsoNet.filled

    def counted(self, *arguments):
        turns.append(len(seen))
        return refilled(self, *arguments)

    def loss(self, network, batch):
        if len(batch) == 2:
            seen.append((batch[0] - batch[1]).std().item())
        return {"total": (network(batch[0]) - batch[1]).abs().mean()}

    monkeypatch.setattr(IsoNet, "filled", counted)
    monkeypatch.setattr(IsoNet, "loss", loss)
    # Noise far stronger than the specimen, so that its level is the deviation of what is to be undone.
    method = replace(
        SMALL, steps=11, channels=1, iterations=4, noise_start=3, noise_step=50.0, noise_every=1, validation=0.0
    )
    method.fit(recording, device="cpu", progress=False)
    assert turns == [2, 4, 6] and len(seen) == 11
    assert np.round(np.array(seen) / 50).tolist() == [0] * 4 + [1] * 2 + [2] * 5


# What an iteration fills in


@given(st.tuples(*[st.integers(8, 21)] * 3))
@settings(max_examples=12, deadline=None)
def test_filling_keeps_what_was_measured_and_takes_the_rest_from_the_network(shape):
    torch.manual_seed(0)
    raw, network = torch.randn(shape), nn.Conv3d(1, 1, 3, padding=1)
    with torch.no_grad():
        predicted = network(raw[None, None])[0, 0]
    filled = torch.fft.rfftn(IsoNet().filled(network, raw, ANGLES))
    measured = wedge_mask(shape, ANGLES, rfft=True)
    torch.testing.assert_close(filled[measured], torch.fft.rfftn(raw)[measured], atol=1e-2, rtol=1e-3)
    torch.testing.assert_close(filled[~measured], torch.fft.rfftn(predicted)[~measured], atol=1e-2, rtol=1e-3)
    assert network.training


def test_input_is_the_target_without_a_second_wedge():
    volume = torch.randn(30, 30, 30, generator=torch.Generator().manual_seed(0))
    method = replace(SMALL, margin=0)
    turn = torch.tensor([[[0.0, 1, 0], [0, 0, 1], [1, 0, 0]]])
    given, target = method.pairs(volume, torch.full((1, 3), 14.5), turn, ANGLES)
    measured = wedge_mask((16, 16, 16), ANGLES, rfft=True)
    lost, kept = (torch.fft.rfftn(v[0, 0]) for v in (target - given, given))
    assert lost[measured].abs().max() < 1e-3 * kept.abs().max() and kept[~measured].abs().max() < 1e-3
    plain, _ = method.pairs(volume, torch.full((1, 3), 14.5), torch.eye(3)[None], ANGLES)
    wide, _ = replace(method, margin=8).pairs(volume, torch.full((1, 3), 14.5), torch.eye(3)[None], ANGLES)
    assert plain.shape == wide.shape and not torch.allclose(plain, wide, atol=1e-3)


# The noise


@pytest.mark.parametrize("mode", ["none", "ramp", "hamming"])
def test_noise_has_variance_1_none_in_the_wedge_and_the_spectrum_of_its_filter(mode):
    noises = replace(SMALL, noise_mode=mode, noise_samples=2).noises(ANGLES, seed=1)
    sides = tuple(noises.shape[1:])
    assert noises.std().item() == pytest.approx(1, abs=1e-3) and not torch.equal(noises[0], noises[1])
    power = torch.stack([torch.fft.rfftn(noise).abs().square() for noise in noises]).mean(0)
    k, weight, measured = radius(sides), multiplicity(sides), wedge_mask(sides, ANGLES, rfft=True)

    def mean(where):
        return ((power * weight * where).sum() / (weight * where).sum()).item()

    low, middle, high = (mean(measured & (k > a) & (k < b)) for a, b in ((0.05, 0.12), (0.2, 0.3), (0.4, 0.5)))
    assert mean(~measured & (k > 0.1) & (k < 0.4)) < (1e-9 if mode == "none" else 0.2) * middle  # the edges leak
    if mode == "none":
        assert high == pytest.approx(low, rel=0.2)
    else:  # relative to its middle the ramp has less at low frequencies, its Hamming window less at high ones
        assert middle > 2 * low if mode == "ramp" else middle > 2 * high


def test_noise_is_drawn_with_both_signs_from_all_samples():
    samples = torch.tensor([1.0, 10.0])[:, None, None, None].expand(2, 6, 6, 6)
    values = drawn(samples, 64, 4, torch.Generator().manual_seed(0))
    assert values.shape == (64, 1, 4, 4, 4) and set(values.unique().tolist()) == {-10, -1, 1, 10}


# Where sub-tomograms are cut


@pytest.mark.parametrize("sign", [1, -1])
def test_mask_finds_the_specimen_dark_or_bright(sign):
    rng = np.random.default_rng(0)
    volume = rng.standard_normal((40, 44, 48), dtype=np.float32)
    volume[10:26, 12:28, 20:36] += sign * 8 * (rng.random((16, 16, 16)) < 0.5)
    mask = content_mask(torch.from_numpy(volume), 5.0, 5.0)
    there = torch.zeros_like(mask)
    there[10:26, 12:28, 20:36] = True
    assert (mask & there).sum() > 0.85 * mask.sum() and (mask & there).sum() > 0.7 * there.sum()
    assert content_mask(torch.from_numpy(volume), 100.0, 100.0).all()


@given(st.tuples(*[st.integers(1, 30)] * 3), st.floats(0, 20), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_centres_lie_in_the_mask_and_off_the_borders(shape, margin, seed):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.3
    points = Centres(mask, margin).draw(50, torch.Generator().manual_seed(seed))
    voxels = points.round().long()
    edges = torch.tensor([min(round(margin), (side - 1) // 2) for side in shape])
    assert (voxels >= edges).all() and (voxels < torch.tensor(shape) - edges).all()
    inside = mask[tuple(slice(int(e), n - int(e)) for e, n in zip(edges, shape, strict=True))]
    assert mask[tuple(voxels.T)].all() or not inside.any()


# The method


def test_only_the_full_tomogram_is_looked_at(recording, fitted):
    alone = SMALL.fit(replace(recording, halves=None, truth=None, clean=None), seed=3, device="cpu", progress=False)
    for name, value in fitted.state.items():
        assert torch.equal(value, alone.state[name])
    assert "filled" not in fitted.state and set(fitted.state) == set(SMALL.network().state_dict())


@pytest.mark.parametrize("cut", [1, 4, 5, 7])
def test_a_run_cut_short_ends_as_an_undisturbed_one_to_the_bit(recording, fitted, tmp_path, monkeypatch, cut):
    """Cut at the first step, right where the wedge is filled anew (after 4 of 8 steps), and within an iteration."""
    loss, calls = IsoNet.loss, []

    def interrupted(self, network, batch):
        calls.append(len(batch))
        if calls.count(2) == cut + 1:
            raise KeyboardInterrupt
        return loss(self, network, batch)

    with monkeypatch.context() as patch:
        patch.setattr(IsoNet, "loss", interrupted)
        with pytest.raises(KeyboardInterrupt):
            SMALL.fit(recording, seed=3, device="cpu", folder=tmp_path, progress=False)
    rng = torch.get_rng_state()
    resumed = SMALL.fit(recording, seed=3, device="cpu", folder=tmp_path, progress=False)
    assert torch.equal(torch.get_rng_state(), rng)
    assert [row["step"] for row in resumed.history.rows] == list(range(1, 9))
    for column in ("total", "validation"):
        assert resumed.history.column(column) == fitted.history.column(column)
    for name, value in fitted.state.items():
        assert torch.equal(value, resumed.state[name])


def test_the_last_weights_are_kept_and_found_again(recording, fitted, tmp_path, monkeypatch):
    seen = {}
    optimise = IsoNet.optimise

    def watched(self, *arguments, **options):
        found = optimise(self, *arguments, **options)
        seen["last"] = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["network"]
        return found

    monkeypatch.setattr(IsoNet, "optimise", watched)
    first, again = (SMALL.fit(recording, seed=3, device="cpu", folder=tmp_path, progress=False) for _ in range(2))
    assert first.history.best_step == again.history.best_step == 8
    for name, value in fitted.state.items():
        assert torch.equal(value, first.state[name]) and torch.equal(value, again.state[name])
        assert torch.equal(value, seen["last"][name])


def test_other_seed_other_weights(recording, fitted):
    other = SMALL.fit(recording, seed=4, device="cpu", progress=False)
    assert any(not torch.equal(value, other.state[name]) for name, value in fitted.state.items())


def test_the_wedge_is_filled_and_the_rest_stays(recording):
    method = replace(SMALL, steps=140, patch=20, channels=6, learning_rate=4e-3, noise_step=0.0, batch=2)
    restored = method.fit(recording, device="cpu", progress=False)(recording.full, device="cpu")
    before, after = (correlation(v, recording.truth) for v in (recording.full, restored))
    assert after > before + 0.01
    outside = [correlation_outside_wedge(v, recording.truth, ANGLES) for v in (recording.full, restored)]
    assert outside[1] > 0.9
    empty = ~wedge_mask(restored.shape, ANGLES, rfft=True)
    found, true = (torch.fft.rfftn(torch.from_numpy(v))[empty] for v in (restored, recording.truth))
    agreement = (found * true.conj()).real.sum() / (found.abs().square().sum() * true.abs().square().sum()).sqrt()
    assert agreement > 0.3  # the raw tomogram has nothing there


def test_deconvolution_comes_first_and_goes_with_the_denoiser(recording, tmp_path):
    method = replace(SMALL, deconvolve=True, falloff=40.0)
    denoiser = method.fit(recording, seed=1, device="cpu", progress=False)
    denoiser.save(tmp_path / "denoiser.pt")
    loaded = Denoiser.load(tmp_path / "denoiser.pt")
    restored = loaded(recording.full, device="cpu", progress=False)
    np.testing.assert_array_equal(restored, denoiser(recording.full, device="cpu", progress=False))
    filtered = Wiener(falloff=40.0).fit(recording)(recording.full, device="cpu")
    weights = {name: value for name, value in denoiser.state.items() if name in SMALL.network().state_dict()}
    expected = Denoiser(SMALL, weights)(filtered, device="cpu", progress=False)
    # Up to the volume's mean, which the filter moves a little.
    np.testing.assert_allclose(restored - restored.mean(), expected - expected.mean(), atol=0.02 * expected.std())


def test_falloff_is_chosen_from_halves_where_noise_is_correlated(recording):
    """One volume predicts its own correlated noise; halves do not, and ask for a stronger filter."""
    rng = np.random.default_rng(1)
    noise = [ndimage.gaussian_filter(rng.normal(size=recording.full.shape), 1) for _ in range(2)]
    halves = tuple((recording.full + 2 * n * recording.full.std() / n.std()).astype(np.float32) for n in noise)
    noisy = replace(recording, full=(halves[0] + halves[1]) / 2, halves=halves)
    method = replace(SMALL, deconvolve=True)
    paired, alone = (
        float(method.fit(a, device="cpu", progress=False).state["falloff"])
        for a in (noisy, replace(noisy, halves=None))
    )
    assert paired > 1.5 * alone > 0


@pytest.mark.parametrize("shape", [(9, 30, 41), (20, 8, 33)])
def test_volumes_thinner_than_a_cube(shape):
    volume = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    recording = Acquisition(full=volume, tilt_angles=ANGLES)
    restored = replace(SMALL, steps=4).fit(recording, device="cpu", progress=False)(volume, device="cpu")
    assert restored.shape == shape and np.isfinite(restored).all()


def test_what_is_missing_or_wrong_is_one_line(recording):
    with pytest.raises(InputError, match="isonet needs tilt angles"):
        SMALL.fit(replace(recording, tilt_angles=None))
    with pytest.raises(InputError, match="a defocus needs a voxel size, which blobs does not state"):
        replace(SMALL, deconvolve=True, defocus=2e4).fit(recording)
    for wrong, says in (({"noise_mode": "noFilter"}, "use none, ramp, hamming"), ({"iterations": 0}, "goes from 1"),
                        ({"density_percentage": 101.0}, "it goes from 0.1 to 100")):  # fmt: skip
        with pytest.raises(InputError, match=says):
            IsoNet.at("smoke", **wrong)
