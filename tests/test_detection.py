"""Found particles against true ones: known answers, chance, and what must not change anything."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from cryostudy.errors import InputError
from cryostudy.metrics import detection
from cryostudy.poses import angular_error, check_symmetry

SEEDS = st.integers(0, 10**6)


def scattered(seed, n_true=12, n_found=20, ties=False, spread=8.0):
    """Crowded positions and scores; some found on true ones."""
    rng = np.random.default_rng(seed)
    true, found = rng.uniform(0, spread, (n_true, 3)), rng.uniform(0, spread, (n_found, 3))
    found[: n_true // 2] = true[: n_true // 2] + rng.normal(scale=0.3, size=(n_true // 2, 3))
    scores = rng.integers(0, 4, n_found).astype(float) if ties else rng.normal(size=n_found)
    return found, scores, true


def rotations(count, seed=0):
    return Rotation.random(count, random_state=seed).as_matrix()


def test_a_small_case_by_hand():
    found = [[0, 0, 0.5], [0, 0, 0.4], [50, 0, 0], [10, 10, 11]]
    d = detection(found, [0.9, 0.8, 0.7, 0.6], [[0, 0, 0], [10, 10, 10], [30, 30, 30]], tolerance=2, voxel_size=10)
    assert d.truth.tolist() == [0, -1, -1, 1]
    curve = d.curve()
    np.testing.assert_allclose(curve.precision, [1, 1 / 2, 1 / 3, 1 / 2])
    np.testing.assert_allclose(curve.recall, [1 / 3, 1 / 3, 1 / 3, 2 / 3])
    np.testing.assert_allclose(curve.f1, [1 / 2, 2 / 5, 1 / 3, 4 / 7])
    np.testing.assert_allclose(d.distance, [5, np.nan, np.nan, 10])
    assert d.average_precision == pytest.approx(1 / 3 * 1 + 1 / 3 * 1 / 2)
    best = d.oracle()
    assert (best.threshold, best.found, best.hits) == (0.6, 4, 2) and best.distance == pytest.approx(7.5)
    assert d.at(0.75).precision == 0.5 and d.at(0.75).f1 == pytest.approx(0.4)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.booleans())
def test_order_does_not_matter(seed, ties):
    found, scores, true = scattered(seed, ties=ties)
    turns, right = rotations(len(found), seed), rotations(len(true), seed + 1)
    d = detection(found, scores, true, tolerance=2, rotations=turns, true_rotations=right)
    rng = np.random.default_rng(seed)
    a, b = rng.permutation(len(found)), rng.permutation(len(true))
    e = detection(found[a], scores[a], true[b], tolerance=2, rotations=turns[a], true_rotations=right[b])
    hit = d.hit[a]
    np.testing.assert_array_equal(hit, e.hit)
    np.testing.assert_array_equal(b[e.truth[hit]], d.truth[a][hit])
    np.testing.assert_array_equal(d.distance[a], e.distance)
    np.testing.assert_array_equal(d.angle[a], e.angle)
    assert d.average_precision == pytest.approx(e.average_precision)
    assert vars(d.oracle()) == pytest.approx(vars(e.oracle()), nan_ok=True)  # means sum in another order


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.booleans())
def test_matching_is_one_to_one_within_tolerance_and_independent_of_lower_scores(seed, ties):
    found, scores, true = scattered(seed, ties=ties)
    d = detection(found, scores, true, tolerance=2)
    used = d.truth[d.hit]
    assert len(set(used)) == len(used)
    np.testing.assert_allclose(np.linalg.norm(found[d.hit] - true[used], axis=1), d.distance[d.hit])
    assert (d.distance[d.hit] <= 2).all()
    # every peak left over has no free true particle in reach
    free = np.setdiff1d(np.arange(len(true)), used)
    assert (cdist(found[~d.hit], true[free]) > 2).all()
    for threshold in np.unique(scores):
        above = scores >= threshold
        alone = detection(found[above], scores[above], true, tolerance=2)
        np.testing.assert_array_equal(alone.truth, d.truth[above])


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_greedy_hits_as_many_as_the_best_assignment_where_particles_are_apart(seed):
    rng = np.random.default_rng(seed)
    true = np.stack(np.meshgrid(*[np.arange(3) * 5.0] * 3), -1).reshape(-1, 3)
    found = true[rng.integers(0, 27, 30)] + rng.uniform(-2, 2, (30, 3))
    within = cdist(found, true) <= 2.4
    rows, columns = linear_sum_assignment(within, maximize=True)
    d = detection(found, rng.normal(size=30), true, tolerance=2.4)
    assert d.hit.sum() == within[rows, columns].sum()


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.booleans())
def test_average_precision_and_curve_as_computed_directly(seed, ties):
    found, scores, true = scattered(seed, ties=ties)
    d = detection(found, scores, true, tolerance=2)
    # the precision at which each true particle comes in, 0 for those never found
    precision = [d.hit[scores >= s].mean() for s in scores[d.hit]]
    assert d.average_precision == pytest.approx(sum(precision) / len(true))
    curve = d.curve()
    for k, threshold in enumerate(curve.threshold):
        there = d.at(threshold)
        assert (there.precision, there.recall) == (pytest.approx(curve.precision[k]), pytest.approx(curve.recall[k]))
        assert there.f1 == pytest.approx(curve.f1[k])
        if there.hits:
            harmonic = 2 * there.precision * there.recall / (there.precision + there.recall)
            assert there.f1 == pytest.approx(harmonic)
    assert d.oracle().f1 == curve.f1.max() and (np.diff(curve.recall) >= 0).all()


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.integers(1, 30))
def test_perfect_detection_scores_one(seed, count):
    rng = np.random.default_rng(seed)
    true, turns = rng.uniform(0, 100, (count, 3)), rotations(count, seed)
    false = rng.uniform(200, 300, (5, 3))
    order = rng.permutation(count)
    found = np.concatenate([true[order], false])
    scores = np.concatenate([rng.uniform(1, 2, count), rng.uniform(0, 1, 5)])
    d = detection(found, scores, true, tolerance=1e-6, voxel_size=10)
    best = d.oracle()
    assert d.average_precision == pytest.approx(1) and best.f1 == best.recall == best.precision == 1
    assert best.distance == 0 and best.threshold >= 1
    e = detection(
        true[order], scores[:count], true, tolerance=1, rotations=turns[order] @ check_symmetry("D2")[2],
        true_rotations=turns, symmetry="D2",
    )  # fmt: skip
    assert e.oracle().angle == pytest.approx(0, abs=1e-4)


def test_random_detections_score_what_chance_gives():
    rng = np.random.default_rng(0)
    n_true, n_found, hits = 10, 60, 10
    true = np.arange(n_true)[:, None] * [50.0, 0, 0]
    found = np.concatenate([true, rng.uniform(1e3, 2e3, (n_found - hits, 3))])
    areas = [detection(found, rng.normal(size=n_found), true, tolerance=1).average_precision for _ in range(400)]
    # mean over random orders of n items, r of them right (Bestgen 2015): ((r - 1) / (n - 1) (n - H) + H) / n
    h = (1 / np.arange(1, n_found + 1)).sum()
    chance = ((hits - 1) / (n_found - 1) * (n_found - h) + h) / n_found
    assert np.mean(areas) == pytest.approx(chance, abs=4 * np.std(areas) / 20)
    # random places: precision is the share of the volume within the tolerance of a particle
    share = n_true * 4 / 3 * np.pi * 4**3 / 60**3
    grid = np.stack(np.meshgrid([15.0, 45], [15.0, 45], [10.0, 30, 50]), -1).reshape(-1, 3)[:n_true]
    counts = [
        detection(rng.uniform(0, 60, (3, 3)), rng.normal(size=3), grid, tolerance=4).hit.mean() for _ in range(1500)
    ]
    assert np.mean(counts) == pytest.approx(share, abs=4 * np.std(counts) / 1500**0.5)


def test_nothing_found_and_no_truth():
    nothing = detection([], [], [[1, 2, 3]], tolerance=1)
    assert nothing.average_precision == 0 and nothing.oracle().f1 == 0 and nothing.oracle().recall == 0
    assert np.isnan(nothing.oracle().precision) and nothing.curve().f1.size == 0
    assert nothing.histograms(4).true.sum() == 0
    absent = detection([[1, 2, 3], [4, 5, 6]], [1, 2], np.zeros((0, 3)), tolerance=1)
    assert np.isnan(absent.average_precision) and np.isnan(absent.curve().recall).all()
    assert absent.oracle().f1 == 0 and absent.curve().precision.tolist() == [0, 0]
    neither = detection([], [], [], tolerance=1, rotations=[], true_rotations=[])
    assert np.isnan(neither.average_precision) and np.isnan(neither.oracle().f1)


def test_duplicates_count_once_and_ties_pass_together():
    d = detection([[0, 0, 0]] * 3, [1, 1, 1], [[0, 0, 0]], tolerance=1)
    assert d.hit.sum() == 1 and d.curve().precision.tolist() == [1 / 3] and d.average_precision == pytest.approx(1 / 3)
    near = detection([[0, 0, 0.9], [0, 0, 0.1]], [1, 1], [[0, 0, 0]], tolerance=1)
    assert near.hit.tolist() == [False, True]


def test_histograms_split_all_scores():
    found, scores, true = scattered(3)
    d = detection(found, scores, true, tolerance=2)
    h = d.histograms(7)
    assert len(h.edges) == 8 and h.true.sum() == d.hit.sum() and h.false.sum() == (~d.hit).sum()
    np.testing.assert_array_equal(h.true + h.false, np.histogram(scores, 7)[0])


@pytest.mark.parametrize("symmetry", ["C1", "C6", "D7", "T", "O", "I"])
def test_angular_error_is_that_of_the_turn_up_to_symmetry(symmetry):
    right, operations = rotations(20, 1), check_symmetry(symmetry)
    rng = np.random.default_rng(2)
    axes = rng.normal(size=(20, 3))
    degrees = rng.uniform(0, 17, 20)  # below half the least angle of any of these groups
    turn = Rotation.from_rotvec(np.deg2rad(degrees)[:, None] * axes / np.linalg.norm(axes, axis=1)[:, None])
    alike = right @ operations[rng.integers(0, len(operations), 20)]
    np.testing.assert_allclose(angular_error(turn.as_matrix() @ alike, right, symmetry), degrees, atol=1e-5)
    np.testing.assert_allclose(angular_error(right, turn.as_matrix() @ alike, symmetry), degrees, atol=1e-5)


BAD = {
    "not a finite number": dict(found=[[np.nan, 0, 0]]),
    "scores: entry 0 is not a finite": dict(scores=[np.nan]),
    r"points \(n, 3\)": dict(true=[[1.0, 2.0]]),
    "one number a particle": dict(scores=[1.0, 2.0]),
    "tolerance 0": dict(tolerance=0),
    "voxel_size -1": dict(voxel_size=-1),
    "or neither": dict(rotations=[np.eye(3)]),
    "is no rotation": dict(rotations=[np.diag([1, 1, -1])], true_rotations=[np.eye(3)]),
    "one matrix a particle": dict(rotations=np.eye(3), true_rotations=[np.eye(3)]),
    "'C0': unknown": dict(symmetry="C0", rotations=[np.eye(3)], true_rotations=[np.eye(3)]),
    "'X': unknown": dict(symmetry="X", rotations=[np.eye(3)], true_rotations=[np.eye(3)]),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input(message):
    given_ = dict(found=[[0, 0, 0]], scores=[1.0], true=[[0, 0, 0]], tolerance=1) | BAD[message]
    with pytest.raises(InputError, match=message) as error:
        detection(**given_)
    assert "\n" not in str(error.value)
