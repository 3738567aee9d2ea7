"""The search: scores by definition, planted particles, wedge, tiles, resume, and no more false peaks than stated."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation

from cryostudy.errors import InputError
from cryostudy.matching import (
    Match,
    find,
    flattened,
    gaussian_threshold,
    peaks,
    phase_randomised,
    resampled,
    rotations,
    search,
    spherical_mask,
    tail_threshold,
    whitened,
)
from cryostudy.matching import checkpoint as checkpoints
from cryostudy.matching.search import scorer
from cryostudy.matching.template import centred, extent, is_spherical, transfer
from cryostudy.matching.tiles import memory_estimate, tiles
from cryostudy.noise import fbp_noise
from cryostudy.poses import angular_error, check_symmetry
from cryostudy.simulate.builtin import built_in_density
from cryostudy.simulate.placement import place, random_rotation
from cryostudy.tomography import wedge_mask

TILTS = tuple(range(-60, 61, 3))


def small(name="C1 two-lobed", voxel_size=20.0):
    """A built-in particle of few voxels."""
    return resampled(built_in_density(name), 10.0, voxel_size)


def direct(volume, kernel, mask):
    """Pearson's correlation under a mask, at every voxel, straight from the definition and in float64; times the root
    of the share of the mask that lies in the volume."""
    half = kernel.shape[0] // 2
    standard = (volume - volume.mean()) / volume.std()
    padded = np.pad(standard.astype(np.float64), half)
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape)
    m = mask.astype(np.float64) / mask.sum(dtype=np.float64)
    t = kernel - (m * kernel).sum()
    mean = np.einsum("zyxijk,ijk->zyx", windows, m)
    square = np.einsum("zyxijk,ijk->zyx", windows**2, m)
    cross = np.einsum("zyxijk,ijk->zyx", windows, m * t)
    inside = np.lib.stride_tricks.sliding_window_view(np.pad(np.ones(volume.shape), half), kernel.shape)
    share = np.einsum("zyxijk,ijk->zyx", inside, m)
    return cross / np.sqrt((m * t**2).sum() * (square - mean**2)) * np.sqrt(share)


SETTINGS = {"angles": None, "voxel_size": 0.0, "defocus": None, "flipped": True, "device": "cpu"}


@pytest.mark.parametrize("kind", ["ball", "other mask", "wedge"])
def test_scores_are_those_of_the_definition(kind):
    rng = np.random.default_rng(0)
    volume = ndimage.gaussian_filter(rng.normal(size=(18, 20, 23)), 0.7) * 40 + 1000  # an offset, as in real files
    template = ndimage.gaussian_filter(rng.normal(size=(9, 9, 9)), 1)
    mask = None
    if kind != "ball":
        template = small()[2:-2, 2:-2, 2:-2][:9, :9, :9]
    if kind == "other mask":
        mask = np.zeros((9, 9, 9), np.float32)
        mask[2:7, 3:7, 1:8] = 1
        mask = ndimage.gaussian_filter(mask, 0.6)
        mask[mask < 0.05] = 0
    angles = TILTS if kind == "wedge" else None
    grid = rotations(90)[::4]
    match = search(volume, template, grid, mask=mask, tilt_angles=angles, noise_reference=False, device="cpu")
    made = scorer(template, mask, template, **{**SETTINGS, "angles": angles})
    matrices = torch.as_tensor(grid)
    cubes, masks = made.templates(matrices).numpy(), made.masks(matrices).numpy()
    expected = np.stack([direct(volume, cube, masks[k % len(masks)]) for k, cube in enumerate(cubes)])
    assert np.abs(match.scores - expected.max(0)).max() < 1e-4
    chosen = np.take_along_axis(expected, match.orientations[None].astype(int), 0)[0]
    assert np.abs(chosen - expected.max(0)).max() < 1e-4


def asymmetric(symmetry="C1"):
    """An 11^3 particle without symmetry, or with this one."""
    particle = np.zeros((11, 11, 11))
    for centre in ((2, 0, 1), (-2, 2, 0), (0, -2, 2), (1, 3, -1)):
        particle[tuple(np.array(centre) + 5)] = 1
    particle = ndimage.gaussian_filter(particle, 0.9) / 0.04
    whole = (place(particle, turn, np.zeros(3)) for turn in check_symmetry(symmetry))
    return np.maximum.reduce(list(whole)).astype(np.float32)


@pytest.mark.parametrize(("symmetry", "step"), [("C1", 25), ("D2", 20)])
def test_planted_particle_is_found_in_place_and_pose(symmetry, step):
    template = asymmetric(symmetry)
    grid = rotations(step, symmetry)
    rng = np.random.default_rng(1)
    for _ in range(20):
        pose, shift = random_rotation(rng), rng.uniform(-4, 4, 3)
        volume = place(np.pad(template, 6), pose, shift)
        truth = (np.array(volume.shape) - 1) / 2 + shift
        volume = volume + rng.normal(0, 0.05, volume.shape)
        match = search(volume, template, grid, noise_reference=False, device="cpu", progress=False)
        found = find(match, 4, count=1)
        assert np.abs(found.positions[0] - truth).max() < 1
        assert angular_error(found.rotations[:1], pose[None], symmetry)[0] < step


@pytest.mark.parametrize("kind", ["white", "fbp"])
def test_noise_passes_the_threshold_no_more_often_than_stated(kind):
    template, grid, rates, seeds = asymmetric(), rotations(90), (0.2, 1, 5), 20
    false = {(rate, reference): 0 for rate in rates for reference in (True, False)}
    for seed in range(seeds):
        if kind == "white":
            volume = np.random.default_rng(seed).normal(size=(32, 32, 32)).astype(np.float32)
        else:
            volume = fbp_noise((32, 32, 32), TILTS, "ramp", seed=seed)
        match = search(volume, template, grid, tilt_angles=TILTS, seed=seed, device="cpu", progress=False)
        for rate in rates:
            false[rate, True] += len(find(match, 4, rate).scores)
            false[rate, False] += len(find(replace(match, noise=None), 4, rate).scores)
    for (rate, _), count in false.items():
        expected = seeds * rate
        assert count <= expected + 2 * np.sqrt(expected)  # of a Poisson number
    assert false[5, False] > 0  # a bound, but not an empty one


def test_tail_threshold_holds_its_rate_for_gaussian_peaks():
    rng = np.random.default_rng(0)
    above = []
    for _ in range(400):
        reference, found = (np.sqrt(-2 * np.log(rng.uniform(size=600))) for _ in range(2))  # tails exp(-t^2 / 2)
        above.append([(found > tail_threshold(reference, rate)).sum() for rate in (0.5, 2, 10)])
    assert np.mean(above, 0) == pytest.approx([0.5, 2, 10], rel=0.2)


def test_gaussian_threshold_is_that_of_rickgauer():
    draws = np.random.default_rng(0).normal(0, 0.03, 1_000_000)
    assert (draws > gaussian_threshold(0.03, draws.size, 100)).sum() == pytest.approx(100, abs=30)


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf")])
def test_rate_that_is_none_is_refused(rate):
    with pytest.raises(InputError, match="rate"):
        gaussian_threshold(1, 100, rate)


def test_wedged_tomogram_scores_higher_with_the_wedge_in_the_template():
    template, pose = asymmetric(), Rotation.random(random_state=3).as_matrix()
    volume = place(np.pad(template, 7), pose, np.zeros(3))
    spectrum = torch.fft.rfftn(torch.as_tensor(volume)) * wedge_mask(volume.shape, TILTS, rfft=True)
    volume = torch.fft.irfftn(spectrum, s=volume.shape).numpy()
    best = {
        wedge: search(volume, template, pose[None], tilt_angles=TILTS, wedge=wedge, noise_reference=False,
                      device="cpu").scores[12, 12, 12]
        for wedge in ("template", "both", "none")
    }  # fmt: skip
    assert best["template"] > 0.98 and best["both"] > 0.98
    assert best["none"] < best["template"] - 0.03


def test_ctf_weighting_finds_what_the_microscope_made_of_the_particle():
    template = asymmetric()
    volume = np.pad(template, 7)
    curve = transfer(25, voxel_size=10.0, defocus=30000.0, flipped=False)
    volume = torch.fft.irfftn(torch.fft.rfftn(torch.as_tensor(volume)) * curve, s=volume.shape).numpy()
    settings = {"voxel_size": 10.0, "flipped": False, "noise_reference": False, "device": "cpu"}
    weighted, plain = (
        search(volume, template, np.eye(3)[None], defocus=d, **settings).scores[12, 12, 12] for d in (30000.0, None)
    )
    assert weighted > 0.99
    assert plain < weighted - 0.02


def test_tiles_give_what_one_piece_gives():
    volume = np.random.default_rng(2).normal(size=(21, 34, 27)).astype(np.float32)
    settings = {"rotations": rotations(80), "noise_reference": True, "device": "cpu", "progress": False}
    whole = search(volume, asymmetric(), **settings)
    cut = search(volume, asymmetric(), tile=20000, **settings)
    assert len(tiles(volume.shape, 12, 20000)) > 3
    assert np.abs(whole.scores - cut.scores).max() < 1e-5
    assert np.abs(whole.noise / whole.noise.std() - cut.noise / cut.noise.std()).max() < 1e-4
    assert (whole.orientations == cut.orientations).mean() > 0.999  # but for ties in the last digits


def test_tiles_cover_every_voxel_once():
    count = np.zeros((50, 61, 70), int)
    for part in tiles(count.shape, 10, 60000):
        count[part] += 1
    assert (count == 1).all()


def test_a_large_tomogram_fits_on_a_common_gpu():
    assert memory_estimate((200, 512, 512), 41) < 16


def test_search_cut_short_goes_on_and_gives_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "SHARE", 1e9)
    volume = np.random.default_rng(2).normal(size=(20, 24, 22)).astype(np.float32)
    settings = {"rotations": rotations(50), "tile": 20000, "device": "cpu", "progress": False}
    whole = search(volume, asymmetric(), **settings)
    calls, total = [0], []
    plain = checkpoints.Checkpoint.passed

    def stops(self, *arguments):
        plain(self, *arguments)
        calls[0] += 1
        if calls[0] % 7 == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints.Checkpoint, "passed", stops)
    for _ in range(60):
        try:
            found = search(volume, asymmetric(), folder=tmp_path, **settings)
            break
        except KeyboardInterrupt:
            total.append(calls[0])
            assert (tmp_path / checkpoints.NAME).exists()
    assert len(total) > 1
    assert np.array_equal(found.scores, whole.scores) and np.array_equal(found.noise, whole.noise)
    assert np.array_equal(found.orientations, whole.orientations)
    checkpoints.remove(tmp_path)
    assert not any(tmp_path.iterdir())


def test_checkpoint_of_other_inputs_or_a_broken_one_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "SHARE", 1e9)
    volume = np.random.default_rng(2).normal(size=(20, 20, 20)).astype(np.float32)
    settings = {"rotations": rotations(80), "noise_reference": False, "device": "cpu", "progress": False}
    search(volume, asymmetric(), folder=tmp_path, **settings)
    other = search(volume[::-1].copy(), asymmetric(), folder=tmp_path, **settings)
    assert np.array_equal(other.scores, search(volume[::-1].copy(), asymmetric(), **settings).scores)
    (tmp_path / checkpoints.NAME).write_bytes(b"broken")
    again = search(volume, asymmetric(), folder=tmp_path, **settings)
    assert np.array_equal(again.scores, search(volume, asymmetric(), **settings).scores)


def test_flat_and_missing_voxels_have_no_score():
    volume = np.random.default_rng(0).normal(size=(40, 20, 20)).astype(np.float32)
    volume[20:] = 3
    volume[5, 5, 5], volume[6, 6, 6] = np.nan, np.inf
    match = search(volume, asymmetric(), rotations(80), device="cpu", progress=False)
    assert np.isfinite(match.scores).all() and np.isfinite(match.noise).all()
    assert match.scores[5, 5, 5] == 0 and match.scores[6, 6, 6] == 0
    assert np.abs(match.scores).max() <= 1
    flat = np.zeros((32, 32, 32), np.float32)
    flat[0] = np.random.default_rng(1).normal(size=(32, 32))
    found = search(flat, asymmetric(), rotations(80), noise_reference=False, device="cpu").scores
    assert (found[12:20, 12:20, 12:20] == 0).all()


def test_peaks_keep_their_distance_and_the_highest_stay():
    scores = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(30, 30, 30)), 1).astype(np.float32)
    places, values = peaks(scores, 5)
    assert values[0] == scores.max() and (np.diff(values) <= 0).all()
    distance = np.linalg.norm(places[:, None] - places, axis=-1)
    assert distance[~np.eye(len(places), dtype=bool)].min() > 5


def test_phase_randomised_template_keeps_the_spectrum_and_nothing_else():
    template = asymmetric()
    other = phase_randomised(template, 1)
    less = centred(template)
    assert np.allclose(np.abs(np.fft.fftn(other)), np.abs(np.fft.fftn(less)), atol=1e-3)
    assert abs(np.corrcoef(other.ravel(), less.ravel())[0, 1]) < 0.3
    assert not np.array_equal(other, phase_randomised(template, 2))


def test_noise_correction_evens_out_what_matches_anything():
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 1, 40, dtype=np.float32)[:, None, None] * np.ones((40, 20, 20), np.float32)
    grain = rng.normal(0, 0.01, (2, 40, 20, 20)).astype(np.float32)
    match = Match(ramp + grain[0], np.zeros((40, 20, 20), np.int32), np.eye(3)[None], ramp + grain[1], 0.01)
    even = flattened(match, 2)
    assert even.scores[4:-4].std() < 0.1 * match.scores[4:-4].std()
    with pytest.raises(InputError, match="noise reference"):
        flattened(replace(match, noise=None), 2)


def test_balls_are_told_from_other_masks():
    ball = spherical_mask(4.3)
    assert is_spherical(ball) and ball.max() == 1 and len(ball) % 2
    assert not is_spherical(np.roll(ball, 1, 0))
    assert extent(asymmetric()) == pytest.approx(5, abs=2)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"template": np.ones((9, 9, 9))}, "constant"),
        ({"template": np.full((9, 9, 9), np.nan)}, "NaN"),
        ({"template": np.random.default_rng(0).normal(size=(9, 30, 9))}, "larger"),
        ({"mask": np.ones((3, 9, 9))}, "mask"),
        ({"mask": np.zeros((11, 11, 11))}, "mask"),
        ({"volume": np.ones((20, 20, 20))}, "constant"),
        ({"volume": np.full((20, 20, 20), np.nan)}, "constant or nowhere finite"),
        ({"volume": np.ones((20, 20))}, "3-D"),
        ({"wedge": "filled"}, "wedge"),
    ],
)
def test_what_cannot_be_matched_is_refused_in_one_line(changes, says):
    given = {"volume": np.random.default_rng(0).normal(size=(20, 20, 20)), "template": asymmetric(),
             "rotations": np.eye(3)[None], "device": "cpu"}  # fmt: skip
    with pytest.raises(InputError, match=says) as error:
        search(**{**given, **changes})
    assert "\n" not in str(error.value)


def test_whitening_gives_every_shell_the_same_power():
    volume = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(40, 36, 44)), 1.0) + 3
    white, _ = whitened(volume, built_in_density("C1 two-lobed"))
    power = np.abs(np.fft.fftn(white)) ** 2 / white.size
    frequency = np.sqrt(sum(f**2 for f in np.meshgrid(*map(np.fft.fftfreq, white.shape), indexing="ij")))
    for low in np.arange(0.05, 0.5, 0.05):
        shell = (frequency >= low) & (frequency < low + 0.05)
        assert power[shell].mean() == pytest.approx(1, rel=0.1)
    assert abs(white.mean()) < 1e-6


def test_a_filter_alone_changes_nothing_in_a_whitened_search():
    volume, template = np.random.default_rng(0).normal(size=(36, 36, 36)), built_in_density("C1 two-lobed")
    radius = np.sqrt(sum(f**2 for f in np.meshgrid(*map(np.fft.fftfreq, volume.shape), indexing="ij")))
    # constant within a shell of the whitening, or it would not be a factor a shell
    weight = np.exp(-8 * (np.round(36 * radius) / 36) ** 2)
    filtered = np.fft.ifftn(np.fft.fftn(volume) * weight).real
    first, second = whitened(volume, template), whitened(filtered, template, volume)
    assert np.allclose(first[0], second[0], atol=2e-3) and np.array_equal(first[1], second[1])
    assert not np.allclose(whitened(filtered, template)[1], first[1], atol=0.05)
