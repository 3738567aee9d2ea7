"""Small volumes from projections in any directions: central slices of the Fourier transform, trilinear gridding.

For particles whose images come with a rotation each, as RELION's and Warp's STAR files give them. A rotation takes
(z, y, x) vectors of the cube to (beam, y, x) of the image; both turn about voxel n // 2. The transform of an image is
the central plane of the cube's transform perpendicular to the beam (Crowther, DeRosier and Klug 1970, Proc. R. Soc.
Lond. A 317:319). Transforms are taken on twice the side, where linear interpolation is accurate once its envelope in
the volume, a squared sinc, is divided out (O'Sullivan 1985, IEEE Trans. Med. Imaging 4:200).
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from cryostudy.errors import InputError

PADDING = 2
Real = NDArray[np.float32]
Floating = NDArray[np.floating]
Grids = tuple[NDArray[np.complex128], Floating]


def project(volume: Floating, rotations: Floating) -> Real:
    """Images (n, y, x) of a cube (z, y, x): integrals of its density along the beam, in density times voxels.

    rotations: (n, 3, 3). Raises InputError for a volume that is no cube or rotations that are not orthonormal.
    """
    side = check_cube(np.shape(volume))
    grid = transform(volume / envelope(side), 3)
    spectra = np.zeros((len(rotations), *half_plane(side).shape), np.complex128)
    spectra[:, half_plane(side)] = (slices(rotations, side) @ grid.ravel()).reshape(len(rotations), -1)
    spectra[:, 0, 0] /= 2  # zero frequency is its own Friedel mate
    return (2 * back(spectra, 2)).astype(np.float32)


def back_project(images: Floating, rotations: Floating) -> Real:
    """The exact adjoint of :func:`project`: a cube (z, y, x) of images (n, y, x); no filter, no weights."""
    side = images.shape[-1]
    spectra = transform(images, 2)[:, half_plane(side)]
    spectra[:, 0] /= 2
    grid = slices(rotations, side).T @ spectra.ravel()
    volume = back(grid.reshape((PADDING * side,) * 3), 3) / envelope(side)
    return (2 * PADDING * side * volume).astype(np.float32)


def insert(images: Floating, rotations: Floating, transfer: Floating) -> Grids:
    """What :func:`reconstruct` needs of some images: the sum of their slices, and the sum of the weights.

    Both add up: those of parts of the images, or of several particles in one frame, sum to those of all.

    Args:
        images: (n, y, x), recorded with a transfer function and multiplied by it once more (CTF-premultiplied).
        rotations: (n, 3, 3). transfer: (n, points), that function at the frequencies of :func:`slice_radius`.
    Returns:
        Grids (2 n, 2 n, 2 n) in the layout of fftn: sum of transfer² signal, and of transfer².
    Raises:
        InputError: numbers that do not fit each other, or rotations that are not orthonormal.
    """
    side = images.shape[-1]
    points = int(half_plane(side).sum())
    if images.shape != (len(rotations), side, side) or transfer.shape != (len(rotations), points):
        raise InputError(
            f"images {images.shape}, {len(rotations)} rotations and transfer {transfer.shape} do not fit; "
            f"give square images, a rotation each, and a transfer function at {points} points each"
        )
    matrix = slices(rotations, side).T
    spectra = transform(images, 2)[:, half_plane(side)]
    spectra[:, 0] /= 2
    weights = np.square(transfer, dtype=np.float64)
    weights[:, 0] /= 2
    shape = (PADDING * side,) * 3
    return with_mates((matrix @ spectra.ravel()).reshape(shape)), with_mates((matrix @ weights.ravel()).reshape(shape))


def reconstruct(numerator: NDArray[np.complex128], weight: Floating, noise: float | Floating) -> Real:
    """The Wiener estimate of the cube (z, y, x) out of what :func:`insert` gives.

    noise: power of the noise over that of the signal in one image, a number or one for each point of the grid. It is
    added to the weight, so that frequencies that no image measures, the missing wedge, stay empty. Raises InputError
    unless it is above 0.
    """
    if not np.min(noise) > 0:
        raise InputError(f"noise: {np.min(noise)} given; give the ratio of noise to signal power, above 0")
    side = numerator.shape[-1] // PADDING
    return (back(numerator / (weight + noise), 3) / envelope(side)).astype(np.float32)


def slice_radius(side: int) -> Floating:
    """Frequencies, in cycles per voxel, of the points that a slice has in :func:`insert`; zero comes first."""
    ky, kx = frequencies(side)
    return np.hypot(ky, kx)[half_plane(side)] / (PADDING * side)


def slices(rotations: Floating, side: int) -> sparse.csr_array:
    """Trilinear interpolation from the grid (fftn layout, flat) to the points of slices: (n points, grid points)."""
    turn = np.asarray(rotations, np.float64)
    if turn.ndim != 3 or turn.shape[1:] != (3, 3) or not np.allclose(turn @ turn.mT, np.eye(3), atol=1e-3):
        raise InputError(f"rotations: shape {turn.shape} given; give orthonormal matrices (n, 3, 3)")
    size = PADDING * side
    ky, kx = (axis[half_plane(side)] for axis in frequencies(side))
    points = (np.stack([np.zeros_like(kx), ky, kx], -1) @ turn).reshape(-1, 3)  # row vectors: the inverse rotation
    corner = np.floor(points).astype(np.int32)
    rest = (points - corner).astype(np.float32)
    column = np.empty((len(points), 8), np.int32)
    weight = np.empty((len(points), 8), np.float32)
    for k, step in enumerate(product((0, 1), repeat=3)):
        z, y, x = ((corner + np.array(step, np.int32)) % size).T
        column[:, k] = (z * size + y) * size + x
        weight[:, k] = np.where(step, rest, 1 - rest).prod(1)
    starts = np.arange(0, column.size + 1, 8)
    return sparse.csr_array((weight.ravel(), column.ravel(), starts), shape=(len(points), size**3))


def frequencies(side: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(ky, kx) of an image's padded transform, counted in steps of its grid."""
    steps = np.round(np.fft.fftfreq(PADDING * side) * PADDING * side)
    ky, kx = np.meshgrid(steps, steps, indexing="ij")
    return ky, kx


