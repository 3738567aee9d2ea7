"""Real particles cut from tilt series: STAR files and image stacks in, sub-tomograms and averages out.

The 40 ribosomes of the registry were written by Warp for RELION 5. What their columns mean was found from the images
themselves, see :func:`read_particles` and the chapter on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import zoom
from scipy.spatial.transform import Rotation

from cryostudy.acquisition import Acquisition
from cryostudy.averaging import average_boxes
from cryostudy.averaging import turned as turned  # chapters turn references with it
from cryostudy.errors import InputError
from cryostudy.fourier import radius
from cryostudy.io import read_stack, read_volume
from cryostudy.io.star import read_star, vector
from cryostudy.metrics import fsc
from cryostudy.simulate.builtin import VOXEL_SIZE, built_in_density
from cryostudy.simulate.placement import random_rotation
from cryostudy.simulate.registry import fetch, local_copy, online, registry
from cryostudy.tomography.ctf import ctf_radial
from cryostudy.tomography.general import (
    PADDING,
    Grids,
    Real,
    back,
    frequencies,
    half_plane,
    insert,
    project,
    reconstruct,
    slice_radius,
    transform,
)

MATCHED = 1e3  # noise to signal so high that a Wiener filter only weights images by what they carry
LEAST = 0.01  # correlation of halves below which it is not told from none
SIDE, SIZE = 32, 12.0  # voxels and Å of the built-in stand-ins, as of the ribosomes
MIRROR = np.diag([-1.0, 1.0, 1.0])
OPTICS = ("rlnImagePixelSize", "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")


@dataclass(frozen=True, eq=False)
class Particle:
    """One particle in one tilt series.

    - `images` (tilt, y, x), float32, premultiplied by their `transfer` (tilt, points), which is that of
      :func:`cryostudy.tomography.general.insert`: CTF, loss of contrast with tilt, and dose.
    - `rotations` (tilt, 3, 3) take (z, y, x) of the sub-tomogram to (beam, y, x) of an image; its tilt axis is y, its
      beam z at 0°, and `tilt_angles` are in degrees. `pose` (3, 3) takes the particle's own frame to the sub-tomogram.
    """

    name: str
    images: Real
    transfer: NDArray[np.floating]
    rotations: NDArray[np.float64]
    pose: NDArray[np.float64]
    tilt_angles: tuple[float, ...]
    voxel_size: float


def read_particles(particles: str | Path, tomograms: str | Path, stacks: Mapping[str, str | Path]) -> list[Particle]:
    """Particles of RELION 5's 2-D stacks, as Warp writes them.

    What the columns mean, as the images show it: `rlnTomoProjX`, `Y`, `Z` take (x, y, z) of the tomogram to x, y and
    beam of the image; the transpose of RELION's Euler matrix (`rlnAngleRot`, `Tilt`, `Psi`) takes the particle to the
    tomogram. Read so, the average is the mirror image of the one supplied, for images cannot tell a tilt from its
    negative; where `rlnTomoHand` is -1, tilts are therefore negated. Images are premultiplied by their CTF, scale
    factor and dose weight. Astigmatism is left out: the CTF's first zero lies near the images' Nyquist frequency.

    Args:
        particles, tomograms: the two STAR files. stacks: the last part of `rlnImageName` -> file of its tilt images.
    Raises:
        InputError: a file that cannot be read, or a column, value, tilt series or stack that is missing or damaged.
    """
    try:
        return _read(particles, tomograms, stacks)
    except (KeyError, ValueError, IndexError) as error:
        raise InputError(
            f"{particles}, {tomograms}: a column or value is missing or damaged ({type(error).__name__}: {error}); "
            "give the files as RELION 5 or Warp writes them"
        ) from None


def _read(particles: str | Path, tomograms: str | Path, stacks: Mapping[str, str | Path]) -> list[Particle]:
    poses, series = read_star(particles), read_star(tomograms)
    hands = dict(zip(series.column("global", "rlnTomoName"), series.column("global", "rlnTomoHand"), strict=True))
    optics = {
        group: {name: float(values[k]) for name, values in poses.blocks["optics"].items() if name in OPTICS}
        for k, group in enumerate(poses.column("optics", "rlnOpticsGroup"))
    }
    found = []
    for k, name in enumerate(poses.column("particles", "rlnTomoName")):
        row = {column: values[k] for column, values in poses.blocks["particles"].items()}
        image = row["rlnImageName"].rsplit("/", 1)[-1]
        if image not in stacks:
            raise InputError(f"{image}: the stack of particle {k + 1} of {particles} is missing; give it")
        seen = np.array(vector(row["rlnTomoVisibleFrames"]), bool)
        images = np.asarray(read_stack(stacks[image]).data, np.float32)[seen]
        # (x, y, z) of the files becomes (z, y, x) here, and likewise the images' axes
        projection = np.array([[vector(t)[:3] for t in series.column(name, f"rlnTomoProj{a}")] for a in "XYZ"])
        rotations = projection.transpose(1, 0, 2)[seen][:, ::-1, ::-1]
        euler = [float(row[f"rlnAngle{angle}"]) for angle in ("Rot", "Tilt", "Psi")]
        pose = Rotation.from_euler("ZYZ", euler, degrees=True).as_matrix().T[::-1, ::-1]
        if float(hands[name]) < 0:
            rotations, pose = MIRROR @ rotations @ MIRROR, MIRROR @ pose @ MIRROR
        under_u, under_v, scale, dose = (
            np.array(series.column(name, column), float)[seen]
            for column in ("rlnDefocusU", "rlnDefocusV", "rlnCtfScalefactor", "rlnMicrographPreExposure")
        )
        size, voltage, cs, contrast = (optics[row["rlnOpticsGroup"]][column] for column in OPTICS)
        curve = damped_ctf(slice_radius(images.shape[-1]) / size, (under_u + under_v) / 2, dose, voltage, cs, contrast)
        turn, angles = tilt_frame(rotations)
        found.append(
            Particle(
                image.rsplit(".", 1)[0], images, scale[:, None] * curve, rotations @ turn.T, turn @ pose, angles, size
            )
        )
    return found


def damped_ctf(
    frequency: NDArray[np.floating], defocus: NDArray[np.floating], dose: NDArray[np.floating],
    voltage: float = 300.0, cs: float = 2.7, contrast: float = 0.07,
) -> NDArray[np.floating]:  # fmt: skip
    """(tilt, points): the CTF at frequencies (1/Å) times exp(-dose k²), RELION's B factor of 4 Å² for each e/Å²."""
    given = torch.from_numpy(frequency)
    curve = ctf_radial(given, defocus, voltage=voltage, cs=cs, amplitude_contrast=contrast).numpy()
    return curve * np.exp(-np.multiply.outer(dose, frequency**2))


