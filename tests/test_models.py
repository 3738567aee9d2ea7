"""The volume-shuffle network: exact blindness, and the unshuffle it rests on."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from cryostudy.errors import InputError
from cryostudy.models import VolumeShuffleBSN, volume_shuffle, volume_unshuffle
from cryostudy.models.volume_shuffle import DCABlock, Down, MaskedConv, put_together, take_apart

SIDE = 27
INTERIOR, EDGE, CORNER = (13, 13, 13), (0, 13, 26), (0, 0, 0)


def network(attention, seed=0):
    torch.manual_seed(seed)
    return VolumeShuffleBSN(channels=4, blocks=1, attention=attention).double()


def jacobian_row(function, x, voxel):
    """d y[voxel] / d x for every input voxel."""
    x = x.clone().requires_grad_()
    function(x)[(0, 0, *voxel)].backward()
    return x.grad[0, 0]


@given(v=st.sampled_from([2, 3]), c=st.integers(1, 3), sides=st.tuples(*[st.integers(1, 2)] * 3))
@settings(max_examples=20, deadline=None)
def test_shuffle_undoes_unshuffle(v, c, sides):
    x = torch.randn(2, c, *(s * v**2 for s in sides))
    y = volume_unshuffle(x, v)
    assert y.shape == (2, c * v**3, *(s * v for s in sides))
    assert torch.equal(volume_shuffle(y, v), x)


def test_unshuffle_follows_the_corrected_equations():
    v, c, side = 3, 2, 18
    x = torch.randn(1, c, side, side, side)
    y = volume_unshuffle(x, v)
    for i, j, k, m in [(0, 0, 0, 0), (5, 11, 17, 1), (9, 1, 3, 0), (17, 17, 17, 1)]:
        a, q, r = zip(*[(n // v**2, n % v**2 // v, n % v) for n in (i, j, k)], strict=True)
        channel = c * (v**2 * q[0] + v * q[1] + q[2]) + m
        position = tuple(v * a_ + r_ for a_, r_ in zip(a, r, strict=True))
        assert y[(0, channel, *position)] == x[0, m, i, j, k]


def test_unshuffle_refuses_sides_that_do_not_divide():
    with pytest.raises(InputError, match=r"divisible by v\^2"):
        volume_unshuffle(torch.zeros(1, 1, 10, 9, 9), 3)


@pytest.mark.parametrize("attention", ["none", "sublattice"])
@pytest.mark.parametrize("voxel", [INTERIOR, EDGE, CORNER, (26, 1, 14)])
def test_jacobian_diagonal_is_exactly_zero(attention, voxel):
    x = torch.randn(1, 1, SIDE, SIDE, SIDE, dtype=torch.float64)
    row = jacobian_row(network(attention), x, voxel)
    assert row[voxel] == 0.0
    assert row.abs().max() > 1e-6  # it does look at other voxels


def test_no_sublattice_sees_itself():
    """Stronger than a zero diagonal: the output on a sub-lattice ignores the input on that whole sub-lattice."""
    x = torch.randn(1, 1, SIDE, SIDE, SIDE, dtype=torch.float64)
    row = jacobian_row(network("sublattice"), x, INTERIOR)
    assert (row[1::3, 1::3, 1::3] == 0.0).all()


def test_global_attention_leaks_and_the_test_sees_it():
    x = torch.randn(1, 1, SIDE, SIDE, SIDE, dtype=torch.float64)
    row = jacobian_row(network("global"), x, INTERIOR)
    assert 0 < row[INTERIOR].abs() < 1e-2 * row.abs().max()


def test_ordinary_unshuffle_fails_the_same_test():
    """With stride-v sub-lattices moved into channels, as the printed equations suggest, blindness is lost."""
    torch.manual_seed(0)
    masked, mix = MaskedConv(4).double(), torch.nn.Conv3d(4 * 27, 4 * 27, 3, padding=3, dilation=3).double()

    def ordinary(x):
        y = masked(x)
        b, c, d, h, w = y.shape
        y = y.reshape(b, c, d // 3, 3, h // 3, 3, w // 3, 3).permute(0, 3, 5, 7, 1, 2, 4, 6)
        y = mix(y.reshape(b, 27 * c, d // 3, h // 3, w // 3))
        y = y.reshape(b, 3, 3, 3, c, d // 3, h // 3, w // 3).permute(0, 4, 5, 1, 6, 2, 7, 3)
        return y.reshape(b, c, d, h, w).sum(1, keepdim=True)

    x = torch.randn(1, 1, SIDE, SIDE, SIDE, dtype=torch.float64)
    voxel = (12, 12, 12)  # first of its 3-block, so two steps inside the block undo the mask's two
    row = jacobian_row(ordinary, x, voxel)
    assert row[voxel].abs() > 1e-3 * row.abs().max()


def test_normalisation_over_space_fails_the_same_test():
    torch.manual_seed(0)
    masked, norm = MaskedConv(4).double(), torch.nn.GroupNorm(1, 4).double()
    row = jacobian_row(lambda x: norm(masked(x)), torch.randn(1, 1, 9, 9, 9, dtype=torch.float64), (4, 4, 4))
    assert row[4, 4, 4] != 0.0


def test_sublattice_form_equals_the_papers_dilated_form():
    """DCA block on sub-lattices = the same weights with dilation 3 on the whole volume; Down = volume_unshuffle."""
    torch.manual_seed(0)
    block, x = DCABlock(4, "global").double(), torch.randn(2, 4, 18, 27, 9, dtype=torch.float64)
    h = block.expand(block.norm(x.movedim(1, -1))).movedim(-1, 1)
    h = F.conv3d(h, block.depthwise.weight, block.depthwise.bias, padding=3, dilation=3, groups=8)
    h = h[:, :4] * h[:, 4:]
    h = h * block.attend(h.mean((2, 3, 4)))[..., None, None, None]
    dilated = x + block.project(h.movedim(1, -1)).movedim(-1, 1)
    assert torch.allclose(put_together(block(take_apart(x))), dilated, atol=1e-12)

    down = Down(4).double()
    unshuffled = F.linear(volume_unshuffle(dilated, 3).movedim(1, -1), *reorder(down)).movedim(-1, 1)
    assert torch.allclose(put_together(down(take_apart(dilated))), unshuffled, atol=1e-12)


def reorder(down):
    """`Down` keeps its 27 C inputs as (q, q, q, C), which is the channel order of volume_unshuffle."""
    return down.weight, down.bias


@given(sides=st.tuples(*[st.integers(5, 40)] * 3))
@settings(max_examples=8, deadline=None)
def test_any_size_works(sides):
    net = VolumeShuffleBSN(channels=2, blocks=1, attention="none")
    assert net(torch.randn(1, 1, *sides)).shape == (1, 1, *sides)


def test_unknown_attention_is_refused():
    with pytest.raises(InputError, match="attention"):
        VolumeShuffleBSN(4, attention="local")
