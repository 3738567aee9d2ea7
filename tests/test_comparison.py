"""Chapters score the same recordings in the same way, and the benchmark reads what they recorded."""

import json

import numpy as np
import pytest

from cryostudy import comparison, records
from cryostudy.methods import get


@pytest.fixture(scope="module")
def recordings():
    return comparison.recordings("smoke", 0)


def test_both_recordings_show_one_specimen(recordings):
    white, projection = recordings["white"], recordings["projection"]
    np.testing.assert_array_equal(white.truth, projection.truth)
    assert white.clean.shape == projection.full.shape == (48, 48, 48)


def test_the_clean_volume_scores_perfectly_and_noise_does_not(recordings):
    acquisition = recordings["projection"]
    assert comparison.scores(acquisition.clean, acquisition)["cc"] == pytest.approx(1)
    noise = np.random.default_rng(0).standard_normal(acquisition.full.shape, dtype=np.float32)
    assert abs(comparison.scores(noise, acquisition)["cc"]) < 0.05


def test_no_other_width_beats_the_oracle(recordings):
    acquisition = recordings["projection"]
    volume, sigma = comparison.oracle_gaussian(acquisition)
    best = comparison.scores(volume, acquisition)["cc"]
    for other in (0.5 * sigma, 2 * sigma):
        changed = get("gaussian")(sigma=other).fit(acquisition)(acquisition.full)
        assert comparison.scores(changed, acquisition)["cc"] < best


def test_records_are_collected_from_the_chapter_that_speaks_for_a_method(tmp_path, monkeypatch):
    def write(folder, chapter, profile, metrics):
        folder.mkdir(exist_ok=True, parents=True)
        content = {"name": chapter, "profile": profile, "metrics": metrics}
        (folder / f"{chapter}.json").write_text(json.dumps(content))

    monkeypatch.setenv("CRYOSTUDY_RECORDS", str(tmp_path / "runs"))
    monkeypatch.setattr(comparison, "REPOSITORY", tmp_path)
    write(tmp_path / "runs", "17_recorrupted", "smoke", {"projection.recorrupted": {"cc": 0.5}, "scale_1": {"cc": 1}})
    write(tmp_path / "data" / "results", "17_recorrupted", "laptop", {"projection.recorrupted": {"cc": 0.9}})
    shuffle = {"white.volume_shuffle": {"cc": 0.8}, "white.gaussian": {"cc": 0.1}, "white.gaussian_halves": {"cc": 0.2}}
    write(tmp_path / "data" / "results", "02_volume_shuffle", "laptop", shuffle)
    write(tmp_path / "data" / "results", "10_filters", "laptop", {"white.gaussian": {"cc": 0.7}})
    found = comparison.collect("smoke")
    assert found["projection"]["recorrupted"]["cc"] == 0.5 and found["projection"]["recorrupted"]["profile"] == "smoke"
    assert found["white"] == {}  # another scale is another specimen: never mixed
    found = comparison.collect("laptop")
    assert found["projection"]["recorrupted"]["cc"] == 0.9
    assert {name: entry["cc"] for name, entry in found["white"].items()} == {"volume_shuffle": 0.8, "gaussian": 0.7}
    monkeypatch.setenv("CRYOSTUDY_RECORDS", str(tmp_path / "none"))
    assert comparison.collect("gpu")["white"]["gaussian"]["profile"] == "laptop"  # where none ran at this scale


def test_several_seeds_are_recorded_with_their_range(recordings):
    acquisition = recordings["white"]
    record = records.start("x", parameters={}, profile="smoke", seed=0, device="cpu")
    comparison.measure(record, "white.both", [acquisition.full, acquisition.clean], acquisition)
    one = comparison.scores(acquisition.full, acquisition)["cc"]
    assert record.content["metrics"]["white.both"]["cc"] == pytest.approx((1 + one) / 2)
    assert record.content["metrics"]["white.both"]["cc_range"] == pytest.approx(1 - one)
