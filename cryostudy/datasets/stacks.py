"""Tilt stacks as IMOD, SerialEM and AreTomo leave them: order, alignment and binning, one image at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform

from cryostudy.acquisition import Acquisition, Halves, geometry
from cryostudy.datasets.volumes import Region, Slices, box
from cryostudy.errors import InputError
from cryostudy.io import read_stack
from cryostudy.io.volumes import Volume
from cryostudy.tomography import reconstruct, split_even_odd

Image = NDArray[np.float32]
Readers = Sequence[Callable[[], NDArray[np.generic]]]
ANGLE_SCALE = 100  # SerialEM keeps tilt angles as hundredths of a degree


def read_transforms(path: Path) -> NDArray[np.float64]:
    """An IMOD .xf file: (tilt, 6), A11 A12 A21 A22 DX DY of each image. InputError for another number of columns."""
    try:
        rows = np.loadtxt(path, dtype=np.float64, ndmin=2)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read as IMOD transforms ({error}); give the .xf file of the stack"
        ) from None
    if rows.shape[1] != 6 or not np.isfinite(rows).all():
        raise InputError(f"{path}: {rows.shape[1]} columns; an .xf file has 6 numbers a line")
    return rows


def align(image: Image, transform: NDArray[np.float64]) -> Image:
    """An image (y, x) under an IMOD transform, tilt axis along y after it; what lies beyond its edges is its mean.

    A point (x, y), counted from the middle of the image, moves to (A11 x + A12 y + DX, A21 x + A22 y + DY), pixels
    (IMOD's description of xf files).
    """
    a11, a12, a21, a22, dx, dy = transform
    back = np.linalg.inv(np.array([[a22, a21], [a12, a11]]))  # output (y, x) to input (y, x)
    middle = (np.array(image.shape) - 1) / 2
    offset = middle - back @ (middle + np.array([dy, dx]))
    moved = affine_transform(image, back, offset, order=1, mode="constant", cval=float(image.mean()))
    return np.asarray(moved, np.float32)


def binned(image: Image, factor: int) -> Image:
    """Means over squares of `factor` pixels; rows and columns that fill no square are cut from the ends."""
    y, x = (side // factor for side in image.shape)
    return image[: y * factor, : x * factor].reshape(y, factor, x, factor).mean((1, 3), dtype=np.float32)


def header_angles(stack: Volume) -> tuple[float, ...]:
    """Tilt angles in the extended header of a SerialEM or IMOD stack; none where it has none.

    The header says how many bytes each image has there and, by the lowest bit of its flags, that they begin with the
    angle in hundredths of a degree (IMOD's mrc_format.txt).
    """
    if stack.header is None or not stack.extended:
        return ()
    per_image, flags = (int(value) for value in np.frombuffer(stack.header.tobytes()[128:132], "<i2"))
    count = len(stack.data)
    if not flags & 1 or per_image < 2 or per_image * count > len(stack.extended):
        return ()
    raw = [stack.extended[k * per_image : k * per_image + 2] for k in range(count)]
    return tuple(int.from_bytes(pair, "little", signed=True) / ANGLE_SCALE for pair in raw)


def series(
    images: Readers,
    angles: Sequence[float],
    transforms: NDArray[np.float64] | None,
    factor: int,
    name: str,
) -> tuple[Image, tuple[float, ...]]:
    """A tilt series (tilt, y, x) in the order of its angles, without the mean of each image, and those angles.

    `images` are functions that read one image each, so that a stack of many gigabytes is never held whole; `transforms`
    (tilt, 6) align them, in the order of the images.

    Raises InputError where images, angles and transforms are not equally many.
    """
    if len(images) != len(angles):
        raise InputError(f"{name}: {len(images)} images, but {len(angles)} tilt angles; give the angles of this stack")
    if transforms is not None and len(transforms) != len(images):
        raise InputError(f"{name}: {len(images)} images, but {len(transforms)} transforms; give the .xf of this stack")
    order = np.argsort(angles, kind="stable")
    found = []
    for k in order:
        image = np.asarray(images[k](), dtype=np.float32)
        image = binned(image if transforms is None else align(image, transforms[k]), factor)
        found.append(image - image.mean(dtype=np.float64).astype(np.float32))
    return np.stack(found), tuple(float(angles[k]) for k in order)


def of_stack(path: Path) -> tuple[list[Callable[[], NDArray[np.generic]]], Volume]:
    """Functions that read the images of a stack file one by one, and the file's header."""
    stack = read_stack(path, mmap=True)
    return [lambda k=k: stack.data[k] for k in range(len(stack.data))], stack  # type: ignore[misc]


def tomograms(
    full: Image, angles: Sequence[float], thickness: int, part: Slices, halves: tuple[Image, Image] | None = None
) -> tuple[NDArray[np.float32], Halves]:
    """Tomogram and half-tomograms of a series (tilt, y, x), ramp-filtered; along y only `part` is made.

    The halves are of the two series given, e.g. of even and odd frames, else of even and odd tilts.
    """
    z, y, x = part

    def one(stack: Image, tilts: Sequence[float]) -> NDArray[np.float32]:
        return np.ascontiguousarray(reconstruct(stack[:, y], tilts, thickness, filter="ramp")[z, :, x])

    if halves is None:
        (even, even_angles), (odd, odd_angles) = split_even_odd(full, angles)
        return one(full, angles), (one(even, even_angles), one(odd, odd_angles))
    return one(full, angles), (one(halves[0], angles), one(halves[1], angles))


def recording(
    images: Readers,
    angles: Sequence[float],
    *,
    halves: tuple[Readers, Readers] | None = None,
    transforms: NDArray[np.float64] | None = None,
    factor: int,
    thickness: int,
    pixel: float,
    region: Region,
    name: str,
    description: str,
) -> Acquisition:
    """An acquisition reconstructed from the images of a tilt series, binned by `factor` from pixels of `pixel` Å.

    `thickness` in binned voxels. `halves`: the same tilts from even and odd frames; else the halves are of even and odd
    tilts. The tilt series itself comes too where `region` leaves x and z whole.
    """
    full, tilts = series(images, angles, transforms, factor, name)
    part = box(region, (thickness, *full.shape[1:]))
    split = None
    if halves is not None:
        split = tuple(series(half, angles, transforms, factor, name)[0] for half in halves)
    tomogram, pair = tomograms(full, tilts, thickness, part, split)  # type: ignore[arg-type]
    whole = tomogram.shape[0] == thickness and tomogram.shape[2] == full.shape[2]
    how = "frames" if halves is not None else "tilts"
    return Acquisition(
        full=tomogram,
        halves=pair,
        tilt_series=np.ascontiguousarray(full[:, part[1]]) if whole else None,
        tilt_angles=tilts,
        filter="ramp",
        voxel_size=pixel * factor,
        name=name,
        description=f"{description}{f'; binned {factor} times' if factor > 1 else ''}; halves of even and odd {how}; "
        f"{geometry(tilts, 'ramp')}",
    )
