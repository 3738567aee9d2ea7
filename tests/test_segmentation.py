"""Planted membranes are found where they are, noise yields next to none, and the scores agree with direct sums."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from cryostudy.errors import InputError
from cryostudy.metrics import completeness, completeness_by_angle, dice, precision, surface_distance
from cryostudy.segmentation import segment, surfaceness, tensor_voting
from cryostudy.segmentation.surfaceness import PAIRS, lowest_eigenpair

VOXEL = 10.0
OBLIQUE = np.array([0.2, 0.6, 0.7745966692414834])


def offsets(shape):
    return np.stack(np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape), indexing="ij"))


def bilayer(distance):
    """A membrane's density at a distance in voxels of 10 Å, and its mask, 60 Å thick."""
    density = sum(np.exp(-0.5 * ((distance + side) / 0.8) ** 2) for side in (-2, 2))
    return density.astype(np.float32), np.abs(distance) <= 3


def plane(shape=(48, 48, 48), normal=OBLIQUE):
    return bilayer(np.tensordot(normal, offsets(shape), 1))


def shell(shape=(48, 48, 48), radius=14):
    return bilayer(np.sqrt((offsets(shape) ** 2).sum(0)) - radius)


def noise(shape, seed, smooth=0.0):
    white = torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))
    if smooth:
        from cryostudy.filters import gaussian_filter

        white = gaussian_filter(white, smooth)
    return (white / white.std()).numpy()


# Surfaceness


def test_eigenpairs_are_those_of_lapack():
    generator = torch.Generator().manual_seed(0)
    parts = torch.cat([torch.randn(6, 500, generator=generator), torch.tensor([[2.0, 2, 2, 0, 0, 0], [0] * 6]).T], 1)
    values, vectors = lowest_eigenpair(parts)
    full = torch.zeros(502, 3, 3, dtype=torch.float64)
    for k, (i, j) in enumerate(PAIRS):
        full[:, i, j] = full[:, j, i] = parts[k].double()
    expected, frames = torch.linalg.eigh(full)
    assert torch.allclose(values.T.double(), expected, atol=1e-5)
    assert torch.allclose(vectors.square().sum(0), torch.ones(502), atol=1e-5)
    along = (vectors.T.double()[:500] * frames[:500, :, 0]).sum(1).abs()
    assert along.min() > 1 - 1e-5


def test_a_plane_responds_as_computed_by_hand_with_its_normal():
    distance = np.tensordot(OBLIQUE, offsets((40, 40, 40)), 1)
    volume = torch.from_numpy(np.exp(-0.5 * (distance / 2) ** 2).astype(np.float32))
    response, normal = surfaceness(volume, [3.0])
    inner = np.abs(offsets((40, 40, 40))).max(0) < 6
    middle = torch.from_numpy(inner & (np.abs(distance) < 0.05))
    # A Gaussian of deviation 2 smoothed by 3: height 2 / sqrt(13), second derivative height / 13, times 3^2.
    assert response[middle].mean() == pytest.approx(9 * 2 / 13**1.5, rel=0.01)
    assert torch.einsum("i,izyx->zyx", torch.tensor(OBLIQUE).float(), normal)[middle].abs().min() > 0.999


def test_a_sheet_responds_more_than_a_filament_and_a_blob_and_dark_ones_by_the_flag():
    z, y, x = offsets((32, 32, 32))
    shapes = [
        torch.from_numpy(np.exp(-0.5 * q / 4).astype(np.float32)) for q in (z**2, z**2 + y**2, z**2 + y**2 + x**2)
    ]
    peaks = [float(surfaceness(shape, [2.0, 3.0])[0][14:18, 14:18, 14:18].max()) for shape in shapes]
    assert peaks[1] < 0.35 * peaks[0] and peaks[2] < 0.35 * peaks[0]
    sheet = torch.from_numpy(np.exp(-0.5 * z**2 / 4).astype(np.float32))
    assert torch.allclose(surfaceness(-sheet, [2.0], bright=False)[0], surfaceness(sheet, [2.0])[0])
    assert surfaceness(-sheet, [2.0])[0][15:17].max() == 0


# Tensor voting


@pytest.mark.parametrize("power", [1, 2])
def test_votes_are_those_counted_one_by_one(power):
    generator = torch.Generator().manual_seed(1)
    weight = torch.zeros(18, 17, 19)  # with voters far enough from the borders that none is mirrored
    weight[tuple(torch.randint(6, 11, (3, 12), generator=generator))] = torch.rand(12, generator=generator)
    normal = torch.nn.functional.normalize(torch.randn(3, 18, 17, 19, generator=generator), dim=0)
    places = torch.stack(torch.meshgrid(*map(torch.arange, weight.shape), indexing="ij"), -1).double()
    total = torch.zeros(*weight.shape, 3, 3, dtype=torch.float64)
    for voter in weight.nonzero():
        n = normal[:, voter[0], voter[1], voter[2]].double()
        r = places - voter
        length = r.norm(dim=-1)
        d = r / length.clamp(min=1e-9)[..., None]
        cosine = d @ n
        told = n - 2 * cosine[..., None] * d
        size = weight[tuple(voter)] * torch.exp(-(length**2) / (2 * 1.5**2)) * (1 - cosine**2) ** power * (length <= 4)
        total += size[..., None, None] * told[..., None] * told[..., None, :]
    values = torch.linalg.eigvalsh(total)
    saliency, _ = tensor_voting(weight, normal, 1.5, power=power)
    assert torch.allclose(saliency.double(), values[..., 2] - values[..., 1], atol=1e-6)


