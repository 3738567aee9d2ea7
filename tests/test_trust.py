"""Trust maps have known answers on volumes made for them."""

import numpy as np
import pytest

from cryostudy.errors import InputError
from cryostudy.simulate import make_specimen, simulate_tilt_series
from cryostudy.tomography import reconstruct, wedge_fraction, wedge_mask
from cryostudy.trust import spread, wedge_content

ANGLES = tuple(np.arange(-60.0, 61, 2))
SHAPE = (48, 40, 56)


def noise(seed=0, shape=SHAPE):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def part(volume, measured, angles=ANGLES):
    mask = wedge_mask(volume.shape, angles).numpy()
    return np.fft.ifftn(np.fft.fftn(volume) * (mask if measured else ~mask)).real.astype(np.float32)


def inside(volume):
    return volume[8:-8, 8:-8, 8:-8]


def test_what_was_measured_has_no_content_and_a_pure_wedge_nothing_else():
    """Up to the faces, where the transform of the smaller box and of the faded one differ a little."""
    measured, filled = (inside(wedge_content(part(noise(), which), ANGLES)) for which in (True, False))
    assert measured.mean() < 0.03 and np.quantile(measured, 0.99) < 0.1
    assert filled.mean() > 0.95 and np.quantile(filled, 0.01) > 0.85


def test_white_noise_is_filled_as_much_as_the_wedge_is_wide():
    found = wedge_content(noise(), ANGLES)
    assert found.shape == SHAPE and found.dtype == np.float32 and found.min() >= 0 and found.max() <= 1
    # In a box, the share of Fourier voxels in the wedge is what the sphere's share says within a few percent.
    assert found.mean() == pytest.approx(1 - wedge_mask(SHAPE, ANGLES).numpy().mean(), abs=0.03)
    assert found.mean() == pytest.approx(wedge_fraction(ANGLES), abs=0.1)


def test_content_is_local():
    volume = part(noise(), True)
    volume[:, :, 28:] = part(noise(1), False)[:, :, 28:]
    found = wedge_content(volume, ANGLES)
    assert inside(found)[:, :, :8].mean() < 0.2 and found[8:-8, 8:-8, 40:50].mean() > 0.7


def test_grey_scale_does_not_matter():
    volume = part(noise(), True) + 0.5 * part(noise(1), False)
    np.testing.assert_allclose(wedge_content(volume * -7 + 500, ANGLES), wedge_content(volume, ANGLES), atol=1e-3)


def test_a_reconstruction_holds_next_to_nothing_in_its_wedge():
    specimen = make_specimen((40, 48, 48), densities="built-in", seed=1)
    series, _ = simulate_tilt_series(specimen.density, ANGLES, "ddw", 0.25, 1)
    raw = reconstruct(series, ANGLES, 40)
    assert wedge_content(raw, ANGLES).mean() < 0.06
    assert wedge_content(specimen.density, ANGLES).mean() > 2 * wedge_content(raw, ANGLES).mean()


def test_nothing_has_no_content_and_a_full_series_no_wedge():
    assert (wedge_content(np.zeros(SHAPE, np.float32), ANGLES) == 0).all()
    assert (wedge_content(noise(), np.arange(-90, 90, 2)) == 0).all()
    with pytest.raises(InputError, match="2-D"):
        wedge_content(np.zeros((8, 8)), ANGLES)


def test_spread_of_copies_is_zero_whatever_their_offset():
    volume = noise()
    np.testing.assert_allclose(spread([volume, volume + 5, volume - 3]), 0, atol=1e-5)


def test_spread_of_noise_is_its_sigma():
    base, sigma = 50 * noise(), np.full(SHAPE, 2.0)
    sigma[:, :, 28:] = 6
    found = spread(base + sigma * noise(k) for k in range(1, 41))
    assert found.dtype == np.float32
    np.testing.assert_allclose([found[..., :28].mean(), found[..., 28:].mean()], [2, 6], rtol=0.02)


def test_spread_is_the_sample_deviation():
    volumes = [1000 + noise(k) for k in range(3)]
    centred = np.stack([v - v.mean(dtype=np.float64) for v in volumes])
    np.testing.assert_allclose(spread(volumes), centred.std(0, ddof=1), atol=1e-4)


@pytest.mark.parametrize("shapes", [[], [(8, 8, 8)], [(8, 8, 8), (8, 8, 9)]])
def test_spread_refuses_what_has_none(shapes):
    with pytest.raises(InputError, match="spread"):
        spread([noise(0, shape) for shape in shapes])
