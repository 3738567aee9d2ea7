"""The command line: odd input works, bad input is one line and exit code 2 with nothing written."""

import errno
import fcntl
import json
import logging
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import textwrap
import time
import warnings
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch
from scipy import ndimage

from cryostudy import artefacts, cli, data, dispatch, io
from cryostudy.methods import available
from cryostudy.methods.gaussian import Gaussian
from cryostudy.methods.recorrupted import Recorrupted
from cryostudy.records import package_hash

pytestmark = pytest.mark.filterwarnings("ignore:Data array contains NaN")
SHAPE = (20, 24, 26)
KEPT = "cryostudy: note: already trained, in .*out.mrc.cryostudy; remove it to train anew\n"


def phantom(shape=SHAPE, seed=0):
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), 2)
    return (smooth / smooth.std() + rng.normal(size=shape)).astype(np.float32)


def save(path, data, *, voxel_size=10.0, labels=("made for a test",), origin=(0, 0, 0)):
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(data)
        mrc.voxel_size = voxel_size
        mrc.header.origin = origin
        mrc.header.label[: len(labels)] = labels
        mrc.header.nlabl = len(labels)
    return str(path)


@pytest.fixture
def tomogram(tmp_path):
    return save(tmp_path / "tomogram.mrc", phantom())


@pytest.fixture
def run(capsys, caplog):
    """Calls the command line in this process: (exit code, stdout, stderr)."""

    def call(*words):
        capsys.readouterr()
        code = cli.main([str(word) for word in words])
        assert not [entry for entry in caplog.records if entry.levelno >= logging.WARNING]  # would go to stderr
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def restore(run, tmp_path):
    """Restores quickly into out.mrc and returns that path; has to succeed with nothing on stderr but the pattern."""

    def call(*words, out=tmp_path / "out.mrc", stderr=""):
        code, said, complaint = run("restore", *words, "--profile", "smoke", "--out", out)
        assert (code, said) == (0, f"{out}\n") and re.fullmatch(stderr, complaint), complaint
        return out

    return call


def listing(folder):
    """Every path below a folder with its content, links as links."""
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.is_file() and path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def refused(run, tmp_path):
    """One line on stderr that matches, exit code 2, and a folder that is what it was before."""

    def call(says, *words):
        before = listing(tmp_path)
        code, said, complaint = run(*words)
        assert code == 2 and said == ""
        assert complaint.startswith("cryostudy: ") and complaint.endswith("\n") and complaint.count("\n") == 1, (
            complaint
        )
        assert re.search(says, complaint), complaint
        assert listing(tmp_path) == before
        return complaint

    return call


def quick(source, *words):
    """Restores with the method that trains nothing."""
    return "restore", source, "--method", "gaussian", "--profile", "smoke", *words


# Odd input that works


@pytest.mark.parametrize("dtype", ["i1", "i2", "u2", "f2", ">i2", ">f4"])
def test_every_mode_of_voxels_is_restored_as_its_numbers(dtype, restore, tmp_path):
    values = np.clip(phantom() * 20 + 60, 1, 127).astype(dtype)
    odd, plain = save(tmp_path / "odd.mrc", values), save(tmp_path / "plain.mrc", values.astype(np.float32))
    one = io.read_volume(restore(odd, "--method", "gaussian", out=tmp_path / "a.mrc")).data
    two = io.read_volume(restore(plain, "--method", "gaussian", out=tmp_path / "b.mrc")).data
    np.testing.assert_array_equal(one, two)
    assert one.dtype == np.float32 and one.mean() == pytest.approx(60, abs=5) and one.std() < values.astype(float).std()


@pytest.mark.parametrize("method", ["gaussian", "volume_shuffle"])
def test_zero_border_is_left_out_and_stays_zero(method, restore, tmp_path):
    volume = np.zeros((28, 36, 40), np.float32)
    volume[4:-4, 6:-6, 7:-7] = phantom() + 50
    restored = io.read_volume(restore(save(tmp_path / "padded.mrc", volume), "--method", method)).data
    assert (restored[volume == 0] == 0).all()
    inside = restored[volume != 0]
    assert inside.mean() == pytest.approx(50, abs=1) and inside.min() > 40


def test_without_a_voxel_size_it_asks_and_goes_on(tomogram, restore, tmp_path):
    blank = save(tmp_path / "blank.mrc", phantom(), voxel_size=0)
    note = f"cryostudy: note: {blank} states no voxel size; give --voxel-size for lengths in Å\n"
    assert io.read_volume(restore(blank, "--method", "gaussian", stderr=note)).voxel_size == 0
    out = restore(blank, "--method", "gaussian", "--voxel-size", "7.5", out=tmp_path / "sized.mrc")
    assert io.read_volume(out).voxel_size == pytest.approx(7.5)
    out = restore(tomogram, "--method", "gaussian", "--voxel-size", "7.5", out=tmp_path / "resized.mrc")
    assert io.read_volume(out).voxel_size == pytest.approx(7.5)


