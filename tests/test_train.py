"""`cryostudy train` on several tomograms: one network for all, and refusals before anything is written."""

import json

import numpy as np
import pytest

from cryostudy import cli, io
from cryostudy.data import simulated
from cryostudy.methods import Denoiser


@pytest.fixture
def run(capsys):
    def run(*words):
        code = cli.main([str(word) for word in words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two recordings as files: a_even.mrc and so on, with the angles of each."""
    folder = tmp_path_factory.mktemp("files")
    for name, seed, limit in (("a", 0, 60.0), ("b", 1, 48.0)):
        recording = simulated((32, 32, 36), "ddw", 0.5, limit, densities="built-in", seed=seed)
        for part, volume in zip(("even", "odd"), recording.halves, strict=True):
            io.write_volume(folder / f"{name}_{part}.mrc", volume, voxel_size=10.0, label="test")
        io.write_volume(folder / f"{name}.mrc", recording.full, voxel_size=10.0, label="test")
        (folder / f"{name}.tlt").write_text("".join(f"{angle}\n" for angle in recording.tilt_angles))
    return folder


QUICK = ("--profile", "smoke", "-p", "steps", "3")


def test_one_network_for_two_recordings(run, folder, tmp_path):
    out = tmp_path / "ddw.pt"
    halves = [("--" + part, folder / f"a_{part}.mrc", folder / f"b_{part}.mrc") for part in ("even", "odd")]
    angles = ("--tilt-file", folder / "a.tlt", folder / "b.tlt")
    words = ("train", "deepdewedge", "--out", out, *halves[0], *halves[1], *angles, *QUICK)
    assert run(*words) == (0, f"{out}\n", "")
    record = json.loads((tmp_path / "ddw.pt.json").read_text())
    assert len(record["data"]) == 2 and len(record["inputs"]) == 6
    restored = tmp_path / "b_restored.mrc"
    assert run("restore", folder / "b.mrc", "--denoiser", out, "--out", restored)[0] == 0
    expected = Denoiser.load(out)(io.read_volume(folder / "b.mrc").data)
    np.testing.assert_allclose(io.read_volume(restored).data, expected, atol=1e-5)


def test_tomograms_without_halves_and_one_range_for_all(run, folder, tmp_path):
    out = tmp_path / "rw.pt"
    words = ("--tomogram", folder / "a.mrc", folder / "b.mrc", "--tilt-range", -60, 60, "--filter", "ramp", *QUICK)
    code, said, notes = run("train", "recorrupted_wedge", "--out", out, *words)
    assert (code, said) == (0, f"{out}\n")
    assert "shows tilts from" in notes and "b.mrc" in notes and "a.mrc" not in notes  # b went to ±48° only


@pytest.mark.parametrize(
    ("says", "words"),
    [
        ("--even names 2 files and --odd 1", ("--even", "a_even.mrc", "b_even.mrc", "--odd", "a_odd.mrc")),
        ("tomograms or halves, not both", ("--tomogram", "a.mrc", "--even", "a_even.mrc", "--odd", "a_odd.mrc")),
        ("--tilt-file names 2 files for 1", ("--tomogram", "a.mrc", "--tilt-file", "a.tlt", "b.tlt")),
        ("leave one out", ("--tomogram", "a.mrc", "--tilt-file", "a.tlt", "--tilt-range", "-60", "60")),
        ("--noise and --level", ("--tomogram", "a.mrc", "--noise", "ddw")),
        ("deepdewedge needs halves", ("--tomogram", "a.mrc", "--tilt-file", "a.tlt")),
        ("belong to tomograms", ("--tilt-range", "-60", "60")),
    ],
)  # fmt: skip
def test_refusals(says, words, run, folder, tmp_path):
    paths = [folder / word if word.endswith((".mrc", ".tlt")) else word for word in words]
    method = "dncnn" if says == "belong to tomograms" else "deepdewedge"
    code, said, complaint = run("train", method, "--out", tmp_path / "x.pt", *paths, *QUICK)
    assert (code, said) == (2, "") and says in complaint and not list(tmp_path.iterdir())


def test_a_method_of_one_tomogram_says_so(run, folder, tmp_path):
    words = ("train", "scnet", "--out", tmp_path / "x.pt", "--tomogram", folder / "a.mrc")
    code, _, complaint = run(*words)
    assert code == 2 and "scnet does not train on several tomograms; use one of blind_wedge" in complaint
