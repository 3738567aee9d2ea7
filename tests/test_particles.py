"""Particles from STAR files, and reconstruction from projections in any directions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from cryostudy import particles
from cryostudy.errors import InputError
from cryostudy.io import write_volume
from cryostudy.io.star import read_star
from cryostudy.metrics import correlation, fsc
from cryostudy.simulate import registry
from cryostudy.tomography import general, wedge_mask
from cryostudy.tomography import project as project_about_y
from cryostudy.tomography.ctf import ctf_radial

SIDE = 16
BLOBS = (((2.0, -1.0, 3.0), 1.6), ((-3.0, 2.5, 0.0), 1.9), ((0.5, 3.0, -2.0), 1.5))  # (z, y, x) from the middle, sigma


def phantom(side=SIDE):
    """A cube with three Gaussian blobs; its middle is voxel n // 2."""
    axis = np.arange(side) - side // 2
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"))
    return sum(np.exp(-((grid - np.reshape(c, (3, 1, 1, 1))) ** 2).sum(0) / (2 * s**2)) for c, s in BLOBS)


def projected_phantom(rotations, side=SIDE):
    """Its line integrals, in closed form."""
    axis = np.arange(side) - side // 2
    y, x = np.meshgrid(axis, axis, indexing="ij")
    images = []
    for rotation in rotations:
        at = [(rotation @ np.array(c), s) for c, s in BLOBS]
        images.append(
            sum((2 * np.pi) ** 0.5 * s * np.exp(-((y - c[1]) ** 2 + (x - c[2]) ** 2) / (2 * s**2)) for c, s in at)
        )
    return np.array(images)


def random_rotations(count, seed=0):
    return Rotation.random(count, random_state=seed).as_matrix()


def tilts(angles):
    """Rotations of a tilt series about y, as `cryostudy.tomography.project` has them."""
    turn = Rotation.from_euler("y", np.reshape(angles, (-1, 1)), degrees=True)
    return turn.as_matrix()[:, ::-1, ::-1]


def relative(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


# Projection and reconstruction


def test_projection_is_the_line_integral():
    rotations = random_rotations(6)
    assert relative(general.project(phantom(), rotations), projected_phantom(rotations)) < 0.03


def test_projection_agrees_with_that_of_a_tilt_series():
    angles = [-50.0, -10.0, 0.0, 35.0]
    volume = phantom(17)  # odd: both then turn about the same point, (n - 1) / 2
    ours = general.project(volume, tilts(angles))
    theirs = project_about_y(volume.astype(np.float32), angles)
    assert relative(ours, theirs) < 0.07  # linear interpolation of transforms
    assert relative(general.project(volume, tilts([-a for a in angles])), theirs) > 0.5


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([8, 9, 12]))
def test_back_projection_is_the_adjoint_of_projection(seed, side):
    rng = np.random.default_rng(seed)
    volume, images = rng.normal(size=(side,) * 3), rng.normal(size=(3, side, side))
    rotations = random_rotations(3, seed)
    left = np.vdot(general.project(volume, rotations), images)
    right = np.vdot(volume, general.back_project(images, rotations))
    assert left == pytest.approx(right, abs=1e-5 * np.linalg.norm(images) * np.linalg.norm(volume))


def test_reconstruction_of_many_views_is_the_phantom():
    rotations = random_rotations(150, 1)
    flat = np.ones((150, len(general.slice_radius(SIDE))))
    found = general.reconstruct(*general.insert(projected_phantom(rotations), rotations, flat), 1e-3)
    assert relative(found, phantom()) < 0.05
    assert found.max() == pytest.approx(phantom().max(), rel=0.03)


def test_reconstruction_undoes_a_transfer_function():
    rotations = random_rotations(150, 2)
    frequency = general.slice_radius(SIDE) / 12
    transfer = ctf_radial(torch.from_numpy(frequency), np.linspace(2.6e4, 3.4e4, 150)).numpy()
    ky, kx = general.frequencies(SIDE)
    whole = ctf_radial(torch.from_numpy(np.hypot(ky, kx) / (2 * SIDE * 12)), np.linspace(2.6e4, 3.4e4, 150)).numpy()
    images = general.back(general.transform(projected_phantom(rotations), 2) * whole**2, 2)
    found = general.reconstruct(*general.insert(images, rotations, transfer), 1e-3)
    assert correlation(found, phantom()) > 0.97 > correlation(general.back_project(images, rotations), phantom())


