import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cryostudy.errors import InputError
from cryostudy.fourier import radius
from cryostudy.tomography import (
    measured_ranges,
    project,
    reconstruct,
    split_even_odd,
    split_frames,
    split_k_fold,
    tilt_shares,
    wedge_fraction,
    wedge_mask,
)
from cryostudy.tomography.ctf import apply_ctf, correct_ctf, ctf, ctf_radial, electron_wavelength
from cryostudy.tomography.reconstruction import SIRT_ITERATIONS

FULL = np.arange(-90, 90, 1.5)
TILTS = np.arange(-60, 61, 2.0)


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def bell(n, centre, sigma):
    return np.exp(-((np.arange(n) - (n - 1) / 2 - centre) ** 2) / (2 * sigma**2))


def blob(shape, centre, sigma):
    """Gaussian of height 1; centre (z, y, x) from the middle of the box."""
    z, y, x = (bell(n, c, sigma) for n, c in zip(shape, centre, strict=True))
    return (z[:, None, None] * y[:, None] * x).astype(np.float32)


def blob_projections(shape, centre, sigma, angles):
    """The line integrals of ``blob``, worked out on paper."""
    z, y, x = centre
    positions = [x * math.cos(t) + z * math.sin(t) for t in np.deg2rad(angles)]
    height = math.sqrt(2 * math.pi) * sigma
    return height * np.stack([bell(shape[1], y, sigma)[:, None] * bell(shape[2], s, sigma) for s in positions])


# --- projection


@pytest.mark.parametrize("shape", [(40, 9, 48), (41, 8, 49), (40, 8, 49)])
def test_projection_of_a_gaussian_is_known_at_every_angle(shape):
    centre, angles = (4.3, -0.7, -6.2), np.arange(-90, 91, 3.0)
    projected = project(blob(shape, centre, 3), angles)
    expected = blob_projections(shape, centre, 3, angles)
    assert np.abs(projected - expected).max() < 0.015 * expected.max()
    mass, s = projected.sum((1, 2)), np.arange(shape[2]) - (shape[2] - 1) / 2
    np.testing.assert_allclose(mass, expected.sum((1, 2)), rtol=1e-3)
    mean = (projected.sum(1) @ s) / mass
    np.testing.assert_allclose(mean, (expected.sum(1) @ s) / expected.sum((1, 2)), atol=0.01)
    spread = np.sqrt((projected.sum(1) @ s**2) / mass - mean**2)
    np.testing.assert_allclose(spread, 3, rtol=0.015)  # the pixel adds 1/6 to 3², 0.9 % to sigma


def test_projection_at_0_and_90_degrees_is_the_sum_along_an_axis():
    volume = noise(7, 3, 7)
    tilts = project(volume, [0, 90, 180, -90])
    torch.testing.assert_close(tilts[0], volume.sum(0))
    torch.testing.assert_close(tilts[1], volume.sum(2).T)
    torch.testing.assert_close(tilts[2], volume.sum(0).flip(1))
    torch.testing.assert_close(tilts[3], volume.sum(2).T.flip(1))


@pytest.mark.parametrize("angle", [1.0, 26.565, 45.0, 50.0])
def test_uniform_slab_has_uniform_projections(angle):
    # Both sums of the weights are one, so no moiré: the chord through a slab is depth / cos.
    projected = project(np.ones((6, 1, 64)), [angle])[0, 0, 26:38]
    np.testing.assert_allclose(projected, 6 / math.cos(math.radians(angle)), rtol=1e-4)
    seen = reconstruct(np.ones((1, 1, 64)), [angle], 6, filter=None)[:, 0, 10:54]
    np.testing.assert_allclose(seen, 1, rtol=1e-5)


@settings(deadline=None, max_examples=30)
@given(
    st.tuples(*[st.integers(1, 40)] * 3),
    st.integers(1, 45),
    st.lists(st.floats(-180, 180), min_size=1, max_size=5),
    st.integers(0, 99),
)
def test_back_projection_is_the_adjoint(shape, width, angles, seed):
    x, y = noise(*shape, seed=seed), noise(len(angles), shape[1], width, seed=seed + 1)
    there = (project(x, angles, width=width).double() * y).sum()
    back = (x.double() * reconstruct(y, angles, shape[0], filter=None, width=shape[2])).sum()
    assert abs(there - back) < 1e-5 * x.norm() * y.norm()


