"""Methods choose their strength without the truth, repeat to the bit, stay blind, and are found by their file alone."""

import gc
import sys
import textwrap
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cryostudy import PROFILES, cli, io, methods
from cryostudy.data import Acquisition, simulated
from cryostudy.errors import InputError
from cryostudy.filters import gaussian_filter
from cryostudy.methods import Denoiser, Method, available, get
from cryostudy.methods.gaussian import Gaussian
from cryostudy.methods.patches import central_box, crop, hold_out, patch_positions, random_crop
from cryostudy.methods.standardise import Standardised
from cryostudy.methods.volume_shuffle import VolumeShuffle


def phantom(shape=(48, 52, 56), smooth=2.5, seed=0):
    """Smooth density of variance 1."""
    volume = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), smooth)
    return (volume / volume.std()).astype(np.float32)


def white(clean, deviation, seed=1):
    """The mean of two halves with independent white noise, and the halves; `deviation` is that of the mean's noise."""
    rng = np.random.default_rng(seed)
    even, odd = ((clean + rng.normal(0, deviation * 2**0.5, clean.shape)).astype(np.float32) for _ in range(2))
    return Acquisition(full=(even + odd) / 2, halves=(even, odd), name="phantom")


def correlation(a, b):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]


def best_sigma(noisy, clean):
    """The sigma with the smallest error against the truth."""
    sigmas = np.geomspace(0.3, 6, 60)
    noisy, clean = torch.from_numpy(noisy), torch.from_numpy(clean)
    return sigmas[int(np.argmin([(gaussian_filter(noisy, s) - clean).square().mean().item() for s in sigmas]))]


def chosen(acquisition, **options):
    return Gaussian(**options).fit(acquisition).state["sigma"].item()


# The Gaussian filter