@pytest.mark.parametrize("method", ["gaussian", "volume_shuffle"])
@pytest.mark.parametrize("shape", [(8, 8, 8), (9, 33, 40), (31, 27, 54)])
def test_volumes_smaller_than_a_patch_of_even_and_odd_sides(method, shape, restore, tmp_path):
    source = phantom(shape)
    restored = io.read_volume(restore(save(tmp_path / "small.mrc", source), "--method", method)).data
    assert restored.shape == shape and np.isfinite(restored).all()
    assert restored.mean() == pytest.approx(source.mean(), abs=0.5) and 0 < restored.std() < 1.2 * source.std()


def test_what_is_not_an_earlier_output_is_not_overwritten(tomogram, restore, refused, tmp_path):
    precious = save(tmp_path / "precious.mrc", phantom(seed=4))
    refused("precious.mrc: exists, and is no earlier output", *quick(tomogram, "--out", precious))
    restore(tomogram, "--method", "gaussian")
    out = restore(tomogram, "--method", "gaussian", "-p", "sigma", "2")  # its own output may be made anew
    refused("out.mrc: exists, restored by gaussian", "restore", tomogram, "--method", "lowpass", "--out", out)
    assert json.loads(Path(f"{out}.json").read_text())["parameters"]["method"] == "gaussian"


def test_geometry_of_a_tomogram_tells_recorrupted_what_its_noise_is_like(restore, refused, tmp_path):
    recording = data.simulated((32, 32, 32), "ddw", 0.5, tilt_step=4.0, densities="built-in")
    tomogram = save(tmp_path / "t.mrc", recording.full)
    angles = tmp_path / "t.tlt"
    angles.write_text("\n".join(map(str, recording.tilt_angles)))
    words = "--method", "recorrupted", "-p", "steps", "2"
    for geometry, source in (((), "background"), (("--tilt-file", angles, "--filter", "ramp"), "volume")):
        out = tmp_path / f"{source}.mrc"
        restore(tomogram, *words, *geometry, out=out)
        assert json.loads(Path(f"{out}.json").read_text())["parameters"]["source"] == source
    note = (
        "cryostudy: note: without --filter the noise is read off the quietest parts of the tomogram; give the filter "
        "of its reconstruction if you know it\n"
    )
    restore(tomogram, *words, "--tilt-file", angles, out=tmp_path / "unfiltered.mrc", stderr=note)
    refused("--filter says nothing without the tilt angles", "restore", tomogram, "--filter", "ramp")
    refused("filter 'rump' is unknown", "restore", tomogram, "--tilt-file", angles, "--filter", "rump")


@pytest.fixture
def recorded(tmp_path):
    """A tomogram and its halves, with the wedge of tilts from -60 to 60 degrees."""
    recording = data.simulated((32, 40, 40), "ddw", 0.5, densities="built-in")
    volumes = {"full": recording.full, "even": recording.halves[0], "odd": recording.halves[1]}
    return {name: save(tmp_path / f"{name}.mrc", volume, voxel_size=7.5) for name, volume in volumes.items()}


def test_a_tilt_range_serves_methods_that_fill_the_wedge(recorded, restore, refused, tmp_path):
    halves = "--even", recorded["even"], "--odd", recorded["odd"]
    quick = "--method", "deepdewedge", "-p", "steps", "2"
    out = restore(*halves, *quick, "--tilt-range", "-60", "60", "--wedge-content")
    record = json.loads(Path(f"{out}.json").read_text())
    filled = io.read_volume(tmp_path / "out_filled.mrc")
    assert record["parameters"]["tilt_range"] == [-60, 60]
    assert record["metrics"]["deepdewedge"]["filled_mean"] == pytest.approx(filled.data.mean(), abs=1e-3)
    assert filled.data.shape == (32, 40, 40) and filled.voxel_size == pytest.approx(7.5)
    assert filled.data.min() >= 0 and filled.data.max() <= 1
    again = *halves, *quick, "--tilt-range", "-60", "60", "--wedge-content"
    restore(*again, stderr=KEPT)  # its own output may be made anew
    words = "restore", recorded["full"], "--profile", "smoke", "--out", tmp_path / "new.mrc"
    (tmp_path / "t.tlt").write_text("-60\n0\n60\n")
    refused("both give the tilt angles", *words, "--tilt-range", "-60", "60", "--tilt-file", tmp_path / "t.tlt")
    for wrong in (("60", "-60"), ("-95", "60"), ("0", "0"), ("nan", "3")):
        refused("give the lowest and the highest tilt", *words, "--tilt-range", *wrong)
    refused("needs the tilt angles; give --tilt-file or --tilt-range", *words, "--wedge-content")
    refused("deepdewedge needs tilt angles", "restore", *halves, "--method", "deepdewedge")
    (tmp_path / "new_filled.mrc").touch()
    refused("new_filled.mrc: exists, and is no", *words, "--tilt-range", "-60", "60", "--wedge-content")