def test_votes_at_the_borders_are_those_of_the_mirrored_surface():
    generator = torch.Generator().manual_seed(2)
    weight = torch.rand(9, 9, 9, generator=generator)
    normal = torch.nn.functional.normalize(torch.randn(3, 9, 9, 9, generator=generator), dim=0)
    twin = normal[:, 1:].flip(1).clone()
    twin[0] *= -1
    doubled = torch.cat([weight[1:].flip(0), weight]), torch.cat([twin, normal], 1)
    assert torch.allclose(tensor_voting(weight, normal, 1.0)[0][:5], tensor_voting(*doubled, 1.0)[0][8:13], atol=1e-5)


def test_votes_of_a_sphere_are_told_its_normals_and_fill_a_gap():
    position = torch.from_numpy(offsets((32, 32, 32)).astype(np.float32))
    length = position.norm(dim=0)
    radial = position / length.clamp(min=1e-6)
    weight = ((length - 11).abs() < 0.5).float()
    weight[12:20, 12:20, 20:] = 0
    saliency, normal = tensor_voting(weight, radial, 4.0)
    gap = torch.zeros_like(weight, dtype=torch.bool)
    gap[12:20, 12:20, 20:] = True
    surface = gap & ((length - 11).abs() < 0.5)
    assert saliency[surface].mean() > 2 * saliency[gap & ((length - 11).abs() > 3)].max()
    assert (normal * radial).sum(0)[surface].abs().min() > 0.97


# Segmentation


@pytest.mark.parametrize(("density", "mask"), [plane(), shell()], ids=["plane", "shell"])
def test_a_planted_membrane_is_found_within_a_voxel(density, mask):
    found = segment(density + 0.02 * noise(density.shape, 0), VOXEL)
    assert completeness(found.mask, mask, VOXEL, 10) > 0.96 and precision(found.mask, mask, VOXEL, 10) > 0.98
    assert dice(found.mask, mask) > 0.85
    assert surface_distance(found.mask, mask, VOXEL).mean < VOXEL


def test_a_plane_is_found_in_noise_as_strong_as_itself_and_darker_ones_by_the_flag():
    density, mask = plane((54, 54, 54))
    volume = density + density[mask].std() * noise(density.shape, 3, smooth=1.0)
    found = segment(volume, VOXEL)
    assert completeness(found.mask, mask, VOXEL) > 0.9 and precision(found.mask, mask, VOXEL) > 0.95
    assert dice(segment(-3 * volume + 7, VOXEL, bright=False).mask, found.mask) > 0.99
    assert np.array_equal(found.at(found.high), found.mask)
    assert not found.at(2 * found.saliency.max()).any()


def test_turning_the_volume_turns_response_and_votes():
    volume = torch.from_numpy(noise((24, 24, 24), 5, smooth=1.0) + plane((24, 24, 24))[0])
    turned = volume.rot90(1, (0, 2))
    results = []
    for v in (volume, turned):
        response, normal = surfaceness(v, [2.0, 3.0])
        results.append((response, tensor_voting(response, normal, 3.0)[0]))
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a.rot90(1, (0, 2)), b, atol=1e-4 * float(a.max()))


def test_noise_alone_passes_as_often_as_stated_and_yields_next_to_no_membrane():
    results = [segment(noise((48, 48, 48), s, smooth=1.0), VOXEL, voting=40, seed=s + 100) for s in range(5)]
    # A voting field of 4 voxels leaves enough independent places in so small a volume to count.
    rate = np.mean([(result.saliency > result.high).mean() for result in results])
    assert 0.2 * 2.5e-4 < rate < 4 * 2.5e-4
    assert np.mean([result.mask.mean() for result in results]) < 0.005


def test_the_same_seed_gives_the_same_mask():
    volume = noise((24, 24, 24), 0, smooth=1.0)
    a, b = (segment(volume, VOXEL, voting=40, min_area=0, seed=4) for _ in range(2))
    assert np.array_equal(a.saliency, b.saliency) and a.high == b.high


