"""Loaders read files laid out like the originals; poses, order, alignment and voxel sizes come out as planted."""

import json

import mrcfile
import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from cryostudy import cli, data, datasets
from cryostudy.datasets import etomo, example, portal, shrec, stacks, volumes
from cryostudy.errors import InputError
from cryostudy.simulate import make_specimen
from cryostudy.simulate.densities import specimen_densities
from cryostudy.simulate.placement import place

SHAPE = (40, 48, 56)
HALVES = {"empiar-10045", "empiar-11830", "cryocare", "imod-centriole"}


def correlation(a, b):
    return np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """A small tree of every data set, with the options that read it."""
    made = {}
    for name in datasets.registry():
        folder = tmp_path_factory.mktemp("data") / name
        made[name] = (folder, example.write(name, folder, SHAPE))
    return made


def get(trees, name, **options):
    folder, given = trees[name]
    return datasets.get(name, place=folder, **given | options)


def save(path, volume, voxel_size=0.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(volume)
        mrc.voxel_size = voxel_size
    return path


# All of them


@pytest.mark.parametrize("name", datasets.registry())
def test_a_tree_laid_out_like_the_original_becomes_an_acquisition(trees, name):
    found = get(trees, name)
    volumes = [found.full, *(found.halves or ()), *(v for v in (found.truth,) if v is not None)]
    assert all(volume.shape == SHAPE and volume.dtype == np.float32 for volume in volumes)
    assert (found.halves is not None) == (name in HALVES) == bool("reconstructed here" in datasets.entry(name)["halves"]
                                                                  or name == "cryocare")  # fmt: skip
    specimen = make_specimen(SHAPE, densities="built-in", seed=0)
    assert correlation(ndimage.gaussian_filter(found.full, 1), specimen.density) > 0.5
    assert found.voxel_size > 1 and found.name.startswith(name) and "\n" not in found.description
    assert found.tilt_angles is not None and list(found.tilt_angles) == sorted(found.tilt_angles)
    assert found.tilt_angles[0] == -60 and found.tilt_angles[-1] == 60


@pytest.mark.parametrize("name", datasets.registry())
def test_a_region_is_the_same_part_of_the_whole(trees, name):
    whole, part = get(trees, name), get(trees, name, region="8:32,10:-6,:40")
    box = np.s_[8:32, 10:42, :40]
    np.testing.assert_allclose(part.full, whole.full[box], atol=1e-4 * whole.full.std())
    for half, other in zip(whole.halves or (), part.halves or (), strict=True):
        np.testing.assert_allclose(other, half[box], atol=1e-4 * half.std())
    assert part.full.base is None or part.full.base.nbytes <= 2 * part.full.nbytes  # nothing larger is kept alive


@pytest.mark.parametrize("name", HALVES)
def test_halves_share_the_specimen_but_not_the_noise(trees, name):
    found = get(trees, name)
    specimen = make_specimen(SHAPE, densities="built-in", seed=0)
    even, odd = found.halves
    assert correlation(*(ndimage.gaussian_filter(half, 2) for half in (even, odd))) > 0.2
    clean = data.simulated(specimen=specimen, tilt_step=2.0).clean
    noise = [half - clean * np.sum(half * clean) / np.sum(clean * clean) for half in (even, odd)]
    assert abs(correlation(*noise)) < 0.1


@pytest.mark.parametrize("name", datasets.registry())
def test_absent_data_say_which_file_where_from_how_large_and_how_to_get_it(tmp_path, monkeypatch, name):
    monkeypatch.setenv("CRYOSTUDY_DATA", str(tmp_path))
    with pytest.raises(datasets.Absent) as error:
        datasets.get(name)
    text, known = str(error.value), datasets.entry(name)
    assert str(tmp_path / name) in text and f"cryostudy fetch {name} {known['item']}" in text
    assert known["page"] in text and ("GB" in text or "MB" in text) and "\n" not in text


@pytest.mark.parametrize("name", datasets.registry())
def test_every_entry_says_what_a_page_needs(name):
    known = datasets.entry(name)
    assert known["kind"] in ("real", "simulated") and isinstance(known["verified"], bool)
    for key in ("title", "description", "known", "licence", "page", "items", "item", "layout", "tilts", "cite"):
        assert known[key], key
    assert known["size"] or known["about"]
    sources = [file["url"] for key, files in known.items() if key.startswith("files") for file in files]
    assert sources or known["repository"]
    assert all(url.startswith("https://") for url in sources)


def test_the_small_ones_come_by_the_same_door():
    found = datasets.get("simulated", shape=(24, 32, 32), tilt_step=10, densities="built-in")
    assert found.full.shape == (24, 32, 32) and found.truth is not None
    for wrong in ({"name": "moon"}, {"name": "simulated", "region": "centre:8"}, {"name": "cryocare", "glow": 3}):
        with pytest.raises(InputError):
            datasets.get(**wrong)


# Regions, voxel sizes, kinds of voxels


@pytest.mark.parametrize(
    ("region", "expected"),
    [
        (None, (0, 10, 0, 20, 0, 30)),
        ("all", (0, 10, 0, 20, 0, 30)),
        ("2:5, :4 ,-3:", (2, 5, 0, 4, 27, 30)),
        ("centre:8", (1, 9, 6, 14, 11, 19)),
        ("centre:4,8,99", (3, 7, 6, 14, 0, 30)),
        ((slice(1, 3), slice(None), slice(0, 2)), (1, 3, 0, 20, 0, 2)),
    ],
)
def test_regions(region, expected):
    found = volumes.box(region, (10, 20, 30))
    assert tuple(end for part in found for end in (part.start, part.stop)) == expected


@pytest.mark.parametrize("region", ["5", "1:2,3:4", "centre:", "centre:1,2", "5:5,:,:", "40:50,:,:", "a:b,:,:"])
def test_a_region_that_is_none_is_refused_in_one_line(region):
    with pytest.raises(InputError) as error:
        volumes.box(region, (10, 20, 30))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.uint16, np.float16, np.float32])
