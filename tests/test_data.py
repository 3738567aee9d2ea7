"""Every recording becomes an Acquisition whose parts fit together, or one clear line of refusal."""

import warnings

import mrcfile
import numpy as np
import pytest
from scipy import ndimage

from cryostudy import data
from cryostudy.data import Acquisition, data_sets, fetch, from_files, reprojected, simulated
from cryostudy.errors import InputError
from cryostudy.simulate import make_specimen, signal_to_noise, tilt_angles
from cryostudy.tomography import project, reconstruct


def correlation(a, b):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]


@pytest.fixture(scope="module")
def specimen():
    return make_specimen((40, 56, 64), densities="built-in", seed=1)


@pytest.fixture(scope="module")
def recording(specimen):
    return simulated(specimen=specimen, seed=1)


def check_parts(acquisition: Acquisition, shape: tuple[int, int, int]) -> None:
    volumes = [acquisition.full, *acquisition.halves, acquisition.truth, acquisition.clean]
    for volume in volumes:
        assert volume.shape == shape and volume.dtype == np.float32 and np.isfinite(volume).all()


def test_parts_of_a_simulated_recording_fit_together(recording, specimen):
    check_parts(recording, (40, 56, 64))
    assert recording.tilt_angles == tilt_angles() and recording.voxel_size == 10
    assert recording.tilt_series.shape == (61, 56, 64) and recording.tilt_series.dtype == np.float32
    assert recording.specimen is specimen
    np.testing.assert_array_equal(recording.truth, specimen.density)
    np.testing.assert_array_equal(recording.full, reconstruct(recording.tilt_series, recording.tilt_angles, 40))
    clean_series = project(specimen.density, recording.tilt_angles)
    np.testing.assert_allclose(recording.clean, reconstruct(clean_series, recording.tilt_angles, 40), atol=1e-5)
    assert signal_to_noise(clean_series, recording.tilt_series) == pytest.approx(0.25, rel=0.02)


def test_halves_share_the_specimen_and_no_noise(recording):
    even, odd = (half - recording.clean for half in recording.halves)
    assert abs(correlation(even, odd)) < 0.02
    # Both halves together are the whole, up to the weights of the outermost tilts.
    mean = (recording.halves[0] + recording.halves[1]) / 2
    assert np.abs(mean - recording.full).std() < 0.05 * recording.full.std()
    smooth = [ndimage.gaussian_filter(half, 2) for half in recording.halves]
    assert correlation(*smooth) > 0.2


def test_clean_resembles_the_truth_but_for_the_wedge(recording):
    assert 0.7 < correlation(recording.clean, recording.truth) < 0.97
    wide = simulated(specimen=recording.specimen, tilt_range=88)
    narrow = simulated(specimen=recording.specimen, tilt_range=30)
    scores = [correlation(a.clean, a.truth) for a in (wide, recording, narrow)]
    assert scores == sorted(scores, reverse=True)


def test_white_noise_is_added_to_the_clean_reconstruction(specimen):
    white = simulated(specimen=specimen, noise="white", level=0.25, seed=1)
    check_parts(white, (40, 56, 64))
    assert white.tilt_series is None and white.tilt_angles == tilt_angles()
    noise = white.full - white.clean
    assert signal_to_noise(white.clean, white.full) == pytest.approx(0.25, rel=0.02)
    first, second = (half - white.clean for half in white.halves)
    for half in (first, second):
        assert half.std() == pytest.approx(np.sqrt(2) * noise.std(), rel=0.02)
    limit = 5 / np.sqrt(noise.size)
    assert abs(correlation(first, second)) < limit
    np.testing.assert_allclose(white.full, (white.halves[0] + white.halves[1]) / 2, atol=1e-6)
    for axis in range(3):
        assert abs(correlation(noise.take(range(1, noise.shape[axis]), axis), np.delete(noise, -1, axis))) < limit


def test_projection_noise_is_correlated_in_the_reconstruction(recording):
    """This is why blind spots fail on it. Along the tilt axis it stays independent."""
    noise = recording.full - recording.clean
    assert abs(correlation(noise[:, :, 1:], noise[:, :, :-1])) > 0.1
    assert abs(correlation(noise[:, 1:], noise[:, :-1])) < 0.03


