"""Paper 004, Proposition 1: weight 2 makes the masked loss the supervised one plus a constant; 4 and 1 do not."""

import numpy as np
import pytest
import torch

from cryostudy.losses.objectives import l2
from cryostudy.methods.deepdewedge import DeepDeWedge
from cryostudy.methods.learned import generator
from cryostudy.methods.wedge_filling import masked
from cryostudy.proposition import best_weight, constancy, draw, gaps, random_networks, structure, wedge_rotations
from cryostudy.rotation import random_rotations
from cryostudy.tomography import wedge_mask

ANGLES = [float(a) for a in range(-70, 71, 2)]
WEIGHTS = (1, 2, 4)
TRUTH = structure(12)


@pytest.fixture(scope="module")
def networks():
    return random_networks(20, draw(TRUTH, ANGLES, 1.0, 1, generator(0)).given)


@pytest.fixture(scope="module", params=[False, True], ids=["apart", "overlapping"])
def found(request, networks):
    return gaps(networks, TRUTH, ANGLES, WEIGHTS, draws=250, overlap=request.param)


def test_the_gap_is_constant_with_weight_two_alone(found):
    tests = {weight: constancy(gap) for weight, gap in zip(WEIGHTS, found, strict=True)}
    assert tests[2].p > 0.01 and tests[2].statistic < 2
    for weight in (1, 4):
        assert tests[weight].p < 1e-9 and tests[weight].statistic > 30
        assert np.abs(tests[weight].offset / tests[weight].error).max() > 10


def test_the_best_weight_is_two(found):
    weight, error = best_weight(found[0], found[1])
    assert abs(weight - 2) < 3 * error and error < 0.2


def test_noise_that_input_and_target_share_breaks_it(networks):
    (gap,) = gaps(networks, TRUTH, ANGLES, [2], draws=100, shared=True)
    assert constancy(gap).p < 1e-9


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize(("weight", "holds"), [(2, True), (4, False), (1, False)])
def test_without_noise_a_pair_and_its_exchange_prove_it_exactly(networks, overlap, weight, holds):
    d = draw(TRUTH, ANGLES, 0.0, 4, generator(1), overlap=overlap)
    known = (d.own | d.added).float()
    with torch.no_grad():
        for network in networks[:6]:
            estimate, clean = network(d.given), TRUTH.expand_as(d.given)  # the input is the same either way
            masks = [a * torch.where(b, 1.0, weight**0.5) for a, b in ((d.own, d.added), (d.added, d.own))]
            both = sum(l2(estimate, clean, mask).item() for mask in masks) / 2
            assert (both == pytest.approx(l2(estimate, clean, known).item(), rel=1e-5)) == holds


def test_the_methods_weigh_as_the_proposition_does():
    rotation = random_rotations(1, generator(4))[0]
    _, weight = masked(TRUTH[None, None], ANGLES, rotation, DeepDeWedge().wedge_weight)
    own, added = (wedge_mask((12, 12, 12), ANGLES, rotation=r, rfft=True) for r in (rotation, None))
    torch.testing.assert_close(weight[0, 0] ** 2, own * torch.where(added, 1.0, 2.0))


def test_wedges_around_one_axis_are_apart_and_around_two_are_not():
    apart = draw(TRUTH, ANGLES, 1.0, 50, generator(2))
    assert (apart.own | apart.added).all() and not apart.own.all()
    overlapping = draw(TRUTH, ANGLES, 1.0, 50, generator(2), overlap=True)
    assert not (overlapping.own | overlapping.added).all()


@pytest.mark.parametrize("overlap", [False, True])
def test_the_two_masks_are_exchangeable(overlap):
    own, added = (
        wedge_mask((10, 10, 10), ANGLES, rotation=r, rfft=True).float()
        for r in wedge_rotations(4000, generator(3), overlap=overlap)
    )
    # Odd under exchange, so its expectation is zero: M at one voxel times M~ at another.
    flat = [m.flatten(1)[:, 7::61] for m in (own, added)]
    cross = flat[0].T @ flat[1] / 4000
    assert (cross - cross.T).abs().max() < 6 * (0.25 / 4000) ** 0.5
    assert (own.mean() - added.mean()).abs() < 0.002


def test_the_test_of_constancy_keeps_its_level_and_sees_a_difference():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((40, 200, 1)) + 0.1 * rng.standard_normal((40, 200, 10))
    p = [constancy(torch.from_numpy(sample)).p for sample in noise]
    assert 0.25 < np.mean(p) < 0.75 and np.mean(np.less(p, 0.05)) < 0.2
    different = torch.from_numpy(noise[0] + 0.05 * np.eye(10)[0])
    assert constancy(different).p < 1e-3
    with pytest.raises(ValueError, match="15 draws for 10 networks: too few"):
        constancy(torch.zeros(15, 10))
