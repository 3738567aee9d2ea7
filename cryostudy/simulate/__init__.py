"""Specimens with known truth and the noisy tilt series that a microscope would record of them."""

from cryostudy.simulate.acquisition import reproject, simulate_tilt_series, tilt_angles
from cryostudy.simulate.builtin import symmetry_operations
from cryostudy.simulate.densities import Densities, load_density, specimen_densities
from cryostudy.simulate.noise import PRESETS, WEDGE_LEVELS, add_gaussian, signal_to_noise
from cryostudy.simulate.placement import Fiducial, Particle
from cryostudy.simulate.specimen import Specimen, make_specimen

__all__ = [
    "PRESETS",
    "WEDGE_LEVELS",
    "Densities",
    "Fiducial",
    "Particle",
    "Specimen",
    "add_gaussian",
    "load_density",
    "make_specimen",
    "reproject",
    "signal_to_noise",
    "simulate_tilt_series",
    "specimen_densities",
    "symmetry_operations",
    "tilt_angles",
]