@pytest.mark.parametrize("noise", ["ddw", "white", "mixture"])
def test_same_parameters_same_recording(noise):
    first, second, other = (
        simulated((24, 32, 40), noise, tilt_step=10, seed=s, densities="built-in") for s in (4, 4, 5)
    )
    for name in ("full", "truth", "clean"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    np.testing.assert_array_equal(first.halves, second.halves)
    assert first.description == second.description and first.name == second.name
    assert not np.array_equal(first.truth, other.truth)


def test_noise_seed_leaves_a_given_specimen(specimen, recording):
    other = simulated(specimen=specimen, seed=2)
    np.testing.assert_array_equal(other.truth, recording.truth)
    np.testing.assert_array_equal(other.clean, recording.clean)
    assert abs(correlation(other.full - other.clean, recording.full - recording.clean)) < 0.02


def test_description_states_what_a_caption_needs(recording):
    for part in ("40 x 56 x 64", "built-in particles", "no real proteins", "SNR 0.25", "seed 1", "-60° to 60°", "ramp"):
        assert part in recording.description
    assert "\n" not in recording.description


@pytest.mark.parametrize(
    "wrong", [{"noise": "brown"}, {"level": -1.0}, {"tilt_range": 95}, {"tilt_step": 0}, {"shape": (4, 4, 4)}]
)
def test_impossible_simulations_are_refused(wrong):
    with pytest.raises(InputError) as error:
        simulated(**{"shape": (24, 24, 24), "densities": "built-in"} | wrong)
    assert "\n" not in str(error.value)


def test_reprojected_recording(specimen):
    volume = 100 + 20 * specimen.density
    found = reprojected(volume, 13.5, level=0.1, seed=1, name="lamella")
    check_parts(found, specimen.density.shape)
    assert found.voxel_size == 13.5 and "missing wedge stays empty" in found.description
    smooth = ndimage.gaussian_filter(volume.astype(np.float32), 2)
    np.testing.assert_allclose(found.truth, smooth - smooth.mean(), atol=1e-3)
    assert correlation(found.clean, found.truth) > 0.7
    with pytest.raises(InputError, match="lamella"):
        reprojected(np.full((16, 16, 16), np.nan, np.float32), 10.0, name="lamella")


# From files


@pytest.fixture
def save(tmp_path):
    def write(name, array, voxel_size=10.0):
        with mrcfile.new(tmp_path / name) as mrc:
            mrc.set_data(array)
            mrc.voxel_size = voxel_size
        return tmp_path / name

    return write


@pytest.fixture
def volumes():
    rng = np.random.default_rng(0)
    return [rng.normal(size=(12, 16, 20)).astype(np.float32) for _ in range(3)]


def test_tomogram_from_a_file(save, volumes):
    found = from_files(save("lamella 3.rec", volumes[0], 13.48), tilt_angles=[-60, 0, 60])
    np.testing.assert_array_equal(found.full, volumes[0])
    assert found.halves is None and found.truth is None and found.tilt_series is None
    assert found.voxel_size == pytest.approx(13.48, rel=1e-5) and found.tilt_angles == (-60, 0, 60)
    assert found.name == "lamella 3" and "lamella 3.rec" in found.description


def test_integer_tomogram_becomes_float32(save):
    whole = np.arange(12 * 16 * 20, dtype=np.int16).reshape(12, 16, 20)
    found = from_files(save("a.mrc", whole), voxel_size=7.0)
    assert found.full.dtype == np.float32 and found.voxel_size == 7
    np.testing.assert_array_equal(found.full, whole)


def test_unknown_voxel_size_stays_zero(save, volumes):
    assert from_files(save("a.mrc", volumes[0], 0.0)).voxel_size == 0.0


def test_full_of_two_halves_is_their_mean(save, volumes):
    even, odd = save("even.mrc", volumes[0]), save("odd.mrc", volumes[1])
    found = from_files(even=even, odd=odd)
    np.testing.assert_allclose(found.full, (volumes[0] + volumes[1]) / 2)
    np.testing.assert_array_equal(found.halves, volumes[:2])
    given = from_files(save("full.mrc", volumes[2]), even=even, odd=odd)
    np.testing.assert_array_equal(given.full, volumes[2])
    assert given.halves is not None and given.name == "full"


def test_tilt_stack_is_reconstructed(save, tmp_path, specimen):
    angles = tilt_angles(60, 3)
    series = project(specimen.density, angles) + 500
    (tmp_path / "tilts.tlt").write_text("\n".join(map(str, angles)))
    found = from_files(tilt_series=save("tilts.st", series), tilt_angles=tmp_path / "tilts.tlt", thickness=40)
    assert found.full.shape == (40, 56, 64) and found.halves[0].shape == (40, 56, 64)
    assert found.tilt_angles == angles and found.voxel_size == 10 and found.name == "tilts"
    np.testing.assert_allclose(found.tilt_series.mean(axis=(1, 2)), 0, atol=1e-3)
    assert correlation(found.full, specimen.density) > 0.7
    assert correlation(*found.halves) > 0.7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "no input"),
        ({"even": "a.mrc"}, r"a\.mrc: the other half-tomogram is missing; give --odd too"),
        ({"odd": "a.mrc"}, r"a\.mrc: the other half-tomogram is missing; give --even too"),
        ({"even": "a.mrc", "odd": "small.mrc"}, r"small\.mrc: shape \(12, 16, 16\).*a\.mrc has \(12, 16, 20\)"),
        ({"even": "a.mrc", "odd": "a.mrc"}, r"a\.mrc: identical"),
        ({"even": "a.mrc", "odd": "other size.mrc"}, r"other size\.mrc: a voxel size of 12 Å.*10 Å"),
        ({"path": "small.mrc", "even": "a.mrc", "odd": "b.mrc"}, r"small\.mrc: shape"),
        ({"path": "other size.mrc", "even": "a.mrc", "odd": "b.mrc"}, r"other size\.mrc: a voxel size"),
        ({"path": "nan.mrc"}, r"nan\.mrc.*NaN"),
        ({"path": "flat.mrc"}, r"flat\.mrc.*constant"),
        ({"path": "absent.mrc"}, r"absent\.mrc"),
        ({"path": "a.mrc", "voxel_size": -1.0}, "voxel_size -1"),
        ({"path": "a.mrc", "tilt_angles": "absent.tlt"}, r"absent\.tlt"),
        ({"tilt_series": "a.mrc"}, r"a\.mrc: a tilt series needs its angles"),
        ({"tilt_series": "a.mrc", "tilt_angles": range(12)}, r"a\.mrc.*thickness"),
        ({"tilt_series": "a.mrc", "tilt_angles": range(11), "thickness": 16}, "11 tilt angles.*12 images"),
        ({"tilt_series": "a.mrc", "tilt_angles": range(12), "thickness": 16, "path": "b.mrc"}, "not both"),
    ],
)
def test_files_that_cannot_be_used_are_refused_in_one_line(save, volumes, tmp_path, monkeypatch, arguments, message):
    save("a.mrc", volumes[0])
    save("b.mrc", volumes[1])
    save("small.mrc", volumes[1][:, :, :16].copy())
    save("other size.mrc", volumes[1], 12.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mrcfile warns of the NaN that it is made to write
        save("nan.mrc", np.where(volumes[0] > 2, np.nan, volumes[0]).astype(np.float32))
    save("flat.mrc", np.ones((12, 16, 20), np.float32))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message) as error:
        from_files(**arguments)
    assert "\n" not in str(error.value)


