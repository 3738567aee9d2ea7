"""The plain U-Net: any sides, one shift-equivariance per pooling step, no voxel reaches farther than its halo; and it
says the same of some voxels as of all."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cryostudy.models import UNet, unet


@pytest.mark.parametrize("shape", [(8, 8, 8), (9, 14, 23), (1, 5, 31)])
def test_any_sides_come_back(shape):
    assert UNet(2, 2, inputs=3, outputs=2)(torch.randn(2, 3, *shape)).shape == (2, 2, *shape)


def test_channels_double_and_count_as_the_formula_says():
    widths, count = [4, 8, 16], 0
    for a, b in [(1, 4), (4, 8), (8, 16), (24, 8), (12, 4)]:
        count += 27 * (a * b + b * b) + 2 * b
    assert sum(p.numel() for p in UNet(widths[0], 2).parameters()) == count + 4 + 1


def test_a_shift_by_the_pooling_step_shifts_the_output():
    torch.manual_seed(0)
    network, x = UNet(2, 2).double(), torch.randn(1, 1, 48, 48, 48, dtype=torch.float64)
    y, shifted = network(x), network(torch.roll(x, 4, 2))
    assert torch.allclose(torch.roll(y, 4, 2)[..., 22:26, 22:26, 22:26], shifted[..., 22:26, 22:26, 22:26], atol=1e-12)


def test_a_voxel_reaches_no_farther_than_the_halo():
    torch.manual_seed(0)
    network, x = UNet(2, 2).double(), torch.randn(1, 1, 8, 8, 96, dtype=torch.float64)
    changed = x.clone()
    changed[..., 0] += 1
    reached = (network(x) != network(changed)).any(dim=(0, 1, 2, 3)).nonzero()
    assert 8 < reached.max() <= 24


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 3), st.tuples(*[st.integers(1, 14)] * 3), st.sampled_from([0.0, 0.02, 0.3]), st.integers(0, 10**6)
)
def test_some_voxels_alone_are_what_they_are_in_the_whole(levels, shape, share, seed):
    """In value and in gradient, at borders and beyond: sides are extended to whole halvings."""
    torch.manual_seed(seed)
    network, x = UNet(2, levels, outputs=2).double(), torch.randn(2, 1, *shape, dtype=torch.float64)
    at = torch.rand(2, 1, *shape) < share
    at[0, 0, 0, 0, 0] = at[1, 0, -1, -1, -1] = True
    found = {}
    for few in (0.0, 1.1):  # by the whole volume, and by windows
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(unet, "FEW", few)
            values = network(x, at=at)
        found[few] = [values, *torch.autograd.grad(values.square().sum(), list(network.parameters()))]
    torch.testing.assert_close(found[0.0][0], network(x).movedim(1, -1)[at[:, 0]])
    torch.testing.assert_close(found[1.1], found[0.0], rtol=1e-9, atol=1e-9)


def test_few_voxels_are_computed_by_windows(monkeypatch):
    network, x, at = UNet(2, 1), torch.randn(1, 1, 8, 8, 8), torch.zeros(1, 1, 8, 8, 8, dtype=torch.bool)
    at[..., 3, 4, 5] = True
    expected = network(x)[..., 3, 4, 5]
    monkeypatch.setattr(network, "estimate", None)
    torch.testing.assert_close(network(x, at=at), expected)
