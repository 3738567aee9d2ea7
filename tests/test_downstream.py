"""Picking, poses, membranes and SNR as chapters 30 to 39 score them: known answers on small specimens."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryostudy import cli, data, downstream, paired, records, verdict
from cryostudy.errors import InputError
from cryostudy.matching import Found, Match
from cryostudy.simulate import make_specimen


@pytest.fixture(scope="module")
def specimen():
    return make_specimen((64, 64, 64), densities="built-in", occupancy=0.1, seed=1)


@pytest.fixture(scope="module")
def recording(specimen):
    return data.simulated((64, 64, 64), "ddw", 2.0, seed=1, specimen=specimen)


def test_species_are_the_largest_that_are_there(specimen):
    names = downstream.species(specimen, 3)
    sizes = [(specimen.densities.maps[name] > 0.1).sum() for name in names]
    assert sizes == sorted(sizes, reverse=True) and set(names) <= {p.name for p in specimen.particles}
    left = {p.name for p in specimen.particles} - set(names)
    assert all((specimen.densities.maps[name] > 0.1).sum() <= sizes[-1] for name in left)


@given(st.sampled_from([2, 3]), st.tuples(*[st.integers(-4, 4)] * 3), st.integers(24, 30))
def test_binned_samples_every_other_voxel_of_a_smooth_volume(factor, frequency, side):
    side -= side % factor
    z, y, x = np.meshgrid(*(np.arange(side) / side,) * 3, indexing="ij")
    wave = np.cos(2 * np.pi * (frequency[0] * z + frequency[1] * y + frequency[2] * x) + 0.3).astype(np.float32)
    cut = wave[::factor, ::factor, ::factor]
    if 2 * max(map(abs, frequency)) < side // factor:  # below the new Nyquist frequency
        np.testing.assert_allclose(downstream.binned(wave, factor), cut, atol=1e-5)


def planted(specimen, name, factor, height):
    """A search whose score map holds nothing but the true particles of a species, each with its own orientation."""
    true = [p for p in specimen.particles if p.name == name]
    shape = tuple(n // factor for n in specimen.density.shape)
    scores, index = np.zeros(shape, np.float32), np.zeros(shape, np.int32)
    for k, p in enumerate(true):
        at = tuple(np.round(np.array(p.position) / factor).astype(int).clip(0, np.array(shape) - 1))
        scores[at], index[at] = height + 0.01 * k, k
    turns = np.array([p.rotation for p in true])
    return Match(scores, index, turns, None, 0.1)


@pytest.mark.parametrize("factor", [1, 2])
def test_peaks_on_the_true_particles_are_perfect_picking(specimen, factor):
    name = downstream.species(specimen)[0]
    match = planted(specimen, name, factor, 0.5)
    found = downstream.judged(downstream.picked(match, specimen, name, factor), specimen, name)
    assert found.average_precision == 1 and found.oracle().f1 == 1
    assert found.oracle().angle < 1e-3 and found.oracle().distance <= factor * specimen.voxel_size


def test_rescoring_takes_the_other_searchs_score_nearby_and_leaves_the_rest():
    scores = np.zeros((8, 8, 8), np.float32)
    scores[3, 4, 5] = 0.7
    raw = Match(scores, np.zeros(scores.shape, np.int32), np.eye(3)[None], None, 0.1)
    found = Found(np.array([[8.0, 8, 10], [0, 0, 0]]), np.stack([np.eye(3)] * 2), np.array([0.1, 0.9]), 0.0)
    again = downstream.rescored(found, raw, 2)
    np.testing.assert_allclose(again.scores, [0.7, 0], atol=1e-6)
    np.testing.assert_array_equal(again.positions, found.positions)


def test_alignment_brings_poses_back_in_the_truth_and_not_in_noise(recording, specimen):
    name = downstream.species(specimen)[0]
    good = downstream.aligned(specimen.density, recording, name, filled=True)
    noise = np.random.default_rng(0).standard_normal(specimen.density.shape).astype(np.float32)
    bad = downstream.aligned(noise, recording, name)
    assert good["angle"] < 3 and good["shift"] < 0.5 * specimen.voxel_size
    assert bad["angle"] > 2 * good["angle"] and bad["average_fsc"] >= good["average_fsc"]
    assert good["particles"] == sum(p.name == name for p in specimen.particles)


def test_regions_hold_particles_and_ice(specimen):
    signal, background = downstream.regions(specimen, 4, seed=3)
    assert len(signal) == len(background) > 3
    assert all(specimen.labels[box].size == 64 for box in signal + background)
    assert all((specimen.labels[box] > 0).any() for box in signal)
    assert not any((specimen.labels[box] > 0).any() for box in background)
    with pytest.raises(InputError, match="no box of 60 voxels holds ice alone; give a smaller side"):
        downstream.regions(specimen, 60)


def test_a_specimen_without_membranes_has_no_score_of_them():
    bare = make_specimen((32, 32, 32), densities="built-in", sheets=0, vesicles=0, fiducials=0, seed=0)
    assert downstream.membranes(bare.density, bare) == {}


def test_chapters_find_what_the_method_chapters_trained():
    """The same settings as in the chapters' own cells: another value here would train again."""
    methods = downstream.methods("laptop")
    sources = {
        number: "".join("".join(cell["source"]) for cell in json.loads(path.read_text())["cells"])
        for number in (17, 21)
        for path in (records.REPOSITORY / "notebooks").glob(f"{number}_*.ipynb")
    }
    assert f'{{"laptop": {{"steps": {methods["deepdewedge"].steps}}}}}' in sources[21]
    assert methods["recorrupted_wedge"].steps == methods["deepdewedge"].steps
    assert f'source = "{methods["recorrupted"].source}"' in sources[17]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:using built-in particles")