def test_grids_of_parts_sum_to_those_of_the_whole():
    rotations, flat = random_rotations(6, 3), np.ones((6, len(general.slice_radius(SIDE))))
    images = projected_phantom(rotations)
    whole = general.insert(images, rotations, flat)
    parts = [general.insert(images[k::2], rotations[k::2], flat[k::2]) for k in (0, 1)]
    for a, b, c in zip(whole, *parts, strict=True):
        np.testing.assert_allclose(a, b + c, atol=1e-4)


def test_missing_wedge_stays_empty():
    angles = np.arange(-50.0, 51, 2)
    flat = np.ones((len(angles), len(general.slice_radius(32))))
    noise = np.random.default_rng(0).normal(size=(len(angles), 32, 32))
    found = general.reconstruct(*general.insert(noise, tilts(angles), flat), 0.5)
    power = np.abs(np.fft.fftn(found)) ** 2
    mask = wedge_mask(found.shape, angles).numpy()
    assert power[~mask].mean() < 0.15 * power[mask].mean()
    mirrored = wedge_mask(found.shape, angles + 40).numpy()
    assert power[~mirrored].mean() > 0.3 * power[mirrored].mean()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: general.project(np.zeros((4, 4, 5)), np.eye(3)[None]), "give a cube"),
        (lambda: general.project(np.zeros((4, 4, 4)), 2 * np.eye(3)[None]), "orthonormal"),
        (lambda: general.insert(np.zeros((2, 4, 4)), np.eye(3)[None], np.zeros((2, 3))), "do not fit"),
        (lambda: general.reconstruct(np.zeros((8, 8, 8), complex), np.zeros((8, 8, 8)), 0.0), "above 0"),
    ],
)
def test_bad_input_of_the_reconstruction(call, message):
    with pytest.raises(InputError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


# Frames and STAR files


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_tilt_frame_finds_axis_and_angles(seed):
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(-65, 65, 20))
    tipped = Rotation.from_rotvec(rng.normal(scale=0.1, size=3)).as_matrix()  # the axis is only near y
    turn, found = particles.tilt_frame(tilts(angles) @ tipped)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(np.diff(found), np.diff(angles), atol=1e-6)
    straight = tilts(angles) @ tipped @ turn.T  # every beam of it is perpendicular to y
    np.testing.assert_allclose(straight[:, 0, 1], 0, atol=1e-9)
    np.testing.assert_allclose(straight[:, 0], tilts(found)[:, 0], atol=1e-9)


def test_star_blocks_loops_and_comments(tmp_path):
    path = tmp_path / "a.star"
    path.write_text(
        "# made here\ndata_general\n_version 3 # three\n\ndata_rows\nloop_\n_name #1\n_at #2\na [0,1.5]\nb [2,3]\n"
    )
    star = read_star(path)
    assert star.column("general", "version") == ["3"]
    assert star.column("rows", "name") == ["a", "b"] and star.column("rows", "at") == ["[0,1.5]", "[2,3]"]
    with pytest.raises(InputError, match="no column _nothing in a block data_rows"):
        star.column("rows", "nothing")


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "no block"), ("data_a\nloop_\n_x\n_y\n1 2 3\n", "line 5 has 3 values for 2"), (None, "cannot be read")],
)
def test_bad_star_file(tmp_path, text, message):
    path = tmp_path / "bad.star"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        read_star(path)
    assert "bad.star" in str(error.value) and "\n" not in str(error.value)


def columns(**changed):
    """Two STAR files as Warp writes them, of one particle in two tilts; columns named here have another value, or none
    where it is empty."""
    values = {
        "rlnOpticsGroup": "1", "rlnImagePixelSize": "10", "rlnVoltage": "300", "rlnSphericalAberration": "2.7",
        "rlnAmplitudeContrast": "0.1", "rlnTomoName": "t", "rlnImageName": "1@a/p.mrcs",
        "rlnTomoVisibleFrames": "[1,1]", "rlnAngleRot": "10", "rlnAngleTilt": "20", "rlnAnglePsi": "30",
        "rlnTomoHand": "-1", "rlnTomoProjX": "[1,0,0,0]", "rlnTomoProjY": "[0,1,0,0]", "rlnTomoProjZ": "[0,0,1,0]",
        "rlnDefocusU": "3e4", "rlnDefocusV": "3e4", "rlnCtfScalefactor": "1", "rlnMicrographPreExposure": "0",
    } | changed  # fmt: skip
    blocks = {
        "optics": list(values)[:5], "particles": ["rlnTomoName", "rlnOpticsGroup", *list(values)[6:11]],
        "global": ["rlnTomoName", "rlnTomoHand"], "t": list(values)[12:],
    }  # fmt: skip
    texts = {}
    for name, keys in blocks.items():
        kept = [key for key in keys if values[key]]
        head, row = "".join(f"_{key}\n" for key in kept), " ".join(values[key] for key in kept)
        second = values | {"rlnTomoProjX": "[0.5,0,0.8660254,0]", "rlnTomoProjZ": "[-0.8660254,0,0.5,0]"}
        rows = [row, " ".join(second[key] for key in kept)][: 2 if name == "t" else 1]
        texts[name] = "\n".join([f"data_{name}", f"loop_\n{head}{rows[0]}", *rows[1:], ""])
    return texts["optics"] + texts["particles"], texts["global"] + texts["t"]