def test_doubts_about_halves_and_tilts_are_notes(recorded, run, tmp_path):
    out = "--method", "gaussian", "-p", "sigma", "1", "--profile", "smoke", "--out", tmp_path / "out.mrc"
    code, _, said = run("restore", recorded["full"], *out, "--tilt-range", "-40", "40")
    assert code == 0 and said.count("\n") == 1
    assert re.match(r"cryostudy: note: .*full\.mrc: its spectrum shows tilts from -6\d° to 6\d°, but", said)
    moved = save(tmp_path / "moved.mrc", np.roll(io.read_volume(recorded["odd"]).data, 3, 2), voxel_size=7.5)
    code, _, said = run("restore", "--even", recorded["even"], "--odd", moved, *out)
    assert code == 0 and said.count("\n") == 1 and "moved.mrc is shifted against" in said and "(0, 0, 3)" in said
    (note,) = json.loads((tmp_path / "out.mrc.json").read_text())["notes"]  # who reads the record is told as well
    assert note.startswith("moved.mrc is shifted against even.mrc by")


def test_spread_comes_from_seeds_and_leaves_the_output_of_the_first(tomogram, restore, refused, tmp_path):
    words = "-p", "steps", "3", "--seed", "4"
    out = restore(tomogram, *words, "--spread", "3")
    assert len(list((tmp_path / "out.mrc.cryostudy").iterdir())) == 3
    alone = [
        io.read_volume(restore(tomogram, *words[:3], "--seed", k, out=tmp_path / f"{k}.mrc")).data for k in (4, 5, 6)
    ]
    np.testing.assert_array_equal(io.read_volume(out).data, alone[0])
    found = io.read_volume(tmp_path / "out_spread.mrc")
    expected = np.std([volume - volume.mean() for volume in alone], 0, ddof=1)
    np.testing.assert_allclose(found.data, expected, atol=1e-4)
    assert found.voxel_size == pytest.approx(10) and found.data.max() > 0
    packed = restore(tomogram, *words, "--spread", "3", out=tmp_path / "out.mrc.gz")
    np.testing.assert_array_equal(io.read_volume(tmp_path / "out_spread.mrc.gz").data, found.data)
    refused("--spread 1: give 2 seeds or more", "restore", tomogram, "--spread", "1", "--out", packed)


def test_a_tilt_stack_is_not_taken_for_a_tomogram(refused, tmp_path):
    refused("by its name a tilt stack; give it as --tilt-series", *quick(save(tmp_path / "series.st", phantom())))


def test_halves_are_restored_as_their_mean(restore, tmp_path):
    even, odd = phantom(seed=1), phantom(seed=2)
    sources = "--even", save(tmp_path / "even.mrc", even), "--odd", save(tmp_path / "odd.mrc", odd)
    words = "--method", "gaussian", "-p", "sigma", "1.5"
    halves = restore(*sources, *words, out=tmp_path / "a.mrc", stderr=".*agree nowhere beyond chance.*\n")
    mean = save(tmp_path / "mean.mrc", (even + odd) / 2)
    np.testing.assert_array_equal(
        io.read_volume(halves).data,
        io.read_volume(restore(mean, "--method", "gaussian", "-p", "sigma", "1.5", out=tmp_path / "b.mrc")).data,
    )
    assert set(json.loads((tmp_path / "a.mrc.json").read_text())["inputs"]) == {"even.mrc", "odd.mrc"}


def test_output_keeps_voxel_size_origin_and_labels_and_adds_one(restore, tmp_path):
    source = save(tmp_path / "in.mrc", phantom(), voxel_size=12.6, labels=("first", "second"), origin=(10, -20, 30))
    out = restore(source, "--seed", "3")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert mrcfile.validate(out)
        with mrcfile.open(out) as mrc:
            assert mrc.voxel_size.tolist() == pytest.approx((12.6,) * 3)
            assert mrc.header.origin.tolist() == (10, -20, 30)
            assert mrc.get_labels() == ["first", "second", "cryostudy recorrupted smoke seed 3"]
            assert mrc.data.dtype == np.float32 and mrc.data.shape == SHAPE