def test_gradients_are_the_adjoint():
    volume, weight = noise(12, 3, 14).requires_grad_(), noise(3, 3, 16, seed=1)
    angles = [-50, 3, 41]
    (project(volume, angles, width=16) * weight).sum().backward()
    torch.testing.assert_close(volume.grad, reconstruct(weight, angles, 12, filter=None, width=14))
    series = weight.clone().requires_grad_()
    (reconstruct(series, angles, 12, width=14) * volume.detach()).sum().backward()
    probe = noise(3, 3, 16, seed=2)
    slope = (reconstruct(probe, angles, 12, width=14) * volume.detach()).sum()
    torch.testing.assert_close((series.grad * probe).sum(), slope, rtol=1e-4, atol=1e-3)


def test_projection_in_blocks_is_the_projection_of_the_parts():
    # Blocks are 32 voxels wide and 128 long: a box that needs several must equal its slices done alone.
    volume = noise(40, 140, 70)
    tilts = project(volume, [-33, 20, 61])
    parts = [project(volume[:, y : y + 1], [-33, 20, 61]) for y in (0, 127, 128, 139)]
    torch.testing.assert_close(tilts[:, [0, 127, 128, 139]], torch.cat(parts, 1), rtol=1e-4, atol=1e-4)
    whole = reconstruct(tilts, [-33, 20, 61], 40)
    parts = [reconstruct(tilts[:, y : y + 1], [-33, 20, 61], 40) for y in (0, 127, 128, 139)]
    torch.testing.assert_close(whole[:, [0, 127, 128, 139]], torch.cat(parts, 1), rtol=1e-4, atol=1e-3)


# --- reconstruction


@pytest.mark.parametrize("n", [64, 65])
def test_full_series_gives_back_a_gaussian(n):
    shape, centre = (n, 4, n), (5, 0.5, -8)
    found = reconstruct(blob_projections(shape, centre, 4, FULL), FULL, n)
    assert np.abs(found - blob(shape, centre, 4)).max() < 0.012
    assert found.dtype == np.float32


def test_full_series_gives_back_the_density_of_a_uniform_object():
    n = 96
    z, x = np.mgrid[:n, :n] - (n - 1) / 2
    disc = ((z**2 + x**2 < 30**2) * 0.7).astype(np.float32)[:, None]
    found = reconstruct(project(disc, FULL), FULL, n)
    inside, outside = z**2 + x**2 < 26**2, (z**2 + x**2 > 34**2) & (z**2 + x**2 < 46**2)
    assert found[:, 0][inside].mean() == pytest.approx(0.7, rel=0.005)
    assert abs(found[:, 0][outside].mean()) < 0.005


@pytest.mark.parametrize("where", [(9, 3, 20), (30, 0, 5), (16, 7, 16), (2, 4, 30)])
@pytest.mark.parametrize("shape", [(33, 8, 33), (34, 9, 37)])
def test_a_point_off_the_centre_comes_back_where_it_was(where, shape):
    angles = np.arange(-45, 61, 3.0)
    volume = np.zeros(shape)
    volume[where] = 1
    for kind in ("ramp", "hamming", "sirt-like", None):
        found = reconstruct(project(volume, angles, width=61), angles, shape[0], filter=kind, width=shape[2])
        assert np.unravel_index(found.argmax(), shape) == where


def test_wider_detector_and_volume_keep_their_centres():
    volume = blob((24, 3, 32), (2, 0, -4), 2.5)
    wide = project(volume, TILTS, width=48)
    torch.testing.assert_close(torch.tensor(wide[:, :, 8:40]), torch.tensor(project(volume, TILTS)))
    found = reconstruct(wide, TILTS, 24)
    narrow = reconstruct(wide, TILTS, 24, width=32)
    np.testing.assert_allclose(found[:, :, 8:40], narrow, atol=1e-5)


