import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cryostudy.errors import InputError
from cryostudy.fourier import frequency_grid, multiplicity, radius, shell_index

sides = st.lists(st.integers(2, 11), min_size=1, max_size=3)


@settings(deadline=None, max_examples=30)
@given(sides)
def test_halved_layout_is_the_first_part_of_the_full_one(shape):
    full = radius(shape, rfft=False)
    assert radius(shape).shape == torch.fft.rfftn(torch.zeros(shape)).shape
    assert torch.equal(radius(shape), full[..., : shape[-1] // 2 + 1])
    expected = np.sqrt(sum(g**2 for g in np.meshgrid(*map(np.fft.fftfreq, shape), indexing="ij")))
    np.testing.assert_allclose(full, expected, atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(sides, st.integers(0, 99))
def test_multiplicity_restores_the_full_sum(shape, seed):
    volume = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    half = torch.fft.rfftn(volume).abs() ** 2
    torch.testing.assert_close((half * multiplicity(shape)).sum(), (torch.fft.fftn(volume).abs() ** 2).sum())


@settings(deadline=None, max_examples=30)
@given(sides)
def test_shells_do_not_depend_on_the_layout(shape):
    index, frequency = shell_index(shape)
    full, full_frequency = shell_index(shape, rfft=False)
    assert torch.equal(index, full[..., : shape[-1] // 2 + 1])
    torch.testing.assert_close(frequency, full_frequency)
    assert len(frequency) == min(shape) // 2


@pytest.mark.parametrize("n", [8, 27, 54])
def test_shells_of_a_cube_are_rounded_radii(n):
    index, frequency = shell_index((n, n, n), rfft=False)
    k = np.fft.fftfreq(n) * n
    distance = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)
    expected = np.round(distance * (n // 2 * 2 / n)).astype(int) - 1
    expected[(expected < 0) | (expected >= n // 2)] = n // 2
    assert (index.numpy() == expected).all()
    first = distance[expected == 0].mean() / n
    assert frequency[0] == pytest.approx(first, rel=1e-5)


def test_shells_of_a_slab_follow_spatial_frequency():
    # The same plane wave must fall into the same shell whichever axis it runs along.
    index, frequency = shell_index((16, 64, 32), rfft=False)
    assert len(frequency) == 8
    for cycles in (1 / 8, 1 / 4, 3 / 8):
        along = (
            index[round(16 * cycles), 0, 0],
            index[0, round(64 * cycles), 0],
            index[0, 0, round(32 * cycles)],
        )
        assert len(set(map(int, along))) == 1
    assert (torch.diff(frequency) > 0).all() and frequency[0] > 0 and frequency[-1] <= 0.54
    assert index[0, 0, 0] == 8 and index[0, 1, 0] == 0


def test_unusable_boxes_are_refused():
    with pytest.raises(InputError, match="shape"):
        frequency_grid((4, 0))
    with pytest.raises(InputError, match="shape"):
        shell_index((1, 8, 8))
