"""Sub-tomogram averaging: known answers on blobs in closed form, which turn and move without interpolation."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from cryostudy import averaging
from cryostudy.averaging.refine import weighted
from cryostudy.errors import InputError
from cryostudy.metrics import correlation, fsc
from cryostudy.poses import angular_error
from cryostudy.simulate.builtin import built_in_density
from cryostudy.simulate.placement import place
from cryostudy.tomography import wedge_mask

ANGLES = np.arange(-60.0, 61, 3)
SIGMA = 1.4
CENTRES = np.array(
    [[5.0, 1, -2], [-4, 3, 1], [1, -5, 2], [0, 2, 5], [-2, -3, -4], [3, 4, 2], [-5, -1, 3], [2, -1, -6]]
)  # (z, y, x) from the middle; no symmetry


def blobs(side, rotation=None, shift=(0, 0, 0)):
    """The specimen turned and moved, in closed form; its middle is voxel side // 2."""
    axis = np.arange(side) - side // 2
    at = CENTRES @ (np.eye(3) if rotation is None else rotation).T + np.asarray(shift)
    parts = [np.exp(-((axis[:, None] - at[:, k]) ** 2) / (2 * SIGMA**2)) for k in range(3)]
    return np.einsum("zi,yi,xi->zyx", *parts).astype(np.float32)


def recorded(volume, angles=ANGLES):
    return np.fft.ifftn(np.fft.fftn(volume) * wedge_mask(volume.shape, angles).numpy()).real.astype(np.float32)


def random_rotations(count, seed=0):
    return Rotation.random(count, random_state=seed).as_matrix()


def perturbed(rotations, shifts, seed, low=5.0, high=8.0):
    """The poses off by `low` to `high` degrees and 1 voxel."""
    rng = np.random.default_rng(seed)
    axes, moves = (rng.normal(size=(len(rotations), 3)) for _ in range(2))
    axes *= np.deg2rad(rng.uniform(low, high, len(axes)) / np.linalg.norm(axes, axis=1))[:, None]
    return Rotation.from_rotvec(axes).as_matrix() @ rotations, shifts + moves / np.linalg.norm(moves, axis=1)[:, None]


def recordings(count, side, noise, seed=0, angles=ANGLES):
    """Boxes of the specimen with noise and wedge, and their true poses."""
    rng = np.random.default_rng(seed)
    rotations, shifts = random_rotations(count, seed), rng.uniform(-0.5, 0.5, (count, 3))
    boxes = [
        recorded(blobs(side, r, s) + noise * rng.normal(size=(side,) * 3), angles)
        for r, s in zip(rotations, shifts, strict=True)
    ]
    return np.array(boxes), rotations, shifts


def cube_rotations():
    return np.round(Rotation.create_group("O").as_matrix())


# Boxes and masks


@settings(max_examples=20, deadline=None)
@given(st.tuples(*[st.floats(-0.5, 0.5)] * 3), st.sampled_from([15, 16]))
def test_a_particle_between_voxels_comes_to_the_middle_of_its_box(shift, side):
    tomogram = blobs(36, shift=shift)
    found = averaging.extract(tomogram, [np.array(shift) + 18], side)[0]
    np.testing.assert_allclose(found, averaging.in_box(blobs(35), side), atol=2e-3)


def test_boxes_at_whole_voxels_are_cut_and_between_them_keep_the_noise():
    noise = np.random.default_rng(0).normal(size=(40, 40, 40)).astype(np.float32)
    whole, between = averaging.extract(noise, [[20, 21, 19], [20.5, 20.5, 19.5]], 16)
    np.testing.assert_allclose(whole, noise[12:28, 13:29, 11:27], atol=1e-5)
    high = [np.abs(np.fft.rfftn(box))[4:8, 4:8, 4:8] ** 2 for box in (whole, between)]
    assert high[1].mean() == pytest.approx(high[0].mean(), rel=0.3) and between.std() == pytest.approx(1, rel=0.05)


def test_boxes_at_the_border():
    tomogram = np.zeros((20, 30, 30), np.float32)
    positions = [[8, 15, 15], [7.4, 15, 15], [12, 15, 15], [12.6, 15, 15], [10, 1, 15]]
    assert averaging.fits(tomogram.shape, positions, 16).tolist() == [True, False, True, False, False]
    assert averaging.extract(tomogram, positions[::2][:2], 16).shape == (2, 16, 16, 16)
    with pytest.raises(InputError, match=r"positions: 3 of 5 boxes .* the first at \(7.4, 15.0, 15.0\)"):
        averaging.extract(tomogram, positions, 16)
    assert averaging.extract(tomogram, [], 16).shape == (0, 16, 16, 16)