@settings(deadline=None, max_examples=10)
@given(st.floats(-3, 3), st.floats(-3, 3), st.sampled_from(["ramp", "hamming", "sirt-like", None]))
def test_linear(a, b, kind):
    p, q = noise(5, 2, 20), noise(5, 2, 20, seed=1)
    angles = [-40, -10, 0, 15, 50]
    mixed = reconstruct(a * p + b * q, angles, 9, filter=kind)
    parts = a * reconstruct(p, angles, 9, filter=kind) + b * reconstruct(q, angles, 9, filter=kind)
    torch.testing.assert_close(mixed, parts, rtol=1e-4, atol=1e-4)


def test_unequal_steps_and_repeated_angles_do_no_harm():
    rng = np.random.default_rng(0)
    uneven = np.sort(np.concatenate([np.arange(-90, 0, 1.0), np.arange(0, 90, 2.5), [10, 10, 30]]))
    rng.shuffle(uneven)
    shape = (64, 2, 64)
    found = reconstruct(blob_projections(shape, (3, 0, 6), 4, uneven), uneven, 64)
    assert np.abs(found - blob(shape, (3, 0, 6), 4)).max() < 0.015
    assert tilt_shares(uneven).sum() == pytest.approx(math.pi)


def test_tilt_shares():
    np.testing.assert_allclose(np.rad2deg(tilt_shares(TILTS)), 2)
    np.testing.assert_allclose(np.rad2deg(tilt_shares([0, 10, 40, 20, 20])), [10, 10, 15, 7.5, 7.5])
    gap = np.concatenate([np.arange(-60, 1, 3), np.arange(21, 61, 3)])
    np.testing.assert_allclose(np.rad2deg(tilt_shares(gap)), 3)


def test_halves_average_to_the_whole():
    series = noise(61, 4, 32)
    (even, even_angles), (odd, odd_angles) = split_even_odd(series, TILTS)
    halves = [reconstruct(s, a, 16) for s, a in ((even, even_angles), (odd, odd_angles))]
    torch.testing.assert_close((halves[0] + halves[1]) / 2, reconstruct(series, TILTS, 16), atol=1e-5, rtol=1e-4)


def test_hamming_and_sirt_damp_noise_but_not_the_density():
    shape = (64, 2, 64)
    projections = blob_projections(shape, (0, 0, 0), 8, FULL)
    truth = blob(shape, (0, 0, 0), 8)
    spread = {}
    for kind in ("ramp", "hamming", "sirt-like"):
        assert np.abs(reconstruct(projections, FULL, 64, filter=kind) - truth).max() < 0.03
        spread[kind] = float(reconstruct(noise(len(FULL), 16, 64), FULL, 64, filter=kind).std())
    assert spread["hamming"] < 0.7 * spread["ramp"] and spread["sirt-like"] < 0.7 * spread["ramp"]


def test_sirt_like_resembles_as_many_iterations_of_sirt():
    n = 48
    truth = blob((n, 2, n), (3, 0, -5), 1.5) - 0.5 * blob((n, 2, n), (-6, 0, 4), 2.5)
    series = project(truth, FULL)
    found = np.zeros_like(truth)
    for _ in range(SIRT_ITERATIONS):
        found += 1 / len(FULL) / n * reconstruct(series - project(found, FULL), FULL, n, filter=None)
    likeness = {f: reconstruct(series, FULL, n, filter=f) for f in ("ramp", "hamming", "sirt-like")}
    error = {f: np.abs(v - found)[8:40, :, 8:40].max() for f, v in likeness.items()}
    assert error["sirt-like"] < 0.03 and error["sirt-like"] < 0.5 * min(error["ramp"], error["hamming"])