def half_plane(side: int) -> NDArray[np.bool_]:
    """The points of an image's padded transform within Nyquist, one of each pair of Friedel mates."""
    ky, kx = frequencies(side)
    return ((kx > 0) | ((kx == 0) & (ky >= 0))) & (np.hypot(ky, kx) <= PADDING * side / 2 - 1)


def with_mates(grid: NDArray) -> NDArray:
    """A grid (fftn layout) that holds one of each pair of Friedel mates, with the others added."""
    return grid + np.roll(grid[::-1, ::-1, ::-1], 1, (0, 1, 2)).conj()


def transform(array: Floating, axes: int) -> NDArray[np.complex128]:
    """The transform over the last axes, padded to twice their side, of an array whose middle is voxel n // 2."""
    side = array.shape[-1]
    before = PADDING * side // 2 - side // 2
    margins = [(0, 0)] * (array.ndim - axes) + [(before, (PADDING - 1) * side - before)] * axes
    last = tuple(range(-axes, 0))
    return np.fft.fftn(np.fft.ifftshift(np.pad(array, margins), last), axes=last)


def back(spectrum: NDArray[np.complex128], axes: int) -> NDArray[np.float64]:
    """The inverse of :func:`transform`, cut to the unpadded side."""
    side = spectrum.shape[-1] // PADDING
    before = PADDING * side // 2 - side // 2
    last = tuple(range(-axes, 0))
    whole = np.fft.fftshift(np.fft.ifftn(spectrum, axes=last).real, last)
    middle = (slice(before, before + side),) * axes
    return whole[(slice(None),) * (whole.ndim - axes) + middle]


def envelope(side: int) -> Floating:
    """What trilinear interpolation of the padded transform multiplies a cube by."""
    axis = np.sinc((np.arange(side) - side // 2) / (PADDING * side)) ** 2
    return axis[:, None, None] * axis[:, None] * axis


def check_cube(shape: tuple[int, ...]) -> int:
    """The side of a cube. Raises InputError for another shape."""
    if len(shape) != 3 or len(set(shape)) != 1:
        raise InputError(f"volume: shape {shape} given; give a cube (z, y, x)")
    return shape[0]