def test_restored_volume_comes_with_its_record_and_denoiser(tomogram, restore, tmp_path):
    out = restore(tomogram, "-p", "steps", "3", "-p", "betas", "[0.6, 0.99]")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "out.mrc",
        "out.mrc.cryostudy",
        "out.mrc.json",
        "tomogram.mrc",
    ]
    record = json.loads((tmp_path / "out.mrc.json").read_text())
    assert record["parameters"]["method"] == "recorrupted" and record["parameters"]["betas"] == [0.6, 0.99]
    assert record["profile"] == "smoke" and record["package_sha256"] == package_hash()
    assert record["metrics"]["recorrupted"]["steps"] == 3 and list(record["inputs"]) == ["tomogram.mrc"]
    assert str(tmp_path) not in (tmp_path / "out.mrc.json").read_text()
    first = out.read_bytes()
    restore(tomogram, "-p", "steps", "3", "-p", "betas", "[0.6, 0.99]", stderr=KEPT)
    assert out.read_bytes() == first and len(list((tmp_path / "out.mrc.cryostudy").iterdir())) == 1


def test_default_output_lies_beside_the_input(tomogram, run, tmp_path):
    code, said, _ = run(*quick(tomogram))
    assert code == 0 and said == f"{tmp_path / 'tomogram_gaussian.mrc'}\n"


@pytest.mark.parametrize("suffix", [".mrc.gz", ".rec.bz2"])
def test_compressed_output(suffix, tomogram, restore, tmp_path):
    packed = restore(tomogram, "--method", "gaussian", out=tmp_path / f"out{suffix}")
    plain = restore(tomogram, "--method", "gaussian")
    np.testing.assert_array_equal(io.read_volume(packed).data, io.read_volume(plain).data)


# Bad input that is refused


def test_nan_and_infinite_voxels(refused, tmp_path):
    volume = phantom()
    volume[3, 4, 5] = np.nan
    refused(
        r"1 voxel is NaN or infinite, the first at \(z, y, x\) = \(3, 4, 5\)", *quick(save(tmp_path / "a.mrc", volume))
    )
    volume[2, 9, 1] = volume[9, 9, 9] = np.inf
    for method in ("gaussian", "volume_shuffle"):
        source = save(tmp_path / "b.mrc", volume)
        refused(
            r"b\.mrc: 3 voxels are NaN or infinite, the first at .* \(2, 9, 1\)", "restore", source, "--method", method
        )
    good = save(tmp_path / "good.mrc", phantom())
    refused("b.mrc: 3 voxels", "restore", "--even", good, "--odd", source, "--method", "gaussian")


def test_constant_volumes(refused, tmp_path):
    refused("constant, every voxel is 3", *quick(save(tmp_path / "a.mrc", np.full(SHAPE, 3, np.float32))))
    bordered = np.zeros(SHAPE, np.float32)
    bordered[4:-4, 5:-5, 6:-6] = 3
    for method in ("gaussian", "volume_shuffle"):
        refused("constant", "restore", save(tmp_path / "b.mrc", bordered), "--method", method, "--profile", "smoke")
    refused("constant", *quick(tmp_path / "b.mrc", "-p", "sigma", "2"))


def test_files_of_another_kind(refused, tmp_path):
    refused("a single 2-D image", *quick(save(tmp_path / "flat.mrc", phantom()[0])))
    refused("complex data", *quick(save(tmp_path / "complex.mrc", phantom().astype(np.complex64))))
    refused("too small", *quick(save(tmp_path / "thin.mrc", phantom((4, 30, 30)))))
    whole = Path(save(tmp_path / "whole.mrc", phantom())).read_bytes()
    for name, content, says in (
        ("cut.mrc", whole[:5000], "truncated"),
        ("stub.mrc", whole[:100], "too short for an MRC file"),
        ("empty.mrc", b"", "the file is empty"),
        ("text.mrc", b"no tomogram at all\n" * 100, "not an MRC file"),
        ("noise.mrc", np.random.default_rng(0).bytes(5000), "not an MRC file"),
    ):
        (tmp_path / name).write_bytes(content)
        refused(f"{name}: .*{says}", *quick(tmp_path / name))
    refused("missing.mrc: no such file", *quick(tmp_path / "missing.mrc"))
    refused("nowhere/a.mrc: no such file", *quick(tmp_path / "nowhere" / "a.mrc"))
    refused("not a file", *quick(tmp_path))


def test_halves_that_do_not_belong_together(refused, tmp_path):
    one, other = save(tmp_path / "even.mrc", phantom()), save(tmp_path / "odd.mrc", phantom((20, 24, 28)))
    refused(r"odd\.mrc: shape \(20, 24, 28\), but", "restore", "--even", one, "--odd", other)
    refused("identical", "restore", "--even", one, "--odd", one)
    refused("the other half-tomogram is missing; give --odd too", "restore", "--even", one)
    refused("no input", "restore", "--odd", one)
    refused("no input: give a tomogram, or", "restore")


@pytest.fixture
def stack(tmp_path):
    """A tilt series of 11 images, its angles, and wrong ones."""
    images = np.random.default_rng(0).normal(size=(11, 24, 26)).astype(np.float32)
    (tmp_path / "good.tlt").write_text("".join(f"{angle}\n" for angle in range(-50, 51, 10)))
    (tmp_path / "short.tlt").write_text("-10\n0\n10\n")
    (tmp_path / "words.tlt").write_text("minus ten\n")
    return "--tilt-series", save(tmp_path / "stack.st", images), "--thickness", "20"


