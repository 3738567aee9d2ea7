"""`cryostudy match`: files in, particles out; wrong input is one line and exit code 2, and nothing is written."""

import json

import numpy as np
import pytest
import starfile
from scipy import ndimage
from scipy.spatial.transform import Rotation

from cryostudy import cli, io, matching
from cryostudy.errors import InputError
from cryostudy.io.star import euler_angles, rotations_of, write_particles
from cryostudy.matching import checkpoint as checkpoints
from cryostudy.matching import resampled
from cryostudy.poses import angular_error
from cryostudy.simulate.placement import place

POSE = Rotation.random(random_state=7).as_matrix()
PLACE = np.array([13.0, 16.0, 15.0])


def particle():
    found = np.zeros((11, 11, 11))
    for centre in ((2, 0, 1), (-2, 2, 0), (0, -2, 2), (1, 3, -1)):
        found[tuple(np.array(centre) + 5)] = 1
    return (ndimage.gaussian_filter(found, 0.9) / 0.04).astype(np.float32)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A tomogram of 31 x 33 x 29 voxels with one particle, the template, and more to go wrong."""
    monkeypatch.chdir(tmp_path)
    volume = place(np.pad(particle(), 10), POSE, np.zeros(3))
    volume = np.pad(volume, 1)[:31, :, :29]
    volume = np.roll(volume, (-3, 0, -1), (0, 1, 2)) + np.random.default_rng(0).normal(0, 0.1, volume.shape)
    given = {
        "tomo": volume, "template": particle(), "small": particle()[:9, :9, :9], "flat": np.ones((20, 20, 20)),
        "huge": ndimage.zoom(particle(), 4, order=1), "wide": np.pad(particle(), 12),
        "nan": np.full((11, 11, 11), np.nan), "ball": np.ones((11, 11, 11)),
    }  # fmt: skip
    given["ball"][0] = 0
    for name, data in given.items():
        io.write_volume(f"{name}.mrc", data.astype(np.float32), voxel_size=10.0, label="made for a test")
    io.write_volume("fine.mrc", resampled(particle(), 10.0, 7.0), voxel_size=7.0, label="made for a test")
    (tmp_path / "tilts.tlt").write_text("\n".join(map(str, range(-60, 61, 3))))
    return tmp_path


QUICK = ["--angles-step", "30", "--device", "cpu"]


def test_finds_the_particle_and_writes_what_it_says(files, capsys):
    assert cli.main(["match", "tomo.mrc", "template.mrc", "--out", "found", "--tilt-file", "tilts.tlt", *QUICK]) == 0
    blocks = starfile.read("found/particles.star")
    best = blocks["particles"].iloc[0]
    position = best[["rlnCoordinateZ", "rlnCoordinateY", "rlnCoordinateX"]].to_numpy(float)
    assert np.abs(position - PLACE).max() <= 1
    pose = rotations_of(best[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]].to_numpy(float)[None])[0]
    assert angular_error(pose[None], POSE[None])[0] < 30
    record = json.loads((files / "found" / "record.json").read_text())
    assert record["parameters"]["orientations"] > 500 and record["metrics"]["match"]["particles"] >= 1
    scores = io.read_volume("found/scores.mrc")
    assert scores.voxel_size == 10 and scores.data.shape == (31, 33, 29)
    assert scores.data[tuple(position.astype(int))] == pytest.approx(best["rlnAutopickFigureOfMerit"], abs=1e-5)
    table = np.genfromtxt("found/orientations.csv", delimiter=",", skip_header=1)
    index = int(io.read_volume("found/orientations.mrc").data[tuple(position.astype(int))])
    assert angular_error(rotations_of(table[index : index + 1, 1:]), pose[None])[0] < 0.01
    assert sorted(path.name for path in (files / "found").iterdir()) == [
        "noise.mrc", "orientations.csv", "orientations.mrc", "particles.star", "record.json", "scores.mrc"
    ]  # fmt: skip


def test_whitened_it_finds_the_particle_too(files):
    command = ["match", "tomo.mrc", "template.mrc", "--whiten", "--no-noise-reference", *QUICK]
    assert cli.main([*command, "--out", "found"]) == 0
    scores = io.read_volume("found/scores.mrc").data
    assert np.abs(np.array(np.unravel_index(scores.argmax(), scores.shape)) - PLACE).max() <= 1
    assert json.loads((files / "found" / "record.json").read_text())["parameters"]["whiten"] is True


def test_interrupted_it_goes_on_and_gives_the_same(files, monkeypatch, capsys):
    command = ["match", "tomo.mrc", "template.mrc", *QUICK, "--angles-step", "50", "--out"]
    assert cli.main([*command, "whole"]) == 0
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "SHARE", 1e9)
    plain = checkpoints.Checkpoint.passed

    def stops(self, unit, orientation, state):
        plain(self, unit, orientation, state)
        if unit == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints.Checkpoint, "passed", stops)
        assert cli.main([*command, "cut"]) == 130
    assert [path.name for path in (files / "cut").iterdir()] == [checkpoints.NAME]
    capsys.readouterr()
    assert cli.main([*command, "cut"]) == 0
    assert "a search was cut short in cut; if it was this one, it goes on" in capsys.readouterr().err
    for name in ("scores", "orientations", "noise"):
        assert np.array_equal(*(io.read_volume(f"{out}/{name}.mrc").data for out in ("whole", "cut")))


def test_template_is_resampled_and_inverted_on_demand(files, capsys):
    volume = io.read_volume("tomo.mrc").data
    io.write_volume("dark.mrc", 5 - volume, voxel_size=10.0, label="made for a test")
    extra = ["--resample", "--black", "--no-noise-reference"]
    assert cli.main(["match", "dark.mrc", "fine.mrc", "--out", "found", *extra, *QUICK]) == 0
    best = starfile.read("found/particles.star")["particles"].iloc[0]
    position = best[["rlnCoordinateZ", "rlnCoordinateY", "rlnCoordinateX"]].to_numpy(float)
    assert np.abs(position - PLACE).max() <= 1
    assert not (files / "found" / "noise.mrc").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["tomo.mrc", "fine.mrc"], "--resample"),
        (["tomo.mrc", "huge.mrc"], "larger"),
        (["tomo.mrc", "nan.mrc"], "NaN"),
        (["flat.mrc", "template.mrc"], "constant"),
        (["tomo.mrc", "template.mrc", "--mask", "small.mrc"], "mask of that shape"),
        (["tomo.mrc", "template.mrc", "--symmetry", "Q"], "symmetry"),
        (["tomo.mrc", "template.mrc", "--angles-step", "0"], "step"),
        (["tomo.mrc", "template.mrc", "--wedge", "some"], "--wedge"),
        (["tomo.mrc", "template.mrc", "--wedge", "both"], "tilt angles"),
        (["tomo.mrc", "template.mrc", "--tilt-file", "tilts.tlt", "--tilt-range", "-60", "60"], "leave one out"),
        (["tomo.mrc", "template.mrc", "--tilt-range", "60", "-60"], "--tilt-range"),
        (["tomo.mrc", "template.mrc", "--false-positives", "0"], "rate"),
        (["tomo.mrc", "template.mrc", "--radius", "3"], "--radius"),
        (["tomo.mrc", "template.mrc", "--radius", "500"], "more than half of tomo.mrc"),
        (["tomo.mrc", "template.mrc", "--defocus", "3"], "3 µm are 30000"),
        (["tomo.mrc", "template.mrc", "--unflipped"], "give --defocus too"),
        (["tomo.mrc", "template.mrc", "--voxel-size", "-3"], "--voxel-size -3"),
        (["series.st", "template.mrc"], "by its name a tilt stack"),
        (["tomo.mrc", "absent.mrc"], "no such file"),
        (["tomo.mrc", "template.mrc", "--out", "."], "--out"),
        (["tomo.mrc", "template.mrc", "--out", "tilts.tlt"], "not a folder"),
        (["tomo.mrc", "template.mrc", "--out", "none/found"], "does not exist"),
        (["tomo.mrc", "template.mrc", "--device", "abacus"], "--device"),
    ],
)
def test_wrong_input_is_one_line_and_nothing_is_written(files, capsys, arguments, says):
    before = sorted(files.iterdir())
    assert cli.main(["match", *arguments]) == 2
    text = capsys.readouterr().err
    assert says in text and text.count("\n") == 1
    assert sorted(files.iterdir()) == before


def test_margins_of_a_template_are_cut_and_doubts_are_notes(files, capsys):
    command = ["match", "tomo.mrc", "wide.mrc", "--no-noise-reference", *QUICK]
    assert cli.main([*command, "--symmetry", "c2", "--out", "found"]) == 0
    said = capsys.readouterr().err
    assert "wide.mrc turned by C2 correlates with itself by" in said and "no tilt angles: the whole template" in said
    notes = json.loads((files / "found" / "record.json").read_text())["notes"]
    assert len(notes) == 2 and all(note in said for note in notes)
    assert cli.main([*command, "--out", "found"]) == 0
    said, result = capsys.readouterr()[::-1]
    assert "the earlier result in found is replaced" in said and "turned by" not in said
    assert "1 particle above" in result or "particles above" in result
    best = starfile.read("found/particles.star")["particles"].iloc[0]
    assert np.abs(best[["rlnCoordinateZ", "rlnCoordinateY", "rlnCoordinateX"]].to_numpy(float) - PLACE).max() <= 1


def test_a_search_with_too_few_peaks_of_the_reference_is_not_lost(files, capsys, monkeypatch):
    plain = matching.find

    def refuses(match, *rest, **options):
        if match.noise is not None:
            raise InputError("false-positive rate: only 9 peaks in the noise reference; give a larger volume")
        return plain(match, *rest, **options)

    monkeypatch.setattr(matching, "find", refuses)
    assert cli.main(["match", "tomo.mrc", "template.mrc", "--out", "found", *QUICK]) == 0
    assert "only 9 peaks in the noise reference: the threshold knows noise only" in capsys.readouterr().err
    assert (files / "found" / "particles.star").exists()


def test_particles_survive_a_round_trip(tmp_path):
    rng = np.random.default_rng(0)
    positions, poses = rng.uniform(0, 50, (6, 3)), Rotation.random(6, random_state=1).as_matrix()
    poses[0] = np.eye(3)
    path = tmp_path / "particles.star"
    write_particles(path, positions, poses, np.arange(6.0), tomogram="t", shape=(40, 60, 80), voxel_size=8.0)
    blocks = starfile.read(path)
    rows = blocks["particles"]
    assert np.all(blocks["optics"]["rlnTomoTiltSeriesPixelSize"] == 8)
    assert np.allclose(rows[["rlnCoordinateZ", "rlnCoordinateY", "rlnCoordinateX"]], positions, atol=1e-5)
    centred = rows[[f"rlnCenteredCoordinate{a}Angst" for a in "ZYX"]]
    assert np.allclose(centred, (positions - [20, 30, 40]) * 8, atol=1e-4)
    euler = rows[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]].to_numpy()
    # the line of cryostudy.particles.read_particles, whose sense real ribosomes settled
    read = np.stack([Rotation.from_euler("ZYZ", e, degrees=True).as_matrix().T[::-1, ::-1] for e in euler])
    assert np.allclose(read, poses, atol=1e-6)
    assert np.allclose(rotations_of(euler_angles(poses)), poses)
    write_particles(path, positions[:0], poses[:0], np.zeros(0), tomogram="t", shape=(40, 60, 80), voxel_size=8.0)
    assert "rlnAngleRot" in path.read_text()