@pytest.mark.parametrize(
    ("volume", "arguments", "message"),
    [
        (np.full((16, 16, 16), np.nan, np.float32), {}, "NaN"),
        (np.ones((16, 16, 16), np.float32), {}, "constant"),
        (np.ones((16, 16), np.float32), {}, "2-D"),
        (np.ones((4, 16, 16), np.float32), {}, "too small"),
        (noise((16, 16, 16), 0), {"voxel_size": 0.0}, "voxel_size"),
        (noise((16, 16, 16), 0), {"voxel_size": 60.0}, "too small for voxels"),
        (noise((16, 16, 16), 0), {"false_positives": 0.5}, "false_positives"),
    ],
)
def test_bad_input_is_refused_in_one_line(volume, arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        segment(volume, **{"voxel_size": VOXEL, **arguments})
    assert "\n" not in str(caught.value)


def test_bad_scales_are_refused():
    volume = torch.zeros(8, 8, 8)
    with pytest.raises(InputError, match="sigmas"):
        surfaceness(volume, [0.2])
    with pytest.raises(InputError, match="sigma"):
        tensor_voting(volume, volume.expand(3, 8, 8, 8), 0.1)


# Scores


def test_scores_are_those_counted_directly():
    rng = np.random.default_rng(0)
    a, b = (rng.random((6, 7, 8)) < 0.1 for _ in range(2))
    distances = cdist(np.argwhere(a), np.argwhere(b)) * 5.0
    assert dice(a, b) == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))
    assert completeness(a, b, 5.0, 8.0) == pytest.approx((distances.min(0) <= 8).mean())
    assert precision(a, b, 5.0, 8.0) == pytest.approx((distances.min(1) <= 8).mean())
    found = surface_distance(a, b, 5.0)  # so sparse that every voxel is surface
    directed = distances.min(0), distances.min(1)
    assert found.mean == pytest.approx(np.mean([d.mean() for d in directed]))
    assert found.p95 == pytest.approx(max(np.percentile(d, 95) for d in directed))


def test_two_planes_are_their_distance_apart():
    a, b = (np.zeros((20, 12, 12), bool) for _ in range(2))
    a[5], b[9] = True, True
    distance = surface_distance(a, b, 10.0)
    assert distance.mean == distance.p95 == pytest.approx(40)
    assert completeness(a, b, 10.0, 39) == 0 and completeness(a, b, 10.0, 40) == 1
    assert dice(a, b) == 0 and dice(a, a) == 1 and surface_distance(a, a, 10.0).mean == 0


def test_a_shifted_ball_is_nearer_than_its_shift():
    ball = (offsets((32, 32, 32)) ** 2).sum(0) <= 64
    distance = surface_distance(np.roll(ball, 3, 1), ball, 1.0)
    # The distance is 3 |cos| of the angle to the shift, whose mean over a sphere is 1.5.
    assert distance.mean == pytest.approx(1.5, abs=0.25) and distance.p95 == pytest.approx(3 * 0.95, abs=0.3)


def test_an_empty_prediction_scores_nothing_and_bad_masks_are_refused():
    truth, empty = plane((16, 16, 16))[1], np.zeros((16, 16, 16), bool)
    assert dice(empty, truth) == completeness(empty, truth, 1.0) == precision(empty, truth, 1.0) == 0
    assert surface_distance(empty, truth, 1.0).mean == surface_distance(empty, truth, 1.0).p95 == np.inf
    for a, b, message in (
        (truth, empty, "empty"),
        (truth[1:], truth, "shapes"),
        (truth[0], truth[0], "2-D"),
        (truth * 1.0, truth, "bool"),
    ):
        with pytest.raises(InputError, match=message):
            dice(a, b)
    with pytest.raises(InputError, match="fills"):
        surface_distance(truth, np.ones_like(truth), 1.0)


def test_completeness_by_angle_tells_what_the_missing_wedge_takes():
    z = np.arange(40)
    across, along = np.zeros((40, 40, 40), bool), np.zeros((40, 40, 40), bool)
    across[(z > 3) & (z < 9)] = True
    along[14:, :, 17:23] = True
    scores = completeness_by_angle(along, across | along, VOXEL, tolerance=0, bins=3)
    assert scores.edges.tolist() == [0, 30, 60, 90]
    assert scores.completeness[0] < 0.05 and scores.completeness[2] > 0.95
    assert scores.voxels.sum() == (across | along).sum()
    ball = shell()[1]
    by_angle = completeness_by_angle(ball, ball, VOXEL, bins=3)
    assert np.array_equal(by_angle.completeness, np.ones(3))
    # Of a sphere, the fraction cos a - cos b has its normal between a and b.
    assert by_angle.voxels / ball.sum() == pytest.approx(-np.diff(np.cos(np.deg2rad(by_angle.edges))), abs=0.03)


def test_a_membrane_across_the_beam_is_lost_in_the_missing_wedge_and_one_along_it_is_not():
    from cryostudy.tomography import wedge_mask

    shape = (48, 48, 48)
    kept = wedge_mask(shape, np.arange(-60, 61, 2.0), rfft=True).numpy()
    scores = []
    for normal in (np.array([1.0, 0.0, 0.0]), OBLIQUE):
        density, mask = plane(shape, normal)
        seen = np.fft.irfftn(np.fft.rfftn(density) * kept, s=shape, axes=(0, 1, 2)) + 0.1 * noise(shape, 0, smooth=1.0)
        scores.append(completeness(segment(seen, VOXEL, voting=50).mask, mask, VOXEL))
    assert scores[0] < 0.1 and scores[1] > 0.9