def test_angles_that_do_not_fit_the_stack(stack, refused, tmp_path):
    words = "restore", *stack, "--method", "gaussian", "--tilt-file"
    refused(r"short\.tlt: 3 tilt angles, but the stack has 11 images", *words, tmp_path / "short.tlt")
    refused(r"words\.tlt, line 1: 'minus ten' is not a tilt angle", *words, tmp_path / "words.tlt")
    refused(r"missing\.tlt: no such file", *words, tmp_path / "missing.tlt")
    refused("needs --tilt-file and --thickness", "restore", *stack)
    refused("needs --tilt-file and --thickness", "restore", *stack[:2], "--tilt-file", tmp_path / "good.tlt")
    good = *words, tmp_path / "good.tlt"
    refused("at least 8 voxels", *good, "--thickness", "2")
    refused("give a tilt series or tomograms, not both", *good, save(tmp_path / "a.mrc", phantom()))
    refused("--thickness is that of", "restore", tmp_path / "a.mrc", "--thickness", "20")


def test_a_tilt_series_is_reconstructed_and_restored(stack, restore, tmp_path):
    out = restore(*stack, "--tilt-file", tmp_path / "good.tlt")
    assert io.read_volume(out).data.shape == (20, 24, 26) and io.read_volume(out).voxel_size == pytest.approx(10)
    assert set(json.loads((tmp_path / "out.mrc.json").read_text())["inputs"]) == {"stack.st", "good.tlt"}


def test_outputs_that_would_do_harm_or_cannot_be_written(tomogram, refused, tmp_path, monkeypatch):
    (tmp_path / "link.mrc").symlink_to(tomogram)
    (tmp_path / "hard.mrc").hardlink_to(tomogram)
    (tmp_path / "folder.mrc").mkdir()
    (tmp_path / "taken.mrc.cryostudy").touch()
    for name in ("tomogram.mrc", "link.mrc", "hard.mrc"):
        refused("the output is the input", *quick(tomogram, "--out", tmp_path / name))
    refused("the output is the input", *quick(tmp_path / "link.mrc", "--out", tomogram))
    half = save(tmp_path / "half.mrc", phantom(seed=1))
    refused("the output is the input", "restore", "--even", tomogram, "--odd", half, "--out", half)
    refused("does not exist", *quick(tomogram, "--out", tmp_path / "nowhere" / "out.mrc"))
    refused("is a folder", *quick(tomogram, "--out", tmp_path / "folder.mrc"))
    refused("unknown output format", *quick(tomogram, "--out", tmp_path / "out.tif"))
    refused("choose another --out", *quick(tomogram, "--out", tmp_path / "taken.mrc"))
    monkeypatch.setattr(os, "access", lambda path, mode, **_: not mode & os.W_OK)
    refused("is not writable", *quick(tomogram, "--out", tmp_path / "out.mrc"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--method", "gausian"], "method gausian: unknown; did you mean gaussian"),
        (["--method", "magic"], "method magic: unknown; use one of anisotropic_diffusion, bilateral"),
        (["--profile", "huge"], "profile huge: unknown; use one of smoke, laptop, gpu"),
        (["-p", "sigma", "2"], "recorrupted has no parameter 'sigma'; it has patch, batch"),
        (["-p", "steps", "many"], "steps cannot be 'many'"),
        (["-p", "steps", "0"], "steps cannot be 0"),
        (["-p", "weights", "[1, 2"], "parameter value .* is not readable"),
        (
            ["-p", "steps=5"],
            "expected 2 arguments, a name and a value, as in -p steps 400; see cryostudy restore --help",
        ),
        (["--seed", "-1"], "--seed -1: give a whole number from 0 on"),
        (["--seed", "one"], "--seed: invalid int value: 'one'"),
        (["--device", "abacus"], "--device abacus: unknown; use auto, cpu or cuda"),
        (["--voxel-size", "-2"], "give a positive size"),
        (["--voxel-size", "nan"], "give a positive size"),
        (["--colour", "red"], "unrecognized arguments: --colour red"),
    ],
)
def test_words_that_mean_nothing(words, says, tomogram, refused):
    refused(says, "restore", tomogram, *words)


def test_commands_that_mean_nothing(refused):
    refused("invalid choice: 'restor'", "restor")
    refused("arguments are required: COMMAND; see cryostudy --help")
    refused("data set 'moon' is unknown; known are", "fetch", "moon")
    refused("method nope: unknown", "methods", "nope")


