"""The networks that paper 003 compares: any sides, every weight is used, and nothing reaches farther than it says."""

import importlib.util
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from cryostudy import data
from cryostudy.errors import InputError
from cryostudy.methods import get
from cryostudy.metrics.snr import snr
from cryostudy.models import ARCHITECTURES, build
from cryostudy.models.msdnet import MSDNet
from cryostudy.models.scunet import SCUNet, SwinConv, divided, united

swin = pytest.mark.skipif(importlib.util.find_spec("einops") is None, reason="MONAI's SwinUNETR needs einops")
EACH = [pytest.param(name, marks=swin if name == "swinunetr" else ()) for name in ARCHITECTURES]


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def seeded(name, channels=2, levels=1):
    torch.manual_seed(0)
    return build(name, channels, levels)


@pytest.mark.parametrize("shape", [(9, 14, 23), (33, 5, 12)])
@pytest.mark.parametrize("name", EACH)
def test_any_sides_come_back(name, shape):
    with torch.no_grad():
        assert seeded(name)(noise(*shape)).shape == (1, 1, *shape)


@pytest.mark.parametrize("name", EACH)
def test_every_weight_has_a_gradient(name):
    network = seeded(name, 4, 2)
    network(noise(16, 17, 18)).square().mean().backward()
    unused = [key for key, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
    # A bias before a normalisation over space is subtracted again; MONAI's norms before attention have such cases.
    assert [key for key in unused if not key.endswith("bias")] == []
    assert all(torch.isfinite(weight.grad).all() for weight in network.parameters() if weight.grad is not None)


@pytest.mark.parametrize("name", EACH)
def test_the_same_seed_gives_the_same_bits(name):
    with torch.no_grad():
        first, second = (seeded(name)(noise(8, 12, 12)) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("name", EACH)
def test_batches_do_not_mix(name):
    network, x = seeded(name).eval(), torch.cat([noise(8, 12, 12), 3 * noise(8, 12, 12, seed=1)])
    with torch.no_grad():
        assert torch.allclose(network(x)[1:], network(x[1:]), atol=1e-5)


# MS-D Net


def test_msdnet_is_the_papers_dense_network_of_dilated_convolutions():
    network, x = seeded("msdnet", 6, 2).double(), noise(14, 11, 12, dtype=torch.float64)
    maps = x
    for k, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        kernel = weight.reshape(3, 3, 3, 1 + k).permute(3, 0, 1, 2)[None]
        dilation = 1 + k % 10
        maps = torch.cat([maps, F.relu(F.conv3d(maps, kernel, bias, padding=dilation, dilation=dilation))], 1)
    expected = network.last(maps)
    assert torch.allclose(network(x), expected, atol=1e-12)
    weights = list(network.parameters())
    towards = noise(14, 11, 12, seed=1, dtype=torch.float64)
    both = [torch.autograd.grad((y * towards).sum(), weights) for y in (network(x), expected)]
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(*both, strict=True))


def test_msdnet_counts_its_weights_as_the_formula_says():
    depth = 100  # the published depth: 27 weights from each earlier map, a bias, and one weight a map in the end
    expected = 27 * depth * (depth + 1) // 2 + depth + (depth + 1) + 1
    assert sum(p.numel() for p in MSDNet(depth, 1).parameters()) == expected
    assert sum(p.numel() for p in MSDNet(4, 3).parameters()) == sum(p.numel() for p in MSDNet(12, 1).parameters())


@settings(max_examples=5, deadline=None)
@given(st.tuples(*[st.integers(-2, 2)] * 3))
def test_msdnet_moves_with_the_volume(shift):
    network, x = seeded("msdnet", 4, 1).double(), noise(25, 26, 27, dtype=torch.float64)  # reach 10
    inner = (..., *[slice(12, 13)] * 3)
    with torch.no_grad():
        y, moved = network(x), network(torch.roll(x, shift, (2, 3, 4)))
    assert torch.allclose(torch.roll(y, shift, (2, 3, 4))[inner], moved[inner], atol=1e-12)


def reached(network, shape=(1, 1, 160)):
    """How far along x a change of the first voxel is felt."""
    x = noise(*shape, dtype=torch.float64)
    changed = x.clone()
    changed[..., 0] += 1e3
    with torch.no_grad():
        felt = network(x) != network(changed)
    return int(felt.any(dim=(0, 1, 2, 3)).nonzero().max())


@pytest.mark.parametrize("depth", [1, 4, 12])
def test_msdnet_reaches_the_sum_of_its_dilations(depth):
    network = seeded("msdnet", depth, 1).double()
    with torch.no_grad():
        for weight in network.weights:
            weight.abs_()  # no map may die of its ReLU
        network.last.weight.abs_()
        assert network.reach == sum(1 + k % 10 for k in range(depth))
        assert reached(lambda x: network(x.abs())) == network.reach


def test_msdnet_keeps_maps_for_the_backward_pass_and_not_stacks_of_them():
    kept = {}
    network, x = MSDNet(30, 1), noise(12, 12, 12)
    own = {weight.data_ptr() for weight in network.parameters()}

    def pack(tensor):
        kept[tensor.data_ptr()] = tensor  # held, so that no address comes twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = network(x)
    assert y.requires_grad
    assert sum(tensor.numel() for place, tensor in kept.items() if place not in own) <= 2 * 31 * x.numel()


# SCUNet


def test_windows_come_apart_and_together():
    x = torch.randn(2, 8, 12, 4, 3)
    parts = divided(x)
    assert parts.shape == (2, 2 * 3 * 1, 64, 3)
    assert torch.equal(parts[0, 0].reshape(4, 4, 4, 3), x[0, :4, :4, :4])
    assert torch.equal(united(parts, (8, 12, 4)), x)


def test_attention_is_what_the_formula_says():
    torch.manual_seed(0)
    attend, x = SwinConv(4, 0).attend.double(), torch.randn(1, 4, 4, 4, 2, dtype=torch.float64)
    q, k, v = attend.project(x.reshape(64, 2)).chunk(3, -1)
    place = [(z, y, w) for z in range(4) for y in range(4) for w in range(4)]
    table = attend.bias.reshape(7, 7, 7)
    bias = torch.stack(
        [torch.stack([table[a - d + 3, b - e + 3, c - f + 3] for d, e, f in place]) for a, b, c in place]
    )
    expected = attend.out(torch.softmax(q @ k.T / math.sqrt(2) + bias, -1) @ v).reshape(1, 4, 4, 4, 2)
    assert torch.allclose(attend(x), expected, atol=1e-12)


@pytest.mark.parametrize("shift", [0, 2])
def test_attention_stays_within_its_window(shift):
    torch.manual_seed(0)
    attend, x = SwinConv(4, shift).attend.double(), torch.randn(1, 4, 4, 16, 2, dtype=torch.float64)
    windows = [range(4 * k, 4 * k + 4) for k in range(4)]
    if shift:  # shifted by two, the first and last two voxels have windows of their own
        windows = [range(2), range(2, 6), range(6, 10), range(10, 14), range(14, 16)]
    for window in windows:
        changed = x.clone()
        changed[:, :, :, window[0]] += 1
        felt = (attend(x) - attend(changed)).abs().amax((0, 1, 2, 4)) > 1e-14
        assert set(felt.nonzero().flatten().tolist()) == set(window)


def test_scunet_reaches_no_farther_than_its_windows():
    for levels in (1, 2):
        network = seeded("scunet", 4, levels).double()
        assert 8 < reached(network, (4, 4, 160)) <= 32 * 2**levels


def test_odd_channels_of_scunet_are_rounded_up():
    count = [sum(p.numel() for p in SCUNet(channels, 1).parameters()) for channels in (1, 2, 3, 4)]
    assert count[0] == count[1] < count[2] == count[3]


# SwinUNETR


@swin
def test_swinunetr_has_the_width_asked_for_in_steps_of_twelve():
    count = [sum(p.numel() for p in build("swinunetr", channels, 1).parameters()) for channels in (4, 12, 23, 24)]
    assert count[0] == count[1] == count[2] < count[3]


def test_swinunetr_says_what_it_lacks(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install einops"):
        build("swinunetr", 12, 1)


# In a method


@pytest.mark.parametrize("name", EACH[1:])
def test_each_architecture_trains_in_deepdewedge_and_reaches_the_output(name):
    acquisition = data.simulated((32, 36, 40), "ddw", 0.5, densities="built-in")
    method = get("deepdewedge").at("smoke", architecture=name, steps=2, patch=16, validation=0)
    fitted = method.fit(acquisition, seed=0, device="cpu", progress=False)
    restored = fitted(acquisition.full[:9, :10, :11], device="cpu", progress=False)
    assert restored.shape == (9, 10, 11) and np.isfinite(restored).all() and restored.std() > 0


# The signal-to-noise ratio of Table 1


def boxes():
    volume = np.random.default_rng(0).standard_normal((16, 16, 32))
    volume[:, :, :16] += 3
    return volume, [(slice(0, 16), slice(0, 16), slice(0, 16))], [(slice(0, 16), slice(0, 16), slice(16, 32))]


def test_snr_of_a_step_in_unit_noise():
    volume, signal, background = boxes()
    assert snr(volume, signal, background) == pytest.approx(20 * math.log10(3), abs=0.3)


@given(st.floats(1e-3, 1e3), st.floats(-50, 50))
def test_snr_does_not_depend_on_the_grey_scale(scale, offset):
    volume, signal, background = boxes()
    assert snr(scale * volume + offset, signal, background) == pytest.approx(snr(volume, signal, background), abs=1e-6)


@given(st.floats(1e-3, 1e3))
def test_as_printed_it_does(scale):
    volume, signal, background = boxes()
    found = snr(scale * volume, signal, background, squared=False)
    expected = snr(volume, signal, background, squared=False) - 10 * math.log10(scale)
    assert found == pytest.approx(expected, abs=1e-6)


def test_snr_refuses_unequal_lists_and_a_constant_background():
    volume, signal, background = boxes()
    with pytest.raises(InputError, match="pairs"):
        snr(volume, signal, [])
    volume[:, :, 16:] = 0
    with pytest.raises(InputError, match="constant"):
        snr(volume, signal, background)