def test_white_noise_through_fbp_has_the_variance_that_theory_gives():
    # Variance of one tilt: share² times the integral of |ramp|² and of the power of voxel and pixel, aliases
    # included. Along y the noise stays independent.
    angles = np.arange(-58.2, 61, 4)
    volume = reconstruct(noise(len(angles), 96, 128), angles, 64)
    k = np.fft.fftfreq(512)
    expected = 0
    for t, share in zip(np.deg2rad(angles), tilt_shares(angles), strict=True):
        kernel = sum(
            (np.sinc(k + m) * np.sinc((k + m) * np.cos(t)) * np.sinc((k + m) * np.sin(t))) ** 2 for m in range(-20, 21)
        )
        expected += share**2 * (k**2 * kernel).mean()
    inner = volume[:, :, 32:96]
    assert inner.var() == pytest.approx(expected, rel=0.03)
    neighbours = [(inner[:, 1:] * inner[:, :-1]).mean(), (inner[..., 1:] * inner[..., :-1]).mean()]
    assert abs(neighbours[0] / inner.var()) < 0.02 and abs(neighbours[1] / inner.var()) > 0.1


def test_kind_and_device_are_kept():
    volume = np.ones((4, 3, 5))
    assert isinstance(project(volume, [0, 30]), np.ndarray)
    tilts = project(torch.from_numpy(volume), [0, 30])
    assert tilts.dtype == torch.float32 and tilts.shape == (2, 3, 5)
    assert isinstance(reconstruct(tilts, torch.tensor([0.0, 30.0]), 4), torch.Tensor)
    assert reconstruct(tilts.numpy().astype(np.int16), [0, 30], 4, width=7).shape == (4, 3, 7)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_agrees_with_the_cpu():
    volume = noise(40, 30, 64)
    there = project(volume.cuda(), TILTS)
    torch.testing.assert_close(there.cpu(), project(volume, TILTS), rtol=1e-4, atol=1e-4)
    back = reconstruct(there, TILTS, 40)
    torch.testing.assert_close(back.cpu(), reconstruct(there.cpu(), TILTS, 40), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: reconstruct(np.zeros((3, 4, 5)), [0, 1], 4), "angles: 2 angles .* 3 tilts"),
        (lambda: reconstruct(np.zeros((3, 4, 5)), [0, 1, np.nan], 4), "angle 2 "),
        (lambda: reconstruct(np.zeros((3, 4, 5)), 60.0, 4), "angles"),
        (lambda: reconstruct(np.zeros((3, 4, 5)), [0, 1, 2], 4, filter="shepp"), "filter: 'shepp'"),
        (lambda: reconstruct(np.zeros((3, 4, 5)), [0, 1, 2], 0), "thickness: 0"),
        (lambda: reconstruct(np.zeros((3, 4, 5)), [0, 1, 2], 4, width=0), "width: 0"),
        (lambda: reconstruct(np.zeros((4, 5)), [0, 1], 4), "tilt_series: shape"),
        (lambda: project(np.zeros((4, 5)), [0, 1]), "volume: shape"),
        (lambda: project(np.zeros((4, 0, 5)), [0, 1]), "volume: shape"),
        (lambda: project(np.zeros((4, 4, 5), complex), [0, 1]), "complex"),
        (lambda: project(np.zeros((4, 5, 6)), []), "angles"),
        (lambda: project(np.zeros((4, 5, 6)), [0], width=2.5), "width: 2.5"),
        (lambda: split_even_odd(np.zeros((1, 5, 6)), [0]), "one tilt"),
        (lambda: split_even_odd(np.zeros((2, 5, 6)), [0]), "angles"),
        (lambda: split_frames(np.zeros((4, 1, 5, 6)), [0] * 4), "frames"),
        (lambda: split_k_fold(5, 6, 0), "k: 6"),
        (lambda: wedge_mask((8, 8), TILTS), "shape"),
        (lambda: wedge_mask((8, 8, 8), 60.0), "angles"),
        (lambda: wedge_mask((8, 8, 8), TILTS, rotation=np.ones((3, 3))), "rotation"),
        (lambda: wedge_mask((8, 8, 8), TILTS, rotation=np.eye(2)), "rotation"),
        (lambda: ctf((8,), 1, 1e4), "shape"),
        (lambda: ctf((8, 8), 0, 1e4), "pixel_size"),
        (lambda: ctf((8, 8), 1, np.nan), "defocus"),
        (lambda: ctf((8, 8), 1, 1e4, voltage=0), "voltage"),
        (lambda: ctf((8, 8), 1, 1e4, amplitude_contrast=7), "amplitude_contrast"),
        (lambda: apply_ctf(np.zeros((2, 8, 10)), ctf((8, 8), 1, 1e4)), "ctf: shape"),
        (lambda: correct_ctf(np.zeros((2, 8, 8)), ctf((8, 8), 1, 1e4), "flip"), "mode"),
        (lambda: correct_ctf(np.zeros((2, 8, 8)), ctf((8, 8), 1, 1e4), "wiener"), "snr"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, named):
    with pytest.raises(InputError, match=named) as refusal:
        call()
    assert "\n" not in str(refusal.value)