def test_divergence_is_one_line(tomogram, run, tmp_path, monkeypatch):
    monkeypatch.setattr("cryostudy.methods.recorrupted.Recorrupted.loss", lambda *_: {"total": torch.tensor(torch.nan)})
    code, said, complaint = run("restore", tomogram, "--profile", "smoke", "--out", tmp_path / "out.mrc")
    assert code == 2 and said == "" and complaint.count("\n") == 1
    assert "training stopped at step 0: the loss is nan" in complaint and "Lower the learning rate" in complaint
    assert not (tmp_path / "out.mrc").exists()


def test_refusals_are_alone_on_stderr_in_a_process_of_its_own(tmp_path):
    """Nothing that is imported on the way says a word."""
    volume = phantom()
    volume[3, 4, 5] = np.nan
    source = save(tmp_path / "in.mrc", volume)
    before = listing(tmp_path)
    words = [sys.executable, "-m", "cryostudy.cli", "restore", source, "--profile", "smoke"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    expected = (
        f"cryostudy: {source}: 1 voxel is NaN or infinite, the first at (z, y, x) = (3, 4, 5); repair or crop it\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)
    assert listing(tmp_path) == before


# A full disk


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def fits(monkeypatch):
    """How often a method was fitted."""
    calls = []
    for method in (Gaussian, Recorrupted):
        fit = method.fit

        def counted(self, *arguments, _fit=fit, **options):
            calls.append(self.name)
            return _fit(self, *arguments, **options)

        monkeypatch.setattr(method, "fit", counted)
    return calls


@pytest.mark.parametrize("name", ["out.mrc", "out.mrc.gz"])
def test_free_space_is_asked_for_before_training(name, tomogram, refused, fits, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=4 * np.prod(SHAPE))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    refused(f"{name}: disk full; free 1.1 MB there", "restore", tomogram, "--out", tmp_path / name)
    assert fits == []


@pytest.mark.parametrize(
    ("name", "function"), [("out.mrc", "posix_fallocate"), ("out.mrc", "fsync"), ("out.mrc.gz", "fsync")]
)
def test_a_disk_that_fills_while_writing_costs_no_second_training(
    name, function, tomogram, run, fits, restore, tmp_path, monkeypatch
):
    out = tmp_path / name
    words = "restore", tomogram, "--profile", "smoke", "-p", "steps", "3", "--out", out
    with monkeypatch.context() as patch:
        patch.setattr(os, function, full)
        code, said, complaint = run(*words)
    assert code == 2 and said == "" and complaint.startswith(f"cryostudy: {out}: disk full; free ")
    assert complaint.count("\n") == 1
    assert {p.name for p in tmp_path.iterdir()} == {"tomogram.mrc", f"{name}.cryostudy"}
    assert run(*words)[0] == 0 and fits == ["recorrupted"]
    undisturbed = tmp_path / "elsewhere"
    undisturbed.mkdir()
    expected = restore(tomogram, "-p", "steps", "3", out=undisturbed / name)
    assert out.read_bytes() == expected.read_bytes() and len(fits) == 2


def test_no_room_for_the_denoiser(tomogram, run, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "save", full)
    code, said, complaint = run(*quick(tomogram, "--out", tmp_path / "out.mrc"))
    assert code == 2 and said == ""
    assert re.fullmatch(r"cryostudy: .*/denoiser.pt: disk full; free space or choose another folder\n", complaint)
    assert not (tmp_path / "out.mrc").exists() and not list(tmp_path.rglob("*.pt"))


# A killed training


def test_a_killed_training_goes_on_and_ends_as_if_undisturbed(tomogram, restore, tmp_path, monkeypatch):
    out, words = tmp_path / "out.mrc", ("-p", "steps", "60", "-p", "patience", "null")
    script = textwrap.dedent("""
        import sys, time
        import cryostudy.methods.learned as method
        import cryostudy.training
        from cryostudy.cli import main
        cryostudy.training.CHECKPOINT_SECONDS = 0.0
        crop = method.random_crop
        def slow(*arguments, **options):
            time.sleep(0.1)
            return crop(*arguments, **options)
        method.random_crop = slow
        main(sys.argv[1:])
    """)
    call = ["restore", tomogram, *words, "--profile", "smoke", "--out", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    child = subprocess.Popen([sys.executable, "-c", script, *call], env=environment)
    until = time.monotonic() + 120
    while not (log := list(tmp_path.glob("out.mrc.cryostudy/*/log.csv"))) or len(log[0].read_text().splitlines()) < 6:
        assert time.monotonic() < until and child.poll() is None
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not out.exists()
    place = log[0].parent
    done = torch.load(place / "checkpoint.pt", weights_only=True)["history"]["step"]
    assert 5 <= done < 60

    import cryostudy.methods.learned as module

    drawn, crop = [], module.random_crop
    monkeypatch.setattr(module, "random_crop", lambda *a, **b: drawn.append(1) or crop(*a, **b))
    assert restore(tomogram, *words, stderr=".*training goes on from the checkpoint in .*\n") == out
    assert len(drawn) == 60 - done  # what was done was not done again
    steps = [int(line.split(",")[0]) for line in (place / "log.csv").read_text().splitlines()[1:]]
    assert steps == list(range(1, 61)) and not (place / "checkpoint.pt").exists()
    (tmp_path / "elsewhere").mkdir()
    undisturbed = restore(tomogram, *words, out=tmp_path / "elsewhere" / "out.mrc")
    assert out.read_bytes() == undisturbed.read_bytes() and len(drawn) == 120 - done


def test_ctrl_c_says_how_to_go_on(tomogram, run, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(artefacts, "fitted_at", stop)
    code, _, complaint = run("restore", tomogram, "--out", tmp_path / "out.mrc")
    assert code == 130 and complaint == (
        "cryostudy: stopped; the same command goes on from the last checkpoint, where there is one\n"
    )


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (MemoryError(), "out of memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore"), "out of memory"),
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), "a/b: Permission denied; check its permissions"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "a/b"), "a/b: disk full"),
    ],
)
def test_what_the_machine_refuses_is_one_line(error, says, tomogram, refused, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(artefacts, "fitted_at", fail)
    refused(says, "restore", tomogram)


def test_a_defect_of_ours_is_not_hidden(tomogram, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(artefacts, "fitted_at", fail)
    with pytest.raises(RuntimeError, match="shapes differ"):
        cli.main(["restore", tomogram])


# The other commands


def test_methods_are_listed_with_their_needs(run):
    code, said, complaint = run("methods")
    assert code == 0 and complaint == ""
    assert "gaussian" in [line.split()[0] for line in said.splitlines()] and "; needs one tomogram" in said
    code, said, _ = run("methods", "volume_shuffle")
    lines = said.splitlines()
    assert "[Liu et al. 2025" in lines[0] or "needs one tomogram" in lines[0]
    header, *rows = lines[next(k for k, line in enumerate(lines) if line.startswith("parameter ")) :]
    assert code == 0 and header.split() == ["parameter", "smoke", "laptop", "gpu"]
    assert next(row.split() for row in rows if row.startswith("patch "))[1:] == ["27", "54", "108"]
    said = run("methods", "deepdewedge")[1]
    assert "`update_every`" in said and "`channels`" in said and "one of unet, msdnet, scunet, swinunetr" in said


def test_data_sets_are_listed(run):
    code, said, _ = run("fetch")
    names = [line.split()[0] for line in said.splitlines()]
    assert code == 0 and "MB)" in said and "ribosomes" in names and "ribosome-average" not in names


def test_methods_are_described_for_who_uses_them(capsys):
    for name, method in available().items():
        assert cli.main(["methods", name]) == 0
        about, _, table = capsys.readouterr().out.partition("\nparameter ")
        assert method.summary in about
        assert not re.search(r"subclass|:\w+:`|^`(halo|tile|keep_last|scales)`", about, re.MULTILINE)
        rows = {line.split()[0] for line in table.splitlines()[1:]}
        assert rows == set(method().parameters())
        unnamed = {row for row in rows if not re.search(rf"`[^`]*\b{row}\b", about) and not row.startswith("noise_")}
        assert not unnamed, f"{name}: {unnamed}"
    text = (
        "One. A subclass does it. `tile` is fixed.\n\n`width`: of :class:`~cryostudy.models.UNet`.\n\n.. math:: x\n y"
    )
    more = "Two.\n\n`width`: as before. `depth`: too."
    said = list(dispatch.manual([text, more], ["width", "depth"]))
    assert said == ["One.", "`width`: of models.UNet.", "    x\n     y", "Two.", "`depth`: too."]


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("0.5", 0.5), (".5", 0.5), ("2e-4", 2e-4), ("-1E3", -1000.0), ("[1, 2e-4]", [1, 2e-4]), ("true", True),
     ("null", None), ("text", "text"), ("1e", "1e"), ("tilt.tlt:256", "tilt.tlt:256"), ("a b", "a b")],
)  # fmt: skip
def test_parameter_values_are_read_as_yaml(text, value):
    assert dispatch.value(text) == value and type(dispatch.value(text)) is type(value)


