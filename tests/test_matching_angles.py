"""The grid of orientations: uniform, fine enough everywhere, and smaller by the order of the symmetry."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from cryostudy.errors import InputError
from cryostudy.matching import rotations
from cryostudy.matching.turn import oversampled, turned
from cryostudy.poses import angular_error
from cryostudy.simulate.builtin import built_in_density
from cryostudy.simulate.placement import place

GROUPS = [("C1", 1), ("C2", 2), ("C6", 6), ("D2", 4), ("D7", 14), ("T", 12), ("O", 24), ("I", 60)]


@pytest.mark.parametrize(("symmetry", "order"), GROUPS)
def test_every_rotation_has_a_neighbour_within_the_step(symmetry, order):
    step = 20 if order < 10 else 10
    grid = rotations(step, symmetry)
    assert np.allclose(grid @ grid.transpose(0, 2, 1), np.eye(3)) and np.allclose(np.linalg.det(grid), 1)
    whole = 8 * np.pi**2 / np.deg2rad(step) ** 3
    assert len(grid) == pytest.approx(whole / order, rel=0.05)
    asked = Rotation.random(200, random_state=1).as_matrix()
    nearest = np.array([angular_error(grid, np.broadcast_to(q, grid.shape), symmetry).min() for q in asked])
    assert nearest.max() < step
    assert nearest.mean() < 0.6 * step


def test_no_orientation_is_searched_much_more_than_another():
    # The rotation angle w of uniform rotations has the density (1 - cos w) / pi.
    grid = rotations(12)
    angle = np.sort(angular_error(grid, np.broadcast_to(np.eye(3), grid.shape)))
    expected = (np.deg2rad(angle) - np.sin(np.deg2rad(angle))) / np.pi
    assert np.abs(np.linspace(0, 1, len(angle)) - expected).max() < 0.01


@pytest.mark.parametrize("name", ["C0", "X", "", "C", "helical"])
def test_unknown_symmetry_is_refused(name):
    with pytest.raises(InputError, match="symmetry"):
        rotations(20, name)


@pytest.mark.parametrize("step", [0, -5, 200, float("nan")])
def test_step_out_of_range_is_refused(step):
    with pytest.raises(InputError, match="step"):
        rotations(step)


def test_turned_templates_are_those_that_specimens_are_made_of():
    template = built_in_density("C1 two-lobed")
    matrices = Rotation.random(3, random_state=2).as_matrix()
    found = turned(oversampled(template), torch.as_tensor(matrices), template.shape[0]).numpy()
    for cube, matrix in zip(found, matrices, strict=True):
        made = place(template, matrix, np.zeros(3))  # cubic spline
        assert np.corrcoef(cube.ravel(), made.ravel())[0, 1] > 0.9999


def test_turned_templates_are_exact_where_the_template_is_known_between_voxels():
    centre = np.array([3.0, -2.0, 1.5])

    def blob(place, side):
        axis = np.arange(side) - (side - 1) / 2
        z, y, x = (np.exp(-((axis - c) ** 2) / (2 * 1.8**2)) for c in place)
        return z[:, None, None] * y[:, None] * x

    matrix = Rotation.random(random_state=5).as_matrix()
    for side in (24, 25):  # the centre of an even side lies between voxels
        found = turned(oversampled(blob(centre, side)), torch.as_tensor(matrix[None]), 25)[0].numpy()
        assert np.abs(found - blob(matrix @ centre, 25)).max() < 0.01
