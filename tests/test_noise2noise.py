"""Noise2noise: each way to split a recording, what is restored, turning about the tilt axis, several recordings."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cryostudy import artefacts
from cryostudy.data import Acquisition, simulated
from cryostudy.errors import InputError
from cryostudy.methods import get
from cryostudy.methods.base import Denoiser
from cryostudy.methods.learned import generator
from cryostudy.methods.noise2noise import of_tilts
from cryostudy.rotation import about_tilt_axis, turned
from cryostudy.tomography import project, reconstruct, split_frames, wedge_mask
from cryostudy.tomography.splits import draw_frames, split_random


@pytest.fixture(scope="module")
def recording():
    return simulated((40, 40, 40), "ddw", 0.25, tilt_step=6.0, densities="built-in", seed=0)


def small(**changes):
    return get("noise2noise").at("smoke", **{"steps": 2, **changes})


def correlation(a, b):
    return np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]


def same(one: Denoiser, two: Denoiser):
    return all(torch.equal(value, two.state[name]) for name, value in one.state.items())


# How a recording is split


def test_even_and_odd_tilts_are_the_halves_of_a_simulation(recording):
    for made, given in zip(small(split="tilts").parts(recording), recording.halves, strict=True):
        np.testing.assert_array_equal(made, given)


@pytest.mark.parametrize("fraction", [0.25, 0.5, 0.8])
def test_a_random_split_adds_up_to_the_full_tomogram_with_independent_noise(recording, fraction):
    first, second = small(split="random", fraction=fraction).parts(recording, seed=3)
    share = round(fraction * 21) / 21
    np.testing.assert_allclose(share * first + (1 - share) * second, recording.full, atol=1e-4 * recording.full.std())
    silent = replace(recording, tilt_series=project(recording.truth, recording.tilt_angles))
    clean = small(split="random", fraction=fraction).parts(silent, seed=3)
    noises = [part - own for part, own in zip((first, second), clean, strict=True)]
    assert abs(correlation(*noises)) < 0.02
    assert noises[0].var() / noises[1].var() == pytest.approx((1 - share) / share, rel=0.1)


def test_the_seed_draws_the_split():
    one, again, other = (split_random(61, 0.4, seed) for seed in (1, 1, 2))
    assert np.array_equal(one[0], again[0]) and not np.array_equal(one[0], other[0])
    assert len(one[0]) == 24 and sorted([*one[0], *one[1]]) == list(range(61))


def test_without_a_filter_parts_are_on_the_scale_of_the_full_tomogram(recording):
    plain = replace(
        recording, filter="none", full=reconstruct(recording.tilt_series, recording.tilt_angles, 40, filter=None)
    )
    for part in (*small(split="tilts").parts(plain), of_tilts(plain, np.arange(0, 21, 3))):
        assert np.polyfit(plain.full.ravel(), part.ravel(), 1)[0] == pytest.approx(1, abs=0.25)


def test_two_frames_of_a_series_add_up_to_it_and_their_noise_is_independent():
    clean = np.zeros((5, 64, 64), np.float32)
    series = np.random.default_rng(0).normal(0, 2, clean.shape).astype(np.float32)
    frames = draw_frames(series, 2.0, seed=1)
    np.testing.assert_allclose(frames.sum(1), series, rtol=1e-5, atol=1e-6)
    (even, _), (odd, _) = split_frames(frames, range(5))
    assert abs(correlation(even, odd)) < 0.02
    assert [even.std(), odd.std()] == pytest.approx([2**0.5] * 2, rel=0.02)


def test_what_a_split_needs_is_said(recording):
    lonely = Acquisition(full=recording.full, name="lonely")
    with pytest.raises(InputError, match=r"noise2noise needs halves, which lonely does not have; give .*--even"):
        small().fit(lonely)
    for split in ("tilts", "random"):
        with pytest.raises(InputError, match=f"split {split} needs a tilt series, which lonely has not"):
            small(split=split).fit(lonely)
    for fraction in (0.0, 0.01, 0.99):
        with pytest.raises(InputError, match="leaves one part empty"):
            small(split="random", fraction=fraction).fit(recording)
    with pytest.raises(InputError, match="average is of even and odd halves"):
        small(split="random", average=True)
    with pytest.raises(InputError, match="fraction cannot be 2"):
        small(split="random", fraction=2.0)


# What is restored


def test_halves_are_restored_on_the_full_scale_and_averaged(recording, tmp_path):
    plain = small().fit(recording, seed=1)
    both = Denoiser(replace(plain.method, average=True), plain.state)
    whole = recording.full.mean(dtype=np.float64), recording.full.std(dtype=np.float64)

    def restored(volume):  # the call standardises by the volume's own deviation, which for a half is larger
        scaled = (volume - whole[0]) / whole[1]
        with torch.no_grad():
            network = plain.method.network()
            network.load_state_dict(plain.state)
            return network(torch.tensor(scaled, dtype=torch.float32)[None, None])[0, 0].numpy() * whole[1] + whole[0]

    expected = (restored(recording.halves[0]) + restored(recording.halves[1])) / 2
    np.testing.assert_allclose(both.restore(recording), expected, atol=1e-4 * whole[1])
    np.testing.assert_array_equal(plain.restore(recording), plain(recording.full))
    kept = artefacts.restored(both.method, recording, seed=1, folder=tmp_path)
    assert correlation(kept, expected) > 0.999  # the same training, whatever is restored afterwards


# Turning about the tilt axis


def test_a_wedge_turns_about_the_tilt_axis():
    angles, turn = range(-60, 61, 2), about_tilt_axis(torch.tensor([20.0]))[0]
    mask = wedge_mask((16, 16, 16), angles, rotation=turn)
    tilted = [wedge_mask((16, 16, 16), [a + sign * 20 for a in angles]) for sign in (1, -1)]
    assert any(torch.equal(mask, other) for other in tilted)
    assert not torch.equal(*tilted)


def test_turned_crops_are_turned_alike_and_keep_the_tilt_axis():
    volume = torch.arange(48.0)[None, :, None].expand(48, 48, 48)  # planes across the tilt axis turn in themselves
    one, two = small(turn=180.0, patch=16).turned((volume, 2 * volume), generator(1))
    torch.testing.assert_close(two, 2 * one)
    assert one.std(dim=(0, 2)).max() < 1e-3 and torch.allclose(one.diff(dim=1), torch.ones(()), atol=1e-3)


def test_a_cube_over_the_border_sees_the_volume_mirrored():
    volume = torch.randn(2, 20, 24, 28, generator=generator(0))
    padded = torch.nn.functional.pad(volume[None], [16] * 6, mode="reflect")[0]
    centre, turn = torch.tensor([[6.0, 12.0, 20.0]]), about_tilt_axis(torch.tensor([35.0]))
    torch.testing.assert_close(
        turned(volume, centre, turn, 16), turned(padded, centre + 16, turn, 16), atol=1e-4, rtol=0
    )


def test_turning_by_zero_is_a_plain_crop():
    volume = torch.randn(1, 24, 24, 24, generator=generator(0))
    cube = turned(volume, torch.tensor([[11.5, 11.5, 11.5]]), about_tilt_axis(torch.zeros(1)), 8)
    torch.testing.assert_close(cube[0], volume[:, 8:16, 8:16, 8:16], atol=1e-5, rtol=0)


@pytest.mark.parametrize("changes", [{"turn": 180.0}, {"split": "random", "fraction": 0.7}, {"objective": "l1"}])
def test_every_option_trains_and_repeats_to_the_bit(recording, changes):
    one, two = (small(**changes).fit(recording, seed=4) for _ in range(2))
    assert same(one, two) and not same(one, small().fit(recording, seed=4))
    assert len(one.history.column("validation")[1]) > 0 and len(one.history.column("cc_clean")[1]) > 0


def test_the_network_is_chosen_by_name():
    assert small(levels=1, channels=2).network().multiple == 2
    with pytest.raises(InputError, match="architecture 'resnet' is unknown"):
        small(architecture="resnet")


# Several recordings


def test_one_network_over_recordings_of_several_shapes_learns_from_all(recording):
    other = simulated((24, 56, 40), "ddw", 0.25, tilt_step=6.0, densities="built-in", seed=5)
    method = small(steps=6)
    both = method.fit_all([recording, other], seed=2)
    assert same(method.fit(recording, seed=2), method.fit_all([recording], seed=2))
    assert not same(both, method.fit(recording, seed=2)) and not same(both, method.fit(other, seed=2))
    assert both(other.full).shape == other.full.shape


def test_short_training_beats_the_raw_volume_and_noise_alone_gives_nothing(recording):
    settings = {"steps": 60, "channels": 8, "batch": 2}
    found = small(**settings).fit(recording).restore(recording)
    assert correlation(found, recording.clean) > correlation(recording.full, recording.clean) + 0.15
    rng = np.random.default_rng(0)
    even, odd = (rng.standard_normal((40, 40, 40), dtype=np.float32) for _ in range(2))
    nothing = small(**settings).fit(Acquisition(full=(even + odd) / 2, halves=(even, odd)))
    assert nothing((even + odd) / 2).std() < 0.3 * even.std() / 2**0.5
    inside = (slice(12, -12),) * 3  # what zero padding does at the borders is the same in both
    assert abs(correlation(nothing(even)[inside], nothing(odd)[inside])) < 0.1
