"""Halves that are no pair are refused, poor pairs are named, and good ones pass without a word."""

import re
import warnings

import numpy as np
import pytest
from scipy import ndimage

from cryostudy.errors import InputError
from cryostudy.halves import check_halves
from cryostudy.simulate import make_specimen, simulate_tilt_series
from cryostudy.tomography import reconstruct, split_even_odd

ANGLES = tuple(np.arange(-60.0, 61, 2))
NAMES = ("even.mrc", "odd.mrc")


def halves(level, filter="ramp", seed=1, shape=(32, 48, 48)):
    specimen = make_specimen(shape, densities="built-in", seed=seed)
    series, _ = simulate_tilt_series(specimen.density, ANGLES, "ddw", level, seed)
    parts = split_even_odd(series, ANGLES)
    return tuple(reconstruct(part, angles, shape[0], filter=filter) for part, angles in parts)


@pytest.fixture(scope="module")
def pair():
    return halves(0.25)


def silent(even, odd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_halves(even, odd, NAMES)


@pytest.mark.parametrize("level", [1 / 2, 1 / 6])
@pytest.mark.parametrize("filter", ["ramp", "hamming", "sirt-like", None])
@pytest.mark.parametrize("seed", [1, 2])
def test_even_and_odd_tilts_pass(level, filter, seed):
    even, odd = halves(level, filter, seed)
    silent(even, odd)
    silent(odd, even)
    silent(np.pad(even + 50, 9), np.pad(odd + 50, 9))


def test_filtered_rounded_and_cut_halves_pass(pair):
    silent(*(ndimage.gaussian_filter(half, 1) for half in pair))
    silent(*(np.round(10 * half / half.std()) for half in pair))
    silent(*(half[:9, 5:18, :31] for half in pair))


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("width", [0, 1, 3])
def test_noise_alone_shares_nothing(seed, width):
    """The negative control must not be told that it is inverted or shifted."""
    rng = np.random.default_rng(seed)
    pair = (ndimage.gaussian_filter(rng.normal(size=(24, 33, 40)).astype(np.float32), width) for _ in range(2))
    with pytest.warns(UserWarning) as found:
        check_halves(*pair, NAMES)
    assert [str(w.message) for w in found] == [
        "odd.mrc and even.mrc agree nowhere beyond chance: they may be of different specimens; check the pair"
    ]


def test_halves_of_different_specimens_are_named():
    with pytest.warns(UserWarning, match="agree nowhere beyond chance"):
        check_halves(halves(0.5)[0], halves(0.5, seed=2)[1], NAMES)


@pytest.mark.parametrize("scale", [1.0, 3.0, -2.0])
def test_one_volume_given_twice_is_refused_whatever_its_grey_scale(pair, scale):
    with pytest.raises(InputError, match=r"odd\.mrc: identical with even\.mrc"):
        check_halves(pair[0], scale * pair[0] + 5, NAMES)


@pytest.mark.parametrize("level", [1 / 2, 1 / 6])
def test_inverted_contrast_is_refused(level):
    even, odd = halves(level)
    with pytest.raises(InputError, match=r"odd\.mrc: its contrast is inverted"):
        check_halves(even, -odd, NAMES)


@pytest.mark.parametrize("level", [1 / 2, 1 / 6])
def test_the_full_tomogram_in_place_of_a_half_shares_noise(level):
    even, odd = halves(level)
    with pytest.warns(UserWarning, match=r"odd\.mrc and even\.mrc agree beyond 0\.4") as told:
        check_halves(even, (even + odd) / 2, NAMES)
    assert len(told) == 1 and "\n" not in str(told[0].message)


@pytest.mark.parametrize(
    ("shift", "level"),
    [((1, 0, 0), 1 / 2), ((0, 1, 0), 1 / 2), ((2, -3, 5), 1 / 2), ((0, 0, -1), 1 / 6), ((0, 7, 0), 1 / 6)],
)
def test_a_shift_is_named(shift, level):
    even, odd = halves(level, shape=(36, 64, 64))
    inner = (slice(4, -4), slice(8, -8), slice(8, -8))
    with pytest.warns(UserWarning, match=r"odd\.mrc is shifted against even\.mrc by about \(") as told:
        check_halves(even[inner], np.roll(odd, shift, (0, 1, 2))[inner], NAMES)
    assert len(told) == 1
    named = re.findall(r"-?\d+", str(told[0].message))
    np.testing.assert_allclose([int(n) for n in named], shift, atol=0 if level == 1 / 2 else 1)


def test_half_a_voxel_is_no_shift(pair):
    even, odd = pair
    silent(even, ndimage.shift(odd, (0, 0.4, 0), order=3, mode="nearest"))