def test_voxels_of_every_kind_and_packed_files(tmp_path, kind):
    volume = np.random.default_rng(0).integers(0, 100, (12, 14, 16)).astype(kind)
    path = save(tmp_path / "empiar-10164" / "01_10.00Apx.mrc", volume, 10.0)
    found = datasets.get("empiar-10164", region="2:10,:,:", place=tmp_path / "empiar-10164")
    np.testing.assert_array_equal(found.full, volume[2:10].astype(np.float32))
    import gzip

    packed = tmp_path / "packed.mrc.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    np.testing.assert_array_equal(volumes.cut(packed, volumes.box("2:10,:,:", volume.shape)), found.full)


@pytest.mark.parametrize(("stated", "expected"), [(0.0, 13.48), (1.0, 13.48), (6.74, 6.74)])
def test_a_voxel_size_is_repaired_only_where_the_header_has_none(tmp_path, stated, expected):
    folder = tmp_path / "cryoet-portal"
    example.write("cryoet-portal", folder, (16, 16, 16))
    path = next(folder.rglob("TS_026.mrc"))
    with mrcfile.open(path, "r+") as mrc:
        mrc.voxel_size = stated
    found = datasets.get("cryoet-portal", place=folder)
    assert found.voxel_size == pytest.approx(expected)
    assert ("as published" in found.description) == (expected == 13.48)


# SHREC


def test_a_planted_rotation_comes_back(tmp_path):
    """The generator turns a map by an affine transform that looks up, for each voxel, where it comes from: with the
    matrix of static z-x-z angles of the opposite sign, in the axes (x, y, z) of its arrays."""
    angles = (37.0, 64.0, -112.0)
    density = np.zeros((21, 21, 21), np.float32)  # (x, y, z), with no symmetry
    density[10:18, 9:12, 10], density[10, 10:15, 9:12], density[10, 10, 10:19] = 1, 2, 3
    density = ndimage.gaussian_filter(density, 1)
    look_up = Rotation.from_euler("zxz", [-a for a in angles], degrees=True).as_matrix()  # lower case: static axes
    middle = np.full(3, 10.0)
    turned = ndimage.affine_transform(density, look_up, middle - look_up @ middle, order=3)
    path = tmp_path / "particle_locations.txt"
    path.write_text("1bxn 11 12 13 " + " ".join(map(str, angles)) + "\nfiducial 4 5 6 NaN NaN NaN\n")
    (name, position, matrix), bead = shrec.read_locations(path)
    assert (name, position) == ("1bxn", (13, 12, 11)) and bead[:2] == ("fiducial", (6, 5, 4))
    np.testing.assert_array_equal(bead[2], np.eye(3))
    map_of = density.transpose()  # (z, y, x)
    assert correlation(place(map_of, matrix, np.zeros(3)), turned.transpose()) > 0.99
    assert correlation(place(map_of, matrix.T, np.zeros(3)), turned.transpose()) < 0.7


