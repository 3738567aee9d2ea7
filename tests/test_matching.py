"""The search: scores by definition, planted particles, wedge, tiles, resume, and no more false peaks than stated."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation

from cryostudy.errors import InputError
from cryostudy.matching import (
    angle_between,
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
)
from cryostudy.matching import checkpoint as checkpoints
from cryostudy.matching.search import scorer
from cryostudy.matching.template import extent, is_spherical
from cryostudy.matching.tiles import memory_estimate, tiles
from cryostudy.noise import fbp_noise
from cryostudy.simulate.builtin import BUILT_IN, built_in_density
from cryostudy.simulate.placement import place, random_rotation
from cryostudy.tomography import wedge_mask

TILTS = tuple(range(-60, 61, 3))


def small(name="C1 two-lobed", voxel_size=20.0):
    """A built-in particle of few voxels."""
    return resampled(built_in_density(name), 10.0, voxel_size)


def direct(volume, kernel, mask):
    """Pearson's correlation under a mask, at every voxel, straight from the definition and in float64."""
    half = kernel.shape[0] // 2
    standard = (volume - volume.mean()) / volume.std()
    padded = np.pad(standard.astype(np.float64), half)
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape)
    m = mask.astype(np.float64) / mask.sum(dtype=np.float64)
    t = kernel - (m * kernel).sum()
    mean = np.einsum("zyxijk,ijk->zyx", windows, m)
    square = np.einsum("zyxijk,ijk->zyx", windows**2, m)
    cross = np.einsum("zyxijk,ijk->zyx", windows, m * t)
    return cross / np.sqrt((m * t**2).sum() * (square - mean**2))


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
    grid = rotations(90)
    match = search(volume, template, grid, mask=mask, tilt_angles=angles, noise_reference=False, device="cpu")
    made = scorer(template, mask, template, **{**SETTINGS, "angles": angles})
    matrices = torch.as_tensor(grid)
    cubes, masks = made.templates(matrices).numpy(), made.masks(matrices).numpy()
    expected = np.stack([direct(volume, cube, masks[k % len(masks)]) for k, cube in enumerate(cubes)])
    assert np.abs(match.scores - expected.max(0)).max() < 1e-4
    chosen = np.take_along_axis(expected, match.orientations[None].astype(int), 0)[0]
    assert np.abs(chosen - expected.max(0)).max() < 1e-4


@pytest.mark.parametrize("name", ["C1 two-lobed", "D2 tetramer"])
def test_planted_particle_is_found_in_place_and_pose(name):
    symmetry, step, side = BUILT_IN[name][0], 30, 40
    template = small(name, 30.0)
    grid = rotations(step, symmetry)
    rng = np.random.default_rng(1)
    for _ in range(20):
        pose, shift = random_rotation(rng), rng.uniform(-8, 8, 3)
        volume = place(np.pad(template, (side - len(template)) // 2), pose, shift)
        truth = (np.array(volume.shape) - 1) / 2 + shift
        volume = volume + rng.normal(0, 0.1, volume.shape)
        match = search(volume, template, grid, noise_reference=False, device="cpu", progress=False)
        found = find(match, 4, count=1)
        assert np.abs(found.positions[0] - truth).max() < 1
        assert angle_between(found.rotations[0], pose, symmetry) < step