def test_masks():
    sphere = averaging.soft_sphere(24, 6, 4)
    assert sphere[12, 12, 18] == 1 and sphere[12, 12, 22] == 0 and sphere[12, 12, 20] == pytest.approx(0.5)
    density = blobs(24)
    mask = averaging.soft_mask(density, 0.3, grow=2, edge=3)
    assert (mask[density > 0.3] == 1).all() and mask.min() == 0 and ((mask > 0) & (mask < 1)).any()
    with pytest.raises(InputError, match="no voxel exceeds"):
        averaging.soft_mask(density, 99.0)


@pytest.mark.parametrize("side", [25, 26])
def test_a_placed_particle_is_found_at_its_pose(side):
    density = built_in_density("C1 two-lobed")
    density = density if side % 2 else np.pad(density, (0, 1))[1:, 1:, 1:]  # its centre moves with an even side
    wide = np.pad(density, 8)
    rotation, shift = random_rotations(1, 3)[0], np.array([0.3, -0.4, 0.2])
    tomogram = place(wide, rotation, shift)
    position = (np.array(wide.shape) - 1) / 2 + shift
    box = averaging.extract(tomogram, [position], side)
    back = averaging.average_boxes(box, [rotation], None)
    assert correlation(back, averaging.in_box(density, side)) > 0.98 > correlation(box[0], back) + 0.1


# Averages


def test_noise_falls_with_the_number_of_copies():
    side, count = 21, 24
    rng = np.random.default_rng(1)
    turns = cube_rotations()  # these take voxels to voxels: nothing is interpolated
    boxes = np.array([blobs(side, r) + rng.normal(size=(side,) * 3) for r in turns])
    noise = averaging.average_boxes(boxes, turns, None) - blobs(side)
    assert noise.var() == pytest.approx(1 / count, rel=0.05) and abs(noise.mean()) < 0.01


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(0, 23), min_size=1, max_size=5, unique=True), st.sampled_from([40, 60]))
def test_copies_average_to_the_density_wherever_one_measured_it(chosen, tilt):
    side, angles = 19, np.arange(-tilt, tilt + 1, 4.0)
    turns = cube_rotations()[chosen]
    density = np.random.default_rng(2).normal(size=(side,) * 3).astype(np.float32)
    middle = side // 2
    grid = np.stack(np.meshgrid(*[np.arange(side) - middle] * 3, indexing="ij"), -1)
    boxes = []
    for turn in turns:
        z, y, x = np.moveaxis(np.round(grid @ turn).astype(int) + middle, -1, 0)  # density(R^T u)
        boxes.append(recorded(density[z, y, x], angles))
    masks = np.array([wedge_mask((side,) * 3, angles, rotation=t.T.copy()).numpy() for t in turns])
    measured = masks.any(0)
    found = np.fft.fftn(averaging.average_boxes(boxes, turns, angles))
    truth = np.fft.fftn(density)
    np.testing.assert_allclose(found[measured], truth[measured], atol=1e-3 * np.abs(truth).max())
    np.testing.assert_allclose(found[~measured], 0, atol=1e-3 * np.abs(truth).max())
    plain = np.fft.fftn(averaging.average_boxes(boxes, turns, None))
    if (masks.all(0) != measured).any():  # without the weights, what only some measured comes out too weak
        assert np.linalg.norm((plain - truth)[measured]) > 0.05 * np.linalg.norm(truth)


def test_copies_at_any_orientation_average_to_the_density():
    boxes, rotations, shifts = recordings(25, 24, 0.0)
    total, weight = averaging.sums(boxes, rotations, ANGLES, shifts)
    assert weight.min() > 0
    found = averaging.average_boxes(boxes, rotations, ANGLES, shifts)
    mask = averaging.soft_sphere(24, 10)  # the wedge spreads a box's contents beyond its faces
    assert correlation(found * mask, blobs(24) * mask) > 0.998 and correlation(found, blobs(24)) > 0.99
    unmoved = averaging.average_boxes(boxes, rotations, ANGLES)
    assert correlation(unmoved * mask, blobs(24) * mask) < correlation(found * mask, blobs(24) * mask) - 5e-4
    parts = [averaging.sums(boxes[k::2], rotations[k::2], ANGLES, shifts[k::2]) for k in (0, 1)]
    np.testing.assert_allclose(parts[0][0] + parts[1][0], total, atol=1e-6 * np.abs(total).max())
    np.testing.assert_array_equal(parts[0][1] + parts[1][1], weight)
    each = averaging.average_boxes(boxes, rotations, [ANGLES] * 25, shifts)
    np.testing.assert_array_equal(each, found)


# Alignment