@pytest.mark.parametrize("smooth", [1.5, 2.5])
@pytest.mark.parametrize("deviation", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("halves", [False, True])
def test_gaussian_comes_near_the_best_width_on_white_noise(smooth, deviation, halves):
    clean = phantom(smooth=smooth)
    acquisition = white(clean, deviation)
    found = chosen(acquisition if halves else Acquisition(full=acquisition.full))
    assert found == pytest.approx(best_sigma(acquisition.full, clean), rel=0.25 if not halves else 0.1)


@pytest.mark.parametrize("snr", [1.0, 0.25])
def test_gaussian_needs_halves_where_noise_is_correlated(snr):
    recording = simulated((48, 64, 64), "ddw", snr, densities="built-in", seed=1)
    best = best_sigma(recording.full, recording.clean)
    assert chosen(recording) == pytest.approx(best, rel=0.15)
    assert chosen(Acquisition(full=recording.full)) < 0.9 * best  # takes noise for signal


def test_gaussian_width_ignores_grey_scale_and_zero_border():
    acquisition = white(phantom(), 2.0)
    plain = chosen(Acquisition(full=acquisition.full))
    scaled = 1e3 + 0.1 * acquisition.full.astype(np.float64)
    assert chosen(Acquisition(full=scaled)) == pytest.approx(plain, rel=1e-3)
    padded = np.zeros((64, 96, 100), np.float32)
    padded[8:-8, 20:72, 30:86] = 100 + acquisition.full
    assert chosen(Acquisition(full=padded)) == pytest.approx(plain, rel=0.1)
    assert chosen(Acquisition(full=padded), sample=(32, 4)) == pytest.approx(plain, rel=0.25)
    offset = Acquisition(full=acquisition.full, halves=tuple(50 + half / 2 for half in acquisition.halves))
    assert chosen(offset) == pytest.approx(chosen(acquisition), rel=1e-3)


def test_gaussian_restores_as_the_filter_does():
    acquisition = white(phantom(), 2.0)
    restored = Gaussian(sigma=1.3).fit(acquisition)(acquisition.full)
    expected = gaussian_filter(torch.from_numpy(acquisition.full), 1.3).numpy()
    np.testing.assert_allclose(restored, expected, atol=1e-5)
    assert restored.dtype == np.float32


# The volume-shuffle network

SMALL = VolumeShuffle.at("smoke", steps=4)


@pytest.fixture(scope="module")
def noisy():
    return white(phantom((36, 40, 44)), 1.0)


@pytest.fixture(scope="module")
def fitted(noisy):
    return SMALL.fit(noisy, seed=3)


def test_smoke_takes_seconds_and_says_how_it_ran(noisy, tmp_path):
    denoiser = VolumeShuffle.at("smoke").fit(noisy, folder=tmp_path)
    assert denoiser.history.step == 12 and denoiser.history.seconds < 10
    assert np.isfinite([row["validation"] for row in denoiser.history.rows]).all()
    assert (tmp_path / "log.csv").exists()


def test_same_seed_same_weights_and_volume(noisy, fitted):
    rng = torch.get_rng_state()
    again = SMALL.fit(noisy, seed=3)
    assert torch.equal(torch.get_rng_state(), rng)  # nobody else's random numbers are touched
    other = SMALL.fit(noisy, seed=4)
    for name, value in fitted.state.items():
        assert torch.equal(value, again.state[name])
    np.testing.assert_array_equal(fitted(noisy.full), again(noisy.full))
    assert not np.array_equal(fitted(noisy.full), other(noisy.full))


def test_gaussian_same_seed_same_volume(noisy):
    one, two = (Gaussian.at("smoke").fit(noisy, seed=5)(noisy.full) for _ in range(2))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("shape", [(9, 30, 41), (20, 8, 27), (33, 34, 35)])
def test_volumes_smaller_than_a_patch_of_even_and_odd_sides(shape):
    volume = white(phantom(shape, 1.5), 1.0).full
    for method in (SMALL, Gaussian.at("smoke")):
        restored = method.fit(Acquisition(full=volume))(volume)
        assert restored.shape == shape and np.isfinite(restored).all() and restored.std() > 0


def test_short_training_beats_the_raw_volume():
    clean = phantom((40, 40, 40))
    acquisition = white(clean, 1.0)
    method = VolumeShuffle.at("smoke", channels=8, patch=27, steps=40, decay=True)
    restored = method.fit(acquisition)(acquisition.full)
    raw = correlation(acquisition.full, clean)
    assert raw < 0.72 and correlation(restored, clean) > 0.85


@pytest.mark.parametrize("attention", ["sublattice", "none"])
@pytest.mark.parametrize("where", [(18, 20, 22), (0, 0, 0), (35, 0, 21)])
def test_fitted_network_does_not_see_the_voxel_it_restores(noisy, attention, where):
    method = VolumeShuffle.at("smoke", steps=2, attention=attention)
    denoiser = method.fit(noisy)
    volume = Standardised.of(noisy.full)
    changed = noisy.full.copy()
    changed[where] += 5.0
    other = replace(volume, volume=changed)  # mean and deviation held fixed: those of the whole volume would tell
    before, after = (method.apply(denoiser.state, v, None, "cpu", False) for v in (volume, other))
    assert after[where] == before[where]
    assert not np.array_equal(before, after)  # its neighbours do see it


# What all methods share


def bordered(content):
    volume = np.zeros([side + 10 for side in content.shape], np.float32)
    volume[4:-6, 5:-5, 6:-4] = content
    return volume


def test_zero_borders_stay_out_of_the_statistics_and_zero(fitted):
    content = white(phantom((30, 34, 38)), 1.0).full + 100
    volume = bordered(content)
    for denoiser in (fitted, Gaussian.at("smoke").fit(Acquisition(full=volume))):
        restored = denoiser(volume)
        assert (restored[volume == 0] == 0).all() and (restored[volume != 0] != 0).all()
        assert restored[volume != 0].mean() == pytest.approx(100, rel=0.01)  # no dark rim


@pytest.mark.parametrize("slab", [1, 7, 10**6])
def test_standardised_pieces_are_those_of_the_whole(slab, monkeypatch):
    monkeypatch.setattr("cryostudy.io.checks._SLAB_VOXELS", slab * 44 * 48)
    content = white(phantom((30, 34, 38)), 1.0).full + 100
    content[12:15, 12:15, 12:15] = 0  # a bead, clipped to black, is no border
    volume = bordered(content)
    for plain, whole in ((content, Standardised.of(content)), (volume, Standardised.of(volume))):
        inside = io.valid_mask(plain)
        mean, deviation = plain[inside].mean(dtype=float), plain[inside].std(dtype=float)
        assert (whole.mean, whole.deviation) == pytest.approx((mean, deviation), rel=1e-6)
        assert whole.shape == plain.shape and (whole.bits is None) == inside.all()
        expected = np.where(inside, (plain - mean) / deviation, 0)
        everything = (slice(None),) * 3
        for where in (everything, (slice(3, 20), slice(2, 9), slice(5, 31)), (slice(9, 90), slice(0, 1), slice(7))):
            np.testing.assert_allclose(whole[where], expected[where], atol=1e-5)
            np.testing.assert_array_equal(whole.content(where), inside[where])
            assert whole[where].dtype == np.float32
        back = whole[everything]
        whole.undo(back)
        np.testing.assert_allclose(back, plain, atol=1e-4)
        assert (back[~inside] == 0).all()


def test_a_volume_constant_but_for_its_border_is_refused():
    volume = np.zeros((32, 32, 32), np.float32)
    volume[5:20, 5:20, 5:20] = 7
    for method in (SMALL, Gaussian(), Gaussian(sigma=1.0)):
        with pytest.raises(InputError, match="constant"):
            method.fit(Acquisition(full=volume))


@pytest.mark.parametrize("name", ["gaussian", "volume_shuffle"])
def test_denoiser_survives_saving_to_the_bit(name, noisy, fitted, tmp_path):
    denoiser = fitted if name == "volume_shuffle" else Gaussian.at("smoke").fit(noisy)
    path = tmp_path / "deep" / "denoiser.pt"
    denoiser.save(path)
    loaded = Denoiser.load(path)
    assert loaded.method == denoiser.method and loaded.history == denoiser.history
    np.testing.assert_array_equal(loaded(noisy.full), denoiser(noisy.full))
    assert [p.name for p in path.parent.iterdir()] == ["denoiser.pt"]


def test_foreign_files_are_no_denoisers(tmp_path, fitted):
    random, other, renamed = tmp_path / "random.pt", tmp_path / "other.pt", tmp_path / "renamed.pt"
    random.write_bytes(np.random.default_rng(0).bytes(5000))
    torch.save({"state": torch.zeros(3)}, other)
    torch.save({"method": "volume_shuffle", "parameters": {"width": 3}, "state": {}, "history": None}, renamed)
    (tmp_path / "empty.pt").touch()
    for path in (random, other, renamed, tmp_path / "empty.pt", tmp_path):
        with pytest.raises(InputError, match="not a denoiser"):
            Denoiser.load(path)
    with pytest.raises(InputError, match="no such denoiser"):
        Denoiser.load(tmp_path / "missing.pt")


@pytest.mark.parametrize("name", ["gaussian", "volume_shuffle"])
def test_memory_map_in_memory_map_out(name, noisy, fitted, tmp_path):
    denoiser = fitted if name == "volume_shuffle" else Gaussian(sigma=1.5).fit(noisy)
    io.write_volume(tmp_path / "in.mrc", noisy.full, label="noisy")
    mapped = io.read_volume(tmp_path / "in.mrc", mmap=True).data
    out = np.memmap(tmp_path / "out", np.float32, "w+", shape=noisy.full.shape)
    assert denoiser(mapped, out=out) is out
    np.testing.assert_array_equal(out, denoiser(noisy.full))


@pytest.mark.parametrize("name", list(available()))
def test_every_method_has_a_line_and_three_scales(name):
    method = available()[name]
    assert method.name == name and method.summary and "\n" not in method.summary
    for profile in PROFILES:
        assert set(method.scales) <= set(PROFILES)
        assert method.at(profile).parameters().items() >= method.scales.get(profile, {}).items()
    assert method.at("gpu") == method()  # the paper's values


@pytest.mark.parametrize(
    ("name", "wrong", "says"),
    [
        ("gaussian", {"width": 3}, "no parameter 'width'; it has sample, sigma"),
        ("gaussian", {"sigma": "wide"}, "sigma cannot be 'wide'"),
        ("gaussian", {"sigma": -1.0}, "sigma cannot be -1"),
        ("gaussian", {"sigma": float("nan")}, "sigma cannot be nan"),
        ("gaussian", {"sample": [96]}, "sample cannot be"),
        ("volume_shuffle", {"steps": 1.5}, "steps cannot be 1.5"),
        ("volume_shuffle", {"steps": True}, "steps cannot be True"),
        ("volume_shuffle", {"channels": 0}, "channels cannot be 0; it goes from 1"),
        ("volume_shuffle", {"betas": [0.5, 1.0]}, "betas cannot be 1.0"),
        ("volume_shuffle", {"weights": [1, 0, 0]}, "weights cannot be"),
        ("volume_shuffle", {"weights": 1}, "weights cannot be 1"),
        ("volume_shuffle", {"decay": 1}, "decay cannot be 1"),
        ("volume_shuffle", {"attention": "some"}, "use global, sublattice, none"),
        ("volume_shuffle", {"precision": "8"}, "use 32-true"),
        ("volume_shuffle", {"learning_rate": float("inf")}, "learning_rate cannot be inf"),
    ],
)
def test_wrong_hyper_parameters_are_one_line(name, wrong, says):
    with pytest.raises(InputError) as refusal:
        get(name).at("smoke", **wrong)
    assert says in str(refusal.value) and "\n" not in str(refusal.value)


def test_right_hyper_parameters_are_taken():
    method = VolumeShuffle.at("laptop", weights=[1, 0, 0, 0], steps=None, learning_rate=1, patience=np.int64(3))
    assert method.weights == (1, 0, 0, 0) and method.steps is None and method.patience == 3
    with pytest.raises(InputError, match="profile huge: unknown; use one of smoke, laptop, gpu"):
        VolumeShuffle.at("huge")
    with pytest.raises(InputError, match="did you mean gaussian"):
        get("gausian")
    with pytest.raises(InputError, match="use one of anisotropic_diffusion"):
        get("xyz")


@dataclass(frozen=True)
class Paired(Method):
    name: ClassVar[str] = "paired"
    needs: ClassVar[tuple[str, ...]] = ("halves",)


def test_what_a_method_needs_is_asked_for_before_it_works(noisy):
    Paired().check(noisy)
    with pytest.raises(InputError, match="paired needs halves, which lonely does not have"):
        Paired().check(Acquisition(full=noisy.full, name="lonely"))


@pytest.fixture
def new_file(tmp_path, monkeypatch):
    """A method in one new file, found because it lies where methods lie."""
    (tmp_path / "newcomer.py").write_text(
        textwrap.dedent("""
        from dataclasses import dataclass
        from typing import ClassVar

        import numpy as np
        import torch

        from cryostudy.methods.base import Denoiser, Method
        from cryostudy.methods.gaussian import Gaussian

        @dataclass(frozen=True)
        class Newcomer(Method):
            name: ClassVar[str] = "newcomer"
            summary: ClassVar[str] = "half of every grey value"
            factor: float = 0.5

            def fit(self, acquisition, *, seed=0, device="auto", folder=None, progress=None):
                return Denoiser(self, {"factor": torch.tensor(self.factor)})

            def apply(self, state, volume, out, device, progress):
                out[...] = float(state["factor"]) * volume[:, :, :]
                return out

        @dataclass(frozen=True)
        class Broad(Gaussian):
            name: ClassVar[str] = "broad"
            sigma: float | None = 3.0
        """)
    )
    before = available()
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    yield before
    sys.modules.pop("cryostudy.methods.newcomer", None)
    gc.collect()


def test_a_new_method_is_one_new_file(new_file, tmp_path, noisy, capsys):
    assert set(available()) == {*new_file, "newcomer", "broad"} and available()["broad"].sigma == 3.0
    assert available()["gaussian"] is Gaussian
    io.write_volume(tmp_path / "in.mrc", noisy.full, label="noisy")
    assert cli.main(["methods"]) == 0
    assert "newcomer             half of every grey value; needs one tomogram, seconds" in capsys.readouterr().out
    source, out = str(tmp_path / "in.mrc"), str(tmp_path / "out.mrc")
    assert cli.main(["restore", source, "--method", "newcomer", "--out", out, "-p", "factor", "0.25"]) == 0
    restored = io.read_volume(out).data
    np.testing.assert_allclose(restored - restored.mean(), 0.25 * (noisy.full - noisy.full.mean()), atol=1e-4)


# Patches

shapes = st.tuples(*[st.integers(1, 60)] * 3)


@given(shapes, st.integers(1, 70), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_patches_cover_every_voxel(shape, patch, seed):
    seen = np.zeros(shape, bool)
    corners = patch_positions(shape, patch, limit=10**9, seed=seed)
    for corner in corners:
        part = crop(seen, corner, patch)
        assert part.shape == tuple(min(side, patch) for side in shape)
        part[...] = True
    assert seen.all() and len(set(corners)) == len(corners)
    few = patch_positions(shape, patch, limit=3, seed=seed)
    assert few == corners[:3] == patch_positions(shape, patch, limit=3, seed=seed)


@given(st.tuples(*[st.integers(1, 500)] * 3), st.integers(1, 10**7))
@settings(max_examples=200, deadline=None)
def test_central_box_never_exceeds_the_limit(shape, limit):
    box = central_box(shape, limit)
    sides = [part.stop - part.start for part in box]
    assert np.prod(sides) <= limit and min(sides) >= 1
    for part, side, whole in zip(box, sides, shape, strict=True):
        assert part.start == (whole - side) // 2 and part.stop <= whole
    if np.prod(shape) <= limit:
        assert tuple(sides) == shape
    else:  # about the limit, not far below
        assert np.prod(sides) > 0.3 * limit or max(sides) <= 3
    cut = [side for side, whole in zip(sides, shape, strict=True) if side < whole]
    assert not cut or max(sides) <= max(cut) + 1  # the longest sides were cut first


@given(shapes, st.floats(0, 0.95))
@settings(max_examples=200, deadline=None)
def test_held_out_part_is_disjoint_and_both_cover(shape, share):
    seen = np.zeros(shape, int)
    training, held_out = hold_out(shape, share)
    seen[training] += 1
    if held_out is not None:
        seen[held_out] += 1
        assert min(seen[held_out].shape) >= 1 and seen[held_out].size == pytest.approx(share * seen.size, rel=0.2)
    assert (seen == 1).all()


def test_hold_out_takes_the_end_of_the_longest_axis():
    assert hold_out((40, 50, 30), 0.2) == (
        (slice(0, 40), slice(0, 40), slice(0, 30)),
        (slice(0, 40), slice(40, 50), slice(0, 30)),
    )
    assert hold_out((40, 50, 30), 0.0)[1] is None and hold_out((31, 31, 31), 0.2)[1] is None
    assert hold_out((40, 40, 40), 0.02)[1] is None  # one voxel has no gradient to check


def test_random_crops_are_the_same_place_of_every_volume():
    index = torch.arange(20 * 21 * 22).reshape(20, 21, 22)
    seen = set()
    for step in range(50):
        a, b = random_crop((index, -index), 8, np.random.default_rng(step))
        assert torch.equal(a, -b) and a.shape == (8, 8, 8) and len(a.unique()) == 512
        assert {int(abs(a[1, 0, 0] - a[0, 0, 0])), int(abs(a[0, 0, 1] - a[0, 0, 0]))} == {21 * 22, 1}
        seen.add((int(a[0, 0, 0]), int(a[1, 1, 1])))
    assert len(seen) > 45
    assert random_crop((index,), 40, np.random.default_rng(0))[0].shape == (20, 21, 22)