def simulate(run, out, *words):
    return run("simulate", "--out", out, "--densities", "built-in", "--shape", 24, 32, 32, *words)


@pytest.mark.parametrize("noise", ["ddw", "white"])
def test_simulated_files_are_what_they_say_and_can_be_restored(noise, run, restore, tmp_path):
    folder = tmp_path / "simulated"
    folder.mkdir()
    code, said, complaint = simulate(run, folder, "--noise", noise, "--tilt-step", "7.5", "--seed", "2")
    assert code == 0 and complaint == "" and said.startswith(f"{folder}: simulated specimen of 24 x 32 x 32 voxels")
    volumes = {"full", "even", "odd", "truth", "clean", "labels", "membrane"}
    files = {f"{name}.mrc" for name in volumes} | {"tilt_angles.tlt", "particles.json", "record.json"}
    files |= {"tilt_series.st"} if noise == "ddw" else set()
    assert {p.name for p in folder.iterdir()} == files
    found = {name: io.read_volume(folder / f"{name}.mrc") for name in volumes}
    for volume in found.values():
        assert volume.data.shape == (24, 32, 32) and volume.voxel_size == pytest.approx(10)
    assert np.corrcoef(found["clean"].data.ravel(), found["truth"].data.ravel())[0, 1] > 0.5
    truth = json.loads((folder / "particles.json").read_text())
    classes, labels = truth["classes"], found["labels"].data
    assert set(np.unique(labels)) <= set(range(len(classes))) and classes[0] == "background"
    assert np.array_equal(labels == classes.index("membrane"), found["membrane"].data == 1)
    for particle in truth["particles"]:
        assert all(0 <= p < side for p, side in zip(particle["position"], (24, 32, 32), strict=True))
        assert np.linalg.det(particle["rotation"]) == pytest.approx(1) and particle["name"] in classes
    assert len({p["name"] for p in truth["particles"]}) == len(
        set(np.unique(labels)) - {0, classes.index("membrane"), classes.index("fiducial")}
    )
    record = json.loads((folder / "record.json").read_text())
    assert record["seed"] == 2 and record["parameters"]["noise"] == noise and record["profile"] == "-"
    assert str(tmp_path) not in (folder / "record.json").read_text()
    angles = io.read_tilt_angles(folder / "tilt_angles.tlt")
    assert angles == pytest.approx(np.arange(-60, 61, 7.5))

    inputs = [[folder / "full.mrc"], ["--even", folder / "even.mrc", "--odd", folder / "odd.mrc"]]
    if noise == "ddw":
        series = "--tilt-series", folder / "tilt_series.st", "--tilt-file", folder / "tilt_angles.tlt"
        inputs.append([*series, "--thickness", 24])
    for k, words in enumerate(inputs):
        restored = io.read_volume(restore(*words, out=tmp_path / f"{k}.mrc"))
        assert restored.data.shape == (24, 32, 32) and restored.voxel_size == pytest.approx(10)


