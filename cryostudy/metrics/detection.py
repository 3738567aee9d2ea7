"""How well found particles agree with the true ones: precision, recall, F1, average precision, distance, angle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from cryostudy.errors import InputError
from cryostudy.poses import Floats, angular_error, check_points, check_rotations, check_values


@dataclass(frozen=True)
class Operation:
    """What is found with scores of at least `threshold`; `distance` (Å) and `angle` (degrees) are means over hits.

    What is not defined is NaN: precision where nothing is found, recall without true particles, means without hits.
    """

    threshold: float
    found: int
    hits: int
    precision: float
    recall: float
    f1: float
    distance: float
    angle: float


@dataclass(frozen=True, eq=False)
class Curve:
    """One value for each distinct score, as threshold, from high to low."""

    threshold: Floats
    precision: Floats
    recall: Floats
    f1: Floats


@dataclass(frozen=True, eq=False)
class Histograms:
    """How many true and false peaks score between `edges` (bins + 1)."""

    edges: Floats
    true: NDArray[np.int64]
    false: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Detection:
    """Found particles beside the true ones they hit, in the order in which they were given.

    `scores` (n,); `truth` (n,) index of the true particle, -1 for none; `distance` (n,) in Å and `angle` (n,) in
    degrees, NaN where there is none; `n_true` how many true particles there are, found or not.
    """

    scores: Floats
    truth: NDArray[np.int64]
    distance: Floats
    angle: Floats
    n_true: int

    @property
    def hit(self) -> NDArray[np.bool_]:
        """Which found particles are true ones (n,)."""
        return self.truth >= 0

    def at(self, threshold: float) -> Operation:
        """Scores of what lies at or above a threshold. Choose it without the truth, else it is an oracle."""
        taken = self.scores >= threshold
        hit = taken & self.hit
        found, hits = int(taken.sum()), int(hit.sum())
        angle = self.angle[hit & np.isfinite(self.angle)]
        return Operation(
            threshold=float(threshold),
            found=found,
            hits=hits,
            precision=hits / found if found else float("nan"),
            recall=hits / self.n_true if self.n_true else float("nan"),
            f1=2 * hits / (found + self.n_true) if found + self.n_true else float("nan"),
            distance=float(self.distance[hit].mean()) if hits else float("nan"),
            angle=float(angle.mean()) if angle.size else float("nan"),
        )

    def curve(self) -> Curve:
        """Precision, recall and F1 against threshold. Source: `jones2026`, Equation 7, Figure 8 a, b."""
        order = np.argsort(-self.scores, kind="stable")
        scores = self.scores[order]
        last = np.flatnonzero(np.diff(scores, append=-np.inf))  # equal scores pass a threshold together
        hits, found = np.cumsum(self.hit[order])[last], last + 1
        recall = hits / self.n_true if self.n_true else np.full(len(hits), np.nan)
        return Curve(scores[last], hits / found, recall, 2 * hits / (found + self.n_true))

    @property
    def average_precision(self) -> float:
        """Area under the precision-recall curve: sum of precision times the gain in recall, threshold by threshold.

        Steps, not trapezoids: between two points of this curve precision does not fall along a straight line (Davis
        and Goadrich 2006), and trapezoids flatter sparse curves. What is never found adds nothing. NaN without true
        particles.
        """
        curve = self.curve()
        if self.n_true == 0:
            return float("nan")
        return float((np.diff(curve.recall, prepend=0) * curve.precision).sum())

    def oracle(self) -> Operation:
        """The threshold of highest F1, the higher one of equals. An oracle: chosen by the truth, which users lack."""
        curve = self.curve()
        return self.at(curve.threshold[np.argmax(curve.f1)] if curve.f1.size else np.inf)

    def histograms(self, bins: int = 40) -> Histograms:
        """Scores of true and of false peaks in common bins. Source: `jones2026`, Figures 8 c and 9 b."""
        if bins < 1:
            raise InputError(f"bins {bins}: give at least 1")
        edges = np.histogram_bin_edges(self.scores, bins)
        true, false = (np.histogram(self.scores[part], edges)[0] for part in (self.hit, ~self.hit))
        return Histograms(edges, true, false)


def detection(
    found: ArrayLike,
    scores: ArrayLike,
    true: ArrayLike,
    *,
    tolerance: float,
    voxel_size: float = 1.0,
    rotations: ArrayLike | None = None,
    true_rotations: ArrayLike | None = None,
    symmetry: str = "C1",
) -> Detection:
    """Match found particles with true ones, one to one, each pair at most `tolerance` voxels apart.

    Greedy: the highest score takes the true particle nearest to it, then the next score the nearest one left, and so
    on; a second peak on the same particle is false. Unlike the assignment of least total distance, this makes the
    hits above a threshold independent of what scores below it, as a user who stops at that threshold would count
    them, so that one matching serves the whole curve. Both give as many hits where true particles lie more than twice
    the tolerance apart. Nothing depends on the order of the lists: equal scores match by distance, then by place.

    Args:
        found, true: positions (n, 3), (m, 3) in voxels (z, y, x), either may be empty. scores: (n,), higher is better.
        voxel_size: Å, for distances. rotations, true_rotations: (n, 3, 3), (m, 3, 3), both or neither; angles are then
            the smallest up to `symmetry`, a point group such as C1, C6, D7, T, O, I.
    Raises:
        InputError: shapes that do not fit, NaN, no rotation, an unknown group, tolerance or voxel size not positive.
    Source: `jones2026`, Section 2.2.2.
    """
    for name, value in (("tolerance", tolerance), ("voxel_size", voxel_size)):
        if not (np.isfinite(value) and value > 0):
            raise InputError(f"{name} {value}: give a positive number")
    points, right = check_points(found, "found positions"), check_points(true, "true positions")
    values = check_values(scores, len(points), "scores")
    if (rotations is None) != (true_rotations is None):
        raise InputError("rotations: give those of the found and of the true particles, or neither")
    truth, distance = np.full(len(points), -1), np.full(len(points), np.nan)
    if len(points) and len(right):
        pairs = cKDTree(points).sparse_distance_matrix(cKDTree(right), tolerance, output_type="ndarray")
        i, j, apart = pairs["i"], pairs["j"], pairs["v"]
        free = np.ones(len(right), bool)
        for k in np.lexsort((*right[j].T, *points[i].T, apart, -values[i])):
            if truth[i[k]] < 0 and free[j[k]]:
                truth[i[k]], free[j[k]], distance[i[k]] = j[k], False, apart[k] * voxel_size
    angle = np.full(len(points), np.nan)
    if rotations is not None and true_rotations is not None:
        turns = check_rotations(rotations, len(points), "rotations")
        right_turns = check_rotations(true_rotations, len(right), "true_rotations")
        hit = truth >= 0
        angle[hit] = angular_error(turns[hit], right_turns[truth[hit]], symmetry)
    return Detection(values, truth, distance, angle, len(right))