def test_the_grid_scores_goes_on_and_is_summed_up(tmp_path, monkeypatch):
    monkeypatch.setenv("CRYOSTUDY_BUILD", str(tmp_path))
    monkeypatch.delenv("CRYOSTUDY_RECORDS", raising=False)
    monkeypatch.setattr(downstream, "LARGEST", 1)
    (path,) = verdict.run("smoke", ["recorrupted_wedge"], seeds=[1], progress=False)
    record = json.loads(path.read_text())
    assert path.name == "downstream-1.json" and record["seed"] == 1
    assert list(record["metrics"]) == [*verdict.BASELINES, "recorrupted_wedge"]
    for name, found in record["metrics"].items():
        assert (
            0 <= found["ap"] <= 1
            and 0 <= found["ap_rescored"] <= 1
            and ("ap_wedged" in found) == (name in downstream.FILLED)
        )
    raw = record["metrics"]["noisy"]
    assert raw["ap_rescored"] == pytest.approx(raw["ap"], abs=0.35)  # its own scores, but the best within a voxel
    monkeypatch.setattr(verdict, "scores", lambda *_, **__: pytest.fail("run again"))
    verdict.run("smoke", ["recorrupted_wedge"], seeds=[1], progress=False)
    found = verdict.collect("smoke")
    assert verdict.summary(found, "ap")["noisy"] == (raw["ap"],) * 3
    assert verdict.summary(found, "ap_wedged").keys() == {"recorrupted_wedge"}


def test_wrong_names_are_refused(capsys):
    with pytest.raises(InputError, match=f"--seed 9: this grid has seeds 0 to {paired.SEEDS - 1}"):
        verdict.run("smoke", seeds=[9])
    for words, said in (
        (["--paired", "--downstream"], "different grids; leave all but one out"),
        (["--downstream", "--condition", "paired-4"], "the downstream grid has one"),
    ):
        assert cli.main(["grid", "--profile", "smoke", *words]) == 2
        assert said in capsys.readouterr().err