# --- splits


@pytest.mark.parametrize("n", [60, 61])
def test_even_and_odd_tilts_interleave_whatever_the_order(n):
    angles = np.arange(n) * 2.0 - 60
    order = np.argsort(np.abs(angles), kind="stable")  # dose-symmetric recording
    series = np.arange(n, dtype=np.float32)[:, None, None] * np.ones((1, 2, 3), np.float32)
    (even, even_angles), (odd, odd_angles) = split_even_odd(series[order], angles[order])
    assert sorted(even_angles) == angles[0::2].tolist() and sorted(odd_angles) == angles[1::2].tolist()
    np.testing.assert_array_equal(even[:, 0, 0] * 2 - 60, even_angles)
    np.testing.assert_array_equal(odd[:, 1, 2] * 2 - 60, odd_angles)
    tensor = split_even_odd(torch.from_numpy(series), angles)[0][0]
    assert torch.equal(tensor, torch.from_numpy(series[0::2]))


def test_frames_are_summed_in_two_halves():
    frames = noise(3, 5, 4, 6)
    (even, angles), (odd, other_angles) = split_frames(frames, [0, 3, 6])
    torch.testing.assert_close(even, frames[:, 0] + frames[:, 2] + frames[:, 4])
    torch.testing.assert_close(even + odd, frames.sum(1))
    assert angles == other_angles == [0, 3, 6]


@given(st.integers(2, 80), st.integers(2, 80), st.integers(0, 9))
def test_k_folds_cover_everything_once(n, k, seed):
    k = min(k, n)
    folds = split_k_fold(n, k, seed)
    assert len(folds) == k and np.array_equal(np.sort(np.concatenate(folds)), np.arange(n))
    assert max(map(len, folds)) - min(map(len, folds)) <= 1
    assert all(np.array_equal(a, b) for a, b in zip(folds, split_k_fold(n, k, seed), strict=True))


def test_k_folds_differ_between_seeds():
    assert not np.array_equal(split_k_fold(60, 2, 0)[0], split_k_fold(60, 2, 1)[0])


# --- missing wedge


def test_measured_ranges():
    assert measured_ranges(TILTS) == [(-60, 60)]
    assert measured_ranges(TILTS[::-1]) == [(-60, 60)]
    assert measured_ranges([-30, 60]) == [(-30, 60)]
    assert measured_ranges(FULL) == [(-90, 90)] == measured_ranges(np.arange(-90, 91, 2.0))
    assert measured_ranges(np.arange(-60, 61, 30)) == [(-60, 60)]
    gap = np.concatenate([np.arange(-60, 1, 3), np.arange(21, 61, 3)])
    assert sorted(measured_ranges(gap)) == [(-60, 0), (21, 60)]
    assert measured_ranges(np.arange(60, 121, 2)) == [(60, 120)]
    assert measured_ranges([7.0]) == [(7, 7)]
    assert wedge_fraction(TILTS) == pytest.approx(1 / 3) and wedge_fraction(FULL) == 0


