"""The three training losses on volumes whose value is known, and the Fourier weight that all of them take."""

import importlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cryostudy import metrics
from cryostudy.fourier import multiplicity, shell_index
from cryostudy.losses.objectives import OBJECTIVES, fsc, l1, l2
from cryostudy.tomography import wedge_mask

SHAPES = [(12, 12, 12), (9, 12, 15), (8, 10, 7)]
EACH = list(OBJECTIVES.values())


def volumes(shape, seed=0, batch=2):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(batch, 1, *shape, generator=generator) for _ in range(2))


def ones(shape):
    return torch.ones(1, 1, *shape[:-1], shape[-1] // 2 + 1)


def wedge(shape):
    return wedge_mask(shape, range(-60, 61, 3), rfft=True)[None, None].float()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("objective", EACH)
def test_a_weight_of_one_changes_nothing(objective, shape):
    f, t = volumes(shape)
    assert objective(f, t, ones(shape)).item() == pytest.approx(objective(f, t, None).item(), rel=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_weighted_l2_is_what_the_inverse_transform_gives(shape):
    f, t = volumes(shape)
    weight = wedge(shape)
    back = torch.fft.irfftn(torch.fft.rfftn(f - t, dim=(-3, -2, -1)) * weight, s=shape, dim=(-3, -2, -1))
    assert l2(f, t, weight).item() == pytest.approx(back.square().mean().item(), rel=1e-5)
    assert l1(f, t, weight).item() == pytest.approx(back.abs().mean().item(), rel=1e-5)


@given(st.floats(-10, 10), st.floats(-10, 10))
def test_constant_volumes_differ_by_their_values(a, b):
    f, t = torch.full((1, 1, 4, 5, 6), a), torch.full((1, 1, 4, 5, 6), b)
    for weight in (None, ones((4, 5, 6))):
        assert l1(f, t, weight).item() == pytest.approx(abs(a - b), abs=1e-4)
        assert l2(f, t, weight).item() == pytest.approx((a - b) ** 2, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("objective", EACH)
def test_what_lies_where_the_weight_is_zero_costs_nothing(objective, shape):
    f, t = volumes(shape)
    weight = wedge(shape)
    other = torch.fft.irfftn(
        torch.fft.rfftn(volumes(shape, 5)[0], dim=(-3, -2, -1)) * (1 - weight), s=shape, dim=(-3, -2, -1)
    )
    assert objective(f + 3 * other, t, weight).item() == pytest.approx(objective(f, t, weight).item(), abs=2e-5)
    assert objective(f + 3 * other, t, None).item() != pytest.approx(objective(f, t, None).item(), abs=1e-3)


@pytest.mark.parametrize("objective", EACH)
def test_a_weight_of_each_volume_of_a_batch(objective):
    shape = (8, 10, 12)
    f, t = volumes(shape)
    weight = torch.cat([wedge(shape), ones(shape)])
    single = [objective(f[k : k + 1], t[k : k + 1], weight[k : k + 1]).item() for k in range(2)]
    assert objective(f, t, weight).item() == pytest.approx(np.mean(single), rel=1e-5)


# Fourier shell correlation


@pytest.mark.parametrize("shape", SHAPES)
def test_fsc_of_known_pairs(shape):
    _, t = volumes(shape)
    for weight in (None, wedge(shape)):
        assert fsc(t, t, weight).item() == pytest.approx(0, abs=1e-5)
        assert fsc(-t, t, weight).item() == pytest.approx(2, abs=1e-5)
    assert fsc(torch.zeros_like(t), t).item() == 1


def test_fsc_of_independent_noise_is_one_within_its_chance():
    shape, repeats = (16, 16, 16), 40
    f, t = volumes(shape, batch=repeats)
    index, frequency = shell_index(shape)
    count = torch.bincount(index.flatten(), multiplicity(shape).expand(index.shape).flatten())[: len(frequency)]
    # The correlation of n real pairs has the variance 1 / n; a shell's Friedel halves hold it once.
    deviation = float((1 / count).sum().sqrt() / len(count) / repeats**0.5)
    assert abs(fsc(f, t).item() - 1) < 4 * deviation


@given(st.floats(1e-3, 1e3), st.floats(-100, 100))
def test_fsc_does_not_know_scale_and_offset(scale, offset):
    f, t = volumes((8, 9, 10))
    f = f + t
    assert fsc(scale * (f + offset), t).item() == pytest.approx(fsc(f, t).item(), abs=1e-3)
    assert l2(scale * f + offset + 1, t).item() > 0


def test_fsc_knows_no_filter_that_is_constant_on_shells():
    shape = (12, 12, 12)
    f, t = volumes(shape)
    index, frequency = shell_index(shape)
    gains = torch.rand(len(frequency) + 1, generator=torch.Generator().manual_seed(1)) + 0.1
    filtered = torch.fft.irfftn(torch.fft.rfftn(f + t, dim=(-3, -2, -1)) * gains[index], s=shape, dim=(-3, -2, -1))
    assert fsc(filtered, t).item() == pytest.approx(fsc(f + t, t).item(), abs=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_fsc_is_the_metrics_curve_shell_by_shell(shape, monkeypatch):
    f, t = volumes(shape, batch=1)
    f = f + t
    # The metric fades the edges out first; a training patch is taken as it is.
    monkeypatch.setattr(
        importlib.import_module("cryostudy.metrics.fsc"), "taper", lambda volume: np.asarray(volume, np.float64)
    )
    curve = metrics.fsc(f[0, 0].numpy(), t[0, 0].numpy()).correlation
    assert fsc(f, t).item() == pytest.approx(1 - curve.mean(), abs=1e-5)
    index, _ = shell_index(shape)
    for shell in range(len(curve)):  # with the weight on one shell only, the others are empty and count as 0
        alone = (1 - fsc(f, t, (index == shell).float()[None, None]).item()) * len(curve)
        assert alone == pytest.approx(curve[shell], abs=1e-4)


@given(st.integers(0, 5))
def test_fsc_falls_when_noise_is_added(seed):
    f, t = volumes((12, 12, 12), seed)
    found = [fsc(t + level * f, t).item() for level in (0.1, 0.5, 2.0)]
    assert found == sorted(found) and 0 < found[0] < found[2] < 1


# Gradients


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("scale", [0.0, 1e-12, 1.0, 1e6])
@pytest.mark.parametrize("objective", EACH)
def test_gradients_are_finite_also_for_a_zero_estimate(objective, scale, weighted):
    shape = (8, 9, 10)
    f, t = volumes(shape)
    f = (scale * f).requires_grad_()
    objective(f, t, wedge(shape) if weighted else None).backward()
    assert torch.isfinite(f.grad).all()


@pytest.mark.parametrize("objective", EACH)
def test_a_constant_target_gives_finite_gradients(objective):
    f, _ = volumes((8, 8, 8))
    f.requires_grad_()
    objective(f, torch.zeros_like(f), None).backward()
    assert torch.isfinite(f.grad).all()


@pytest.mark.parametrize("objective", EACH)
def test_gradients_are_those_of_finite_differences(objective):
    shape = (6, 6, 8)
    f, t = volumes(shape, batch=1)
    direction = volumes(shape, 3, batch=1)[0]
    f.requires_grad_()
    objective(f, t, wedge(shape)).backward()
    slope = (f.grad * direction).sum().item()
    with torch.no_grad():
        step = 1e-3
        found = (
            objective(f + step * direction, t, wedge(shape)) - objective(f - step * direction, t, wedge(shape))
        ) / (2 * step)
    assert slope == pytest.approx(found.item(), rel=0.02, abs=1e-3)


@pytest.mark.parametrize("objective", EACH)
def test_half_precision_estimates_are_taken(objective):
    f, t = volumes((8, 8, 8))
    exact = objective(f, t, wedge((8, 8, 8))).item()
    assert objective(f.bfloat16(), t, wedge((8, 8, 8))).item() == pytest.approx(exact, rel=0.02)


def test_fsc_says_nothing_of_the_mean_and_of_what_lies_beyond_nyquist():
    shape = (12, 12, 12)
    f, t = volumes(shape)
    f.requires_grad_()
    fsc(f, t).backward()
    index, frequency = shell_index(shape)
    outside = index == len(frequency)
    power = torch.fft.rfftn(f.grad, dim=(-3, -2, -1)).abs()
    assert power[..., outside].max() < 1e-6 < 1e-3 < power[..., ~outside].median()
    assert outside.float().mean() > 1 / 3  # the corners of a cube hold up to half of it


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_gradient_descent_brings_estimate_and_target_together(name):
    f, t = volumes((8, 8, 8), batch=1)
    estimate = f.clone().requires_grad_()
    optimizer = torch.optim.Adam([estimate], lr=0.1)
    for _ in range(40):
        optimizer.zero_grad()
        OBJECTIVES[name](estimate, t, None).backward()
        optimizer.step()
    assert OBJECTIVES[name](estimate, t, None) < 0.1 * OBJECTIVES[name](f, t, None)
    assert metrics.correlation(estimate.detach().numpy(), t.numpy()) > 0.5
