"""Specimens carry the truth they state, noise has the level it states, and all of it works offline."""

import functools
import hashlib
import http.server
import re
import socket
import threading
import time
import urllib.request
import warnings

import mrcfile
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation

from cryostudy.errors import InputError
from cryostudy.simulate import (
    PRESETS,
    WEDGE_LEVELS,
    add_gaussian,
    densities,
    load_density,
    make_specimen,
    membranes,
    registry,
    reproject,
    signal_to_noise,
    simulate_tilt_series,
    specimen_densities,
    symmetry_operations,
    tilt_angles,
)
from cryostudy.simulate.builtin import BUILT_IN, ROD_RISE, ROD_TWIST, built_in_density
from cryostudy.simulate.noise import add_projection_noise
from cryostudy.simulate.placement import PARTICLE_THRESHOLD, random_rotation
from cryostudy.tomography import project


def rotated(density, matrix):
    """`density` rotated about its centre."""
    centre = (np.array(density.shape) - 1) / 2
    return ndimage.affine_transform(density, matrix.T, centre - matrix.T @ centre, order=3)


def relative_difference(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def correlation(a, b):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]


def turn(axis, degrees):
    """Rotation by an angle about an array axis (0: z)."""
    vector = np.zeros(3)
    vector[axis] = np.deg2rad(degrees)
    return Rotation.from_rotvec(vector).as_matrix()


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No network, and an empty data cache."""

    def refuse(*_args, **_kwargs):
        raise OSError("network blocked by the test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("CRYOSTUDY_DATA", str(tmp_path))
    registry.online.cache_clear()
    densities._warn_once.cache_clear()
    yield tmp_path
    registry.online.cache_clear()


@pytest.fixture(scope="module")
def built_in():
    return specimen_densities("built-in")


@pytest.fixture(scope="module")
def specimen(built_in):
    return make_specimen((72, 80, 88), densities=built_in, seed=3)


# Built-in particles


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_particle_has_its_symmetry(name):
    density = built_in_density(name)
    group = BUILT_IN[name][0]
    for matrix in symmetry_operations(group):
        assert relative_difference(rotated(density, matrix), density) < 1e-2


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("C3 trimer", [turn(0, 60), turn(1, 180), turn(2, 180), turn(0, 90)]),
        ("C6 ring", [turn(0, 30), turn(1, 180), turn(2, 180), turn(0, 360 / 7)]),
        ("D7 barrel", [turn(0, 180 / 7), turn(0, 60), turn(1, 180), turn(0, 180)]),
        ("D2 tetramer", [turn(0, 90), turn(1, 90), turn(2, 90), turn(0, 120)]),
        ("octahedral shell", [turn(0, 45), turn(0, 72), turn(2, 60)]),
        ("helical rod", [turn(0, ROD_TWIST), turn(0, 180), turn(1, 180), turn(2, 180)]),
    ],
)
def test_built_in_particle_has_no_further_symmetry(name, wrong):
    density = built_in_density(name)
    for matrix in wrong:
        assert relative_difference(rotated(density, matrix), density) > 0.1


@pytest.mark.parametrize("name", ["C1 globule", "C1 two-lobed"])
def test_asymmetric_particle_maps_to_itself_by_no_rotation(name):
    density = built_in_density(name)
    rng = np.random.default_rng(0)
    for axis in rng.normal(size=(12, 3)):
        for order in (2, 3, 4, 5, 6):
            matrix = Rotation.from_rotvec(2 * np.pi / order * axis / np.linalg.norm(axis)).as_matrix()
            assert relative_difference(rotated(density, matrix), density) > 0.1


def test_helical_rod_maps_to_itself_by_its_screw():
    density = built_in_density("helical rod")
    half = density.shape[0] // 2
    # ROD_TWIST turns x towards y; in the order (z, y, x) a positive turn about z leads from y towards x.
    moved = ndimage.shift(rotated(density, turn(0, -ROD_TWIST)), (ROD_RISE / 10, 0, 0), order=3)
    inside = slice(half - 8, half + 9)
    assert relative_difference(moved[inside], density[inside]) < 2e-2
    mirrored = ndimage.shift(rotated(density, turn(0, ROD_TWIST)), (ROD_RISE / 10, 0, 0), order=3)
    assert relative_difference(mirrored[inside], density[inside]) > 0.2


def test_built_in_particles_differ_in_size_and_are_centred():
    volumes, names = [], list(BUILT_IN)
    for name in names:
        density = built_in_density(name)
        assert density.dtype == np.float32 and density.shape[0] % 2 == 1
        assert density.min() >= 0 and 0.8 < density.max() <= 1
        np.testing.assert_allclose(ndimage.center_of_mass(density), density.shape[0] // 2, atol=0.02)
        extent = 10 * (np.ptp(np.argwhere(density > 0.5), axis=0).max() + 1)
        assert 100 <= extent <= 300
        volumes.append((density > 0.5).sum())
        assert not re.search(r"ribosome|proteasome|gro|ferritin", name, re.IGNORECASE)
    assert len(names) >= 7
    assert np.diff(np.sort(volumes)).min() > 0.02 * np.min(volumes)


def test_point_groups_have_their_orders():
    assert [len(symmetry_operations(g)) for g in ("C1", "C6", "D7", "O", "I")] == [1, 6, 14, 24, 60]
    np.testing.assert_allclose(np.linalg.det(symmetry_operations("D7")), 1)


# Registry and densities


def test_every_registered_file_is_pinned_and_described():
    assert len(densities.SHREC) == 13
    for name, item in registry.registry().items():
        assert re.fullmatch(r"[0-9a-f]{64}", item["sha256"]), name
        assert item["url"].startswith("https://") and re.search(r"/[0-9a-f]{40}/", item["url"])
        assert item["size"] > 0 and item["licence"] and item["description"] and item["voxel_size"] > 0


def test_unknown_data_set_lists_the_known_ones():
    with pytest.raises(InputError, match=r"'9xyz' is unknown.*4v94") as error:
        load_density("9xyz")
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="auto, shrec or built-in"):
        specimen_densities("alphafold")


@pytest.fixture
def small_registry(monkeypatch, tmp_path):
    """A registry of one density, "blob", served over HTTP from this machine; the cache is empty."""
    served = tmp_path / "served"
    served.mkdir()
    axis = np.arange(24) - 10.3
    blob = 37 * np.exp(-0.5 * (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2) / 9)
    with mrcfile.new(served / "blob.mrc") as mrc:
        mrc.set_data(blob.astype(np.float32))
        mrc.voxel_size = 10
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=served)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    item = {
        "url": f"http://127.0.0.1:{server.server_port}/blob.mrc",
        "sha256": hashlib.sha256((served / "blob.mrc").read_bytes()).hexdigest(),
        "folder": "templates-10A",
    }
    monkeypatch.setattr(registry, "registry", lambda: {"blob": item})
    monkeypatch.setenv("CRYOSTUDY_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield item, served / "blob.mrc", tmp_path / "cache"
    server.shutdown()
    server.server_close()


def test_download_is_checked_kept_and_not_repeated(small_registry, monkeypatch):
    _, source, cache = small_registry
    density = load_density("blob")
    assert (cache / "templates-10A" / "blob.mrc").read_bytes() == source.read_bytes()
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("asked the network again"))
    np.testing.assert_array_equal(load_density("blob"), density)


def test_density_is_centred_and_normalised(small_registry):
    density = load_density("blob")
    assert density.dtype == np.float32 and len(set(density.shape)) == 1 and density.shape[0] % 2 == 1
    assert np.abs(np.array(ndimage.center_of_mass(density)) - density.shape[0] // 2).max() <= 0.51
    assert np.percentile(density[density > 0.1 * density.max()], 95) == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("folder", [".", "templates-10A"])
def test_file_in_the_cache_is_used_or_refused_by_its_checksum(small_registry, monkeypatch, folder):
    _, source, cache = small_registry
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("asked the network"))
    (cache / folder).mkdir(parents=True)
    copy = cache / folder / "blob.mrc"
    copy.write_bytes(source.read_bytes())
    assert registry.fetch("blob") == copy
    copy.write_bytes(source.read_bytes()[:-1] + b"!")
    with pytest.raises(InputError, match=re.escape(str(copy)) + ".*checksum"):
        registry.fetch("blob")


def test_failed_download_leaves_nothing(small_registry):
    item, _, cache = small_registry
    item["sha256"] = "0" * 64
    with pytest.raises(InputError, match=r"blob: download from .* failed .wrong checksum"):
        registry.fetch("blob")
    item["url"] += ".absent"
    with pytest.raises(InputError, match=r"blob: download from .* failed"):
        registry.fetch("blob")
    assert [p for p in cache.rglob("*") if p.is_file()] == []


def test_offline_gives_built_in_particles_with_one_warning(offline):
    start = time.monotonic()
    with pytest.warns(UserWarning, match="built-in particles, which are no real proteins") as caught:
        found = make_specimen((24, 24, 24), n_particles=1)
        assert specimen_densities().source == "built-in"
    assert len(caught) == 1 and "\n" not in str(caught[0].message)
    assert time.monotonic() - start < 5
    assert found.source == "built-in"
    with pytest.raises(InputError, match="CRYOSTUDY_DATA"):
        specimen_densities("shrec")


def test_built_in_particles_need_neither_network_nor_warning(offline):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert make_specimen((24, 24, 24), densities="built-in").source == "built-in"


def test_name_server_that_never_answers_does_not_hang(monkeypatch):
    released = threading.Event()

    def never_answer(*_args, **_kwargs):
        released.wait(30)
        raise OSError

    monkeypatch.setattr(registry, "ONLINE_TIMEOUT", 0.1)
    monkeypatch.setattr(urllib.request, "urlopen", never_answer)
    registry.online.cache_clear()
    start = time.monotonic()
    assert not registry.online("https://example.org")
    assert time.monotonic() - start < 3
    released.set()
    registry.online.cache_clear()


def test_structures_of_the_shared_folder_are_used_offline(offline, monkeypatch, shared):
    monkeypatch.setenv("CRYOSTUDY_DATA", str(shared / "data"))
    found = specimen_densities()
    assert found.source == "shrec" and tuple(found.maps) == densities.SHREC
    interiors = []
    for name in [*densities.SHREC, "4v4r", "2uv8", "1f4a"]:
        density = load_density(name)
        assert np.abs(np.array(ndimage.center_of_mass(density)) - density.shape[0] // 2).max() <= 0.51
        interiors.append(np.median(density[density > 0.5]))
    assert max(interiors) / min(interiors) < 1.3


# Specimens


def test_same_seed_same_specimen(built_in):
    first, second, other = (make_specimen((48, 56, 40), densities=built_in, seed=s) for s in (5, 5, 6))
    for name in ("density", "labels", "membrane"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert [p.position for p in first.particles] == [p.position for p in second.particles]
    assert not np.array_equal(first.density, other.density)


def test_specimen_is_what_its_records_say(specimen):
    """Density rebuilt from the recorded poses, each voxel looked up in the rotated map, by another route."""
    kinds = specimen.class_names
    assert specimen.density.dtype == np.float32 and specimen.density.min() >= 0
    assert specimen.labels.max() < len(kinds) and kinds[0] == "background" and kinds[-2:] == ("membrane", "fiducial")
    grid = np.indices(specimen.density.shape).reshape(3, -1).T
    rebuilt = np.zeros(specimen.density.size)
    owners = np.zeros(specimen.density.size, int)
    classes = np.zeros(specimen.density.size, int)
    for particle in specimen.particles:
        density = specimen.densities.maps[particle.name]
        near = np.linalg.norm(grid - particle.position, axis=1) < density.shape[0]
        point = (grid[near] - particle.position) @ particle.rotation + (density.shape[0] - 1) / 2
        value = ndimage.map_coordinates(density, point.T, order=3)
        rebuilt[near] += np.maximum(value, 0)
        owners[near] += value > PARTICLE_THRESHOLD
        classes[near] += kinds.index(particle.name) * (value > PARTICLE_THRESHOLD)
    assert len(specimen.particles) > 10
    assert owners.max() == 1, "particles overlap"
    particle_part = np.isin(specimen.labels, range(len(kinds) - 2)).ravel()
    far = ndimage.distance_transform_edt(~np.isin(specimen.labels, [len(kinds) - 2, len(kinds) - 1])).ravel() > 3
    np.testing.assert_allclose(specimen.density.ravel()[far], rebuilt[far], atol=0.02)
    # A voxel at the very threshold may fall on either side of it.
    assert np.mean(classes[particle_part] == specimen.labels.ravel()[particle_part]) > 0.9999


def test_position_is_the_centre_of_mass_of_a_lone_particle(built_in):
    for seed in range(4):
        found = make_specimen(
            (56, 60, 64), densities=built_in, n_particles=1, sheets=0, vesicles=0, fiducials=0, seed=seed
        )
        (particle,) = found.particles
        np.testing.assert_allclose(ndimage.center_of_mass(found.density), particle.position, atol=0.05)
        assert not np.allclose(particle.position, np.rint(particle.position), atol=1e-3)


def test_rotations_are_uniform():
    rng = np.random.default_rng(0)
    matrices = np.array([random_rotation(rng) for _ in range(4000)])
    np.testing.assert_allclose(np.linalg.det(matrices), 1)
    # Moments of the uniform distribution: E[R] = 0, E[R_ij^2] = 1/3, E[trace^2] = 1.
    np.testing.assert_allclose(matrices.mean(axis=0), 0, atol=0.04)
    np.testing.assert_allclose((matrices**2).mean(axis=0), 1 / 3, atol=0.03)
    assert np.mean(np.trace(matrices, axis1=1, axis2=2) ** 2) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("shape", [(48, 48, 48), (24, 96, 96), (16, 16, 16)])
def test_small_and_thin_specimens_have_content(shape, built_in):
    for seed in range(5):
        found = make_specimen(shape, densities=built_in, seed=seed)
        assert found.density.shape == shape and found.particles
    # Nothing is cut: what a particle adds to the volume is its whole mass.
    alone = make_specimen(shape, densities=built_in, n_particles=1, sheets=0, vesicles=0, fiducials=0, seed=1)
    (particle,) = alone.particles
    assert alone.density.sum() == pytest.approx(built_in.maps[particle.name].sum(), rel=0.02)


def test_occupancy_and_counts_are_honoured(built_in):
    found = make_specimen((64, 64, 64), densities=built_in, occupancy=0.1, sheets=0, vesicles=0, fiducials=0)
    assert 0.07 < np.mean(found.labels > 0) < 0.13
    counted = make_specimen((64, 64, 64), densities=built_in, n_particles=8, sheets=0, vesicles=0, fiducials=0)
    assert sorted(p.name for p in counted.particles) == sorted(BUILT_IN)  # each species once
    with pytest.warns(UserWarning, match=r"placed only \d+ of 500 particles") as caught:
        make_specimen((32, 32, 32), densities=built_in, n_particles=500)
    assert len(caught) == 1


def test_sheet_has_two_leaflets_four_nanometres_apart(built_in):
    found = make_specimen((64, 64, 64), densities=built_in, n_particles=0, sheets=1, vesicles=0, fiducials=0, seed=2)
    voxels = np.argwhere(found.membrane)
    centre = voxels.mean(axis=0)
    normal = np.linalg.svd(voxels - centre, full_matrices=False)[2][-1]
    distance = 10 * (np.indices(found.density.shape).reshape(3, -1).T - centre) @ normal
    profile, edges = np.histogram(distance, np.arange(-60, 61, 4.0), weights=found.density.ravel())
    profile = profile / np.histogram(distance, edges)[0]
    middle = (edges[1:] + edges[:-1]) / 2
    left, right = profile[middle < 0].argmax(), profile[middle > 0].argmax()
    apart = middle[middle > 0][right] - middle[middle < 0][left]
    assert apart == pytest.approx(40, abs=6)
    assert profile[np.abs(middle) < 4].max() < 0.4 * profile.max()
    assert profile.max() == pytest.approx(membranes.MEMBRANE_DENSITY, rel=0.1)
    assert np.ptp(distance[found.membrane.ravel()]) == pytest.approx(60, abs=15)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_distance_from_an_ellipsoid(seed):
    """Against the nearest of many points on the surface, evenly spread: random ones leave gaps; exact for a sphere."""
    rng = np.random.default_rng(seed)
    semi_axes, rotation = rng.uniform(12, 18, 3), random_rotation(rng)
    region = (slice(0, 40),) * 3
    centre = np.full(3, 19.5) + rng.uniform(-2, 2, 3)
    estimate = membranes.ellipsoid_distance(region, centre, semi_axes, rotation)
    near = np.argwhere(np.abs(estimate) < 3)[::101]
    height, turn = 1 - (2 * np.arange(40000) + 1) / 40000, np.pi * (3 - 5**0.5) * np.arange(40000)
    across = np.sqrt(1 - height**2)
    sphere = np.stack([height, across * np.sin(turn), across * np.cos(turn)], 1)
    surface = (sphere * semi_axes) @ rotation.T + centre
    exact = np.sqrt(((near[:, None] - surface) ** 2).sum(axis=2).min(axis=1))
    np.testing.assert_allclose(np.abs(estimate[tuple(near.T)]), exact, atol=0.35)
    ball = membranes.ellipsoid_distance(region, centre, np.full(3, 15.0), rotation)
    np.testing.assert_allclose(ball, np.linalg.norm(np.indices((40,) * 3).T - centre, axis=-1).T - 15, atol=1e-9)


def test_vesicle_is_a_closed_shell(built_in):
    found = make_specimen((72, 72, 72), densities=built_in, n_particles=0, sheets=0, vesicles=1, fiducials=0, seed=4)
    regions, n = ndimage.label(~found.membrane)
    sizes = np.sort(ndimage.sum_labels(~found.membrane, regions, np.arange(1, n + 1)))
    assert n == 2 and sizes[0] > 200  # the lumen and the outside
    assert set(np.unique(found.labels)) == {0, found.class_names.index("membrane")}


def test_beads_are_dense_spheres_of_the_stated_size(built_in):
    found = make_specimen((64, 64, 64), densities=built_in, n_particles=0, sheets=0, vesicles=0, fiducials=3)
    assert len(found.fiducials) == 3
    grid = np.indices(found.density.shape).T
    for bead in found.fiducials:
        assert 25 <= bead.radius <= 50
        near = (np.linalg.norm(grid - bead.position, axis=-1) < bead.radius / 10 + 2).T
        mass = found.density[near].sum()
        assert mass == pytest.approx(membranes.GOLD_DENSITY * 4 / 3 * np.pi * (bead.radius / 10) ** 3, rel=0.15)
        np.testing.assert_allclose(ndimage.center_of_mass(np.where(near, found.density, 0)), bead.position, atol=0.1)


def test_beads_do_not_rule_the_variance(specimen):
    gold = specimen.labels == len(specimen.class_names) - 1
    assert gold.any()
    assert np.where(gold, 0, specimen.density).var() > 0.6 * specimen.density.var()


@pytest.mark.parametrize("voxel_size", [8.0, 15.0])
def test_other_voxel_sizes_keep_lengths_in_angstrom(voxel_size, built_in):
    one = {"n_particles": 8, "sheets": 0, "vesicles": 0, "fiducials": 0}
    found = make_specimen((80, 80, 80), voxel_size=voxel_size, densities=built_in, **one)
    assert found.voxel_size == voxel_size
    mass = sum(built_in.maps[p.name].sum() for p in found.particles) * 1000
    assert found.density.sum() * voxel_size**3 == pytest.approx(mass, rel=0.02)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"shape": (8, 64, 64)}, "at least 16 voxels"),
        ({"shape": (64, 64)}, "at least 16 voxels"),
        ({"voxel_size": 0.0}, "voxel_size 0"),
        ({"voxel_size": float("nan")}, "voxel_size nan"),
        ({"occupancy": 0.9}, "occupancy 0.9"),
        ({"sheets": -1}, "sheets -1"),
        ({"densities": "nothing"}, "nothing"),
    ],
)
def test_impossible_specimens_are_refused_in_one_line(wrong, message):
    with pytest.raises(InputError, match=message) as error:
        make_specimen(**{"shape": (32, 32, 32), "densities": "built-in"} | wrong)
    assert "\n" not in str(error.value)


# Tilt series and noise


def test_tilt_angles():
    assert tilt_angles() == tuple(range(-60, 61, 2))
    assert [len(tilt_angles(r)) for r in WEDGE_LEVELS.values()] == [71, 61, 41, 31]
    assert tilt_angles(45, 2) == tuple(range(-44, 45, 2))
    assert max(tilt_angles(0.3, 0.1)) == pytest.approx(0.3)
    for wrong in ((90, 2), (60, 0), (1, 2), (-60, 2), (float("nan"), 2)):
        with pytest.raises(InputError, match="0 < step"):
            tilt_angles(*wrong)


@pytest.fixture(scope="module")
def clean(specimen):
    return project(specimen.density, tilt_angles(60, 4))


@pytest.mark.parametrize("snr", [1 / 2, 1 / 4, 1 / 6])
def test_tilt_series_has_the_snr_asked_for(specimen, snr):
    noisy, clean = simulate_tilt_series(specimen.density, tilt_angles(60, 4), "ddw", snr, seed=1)
    assert noisy.dtype == clean.dtype == np.float32 and noisy.shape == clean.shape == (31, 80, 88)
    assert clean.var(dtype=float) / (noisy - clean).var(dtype=float) == pytest.approx(snr, rel=0.02)
    assert signal_to_noise(clean, noisy) == pytest.approx(snr, rel=0.02)


def test_noise_of_tilts_and_pixels_is_independent(specimen):
    noisy, clean = simulate_tilt_series(specimen.density, tilt_angles(60, 4), "ddw", 0.25)
    noise = noisy - clean
    limit = 5 / np.sqrt(noise[0].size)
    assert np.abs(np.corrcoef(noise.reshape(len(noise), -1)) - np.eye(len(noise))).max() < limit
    assert abs(correlation(noise[:, 1:], noise[:, :-1])) < limit
    assert abs(correlation(noise[..., 1:], noise[..., :-1])) < limit
    assert abs(correlation(noise, clean)) < limit


@pytest.mark.parametrize("sigma", [0.1, 0.15, 0.2])
def test_awgn_is_relative_to_the_grey_range(clean, sigma):
    noisy = add_projection_noise(clean, "awgn", sigma, np.random.default_rng(0))
    scale = clean.max() - clean.min()
    assert ((noisy - clean) / scale).std() == pytest.approx(sigma, rel=0.02)


def test_poisson_noise_counts_transmitted_electrons(clean):
    """Mean kept, variance lambda (1 - g) at grey value g, values in whole electrons."""
    noisy = add_projection_noise(clean, "poisson", 0.02, np.random.default_rng(0))
    low, scale = clean.min(), clean.max() - clean.min()
    grey, error = (clean - low) / scale, (noisy - clean) / scale
    for lower, upper in ((0, 0.05), (0.1, 0.15), (0.2, 0.3), (0.3, 0.4)):
        part = (grey >= lower) & (grey < upper)
        expected = 0.02 * (1 - grey[part].mean())
        assert error[part].var() == pytest.approx(expected, rel=0.05)
        assert abs(error[part].mean()) < 5 * np.sqrt(expected / part.sum())
    electrons = (1 - (noisy - low) / scale) / 0.02
    np.testing.assert_allclose(electrons, np.rint(electrons), atol=1e-3)


def test_mixture_has_the_mean_of_both_variances(clean):
    variance = {}
    for noise, level in (("awgn", 0.2), ("poisson", 0.02), ("mixture", 0.2)):
        noisy = add_projection_noise(clean, noise, level, np.random.default_rng(1))
        variance[noise] = (noisy - clean).var(dtype=float)
    assert variance["mixture"] == pytest.approx((variance["awgn"] + variance["poisson"]) / 2, rel=0.02)


def test_white_noise_on_a_volume_is_voxel_independent(specimen):
    volume = specimen.density
    noisy = add_gaussian(volume, 0.25, np.random.default_rng(0))
    noise = noisy - volume
    assert signal_to_noise(volume, noisy) == pytest.approx(0.25, rel=0.02)
    spectrum = np.abs(np.fft.fftn(noise - noise.mean())) ** 2
    autocorrelation = np.fft.ifftn(spectrum).real / spectrum.mean()
    autocorrelation[0, 0, 0] -= 1
    assert np.abs(autocorrelation).max() < 6 / np.sqrt(noise.size)


@pytest.mark.parametrize("noise", [n for n in PRESETS if n != "white"])
def test_same_seed_same_noise(specimen, noise):
    runs = [simulate_tilt_series(specimen.density, (-30, 0, 30), noise, seed=s)[0] for s in (2, 2, 3)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


@pytest.mark.parametrize(
    ("noise", "level", "message"),
    [
        ("pink", None, "ddw, awgn, poisson, mixture"),
        ("white", None, "added to a volume"),
        ("ddw", 0.0, "positive"),
        ("ddw", float("nan"), "positive"),
        ("awgn", -0.1, "positive"),
        ("ddw", float("inf"), "positive"),
    ],
)
def test_impossible_noise_is_refused(noise, level, message):
    with pytest.raises(InputError, match=message):
        simulate_tilt_series(np.ones((16, 16, 16), np.float32), (0.0,), noise, level)


@pytest.mark.parametrize("noise", ["ddw", "awgn"])
def test_noise_relative_to_no_signal_is_refused(noise):
    with pytest.raises(InputError, match="constant"):
        simulate_tilt_series(np.zeros((16, 16, 16), np.float32), (0.0, 10.0), noise)


def test_ctf_is_applied_before_the_noise(specimen):
    angles = (-20.0, 0.0, 20.0)
    noisy, clean = simulate_tilt_series(specimen.density, angles, level=1e9, ctf=-torch.ones(80, 45))
    expected = -project(specimen.density, angles)
    np.testing.assert_allclose(clean, expected, atol=1e-3)
    np.testing.assert_allclose(noisy, expected, atol=1e-2)
    with pytest.raises(InputError):
        simulate_tilt_series(specimen.density, angles, ctf=torch.ones(3, 3))


def test_reprojection_of_a_real_volume(specimen):
    """Paper 001: the truth is the volume filtered with sigma 2, its projections are the clean tilt series."""
    volume = 40 * specimen.density + 700
    noisy, clean, truth = reproject(volume, tilt_angles(60, 4), level=0.1, seed=1)
    expected = ndimage.gaussian_filter(specimen.density, 2)
    np.testing.assert_allclose(truth, 40 * (expected - expected.mean()), atol=1e-2)
    np.testing.assert_allclose(clean, project(truth, tilt_angles(60, 4)), rtol=1e-5)
    assert (noisy - clean).std() / (clean.max() - clean.min()) == pytest.approx(0.1, rel=0.02)