def tilt_frame(rotations: NDArray[np.floating]) -> tuple[NDArray[np.float64], tuple[float, ...]]:
    """The frame in which a tilt series turns about y, and its tilt angles: (turn (3, 3), degrees).

    The tilt axis is the direction closest to perpendicular to every beam; `turn` takes (z, y, x) vectors to the
    nearest frame that has it as y. In that frame the beam of a tilt is (cos, ~0, -sin) of its angle, as in
    :func:`cryostudy.tomography.project`.
    """
    beams = np.asarray(rotations, np.float64)[:, 0]
    axis = np.linalg.svd(beams)[2][-1]
    axis = axis * np.sign(axis[1])
    turn = Rotation.align_vectors([[0, 1, 0]], [axis])[0].as_matrix()
    level = beams @ turn.T
    angles = np.rad2deg(np.arctan2(-level[:, 2], level[:, 0]))
    return turn, tuple(float(a) for a in angles)


def halves(particle: Particle) -> tuple[Grids, Grids]:
    """The grids of every other tilt, in the order of the STAR file, which is about that of the angles."""
    parts = (slice(0, None, 2), slice(1, None, 2))
    even, odd = (insert(particle.images[k], particle.rotations[k], particle.transfer[k]) for k in parts)
    return even, odd


def noise_ratio(particles: Sequence[Particle]) -> NDArray[np.floating]:
    """Ratio of noise to signal in one image, on the grid of :func:`cryostudy.tomography.general.reconstruct`.

    From the correlation F of the halves of each sub-tomogram in shells, its mean over all: where signal is to noise as
    w to r, with w the weight of a Fourier voxel, F is the ratio of the sums of w² and of w² + w r over the shell.
    """
    side = particles[0].images.shape[-1]
    grid = radius((PADDING * side,) * 3, rfft=False).numpy()
    shell = np.minimum(np.round(grid * side), side // 2).astype(int).ravel()
    curves, weights = [], []
    for even, odd in map(halves, particles):
        curve = fsc(reconstruct(*even, MATCHED), reconstruct(*odd, MATCHED))
        curves.append(curve.correlation)
        sums = [np.bincount(shell, (w**power).ravel()) for w in (even[1] + odd[1],) for power in (2, 1)]
        weights.append(sums[0][1:] / np.maximum(sums[1][1:], 1e-12) / 2)
    found = np.clip(np.mean(curves, 0), LEAST, 1 - LEAST)
    return np.interp(grid, curve.frequency, np.mean(weights, 0) * (1 - found) / found)


def acquisition(particle: Particle, noise: float | NDArray[np.floating]) -> Acquisition:
    """A particle's sub-tomogram with its halves; `noise` as from :func:`noise_ratio`."""
    even, odd = halves(particle)
    both = (even[0] + odd[0], even[1] + odd[1])
    return Acquisition(
        full=reconstruct(*both, noise),
        halves=(reconstruct(*even, noise), reconstruct(*odd, noise)),
        tilt_angles=particle.tilt_angles,
        voxel_size=particle.voxel_size,
        name=particle.name,
        description=f"sub-tomogram {particle.name} of {len(particle.images)} tilts",
    )


def average_images(
    particles: Iterable[Particle], noise: float | NDArray[np.floating], parity: int | None = None
) -> Real:
    """Images of all particles in one volume (z, y, x), in the particles' frame: the best linear average.

    parity: 0 or 1 for the even or odd tilts alone.
    """
    total: list[NDArray] = []
    for p in particles:
        take = slice(parity or 0, None, 1 if parity is None else 2)
        grids = insert(p.images[take], p.rotations[take] @ p.pose, p.transfer[take])
        total = [a + b for a, b in zip(total, grids, strict=True)] if total else list(grids)
    return reconstruct(total[0], total[1], noise)


def average(volumes: Sequence[Real], particles: Sequence[Particle], *, wedge: bool = True) -> Real:
    """Sub-tomograms turned into the particles' frame and averaged.

    wedge: average each Fourier voxel over the sub-tomograms that measured it, as missing wedges need; without, plainly.
    """
    angles = [p.tilt_angles for p in particles] if wedge else None
    return average_boxes(volumes, [p.pose for p in particles], angles)


def ribosomes() -> tuple[list[Particle], Real]:
    """The 40 real ribosomes of the registry and the average supplied with them, 32^3 voxels of 12 Å.

    From the data cache or downloaded. Raises InputError where they can be had neither way.
    """
    names = [name for name, item in registry().items() if item["group"] == "ribosomes"]
    missing = [name for name in names if local_copy(name) is None]
    if missing and not online(registry()[missing[0]]["url"]):
        raise InputError(
            f"{len(missing)} of the {len(names)} files of the ribosomes are not in the data cache and their server "
            "does not answer; connect to the internet or set CRYOSTUDY_DATA to a folder that holds them"
        )
    files = {name: fetch(name) for name in names}
    stacks = {path.name: path for path in files.values() if path.suffix == ".mrcs"}
    particles = read_particles(files["ribosome-particles"], files["ribosome-tomograms"], stacks)
    return particles, np.asarray(read_volume(files["ribosome-average"]).data, np.float32)


def simulated_ribosomes(count: int = 40, snr: float = 0.2, seed: int = 0) -> tuple[list[Particle], Real]:
    """Particles built in code, recorded as the real ones were, and their density: what stands in without the data.

    Four tilt series of 37 tilts over ±60° with axes that wobble by 2°, 3 µm of underfocus and 90 e/Å². snr: variance
    of a projection over that of white noise on it, before both are multiplied by the transfer function.
    """
    rng = np.random.default_rng(seed)
    density = zoom(built_in_density("C1 two-lobed"), VOXEL_SIZE / SIZE, order=3)
    margin = SIDE // 2
    start = margin + density.shape[0] // 2 - SIDE // 2
    density = np.pad(density, margin)[(slice(start, start + SIDE),) * 3]
    tilts = np.linspace(-60, 60, 37)
    dose = 90 * np.argsort(np.argsort(np.abs(tilts), kind="stable")) / len(tilts)
    ky, kx = frequencies(SIDE)
    wave = damped_ctf(np.hypot(ky, kx) / (PADDING * SIDE * SIZE), np.full(len(tilts), 3e4), dose)
    transfer = wave * np.cos(np.deg2rad(tilts))[:, None, None]
    found: list[Particle] = []
    for k in range(count):
        if k % 10 == 0:
            wobble = Rotation.from_rotvec(np.deg2rad(rng.normal(scale=2, size=(len(tilts), 3))))
            series = (wobble * Rotation.from_euler("y", tilts[:, None], degrees=True)).as_matrix()[:, ::-1, ::-1]
        pose = random_rotation(rng)
        clean = project(density, series @ pose)
        noise = rng.normal(scale=clean.std() / snr**0.5, size=clean.shape)
        images = back(transform(clean, 2) * transfer**2 + transform(noise, 2) * transfer, 2).astype(np.float32)
        turn, angles = tilt_frame(series)
        points = transfer[:, half_plane(SIDE)]
        found.append(Particle(f"built-in-{k + 1:02d}", images, points, series @ turn.T, turn @ pose, angles, SIZE))
    return found, density.astype(np.float32)