def test_simulate_repeats_itself(run, tmp_path):
    for name in "ab":
        assert simulate(run, tmp_path / name, "--seed", "4")[0] == 0
    assert simulate(run, tmp_path / "c", "--seed", "5")[0] == 0
    a, b, c = (listing(tmp_path / name) for name in "abc")
    for content in (a, b, c):
        del content["record.json"]  # it holds the time
    assert a == b and a["full.mrc"] != c["full.mrc"]


def test_simulate_refuses_and_leaves_nothing(run, refused, tmp_path, monkeypatch):
    def words(*more, out="out"):
        return "simulate", "--out", tmp_path / out, "--densities", "built-in", "--shape", 24, 24, 24, *more

    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").touch()
    (tmp_path / "file").touch()
    refused("not an empty folder", *words(out="taken"))
    refused("not an empty folder", *words(out="file"))
    refused("does not exist or is not writable", *words(out="nowhere/out"))
    refused("noise 'loud' is unknown; choose one of ddw", *words("--noise", "loud"))
    refused("noise level -1: give a positive number", *words("--level", "-1"))
    refused("'boxcar' is unknown", *words("--filter", "boxcar"))
    refused("densities 'gold' is unknown", *words("--densities", "gold"))
    refused("tilt range", *words("--tilt-range", "95"))
    refused("--seed -3", *words("--seed", "-3"))
    refused("at least 16 voxels", "simulate", "--out", tmp_path / "out", "--shape", 4, 4, 4)
    refused("invalid int value: 'x'", "simulate", "--out", tmp_path / "out", "--shape", "x", 4, 4)
    refused("required: --out", "simulate")
    monkeypatch.setattr(os, "fsync", full)
    refused("disk full", *words())


# What a terminal shows


def test_a_terminal_sees_progress(tmp_path):
    """A log sees none: every other test here asks for a silent stderr."""
    source = save(tmp_path / "in.mrc", phantom())
    words = [sys.executable, "-m", "cryostudy.cli", "restore", source, "--profile", "smoke"]
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    child = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 1 << 16)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    assert child.wait() == 0
    for text in (b"start", b"read", b"train: 100%", b"loss=", b"restore: 100%"):
        assert text in shown, shown


def test_a_reader_who_has_seen_enough_is_no_error(monkeypatch):
    ours, theirs = os.pipe()
    os.close(ours)
    with open(theirs, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        assert cli.main(["methods"]) == 0
        print("what is still to come goes nowhere", flush=True)