@pytest.mark.parametrize("shape", [(24, 24, 24), (15, 20, 33)])
@pytest.mark.parametrize("angles", [TILTS, np.arange(-30, 61, 2.0)])
def test_mask_is_the_range_of_directions(shape, angles):
    mask = wedge_mask(shape, angles).numpy()
    kz, _, kx = np.meshgrid(*map(np.fft.fftfreq, shape), indexing="ij")
    with np.errstate(all="ignore"):
        direction = np.degrees(np.arctan(kz / kx))
    expected = ((direction >= angles[0]) & (direction <= angles[-1])) | ((kz == 0) & (kx == 0))
    ordinary = (abs(kz) < 0.5) & (abs(kx) < 0.5)  # Nyquist voxels stand for two directions
    assert (mask == expected)[ordinary].all()
    assert mask[0].all() and not mask[1 : (shape[0] + 1) // 2, :, 0].any()
    assert torch.equal(wedge_mask(shape, angles, rfft=True), torch.from_numpy(mask[..., : shape[2] // 2 + 1]))


def rotations(n, seed=0):
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, 3, 3)))
    return q * np.linalg.det(q)[:, None, None]


@pytest.mark.parametrize("shape", [(8, 10, 12), (7, 8, 9)])
def test_friedel_symmetry_holds_at_every_voxel(shape):
    gap = np.concatenate([np.arange(-30, 1, 2), np.arange(21, 61, 2)])
    masks = wedge_mask(shape, gap, rotation=rotations(6))
    axes = (1, 2, 3)
    assert torch.equal(masks, masks.flip(axes).roll((1, 1, 1), axes))
    assert masks.shape == (6, *shape) and masks[:, 0, 0, 0].all()
    halved = wedge_mask(shape, gap, rotation=torch.from_numpy(rotations(6)), rfft=True)
    assert torch.equal(halved, masks[..., : shape[2] // 2 + 1])
    assert torch.equal(wedge_mask(shape, gap, rotation=rotations(6)[2]), masks[2])


def test_rotation_turns_the_mask_with_the_specimen():
    # Turns by 90 degrees move voxels onto voxels: the mask must move as the specimen does.
    mask, axes = wedge_mask((11, 11, 11), np.arange(-20, 61, 2.0)), torch.eye(3)
    for order, signs in (((1, 0, 2), (1, -1, 1)), ((2, 1, 0), (-1, 1, 1)), ((1, 2, 0), (1, 1, 1))):
        turn = axes[list(order)] * torch.tensor(signs)[:, None]  # new axis i is signs[i] * old axis order[i]
        turned = mask.permute(order)
        for axis, sign in enumerate(signs):
            turned = turned if sign > 0 else turned.flip(axis).roll(1, axis)
        assert torch.equal(wedge_mask((11, 11, 11), np.arange(-20, 61, 2.0), rotation=turn), turned)
    assert torch.equal(wedge_mask((11, 11, 11), FULL, rotation=turn), torch.ones(11, 11, 11, dtype=torch.bool))


def test_share_of_the_mask_is_the_wedge_fraction():
    grid = np.stack(np.meshgrid(*[np.fft.fftfreq(40)] * 3, indexing="ij"))
    sphere = torch.from_numpy((grid**2).sum(0) < 0.5**2)
    for turn in (None, *rotations(3)):
        share = wedge_mask((40, 40, 40), TILTS, rotation=turn)[sphere].float().mean()
        assert 1 - share == pytest.approx(wedge_fraction(TILTS), abs=0.012)


@pytest.mark.parametrize(("first", "last"), [(-60, 60), (-30, 60), (-60, 30)])
@pytest.mark.parametrize("kind", [None, "ramp"])
def test_reconstructions_have_their_power_inside_the_mask(first, last, kind):
    # A taper narrow in space blurs the edge of the wedge by little and hides that a box cuts streaks off.
    shape, angles = (64, 8, 64), np.arange(first, last + 1, 1.0)
    taper = torch.from_numpy(blob(shape, (0, 0, 0), 10) / bell(8, 0, 10)[:, None].astype(np.float32))
    found = reconstruct(project(noise(*shape) * taper, angles, width=96), angles, 64, filter=kind, width=64)
    power = torch.fft.fftn(found * taper).abs() ** 2 * (radius((64, 1, 64), rfft=False) > 0.1)
    inside = power[wedge_mask(shape, angles)].sum() / power.sum()
    mirrored = power[wedge_mask(shape, -angles)].sum() / power.sum()
    assert inside > 0.97
    assert first == -last or mirrored < 0.8


# --- contrast transfer function


def test_wavelengths():
    assert electron_wavelength(300) == pytest.approx(0.019687, rel=1e-4)
    assert electron_wavelength(200) == pytest.approx(0.025079, rel=1e-4)
    assert electron_wavelength(100) == pytest.approx(0.037014, rel=1e-4)


def test_ctf_known_values():
    zero = torch.zeros(1)
    assert ctf_radial(zero, 2e4).item() == pytest.approx(-0.07)
    assert ctf_radial(zero, 2e4, amplitude_contrast=0, phase_shift=90).item() == pytest.approx(-1)
    # Without aberration the zeros are where π λ Δf k² + arcsin(A) is a multiple of π.
    order = torch.arange(1, 6)
    zeros = torch.sqrt((order - math.asin(0.07) / math.pi) / (electron_wavelength(300) * 2e4))
    assert ctf_radial(zeros, 2e4, cs=0).abs().max() < 1e-4
    k = torch.linspace(0, float(zeros[0]), 50)[:-1]
    assert (ctf_radial(k, 2e4, cs=0) < 0).all()
    # With aberration, at k where both phases are known: χ = π λ Δf k² - π/2 Cs λ³ k⁴.
    wavelength = electron_wavelength(300)
    chi = math.pi * wavelength * 1e4 / 16 - math.pi / 2 * 2.7e7 * wavelength**3 / 256
    expected = -(math.sqrt(1 - 0.07**2) * math.sin(chi) + 0.07 * math.cos(chi)) * math.exp(-100 / 64)
    assert ctf_radial(torch.tensor([0.25]), 1e4, b_factor=100).item() == pytest.approx(expected, abs=1e-5)


def test_ctf_image_is_radial_in_both_layouts():
    full, half = ctf((16, 24), 5.0, 3e4, rfft=False), ctf((16, 24), 5.0, 3e4)
    assert half.shape == (16, 13) and torch.equal(full[:, :13], half)
    torch.testing.assert_close(full[0, 3], ctf_radial(torch.tensor(3 / 24 / 5.0), 3e4))
    torch.testing.assert_close(full[2, 0], full[0, 3])
    torch.testing.assert_close(full[-2, 0], full[2, 0])
    stack = ctf((16, 24), 5.0, [2e4, 3e4])
    assert stack.shape == (2, 16, 13) and torch.equal(stack[1], half)


@pytest.mark.parametrize("size", [(16, 24), (15, 21)])
def test_phase_flip_twice_changes_nothing(size):
    series = noise(3, *size)
    flipped = correct_ctf(series, ctf(size, 4.0, 4e4))
    assert not torch.allclose(flipped, series, atol=0.1)
    torch.testing.assert_close(correct_ctf(flipped, ctf(size, 4.0, 4e4)), series, atol=1e-5, rtol=1e-5)


def test_corrections_undo_the_ctf():
    series, transfer = noise(3, 32, 32).numpy(), ctf((32, 32), 4.0, [2e4, 3e4, 4e4])
    recorded = apply_ctf(series, transfer)
    assert isinstance(recorded, np.ndarray) and recorded.dtype == np.float32
    spectrum = np.fft.rfft2(correct_ctf(recorded, transfer))
    np.testing.assert_allclose(spectrum, np.fft.rfft2(series) * transfer.abs().numpy(), atol=1e-3)
    restored = np.fft.rfft2(correct_ctf(recorded, transfer, "wiener", snr=1e5))
    strong = transfer.numpy() ** 2 > 0.01
    np.testing.assert_allclose(restored[strong], np.fft.rfft2(series)[strong], rtol=2e-3, atol=1e-2)
    assert np.corrcoef(series.ravel(), recorded.ravel())[0, 1] < 0.5