@pytest.mark.parametrize("name", ["shrec2020", "shrec2021"])
@pytest.mark.parametrize("region", [None, "4:36,6:44,3:50"])
def test_truth_poses_and_classes_of_shrec(trees, name, region):
    found = get(trees, name, region=region)
    planted = make_specimen(SHAPE, densities="built-in", seed=0)
    corner = np.zeros(3) if region is None else np.array([4, 6, 3])
    size = found.full.shape
    box = tuple(slice(int(c), int(c) + n) for c, n in zip(corner, size, strict=True))
    np.testing.assert_allclose(found.truth, planted.density[box], atol=1e-6)  # 2020 has one with noise, too
    np.testing.assert_array_equal(found.specimen.labels, planted.labels[box])
    expected = [(p.name.replace(" ", "-").lower(), np.rint(p.position) - corner, p.rotation) for p in planted.particles]
    expected = [e for e in expected if (e[1] >= 0).all() and (e[1] <= np.array(size) - 1).all()]
    assert len(expected) == len(found.specimen.particles) > (region is None)
    for (label, position, rotation), particle in zip(expected, found.specimen.particles, strict=True):
        assert particle.name == label
        np.testing.assert_array_equal(particle.position, position)
        np.testing.assert_allclose(particle.rotation, rotation, atol=1e-4)
    named = {k: n.replace(" ", "-").lower() for k, n in enumerate(planted.class_names)}
    for k in set(np.unique(found.specimen.labels)) & {1, 2, 3}:
        assert found.specimen.class_names[k] in (named[k], f"class {k}")


def test_the_particles_own_maps_lie_where_shrec_says(trees):
    """What the poses are for: the particle's map, turned and put there, is the truth there."""
    found, maps = get(trees, "shrec2021"), specimen_densities("built-in").maps
    by_name = {name.replace(" ", "-").lower(): density for name, density in maps.items()}
    scores = []
    for particle in found.specimen.particles:
        turned = place(by_name[particle.name], particle.rotation, np.zeros(3))
        low = np.rint(particle.position).astype(int) - turned.shape[0] // 2
        here = tuple(slice(max(0, s), s + len(turned)) for s in low)
        there = tuple(slice(max(0, -s), n - s) for s, n in zip(low, SHAPE, strict=True))
        dense = turned[there] > 0.3  # elsewhere there may be neighbours
        scores.append(found.truth[here][dense].mean() / turned[there][dense].mean())
        scores[-1] *= correlation(found.truth[here][turned[there] > 0.02], turned[there][turned[there] > 0.02])
    assert min(scores) > 0.7


@pytest.mark.parametrize("name", ["shrec2020", "shrec2021"])
def test_shrec_is_rebuilt_from_its_projections(trees, name):
    """2021's file has shifted images, twice the sampling and tilts of the other sign; the truth tells the sign."""
    found, made = get(trees, name, rebuilt=True), data.simulated(SHAPE, noise="ddw", seed=0, densities="built-in")
    assert (
        found.tilt_angles == made.tilt_angles and found.filter == "ramp" and "reconstructed here" in found.description
    )
    flat = made.tilt_series - made.tilt_series.mean((1, 2), keepdims=True)
    inner = np.s_[:, 6:-6, 6:-6]  # what the shifts brought in from outside is not there
    assert correlation(found.tilt_series[inner], flat[inner]) > 0.99
    assert correlation(found.full[inner], made.full[inner]) > 0.98
    for half, other in zip(found.halves, made.halves, strict=True):
        assert correlation(half[inner], other[inner]) > 0.98
    part = get(trees, name, rebuilt=True, region="8:32,10:-6,:40")
    np.testing.assert_allclose(part.full, found.full[8:32, 10:-6, :40], atol=1e-4)
    assert part.tilt_series is None and part.truth.shape == part.full.shape