def test_small_rotations_are_a_ball_of_steps():
    for steps, count in ((0, 1), (1, 7), (2, 33), (3, 123)):
        turns = averaging.small_rotations(5.0, steps)
        assert len(turns) == count and np.allclose(turns[0], np.eye(3))
        assert np.rad2deg(Rotation.from_matrix(turns).magnitude()).max() == pytest.approx(5 * steps)


def test_scores_are_normalised_correlations_over_what_was_measured():
    side = 20
    rng = np.random.default_rng(3)
    reference, box = blobs(side), recorded(rng.normal(size=(side,) * 3) + blobs(side, shift=(1, 0, -1)))
    turn = cube_rotations()[5:6]
    found = averaging.align(reference, [box], np.eye(3)[None], ANGLES, turn, reach=0, shifts=[[1, 0, -1]])
    # the quarter turn about voxel n // 2, computed in closed form, and moved there
    mask = wedge_mask((side,) * 3, ANGLES).numpy().copy()
    mask[0, 0, 0] = False
    a, b = (np.fft.fftn(v)[mask] for v in (blobs(side, turn[0], (1, 0, -1)), box))
    direct = np.vdot(a, b).real / np.linalg.norm(a) / np.linalg.norm(b)
    moved = np.abs(found.shifts - [[1, 0, -1]]).max()  # the parabola's part of a voxel raises the score a little
    assert moved <= 0.5 and direct - 2e-3 <= found.scores[0] <= direct + 0.05


def test_what_lies_in_the_missing_wedge_changes_no_score():
    boxes, rotations, shifts = recordings(2, 20, 0.3, seed=4)
    junk = np.random.default_rng(5).normal(size=boxes.shape).astype(np.float32)
    filled = boxes + 5 * np.array([v - recorded(v) for v in junk])
    turns = averaging.small_rotations(4.0, 1)
    a, b = (averaging.align(blobs(20), v, rotations, ANGLES, turns, shifts=shifts) for v in (boxes, filled))
    np.testing.assert_allclose(a.scores, b.scores, atol=1e-4)
    np.testing.assert_allclose(a.shifts, b.shifts, atol=1e-3)
    c = averaging.align(blobs(20), filled, rotations, None, turns, shifts=shifts)
    assert (c.scores < a.scores - 0.1).all()  # taken for measured, it does


def test_a_pose_on_the_grid_comes_back():
    turns = averaging.small_rotations(6.0, 1)
    boxes, rotations, shifts = recordings(4, 24, 0.0, seed=6)
    starts = rotations @ turns[[1, 3, 5, 6]].mT
    found = averaging.align(blobs(24), boxes, starts, ANGLES, turns, shifts=shifts + np.array([1, -1, 0]))
    assert angular_error(found.rotations, rotations).max() < 1e-4
    np.testing.assert_allclose(found.shifts, shifts, atol=0.03)
    assert found.scores.min() > 0.99


@pytest.fixture(scope="module")
def refined():
    """Particles at an SNR of 1/2, off by 5 to 8 degrees and 1 voxel."""
    side = 24
    boxes, rotations, shifts = recordings(16, side, blobs(side).std() * 2**0.5, seed=7)
    starts, moves = perturbed(rotations, shifts, 8)
    mask = averaging.soft_sphere(side, 9)
    return boxes, rotations, shifts, starts, moves, mask


def test_poses_come_back_against_the_density(refined):
    boxes, rotations, shifts, starts, moves, mask = refined
    poses = averaging.Poses(starts, moves, np.zeros(len(boxes)))
    for step in (4.0, 2.0, 1.0):
        turns = averaging.small_rotations(step, 2)
        poses = averaging.align(blobs(24) * mask, boxes, poses.rotations, ANGLES, turns, shifts=poses.shifts)
    assert angular_error(poses.rotations, rotations).mean() < 1.5
    assert np.linalg.norm(poses.shifts - shifts, axis=1).max() < 0.3


