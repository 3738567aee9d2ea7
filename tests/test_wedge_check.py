"""The measured range is read off simulated tomograms within 2 degrees, and doubts are told only where there are any."""

import numpy as np
import pytest

from cryostudy import io
from cryostudy.errors import InputError
from cryostudy.simulate import make_specimen, simulate_tilt_series
from cryostudy.tomography import reconstruct, wedge_mask
from cryostudy.tomography.wedge_check import check_wedge, seen_range

RANGES = [(-60, 60), (-40, 40), (-70, 70), (-50, 60), (-66, 46)]


def tilts(first, last):
    return tuple(np.arange(first, last + 1, 2.0))


def tomogram(first=-60, last=60, level=0.25, filter="ramp", seed=1, shape=(48, 64, 64)):
    specimen = make_specimen(shape, densities="built-in", seed=seed)
    angles = tilts(first, last)
    series, _ = simulate_tilt_series(specimen.density, angles, "ddw", level, seed)
    return reconstruct(series, angles, shape[0], filter=filter)


@pytest.fixture(scope="module")
def usual():
    return tomogram()


@pytest.mark.parametrize(("first", "last"), RANGES)
@pytest.mark.parametrize(("level", "filter"), [(0.5, "ramp"), (0.5, "sirt-like"), (1 / 6, "hamming"), (1 / 6, None)])
def test_simulated_ranges_are_seen(first, last, level, filter):
    found = tomogram(first, last, level, filter)
    start, stop, contrast = seen_range(found)
    assert abs(start - first) <= 2 and abs(stop - last) <= 2 and contrast < 0.1
    assert check_wedge(found, tilts(first, last)) is None


@pytest.mark.parametrize(("first", "last"), RANGES)
def test_an_ideal_wedge_is_seen_in_white_noise(first, last):
    """The sign is that of `wedge_mask`."""
    noise = np.fft.fftn(np.random.default_rng(0).normal(size=(64, 48, 64)))
    found = np.fft.ifftn(noise * wedge_mask(noise.shape, tilts(first, last)).numpy()).real
    start, stop, _ = seen_range(found)
    assert abs(start - first) <= 2 and abs(stop - last) <= 2


def test_wrong_angles_are_named(usual):
    for wrong in (tilts(-50, 50), tilts(-60, 50), tilts(-70, 60)):
        told = check_wedge(usual, wrong)
        assert "shows tilts from -6" in told and f"go from {wrong[0]:.0f}° to {wrong[-1]:.0f}°" in told
    assert "none is missing" in check_wedge(usual, tilts(-90, 88))
    one_sided = tomogram(-66, 46)
    assert check_wedge(one_sided, tilts(-66, 46)) is None and check_wedge(one_sided, tilts(-46, 66)) is not None


def test_the_order_and_a_few_degrees_do_not_matter(usual):
    shuffled = np.random.default_rng(0).permutation(tilts(-60, 60))
    assert check_wedge(usual, shuffled) is None
    assert check_wedge(usual, tilts(-62, 58)) is None


def test_padding_grey_scale_and_rounding_do_not_matter(usual):
    angles = tilts(-60, 60)
    assert check_wedge(np.pad(usual, ((9, 20), (30, 5), (11, 30))), angles) is None
    assert check_wedge(-300 * usual + 1000, angles) is None
    assert check_wedge(np.round(usual / usual.std() * 20).astype(np.int8), angles) is None


def test_a_volume_without_a_wedge_shows_none():
    full = tomogram(-90, 88)
    assert seen_range(full).contrast > 0.8
    assert check_wedge(full, tilts(-90, 88)) is None
    assert "no missing wedge" in check_wedge(full, tilts(-60, 60))


def test_another_tilt_axis_is_named(usual):
    assert "as if the tilt axis were z" in check_wedge(np.swapaxes(usual, 0, 1), tilts(-60, 60))
    assert "as if the tilt axis were x" in check_wedge(np.swapaxes(usual, 1, 2), tilts(-60, 60))


def test_too_small_a_volume_tells_nothing():
    noise = np.random.default_rng(0).normal(size=(16, 40, 40)).astype(np.float32)
    assert check_wedge(noise, tilts(-60, 60)) is None
    with pytest.raises(InputError):
        check_wedge(noise, [])


def test_real_tomogram(shared):
    """The registry says about ±60 degrees; the spectrum says as much, turned by a few degrees."""
    volume = io.read_volume(shared / "data" / "real" / "microtubule_13pf.mrc").data
    start, stop, contrast = seen_range(volume)
    assert contrast < 0.05 and stop - start == pytest.approx(120, abs=5) and abs(start + stop) / 2 < 6
    assert "from -66° to 56°" in check_wedge(volume, tilts(-60, 60))
    assert check_wedge(volume, tilts(-66, 56)) is None
