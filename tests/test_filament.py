"""The filament's axis, wall and repeat are found where they were put; a smooth tube has no layer line."""

import numpy as np
import pytest

from cryostudy.errors import InputError
from cryostudy.metrics.filament import axial_spectrum, filament_axis, find_filament, layer_line, wall_contrast
from cryostudy.simulate.microtubule import REPEAT, microtubule

SHAPE, VOXEL = (36, 160, 94), 10.52


def noisy(density, deviation=0.15, seed=0):
    return (density + np.random.default_rng(seed).normal(0, deviation, density.shape)).astype(np.float32)


@pytest.mark.parametrize("turn", [-17.75, 0.0, 9.0])
def test_the_axis_is_found_in_noise(turn):
    axis = filament_axis(noisy(microtubule(SHAPE, VOXEL, turn=turn)))
    assert np.rad2deg(np.arctan2(axis[2], axis[1])) == pytest.approx(turn, abs=0.6)
    assert abs(np.rad2deg(np.arcsin(axis[0]))) < 1.1 and np.linalg.norm(axis) == pytest.approx(1)


def test_the_wall_is_the_tube_and_the_background_is_not():
    density = microtubule(SHAPE, VOXEL)
    filament = find_filament(noisy(density))
    assert density[filament.wall].mean() > 8 * density.mean()
    assert all(density[box].max() < 1e-3 and density[box].shape == (24, 24, 24) for box in filament.background)
    assert np.nanmax(filament.section) > 0.2 and np.nanmedian(filament.section) == pytest.approx(0, abs=0.02)


def test_contrast_is_signal_over_noise_whatever_the_grey_scale():
    density = microtubule(SHAPE, VOXEL, lattice=False)
    volume = noisy(density)
    filament = find_filament(volume)
    expected = density[filament.wall].mean() / 0.15
    assert wall_contrast(volume, filament) == pytest.approx(expected, rel=0.03)
    assert wall_contrast(7 * volume + 100, filament) == pytest.approx(expected, rel=0.03)


def test_the_layer_line_is_where_the_repeat_is_and_nowhere_else():
    axis = find_filament(noisy(microtubule(SHAPE, VOXEL))).axis
    lattice, smooth = (noisy(microtubule(SHAPE, VOXEL, lattice=kind)) for kind in (True, False))
    frequency, power = axial_spectrum(lattice, axis)
    near = (frequency > 0.2) & (frequency < 0.32)
    assert frequency[near][power[near].argmax()] * REPEAT / VOXEL == pytest.approx(1, abs=0.02)
    assert layer_line(lattice, axis, REPEAT / VOXEL) > 10
    assert layer_line(smooth, axis, REPEAT / VOXEL) < 2


def test_the_control_weighs_as_much_as_the_lattice():
    lattice, smooth = (microtubule(SHAPE, VOXEL, lattice=kind).sum() for kind in (True, False))
    assert smooth == pytest.approx(lattice, rel=0.005)


def test_an_empty_volume_is_refused():
    with pytest.raises(InputError, match="find_filament"):
        find_filament(np.zeros((24, 30, 26), np.float32))
