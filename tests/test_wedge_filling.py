"""Wedge filling: turned pairs are what they claim, and the loss asks for nothing that nobody measured."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation

from cryostudy import noise
from cryostudy.data import noise_only, simulated
from cryostudy.errors import InputError
from cryostudy.fourier import radius
from cryostudy.losses.objectives import l2
from cryostudy.methods import get
from cryostudy.methods.learned import generator
from cryostudy.methods.standardise import Standardised
from cryostudy.methods.wedge_filling import Part, masked
from cryostudy.metrics import correlation
from cryostudy.rotation import random_centres, random_rotations, sharpened, turned
from cryostudy.tomography import wedge_mask

METHODS = ["deepdewedge", "recorrupted_wedge", "blind_wedge"]
ANGLES = tuple(np.arange(-60.0, 61.0, 2.0).tolist())
AXES = (-3, -2, -1)


@pytest.fixture(scope="module")
def specimen():
    return simulated((40, 44, 48), "ddw", 0.5, densities="built-in", seed=2)


def part_of(method, acquisition, seed=0):
    whole = Standardised.of(acquisition.full)
    raw = method.volumes(acquisition, whole, method.region(whole.shape), seed)
    return Part(raw, sharpened(raw), sharpened(raw), acquisition.tilt_angles)


# Rotation


def test_random_rotations_are_rotations_and_uniform():
    turns = random_rotations(4000, generator(0)).double()
    torch.testing.assert_close(
        turns @ turns.mT, torch.eye(3, dtype=torch.float64).expand(4000, 3, 3), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(torch.linalg.det(turns), torch.ones(4000, dtype=torch.float64), atol=1e-5, rtol=0)
    assert turns.mean(0).abs().max() < 0.04  # no direction is preferred
    # For uniform rotations the angle has density (1 - cos a) / pi, whose mean cosine is -1/2.
    assert float(((turns.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).mean()) == pytest.approx(-0.5, abs=0.03)


def test_turning_puts_a_blob_where_the_matrix_says():
    grid = np.indices((48, 48, 48))
    offset, centre = np.array([6.0, -3.0, 8.0]), np.array([23.0, 24.5, 22.0])
    blob = np.exp(-sum((g - c) ** 2 for g, c in zip(grid, centre + offset, strict=True)) / (2 * 2.0**2))
    turns = random_rotations(5, generator(1))
    cubes = turned(
        torch.from_numpy(blob.astype(np.float32))[None], torch.from_numpy(centre).float().expand(5, 3), turns, 33
    )
    for cube, turn in zip(cubes[:, 0].numpy(), turns.numpy(), strict=True):
        assert np.allclose(ndimage.center_of_mass(cube) - np.array([16.0] * 3), turn @ offset, atol=0.05)


def test_turned_volume_has_the_turned_wedge():
    rng = np.random.default_rng(0)
    white = torch.from_numpy(rng.standard_normal((96, 96, 96), dtype=np.float32))
    passed = wedge_mask((96, 96, 96), ANGLES, rfft=True) & (radius((96, 96, 96)) < 0.3)  # where aliases are few
    seen = torch.fft.irfftn(torch.fft.rfftn(white) * passed, s=(96, 96, 96))
    turns = random_rotations(3, generator(3))
    cubes = turned(sharpened(seen)[None], torch.full((3, 3), 47.5), turns, 48)[:, 0]
    window = torch.from_numpy(np.hanning(48).astype(np.float32))
    cubes = cubes * window[:, None, None] * window[:, None] * window
    power = torch.fft.rfftn(cubes, dim=AXES).abs().square()
    band = (radius((48, 48, 48)) > 0.15) & (radius((48, 48, 48)) < 0.27)
    for turn, spectrum in zip(turns, power, strict=True):
        own = wedge_mask((48, 48, 48), ANGLES, rotation=turn, rfft=True)
        assert spectrum[band & ~own].mean() < 0.1 * spectrum[band & own].mean()


def test_noise_keeps_its_power_when_turned():
    rng = np.random.default_rng(0)
    white = torch.from_numpy(rng.standard_normal((1, 64, 64, 64), dtype=np.float32))
    cubes = turned(
        sharpened(white), random_centres((64,) * 3, 6, 16, generator(0)), random_rotations(6, generator(1)), 32
    )
    assert float(cubes.var()) == pytest.approx(1.0, abs=0.05)
    plain = turned(white, random_centres((64,) * 3, 6, 16, generator(0)), random_rotations(6, generator(1)), 32)
    assert float(plain.var()) < 0.5  # what it guards against


def test_centres_stay_away_from_borders_or_in_the_middle():
    points = random_centres((40, 12, 64), 500, 10, generator(0))
    assert points[:, 0].min() >= 10 and points[:, 0].max() <= 29
    assert points[:, 2].min() >= 10 and points[:, 2].max() <= 53
    assert (points[:, 1] == 5.5).all()


# The loss


def test_second_wedge_is_removed_and_weighted():
    turn = torch.from_numpy(Rotation.from_euler("x", 40, degrees=True).as_matrix())
    volume = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 1, 24, 24, 24), dtype=np.float32))
    given, weight = masked(volume, ANGLES, turn, 2.0)
    added, own = wedge_mask((24,) * 3, ANGLES, rfft=True), wedge_mask((24,) * 3, ANGLES, rotation=turn, rfft=True)
    spectrum = torch.fft.rfftn(given, dim=AXES)[0, 0]
    assert spectrum[~added].abs().max() < 1e-3 < spectrum[added].abs().mean()
    assert (weight[0, 0][~own] == 0).all() and (weight[0, 0][own & added] == 1).all()
    assert torch.allclose(weight[0, 0][own & ~added].square(), torch.tensor(2.0))


def test_what_nobody_measured_costs_nothing():
    turn = random_rotations(1, generator(4))[0]
    estimate, target = (
        torch.from_numpy(np.random.default_rng(k).standard_normal((1, 1, 24, 24, 24), dtype=np.float32)) for k in (1, 2)
    )
    _, weight = masked(target, ANGLES, turn, 2.0)
    unknown = torch.fft.irfftn(torch.fft.rfftn(estimate, dim=AXES) * (weight == 0), s=(24,) * 3, dim=AXES)
    torch.testing.assert_close(l2(estimate + 5 * unknown, target, weight), l2(estimate, target, weight))


# The pairs


@pytest.mark.parametrize("name", ["deepdewedge", "recorrupted_wedge"])
def test_noise_of_input_and_target_is_independent(name, specimen):
    alone = noise_only(specimen, 1)
    method = get(name).at("laptop", patch=24)
    part = part_of(method, alone)
    crosses = []
    for k in range(12):
        chance = generator(5, k)
        turns, centres = random_rotations(1, chance), random_centres(part.raw.shape[1:], 1, 12, chance)
        first, second = method.pair(part, centres, turns, chance)
        crosses.append(correlation(first.numpy(), second.numpy()))
    assert abs(np.mean(crosses)) < 0.04


def test_recorrupted_with_the_wrong_level_is_not(specimen):
    alone = noise_only(specimen, 1)
    method = get("recorrupted_wedge").at("laptop", patch=24, level_scale=0.6)
    part = part_of(method, alone)
    chance = generator(5)
    first, second = method.pair(
        part, random_centres(part.raw.shape[1:], 1, 12, chance), random_rotations(1, chance), chance
    )
    assert correlation(first.numpy(), second.numpy()) > 0.2


def test_hidden_voxels_leave_no_trace_in_the_input(specimen):
    method = get("blind_wedge").at("laptop", patch=16, share=0.02)
    part = part_of(method, specimen)
    chance = generator(7)
    turns, centres = random_rotations(1, chance), torch.tensor([[20.0, 21.3, 24.6]])
    given, values, places, inside = method.pair(part, centres, turns, generator(8))
    assert inside.bool().all() and (places.abs() <= 1).all()
    found = (centres[0] + places[0].flip(1) * 7.5 @ turns[0]).round().long()  # the voxels that were hidden
    torch.testing.assert_close(values[0], part.raw[0, *found.T])
    changed = part.raw.clone()
    changed[0, *found.T] += 100
    again = method.pair(replace_raw(part, changed), centres, turns, generator(8))
    assert torch.equal(given, again[0]) and not torch.equal(values, again[1])
    other = part.raw.clone()
    other[0, 20, 21, 24] += 100  # another voxel does leave one
    if not (found == torch.tensor([20, 21, 24])).all(1).any():
        assert not torch.equal(given, method.pair(replace_raw(part, other), centres, turns, generator(8))[0])


def replace_raw(part, raw):
    return Part(raw, raw, raw, part.angles)


# The methods


@pytest.mark.parametrize("name", METHODS)
def test_same_seed_same_network(name, specimen):
    method = get(name).at("smoke", steps=4)
    first, second = (method.fit(specimen, seed=3, progress=False) for _ in range(2))
    assert all(torch.equal(first.state[key], second.state[key]) for key in first.state)
    other = method.fit(specimen, seed=4, progress=False)
    assert not all(torch.equal(first.state[key], other.state[key]) for key in first.state)


def test_a_blob_beyond_the_wedge_is_filled_better_than_left_empty():
    """With next to no noise the filled volume is nearer to the specimen than the recording is."""
    recording = simulated((48, 48, 48), "ddw", 100.0, densities="built-in", seed=1)
    denoiser = get("deepdewedge").at("smoke", steps=80, channels=6).fit(recording, progress=False)
    assert (
        correlation(denoiser(recording.full, progress=False), recording.truth)
        > correlation(recording.full, recording.truth) + 0.02
    )


def test_inputs_are_updated_where_it_is_due_and_a_resumed_run_repeats_it(specimen, tmp_path, monkeypatch):
    method = get("deepdewedge").at("smoke", steps=6, update_every=2)
    whole = method.fit(specimen, seed=1, folder=tmp_path / "whole", progress=False)
    assert not list((tmp_path / "whole").glob("inputs-*"))
    plain = replace(method, update_every=None).fit(specimen, seed=1, progress=False)
    assert not all(torch.equal(whole.state[key], plain.state[key]) for key in whole.state)

    drawn, draw = [], type(method).draw

    def stopping(*arguments):
        drawn.append(1)
        if len(drawn) == 6:  # the checks, then steps 0 to 3
            raise KeyboardInterrupt
        return draw(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(type(method), "draw", stopping)
        method.fit(specimen, seed=1, folder=tmp_path / "cut", progress=False)
    assert list((tmp_path / "cut").glob("inputs-*"))
    assert torch.load(tmp_path / "cut/checkpoint.pt", weights_only=True)["history"]["step"] == 4
    resumed = method.fit(specimen, seed=1, folder=tmp_path / "cut", progress=False)
    assert all(torch.equal(whole.state[key], resumed.state[key]) for key in whole.state)


def test_filling_keeps_what_was_measured(specimen):
    method = get("deepdewedge").at("smoke")
    half = torch.from_numpy(Standardised.of(specimen.full)[(slice(None),) * 3])
    torch.manual_seed(0)
    filled = method.filled(method.network().eval(), half, specimen.tilt_angles)
    measured = wedge_mask(half.shape, specimen.tilt_angles, rfft=True)
    before, after = torch.fft.rfftn(half), torch.fft.rfftn(filled)
    torch.testing.assert_close(after[measured], before[measured], rtol=1e-3, atol=1e-2)
    assert not torch.allclose(after[~measured], before[~measured], atol=1e-2)


def test_several_recordings_train_one_network(specimen):
    other = simulated((32, 32, 32), "ddw", 0.5, 40.0, densities="built-in", seed=5)
    denoiser = get("deepdewedge").at("smoke", steps=4, patch=16).fit_all([specimen, other], progress=False)
    assert denoiser(other.full, progress=False).shape == (32, 32, 32)


@pytest.mark.parametrize("name", METHODS)
def test_angles_are_asked_for(name, specimen):
    with pytest.raises(InputError, match=r"tilt angles.*--tilt-file"):
        get(name).at("smoke").fit(replace(specimen, tilt_angles=None), progress=False)


def test_deepdewedge_asks_for_halves(specimen):
    with pytest.raises(InputError, match=r"halves.*--even and --odd"):
        get("deepdewedge").at("smoke").fit(replace(specimen, halves=None), progress=False)


@pytest.mark.parametrize("name", METHODS)
def test_noise_alone_loses_variance(name, specimen):
    alone = noise_only(specimen, 3)
    restored = get(name).at("smoke", steps=30).fit(alone, progress=False)(alone.full, progress=False)
    assert restored.var() < 0.9 * alone.full.var()


def test_level_of_the_fresh_noise_is_that_of_the_volume(specimen):
    part = part_of(get("recorrupted_wedge").at("laptop", source="volume"), specimen)
    assert noise.high_power(part.raw[1].numpy()) == pytest.approx(noise.high_power(part.raw[0].numpy()), rel=0.05)