def test_halves_of_other_header_size_pass_with_a_stated_voxel_size(save, volumes):
    even, odd = save("even.mrc", volumes[0], 10.0), save("odd.mrc", volumes[1], 0.0)
    assert from_files(even=even, odd=odd, voxel_size=10.0).voxel_size == 10


def test_doubts_about_files_are_warnings_of_one_line(save, recording):
    even, odd = recording.halves
    files = save("even.mrc", even), save("odd.mrc", odd), save("moved.mrc", np.roll(odd, 3, 1))
    full = save("full.mrc", recording.full)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from_files(full, even=files[0], odd=files[1], tilt_angles=recording.tilt_angles)
        from_files(full, even=files[1], odd=files[0], tilt_angles=recording.tilt_angles)  # swapped does no harm
    with pytest.warns(UserWarning, match=r"moved\.mrc is shifted against .*even\.mrc by about \(0, 3, 0\)"):
        from_files(even=files[0], odd=files[2])
    with pytest.warns(UserWarning, match=r"full\.mrc and .*even\.mrc agree beyond"):
        from_files(even=files[0], odd=full)
    with pytest.warns(UserWarning, match=r"full\.mrc: its spectrum shows tilts from .*; check them"):
        from_files(full, tilt_angles=range(-40, 41, 2))
    with pytest.raises(InputError, match=r"full\.mrc: a half-tomogram, but it is the full one"):
        from_files(full, even=files[0], odd=full)


def test_real_tomogram(shared):
    found = from_files(shared / "data" / "real" / "microtubule_13pf.mrc")
    assert found.full.shape == (36, 206, 94) and found.full.dtype == np.float32
    assert found.voxel_size == pytest.approx(10.52, abs=0.01) and found.name == "microtubule_13pf"
    again = reprojected(found.full, found.voxel_size, name=found.name)
    assert again.full.shape == found.full.shape


# Registry


def test_data_sets_are_listed_with_licence_and_size():
    listed = data_sets()
    assert len(listed) >= 13 and "Apache-2.0" in listed["4v94"] and "MB" in listed["4v94"]


def test_fetch_of_an_unknown_name_lists_the_known_ones():
    with pytest.raises(InputError, match=r"'tomo110' is unknown; known are: .*4v94"):
        fetch("tomo110")


def test_fetch_finds_the_shared_files(shared, monkeypatch):
    monkeypatch.setenv("CRYOSTUDY_DATA", str(shared / "data"))
    assert fetch("1bxn") == shared / "data" / "templates-10A" / "1bxn.mrc"
    assert data.fetch is fetch
