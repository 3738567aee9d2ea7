"""Template matching: where a particle lies in a tomogram, how it is turned, and which peaks are more than noise."""

from cryostudy.matching.angles import rotations
from cryostudy.matching.peaks import Found, find, flattened, peaks
from cryostudy.matching.search import Match, search
from cryostudy.matching.template import phase_randomised, resampled, spherical_mask, whitened, whitening
from cryostudy.matching.threshold import gaussian_threshold, tail_threshold

__all__ = [
    "Found",
    "Match",
    "find",
    "flattened",
    "gaussian_threshold",
    "peaks",
    "phase_randomised",
    "resampled",
    "rotations",
    "search",
    "spherical_mask",
    "tail_threshold",
    "whitened",
    "whitening",
]