@pytest.mark.parametrize(
    "changed",
    [
        {}, {"rlnImageName": ""}, {"rlnAnglePsi": ""}, {"rlnAnglePsi": "north"}, {"rlnVoltage": ""},
        {"rlnTomoVisibleFrames": "[1,1,1]"}, {"rlnTomoProjY": "[0,1"}, {"rlnDefocusU": "[]"}, {"rlnTomoHand": ""},
    ],
    ids=str,
)  # fmt: skip
def test_damaged_particles_are_refused_by_name(tmp_path, changed):
    files = [tmp_path / "particles.star", tmp_path / "tomograms.star"]
    for path, text in zip(files, columns(**changed), strict=True):
        path.write_text(text)
    write_volume(tmp_path / "p.st", np.random.default_rng(0).normal(size=(2, 8, 8)), voxel_size=10.0, label="")
    if changed:
        with pytest.raises(InputError, match=r"particles.star|tomograms.star") as error:
            particles.read_particles(*files, {"p.mrcs": tmp_path / "p.st"})
        assert "\n" not in str(error.value) and "; give" in str(error.value)
    else:
        (one,) = particles.read_particles(*files, {"p.mrcs": tmp_path / "p.st"})
        assert one.name == "p" and one.images.shape == (2, 8, 8) and one.voxel_size == 10
        assert np.ptp(one.tilt_angles) == pytest.approx(60)


# Sub-tomograms and averages


@pytest.fixture(scope="module")
def simulated():
    return particles.simulated_ribosomes(6, snr=1.0, seed=1)


def test_simulated_particles_average_to_their_density(simulated):
    found, density = simulated
    noise = particles.noise_ratio(found)
    recordings = [particles.acquisition(p, noise) for p in found]
    plain = particles.average([a.full for a in recordings], found)
    linear = particles.average_images(found, noise)
    for volume in (plain, linear):
        assert fsc(volume, density).correlation[:3].min() > 0.8
    mirrored = plain[::-1]
    assert correlation(plain, density) > correlation(mirrored, density) + 0.03
    halves = [particles.average_images(found, noise, parity) for parity in (0, 1)]
    assert fsc(*halves).correlation[0] > 0.9 and not np.allclose(*halves)


def test_noise_ratio_rises_with_the_noise():
    low, high = (particles.noise_ratio(particles.simulated_ribosomes(2, snr=snr)[0]) for snr in (10.0, 0.1))
    near = np.unravel_index([3, 4, 5], low.shape)
    assert (low > 0).all() and (high[near] > 5 * low[near]).all()


def test_turned_and_back_is_the_same(simulated):
    _, density = simulated
    rotation = random_rotations(1, 5)[0]
    there = particles.turned(density, rotation)
    assert correlation(there, density) < 0.99 < correlation(particles.turned(there, rotation.T), density)


def test_real_ribosomes_average_to_the_supplied_map(shared, monkeypatch):
    monkeypatch.setenv("CRYOSTUDY_DATA", str(shared / "data" / "real" / "ribosome_tilts"))
    found, supplied = particles.ribosomes()
    assert len(found) == 40 and supplied.shape == (32, 32, 32)
    some = found[::4]
    curve = fsc(particles.average_images(some, 0.2), supplied).correlation
    mirrored = fsc(particles.average_images(some, 0.2)[::-1], supplied).correlation
    assert curve[:3].min() > 0.6 and curve[3:8].mean() > mirrored[3:8].mean() + 0.2


def test_ribosomes_that_cannot_be_had(monkeypatch, tmp_path):
    monkeypatch.setenv("CRYOSTUDY_DATA", str(tmp_path))
    monkeypatch.setattr(particles, "online", lambda _: False)
    with pytest.raises(InputError, match="43 of the 43 files of the ribosomes"):
        particles.ribosomes()
    assert all(
        item["folder"] == "ribosome_tilts" for item in registry.registry().values() if item["group"] == "ribosomes"
    )
