"""Particles from score maps: peaks no two of which are closer than a particle's radius."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from cryostudy.errors import InputError
from cryostudy.matching.search import Match
from cryostudy.matching.threshold import gaussian_threshold, tail_threshold


@dataclass(frozen=True, eq=False)
class Found:
    """Particles found, best first: `positions` (n, 3) in voxels (z, y, x), `rotations` (n, 3, 3) from the template to
    the tomogram, `scores` (n,); `threshold` is the score they exceed."""

    positions: NDArray[np.float64]
    rotations: NDArray[np.float64]
    scores: NDArray[np.float64]
    threshold: float


def find(match: Match, radius: float, rate: float = 1.0, *, count: int | None = None) -> Found:
    """Peaks of a search above the score that noise alone exceeds `rate` times in this volume.

    The threshold is a bound for normal noise (:func:`gaussian_threshold`). With a noise reference it is raised to that
    of the reference's peaks (:func:`tail_threshold`) where these are higher, as where membranes or gold match anything.
    Both maps compete: of a peak in one and a higher one in the other within `radius`, the lower is dropped, so that the
    particles themselves, which match the reference somewhat, do not count as noise (as in the target-decoy competition
    of Elias and Gygi 2007, Nat. Methods 4:207).

    Args:
        radius: of the particle in voxels; no two peaks are closer. count: no more than so many.
    Raises:
        InputError: a radius or rate out of range, or too few peaks in the noise reference.
    """
    threshold = gaussian_threshold(match.deviation, match.scores.size * len(match.rotations), rate)
    places, scores = peaks(match.scores, radius, 0.0 if match.noise is not None else threshold)
    if match.noise is not None:
        others, heights = peaks(match.noise, radius)
        won = unbeaten(others, heights, places, scores, radius)
        threshold = max(threshold, tail_threshold(heights[won], rate))
        kept = (scores > threshold) & unbeaten(places, scores, others, heights, radius)
        places, scores = places[kept], scores[kept]
    places, scores = places[:count], scores[:count]
    rotations = match.rotations[match.orientations[tuple(places.T)]]
    return Found(places.astype(np.float64), rotations, scores, threshold)


def unbeaten(
    places: NDArray[np.int64], scores: NDArray[np.float64], others: NDArray[np.int64], heights: NDArray[np.float64],
    radius: float,
) -> NDArray[np.bool_]:  # fmt: skip
    """Which of the peaks (n, 3) have no higher one among the others (m, 3) within a radius."""
    if not len(others) or not len(places):
        return np.ones(len(places), bool)
    near = KDTree(others).query_ball_point(places, radius)
    return np.array([not any(heights[k] > score for k in some) for some, score in zip(near, scores, strict=True)])


def peaks(
    scores: NDArray[np.float32], radius: float, threshold: float = 0.0
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Local maxima (n, 3) above a threshold, highest first, and their scores; none within `radius` voxels of a
    higher one.

    Raises:
        InputError: a radius below 1 voxel.
    """
    if not radius >= 1:
        raise InputError(f"radius {radius:g}: give the particle's radius, at least 1 voxel")
    places = np.argwhere((scores == ndimage.maximum_filter(scores, 3)) & (scores > threshold))
    values = scores[tuple(places.T)].astype(np.float64)
    order = np.argsort(-values, kind="stable")
    places, values = places[order], values[order]
    free, kept = np.ones(len(places), bool), []
    tree = KDTree(places) if len(places) else None
    for k in range(len(places)):
        if free[k] and tree is not None:
            kept.append(k)
            free[tree.query_ball_point(places[k], radius)] = False
    return places[kept], values[kept]


def flattened(match: Match, radius: float) -> Match:
    """A search whose scores are freed from what the noise reference scores nearby: less its average over a Gaussian of
    this radius (voxels), plus its mean. Scores and reference are treated alike.

    Raises:
        InputError: a search without noise reference.
    """
    if match.noise is None:
        raise InputError("noise correction needs a search with its noise reference")
    background = ndimage.gaussian_filter(match.noise, radius) - match.noise.mean()
    return Match(match.scores - background, match.orientations, match.rotations, match.noise - background,
                 match.deviation)  # fmt: skip
