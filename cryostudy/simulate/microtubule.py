"""A microtubule built in code: thirteen protofilaments of 4.1 nm subunits, or the same tube without its repeat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

REPEAT = 41.0  # Å, of the tubulin monomer along a protofilament
RADIUS = 112.0  # Å, from the axis to the middle of the wall
PROTOFILAMENTS = 13
STARTS = 3  # the lattice climbs by three monomers in a turn
BLOB = 11.0  # Å, standard deviation of a subunit


def microtubule(
    shape: tuple[int, int, int] = (36, 206, 94),
    voxel_size: float = 10.52,
    *,
    turn: float = -17.75,
    lattice: bool = True,
) -> NDArray[np.float32]:
    """Density (z, y, x) of a microtubule through the middle of a box, maximum about 1.

    Args:
        voxel_size: Å. turn: degrees from y towards x. lattice: False smears every protofilament along the axis: a
            control in which a repeat that a method shows is one that it made up.
    """
    t = np.deg2rad(turn)
    z, y, x = ((i - (n - 1) / 2) * voxel_size for i, n in zip(np.indices(shape, dtype=np.float32), shape, strict=True))
    along, side = y * np.cos(t) + x * np.sin(t), x * np.cos(t) - y * np.sin(t)
    volume = np.zeros(shape, np.float32)
    for k in range(PROTOFILAMENTS):
        angle = 2 * np.pi * k / PROTOFILAMENTS
        across = (z - RADIUS * np.sin(angle)) ** 2 + (side - RADIUS * np.cos(angle)) ** 2
        profile = np.exp(-0.5 * across / BLOB**2)
        if lattice:
            phase = (along - STARTS * REPEAT * k / PROTOFILAMENTS) % REPEAT
            profile = profile * sum(np.exp(-0.5 * ((phase - n * REPEAT) / BLOB) ** 2) for n in (-1, 0, 1, 2))
        else:
            profile = profile * (np.sqrt(2 * np.pi) * BLOB / REPEAT)
        volume += profile
    return volume