def test_the_misspelt_name_of_model_9(tmp_path):
    example.write("shrec2021", tmp_path, (16, 24, 24))
    model = (tmp_path / "model_0").rename(tmp_path / "model_9")
    (model / "projections_unbinned.mrc").rename(model / "projections_unbinne.mrc")
    assert datasets.get("shrec2021", "model_9", place=tmp_path, rebuilt=True).tilt_series.shape == (61, 24, 24)


def test_shrec_is_found_below_the_folder_of_its_archive(trees, tmp_path):
    example.write("shrec2020", tmp_path / "shrec20_full_dataset", (16, 24, 24))
    assert datasets.get("shrec2020", place=tmp_path).full.shape == (16, 24, 24)


def test_particles_beside_their_classes_are_refused(tmp_path):
    example.write("shrec2020", tmp_path, (16, 32, 32))
    path = tmp_path / "model_0" / "class_mask.mrc"
    with mrcfile.open(path, "r+") as mrc:
        mrc.set_data(np.zeros_like(mrc.data))
    with pytest.raises(InputError, match="lie outside the classes"):
        datasets.get("shrec2020", place=tmp_path)
    path.with_name("particle_locations.txt").write_text("1bxn 1 2\n")
    with pytest.raises(InputError, match="line 1"):
        datasets.get("shrec2020", place=tmp_path)


# Tilt stacks


def test_images_are_put_in_the_order_of_their_angles(trees):
    found = get(trees, "empiar-10045")
    expected = data.simulated(specimen=make_specimen(SHAPE, densities="built-in", seed=0), tilt_step=3.0)
    flat = expected.tilt_series - expected.tilt_series.mean((1, 2), keepdims=True)
    scores = [correlation(a, b) for a, b in zip(found.tilt_series, flat, strict=True)]
    assert min(scores) > 0.999
    assert found.tilt_angles == expected.tilt_angles


def test_an_alignment_is_the_one_that_imod_describes():
    """A spot at (x, y) from the middle moves to A (x, y) + D: here a turn by 90° and a shift."""
    image = np.zeros((21, 21), np.float32)
    image[10 + 2, 10 + 6] = 100  # y = 2, x = 6
    moved = stacks.align(image, np.array([0.0, -1, 1, 0, 3, 1]))
    assert np.unravel_index(moved.argmax(), moved.shape) == (10 + 6 + 1, 10 - 2 + 3)
    assert moved.max() == pytest.approx(100, abs=0.5)
    np.testing.assert_allclose(stacks.align(image, np.array([1.0, 0, 0, 1, 0, 0])), image, atol=1e-5)


def test_without_the_alignment_the_stack_is_out_of_place_and_said_to_be(trees, tmp_path):
    options = example.write("imod-centriole", tmp_path, SHAPE)
    aligned = datasets.get("imod-centriole", place=tmp_path, **options)
    (tmp_path / "tutorialData" / "BBa.xf").unlink()
    raw = datasets.get("imod-centriole", place=tmp_path, **options)
    truth = make_specimen(SHAPE, densities="built-in", seed=0).density
    assert "not aligned" in raw.description and "not aligned" not in aligned.description
    assert correlation(aligned.full, truth) > correlation(raw.full, truth) + 0.05


def test_angles_of_a_raw_stack_come_from_its_header_or_a_file(tmp_path):
    options = example.write("imod-centriole", tmp_path, (16, 24, 24))
    stack = tmp_path / "tutorialData" / "BBa.st"
    assert stacks.header_angles(stacks.of_stack(stack)[1]) == tuple(float(a) for a in range(-60, 61, 2))
    (tmp_path / "tutorialData" / "BBa.rawtlt").write_text("1\n2\n")
    with pytest.raises(InputError, match="61 images, but 2 tilt angles"):
        datasets.get("imod-centriole", place=tmp_path, **options)


def test_images_are_read_one_at_a_time():
    alive = peak = 0

    class Image(np.ndarray):
        def __del__(self):
            nonlocal alive
            alive -= 1

    def read():
        nonlocal alive, peak
        image = np.ones((8, 8)).view(Image)
        alive += 1
        peak = max(peak, alive)
        return image

    stacks.series([read] * 5, [3, 1, 2, -1, 0], None, 2, "x")
    assert peak <= 3  # of five, with the views that numpy makes of one