def test_poses_come_back_in_halves_that_never_meet(refined):
    boxes, rotations, shifts, starts, moves, mask = refined
    kept = starts.copy(), moves.copy()
    found = averaging.refine(boxes, starts, ANGLES, shifts=moves, rounds=(4.0, 2.0, 1.0), mask=mask, voxel_size=10)
    np.testing.assert_array_equal(starts, kept[0])
    np.testing.assert_array_equal(moves, kept[1])
    # all particles may have turned alike: compare poses with one another
    turned = rotations.mT @ found.poses.rotations
    common = Rotation.from_matrix(turned).mean().as_matrix()
    assert angular_error(turned, np.broadcast_to(common, turned.shape)).mean() < 2
    assert angular_error(starts, rotations).mean() > 5
    first, last = found.curves[0].correlation, found.curves[-1].correlation
    assert len(found.curves) == 4 and last[3:9].mean() > first[3:9].mean() + 0.05
    before, after, best = (
        averaging.masked_fsc(averaging.registered(v, blobs(24), mask), blobs(24), mask).correlation[3:9].mean()
        for v in (
            averaging.average_boxes(boxes, starts, ANGLES, moves),
            averaging.average_boxes(boxes, found.poses.rotations, ANGLES, found.poses.shifts),
            averaging.average_boxes(boxes, rotations, ANGLES, shifts),
        )
    )
    assert before < best - 0.08 and after > best - 0.03
    assert np.isfinite(found.poses.scores).all() and found.half.tolist() == [0, 1] * 8


def test_a_common_reference_is_found_in_noise_but_not_by_independent_halves():
    side, count = 20, 20
    boxes = np.random.default_rng(9).normal(size=(count, side, side, side)).astype(np.float32)
    rotations, mask = random_rotations(count, 10), averaging.soft_sphere(side, 7)
    alone = averaging.refine(boxes, rotations, None, rounds=(8.0, 4.0), mask=mask)
    assert alone.curves[-1].correlation[1:4].mean() < 0.15 and abs(alone.curves[-1].correlation[2:].mean()) < 0.1
    poses = averaging.Poses(rotations, np.zeros((count, 3)), np.zeros(count))
    for step in (8.0, 4.0):
        turns = averaging.small_rotations(step, 2)
        poses = averaging.align(blobs(side) * mask, boxes, poses.rotations, None, turns, shifts=poses.shifts)
    a, b = (averaging.average_boxes(boxes[k::2], poses.rotations[k::2], None, poses.shifts[k::2]) for k in (0, 1))
    biased = averaging.masked_fsc(a, b, mask).correlation
    assert biased[1:4].mean() > 0.35
    assert correlation(a * mask, blobs(side) * mask) > 0.15  # the reference, out of noise


def test_a_turned_average_is_registered():
    turn = Rotation.from_rotvec(np.deg2rad([4.0, -3, 5])).as_matrix()
    moved, mask = blobs(24, turn, (1, -0.5, 0.3)), averaging.soft_sphere(24, 9)
    assert correlation(averaging.registered(moved, blobs(24), mask), blobs(24)) > 0.995 > correlation(moved, blobs(24))


def test_the_mask_itself_makes_no_correlation():
    rng = np.random.default_rng(11)
    mask = averaging.soft_sphere(32, 9)
    a, b = (5 + rng.normal(size=(32, 32, 32)) for _ in range(2))
    assert abs(averaging.masked_fsc(a, b, mask).correlation[1:].mean()) < 0.1
    assert fsc(a * mask, b * mask).correlation[0] > 0.9


def test_shells_are_weighted_by_their_agreement():
    volume = np.random.default_rng(12).normal(size=(16, 16, 16)).astype(np.float32)
    curve = fsc(volume, volume, voxel_size=10)
    np.testing.assert_allclose(weighted(volume, curve, 10), volume, atol=1e-5)
    none = type(curve)(curve.frequency, -np.ones(8))
    assert weighted(volume, none, 10).std() < 2e-3


BOX = np.zeros((2, 16, 16, 16), np.float32)
EYES = np.stack([np.eye(3)] * 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: averaging.average_boxes(BOX, EYES[:1], None), "one matrix a particle"),
        (lambda: averaging.average_boxes(BOX[:0], EYES[:0], None), "none given"),
        (lambda: averaging.average_boxes(BOX, EYES, [ANGLES] * 3), "lists for 3 boxes"),
        (lambda: averaging.average_boxes(BOX, EYES, None, [[0, 0, np.nan]] * 2), "not a finite number"),
        (lambda: averaging.align(BOX[0, :8], BOX, EYES, None, EYES), "have shapes"),
        (lambda: averaging.align(BOX[0], BOX, EYES, None, EYES, reach=9), "reach 9"),
        (lambda: averaging.refine(BOX, EYES, None, half=[0, 0]), "at least once"),
        (lambda: averaging.small_rotations(0, 2), "positive angle"),
        (lambda: averaging.extract(BOX, [[1, 1, 1]], 4), "give a tomogram"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_no_global_randomness():
    before = torch.get_rng_state()
    boxes, rotations, shifts = recordings(2, 16, 0.1)
    one, two = (averaging.refine(boxes, rotations, ANGLES, shifts=shifts, rounds=(2.0,)) for _ in range(2))
    np.testing.assert_array_equal(one.halves, two.halves)
    assert torch.equal(before, torch.get_rng_state())
