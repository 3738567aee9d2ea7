"""The four loss terms on volumes whose value can be written down."""

import math

import pytest
import torch

from cryostudy.losses import edge_loss, edge_map, guidance_loss, reconstruction_loss, total_variation

RAMP = torch.arange(10.0).expand(1, 1, 8, 9, 10).contiguous()  # grows by 1 per voxel along x


def test_means_do_not_depend_on_the_size():
    x = torch.full((1, 1, 6, 6, 6), 2.0)
    assert reconstruction_loss(x, torch.zeros_like(x)) == 4.0
    big = torch.full((2, 1, 12, 12, 12), 2.0)
    assert guidance_loss(big, torch.zeros_like(big)) == 4.0


def test_total_variation_of_a_ramp_is_its_slope():
    assert total_variation(RAMP) == pytest.approx(1.0)
    assert total_variation(-3 * RAMP) == pytest.approx(3.0)
    assert total_variation(torch.full((1, 1, 5, 5, 5), 7.0)) == 0.0


def test_edge_map_of_a_ramp_is_the_mean_direction_cosine():
    cosines = [1.0] + [1 / math.sqrt(2)] * 4 + [1 / math.sqrt(3)] * 4 + [0.0] * 4
    edges = edge_map(RAMP)
    assert edges.shape == (1, 1, 6, 7, 8)
    assert torch.allclose(edges, torch.tensor(sum(cosines) / 13), atol=1e-5)


def test_edge_map_treats_the_three_axes_alike_and_ignores_the_sign():
    x = torch.randn(1, 1, 7, 7, 7, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(edge_map(x.transpose(2, 4)), edge_map(x).transpose(2, 4), atol=1e-5)
    assert torch.allclose(edge_map(-x), edge_map(x))


def test_edge_loss_is_zero_only_for_the_same_edges():
    assert edge_loss(RAMP, edge_map(RAMP)) == 0.0
    assert edge_loss(RAMP + 5.0, edge_map(RAMP)) == pytest.approx(0.0, abs=1e-9)  # edges ignore an offset
    assert edge_loss(2 * RAMP, edge_map(RAMP)) > 0.1


def test_every_term_has_a_gradient():
    x = torch.randn(1, 1, 6, 6, 6, generator=torch.Generator().manual_seed(1)).requires_grad_()
    other = torch.zeros(1, 1, 6, 6, 6)
    total = reconstruction_loss(x, other) + guidance_loss(x, other) + edge_loss(x, edge_map(other)) + total_variation(x)
    total.backward()
    assert torch.isfinite(x.grad).all() and (x.grad != 0).all()
