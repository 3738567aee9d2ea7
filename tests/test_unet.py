"""The plain U-Net: any sides, one shift-equivariance per pooling step, no voxel reaches farther than its halo."""

import pytest
import torch

from cryostudy.models import UNet


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