def test_movies_of_the_cryocare_tutorial_are_summed_by_halves(tmp_path):
    specimen = make_specimen((24, 24, 24), densities="built-in", seed=1)
    frames = [data.simulated(specimen=specimen, tilt_step=20.0, seed=s).tilt_series for s in range(4)]
    angles = sorted(range(-60, 61, 20), reverse=True)
    for k, angle in enumerate(angles):
        movie = np.stack([f[-1 - k] for f in frames])
        counts = np.clip(np.round(movie / frames[0].std() * 10 + 50), 0, 127).astype(np.int8)
        save(
            tmp_path / f"Tomo110/frames/{k + 1:02d}_Tomo110_{angle:.1f}_Apr04_15.00.00.mrc",
            counts.repeat(2, 1).repeat(2, 2),
        )
    found = datasets.get("cryocare", "Tomo110", place=tmp_path, bin=2, thickness=24)
    assert found.tilt_angles == tuple(float(a) for a in range(-60, 61, 20)) and found.voxel_size == pytest.approx(4.711)
    assert "without motion correction" in found.description and "not aligned" in found.description
    np.testing.assert_allclose((found.halves[0] + found.halves[1]), found.full, atol=1e-3 * found.full.std())
    for half, chosen in zip(found.halves, (frames[0::2], frames[1::2]), strict=True):
        expected = data.reconstructions(sum(chosen), found.tilt_angles, 24, "ramp")[0]
        assert correlation(half, expected) > 0.98


def test_files_that_do_not_fit_each_other_are_refused(trees, tmp_path):
    options = example.write("empiar-10045", tmp_path, (16, 24, 24))
    path = next(tmp_path.rglob("*.tlt"))
    path.write_text("1\n2\n3\n")
    with pytest.raises(InputError, match="41 images, but 3 tilt angles"):
        datasets.get("empiar-10045", place=tmp_path, **options)
    path.unlink()
    assert datasets.get("empiar-10045", place=tmp_path, **options).tilt_angles == tuple(map(float, range(-60, 61, 3)))
    bad = tmp_path / "a.xf"
    bad.write_text("1 2 3\n")
    with pytest.raises(InputError, match="6 numbers"):
        stacks.read_transforms(bad)
    for item in ("model_x", "7"):
        with pytest.raises(InputError, match="model_0 to model_9"):
            datasets.get("shrec2020", item, place=tmp_path)
    with pytest.raises(InputError, match="BBa or BBb"):
        etomo.centriole("imod-centriole", tmp_path, "BBc", None)


# The portal


@pytest.mark.parametrize("item", ["10000/TS_026/13.48", "10000/TS_026/13.480/100"])
def test_identifiers_of_the_portal(item):
    assert portal.values(item) == {"dataset": "10000", "run": "TS_026", "spacing": "13.480", "tomogram": "100"}


@pytest.mark.parametrize("item", ["10000", "../x/13", "10000/TS_026", "10000/TS 026/13", "a/b/c"])
def test_what_is_no_identifier_is_refused(item):
    with pytest.raises(InputError, match="DATASET/RUN/VOXELSPACING"):
        portal.values(item)


def test_tilt_angles_of_the_portal_from_a_file_or_from_metadata(trees, tmp_path):
    example.write("cryoet-portal", tmp_path, (16, 16, 16))
    path = next(tmp_path.rglob("*.rawtlt"))
    path.unlink()
    assert datasets.get("cryoet-portal", place=tmp_path).tilt_angles is None
    about = path.with_name("tiltseries_metadata.json")
    about.write_text(json.dumps({"tilt_range": {"min": -40, "max": 50}, "tilt_step": 3}))
    assert datasets.get("cryoet-portal", place=tmp_path).tilt_angles == tuple(float(a) for a in range(-40, 51, 3))
    about.write_text("{")
    with pytest.raises(InputError, match="JSON"):
        datasets.get("cryoet-portal", place=tmp_path)


# The command


def test_fetch_lists_and_describes_every_data_set(capsys):
    assert cli.main(["fetch"]) == 0
    listed = capsys.readouterr().out
    assert all(f"\n{name} " in listed for name in datasets.registry())
    assert cli.main(["fetch", "empiar-10045", "--about"]) == 0
    said = capsys.readouterr().out
    assert "CC0" in said and "IS002_291013_005.mrcs" in said and "not verified" in said
    assert cli.main(["fetch", "microtubule", "5"]) == 2 and cli.main(["fetch", "moon"]) == 2
    assert capsys.readouterr().err.count("\n") == 2
