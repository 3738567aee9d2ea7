"""Templates and poses of real particles, on boxes made from known densities at known poses."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cryostudy import particles, real_particles
from cryostudy.averaging import align, soft_mask, turned
from cryostudy.errors import InputError
from cryostudy.matching import rotations
from cryostudy.metrics import correlation
from cryostudy.poses import angular_error

SIDE, SMALL = 32, 20
TILTS = tuple(range(-60, 61, 3))


@pytest.fixture(scope="module")
def simulated():
    """Eight particles as the real ones were recorded, their recordings, and their density."""
    found, density = particles.simulated_ribosomes(count=8, snr=5.0, seed=1)
    return found, [particles.acquisition(p, particles.MATCHED) for p in found], density


@pytest.fixture(scope="module")
def planted(simulated):
    """The density as it lies in a frame that is turned and moved."""
    turn, move = Rotation.random(random_state=3).as_matrix(), np.array([1.0, -2.0, 1.5])
    average = turned(simulated[2], turn.T, -turn.T @ move)
    noise = np.random.default_rng(0).normal(scale=0.3 * average.std(), size=average.shape)
    return turn, move, (average + noise).astype(np.float32)


def test_frame_is_recovered(simulated, planted):
    turn, move, average = planted
    found = real_particles.frame(average, simulated[2], side=SMALL, step=30.0)
    assert angular_error(found.rotations, turn[None])[0] < 1.5
    np.testing.assert_allclose(found.shifts[0], move, atol=0.3)


def test_the_other_hand_scores_lower(simulated, planted):
    density, average = simulated[2], planted[2]
    right, wrong = (
        real_particles.frame(average, d, side=SMALL, step=30.0).scores[0]
        for d in (density, real_particles.mirrored(density))
    )
    assert right > 0.95 and right > wrong + 0.02


def test_poses_in_the_frame_place_the_density(simulated, planted):
    """A box cut at a pose of the average's frame and the density at the pose in its own are one and the same."""
    turn, move, _ = planted
    density = simulated[2]
    frame = real_particles.Poses(turn[None], move[None], np.ones(1))
    pose = Rotation.random(2, random_state=5).as_matrix()
    own, shifts = real_particles.in_frame(frame, pose)
    average = turned(density, turn.T, -turn.T @ move)
    for k in range(2):
        in_box = turned(average, pose[k].T)  # what lies at v in the average lies at R v in the box
        assert correlation(turned(in_box, own[k], shifts[k]), density) > 0.97


def test_orientations_are_found_in_recorded_boxes(simulated):
    found, recordings, density = simulated
    reference = real_particles.cropped((density * soft_mask(density, 0.1))[None], SMALL)[0]
    boxes = real_particles.cropped([a.full for a in recordings], SMALL)
    angles = [p.tilt_angles for p in found]
    poses = real_particles.oriented(reference, boxes, angles, rotations(20.0), reach=2)
    assert angular_error(poses.rotations, [p.pose for p in found]).max() < 20
    assert np.abs(poses.shifts).max() < 0.5


def test_oriented_is_align_from_no_pose(simulated):
    """The shortcut, one set of turned references for all boxes, changes nothing."""
    found, recordings, density = simulated
    boxes = real_particles.cropped([a.full for a in recordings[:3]], SMALL)
    reference = real_particles.cropped(density[None], SMALL)[0]
    angles, turns = [p.tilt_angles for p in found[:3]], rotations(60.0)
    ours = real_particles.oriented(reference, boxes, angles, turns, reach=2)
    theirs = align(reference, boxes, np.repeat(np.eye(3)[None], 3, 0), angles, turns, reach=2)
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-5)
    np.testing.assert_allclose(ours.rotations, theirs.rotations, atol=1e-6)
    np.testing.assert_allclose(ours.shifts, theirs.shifts, atol=1e-4)


def test_local_refinement_comes_back(simulated):
    found, recordings, density = simulated
    true, none = np.array([p.pose for p in found]), np.zeros((len(found), 3))
    start, off = real_particles.perturbed(true, none, 10.0, 1.0, seed=0)
    np.testing.assert_allclose(angular_error(start, true), 10, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(off, axis=1), 1)
    boxes, angles = np.stack([a.full for a in recordings]), [p.tilt_angles for p in found]
    poses = real_particles.refined(density, boxes, start, off, angles)
    assert angular_error(poses.rotations, true).mean() < 4
    assert np.linalg.norm(poses.shifts, axis=1).mean() < 0.3


def test_cropping_keeps_the_middle_and_what_is_smooth():
    axis = np.arange(SIDE) - SIDE // 2
    far = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2
    blob = np.exp(-far / (2 * 3.0**2)).astype(np.float32)
    small = real_particles.cropped(blob[None], SMALL)[0]
    assert np.unravel_index(small.argmax(), small.shape) == (SMALL // 2,) * 3
    np.testing.assert_allclose(small.max(), 1, atol=0.01)
    with pytest.raises(InputError, match="even side"):
        real_particles.cropped(blob[None], 21)


def test_whitening_undoes_a_filter():
    """Boxes before and after any radial filter are alike once white, and white means no mean and unit power a shell."""
    boxes = np.random.default_rng(0).normal(size=(3, 16, 16, 16)).astype(np.float32)
    grid = np.sqrt(sum(f**2 for f in np.meshgrid(*[np.fft.fftfreq(16)] * 3, indexing="ij")))
    shells = np.round(grid * 16).astype(int)
    falling = np.fft.ifftn(np.fft.fftn(boxes, axes=(1, 2, 3)) * np.exp(-shells / 3), axes=(1, 2, 3)).real
    first, second = (real_particles.whitened(b.astype(np.float32)) for b in (boxes, falling))
    np.testing.assert_allclose(second, first, atol=1e-3 * first.max())
    power = (np.abs(np.fft.fftn(first, axes=(1, 2, 3))) ** 2).mean(0)
    np.testing.assert_allclose([power[shells == k].mean() for k in range(1, 8)], 1, rtol=1e-3)
    assert power[0, 0, 0] < 1e-6  # grey values have no zero


def test_noise_alike_has_the_spectrum_and_nothing_else(simulated):
    one = simulated[0][0]
    noise = real_particles.noise_alike(one, seed=0)
    before, after = (np.abs(np.fft.rfft2(p.images))[:, :-1, 1:-1] for p in (one, noise))
    np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-3 * before.max())
    assert abs(correlation(noise.images, one.images)) < 0.05
    assert not np.array_equal(real_particles.noise_alike(one, seed=1).images, noise.images)


def test_montage_holds_every_box_once(simulated):
    recordings = simulated[1][:5]
    made = real_particles.montage(recordings, columns=2)
    assert made.full.shape == (SIDE, 3 * SIDE, 2 * SIDE)
    np.testing.assert_array_equal(made.full[:, SIDE : 2 * SIDE, SIDE:], recordings[3].full)
    np.testing.assert_array_equal(made.halves[1][:, 2 * SIDE :, :SIDE], recordings[4].halves[1])
    np.testing.assert_array_equal(made.full[:, 2 * SIDE :, SIDE:], recordings[0].full)  # fills the row


def test_boxes_that_do_not_fit_are_refused(simulated):
    density = simulated[2]
    with pytest.raises(InputError, match="a quarter"):
        real_particles.oriented(density, density[None], None, rotations(90.0), reach=9)
    with pytest.raises(InputError, match="of that shape"):
        real_particles.oriented(density, density[None, 1:], None, rotations(90.0), reach=2)
