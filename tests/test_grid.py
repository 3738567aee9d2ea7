"""The papers' tables as a grid of conditions; on noise alone no method may find anything."""

import json

import numpy as np
import pytest

from cryostudy import ablation, cli, data, grid, paired, records, verdict
from cryostudy.errors import CryostudyError
from cryostudy.methods import available, get
from cryostudy.metrics import fsc, likeness
from cryostudy.tomography import reconstruct


@pytest.fixture(scope="module")
def recording():
    return grid.acquisition(grid.Condition("built-in"), "smoke")


@pytest.fixture(autouse=True)
def build(tmp_path, monkeypatch):
    monkeypatch.setenv("CRYOSTUDY_BUILD", str(tmp_path))
    monkeypatch.delenv("CRYOSTUDY_RECORDS", raising=False)
    return tmp_path


@pytest.mark.parametrize("name", available())
def test_on_noise_alone_less_variance_is_left_and_no_structure_above_chance(name, recording):
    condition = grid.Condition("built-in")
    record = records.start(grid.NOISE_ONLY, profile="smoke", seed=0, device="cpu", parameters={})
    method = grid.method(name, condition, "smoke")
    grid.cell(record, method, recording, seed=0, device="cpu", profile="smoke")
    found = record.content["metrics"][name]
    assert 0 < found["variance_left"] < 1
    assert abs(found["fsc"] - found["fsc_chance"]) < 4 * found["fsc_spread"]


def test_what_is_left_of_a_specimen_is_told_from_chance(recording):
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(recording.truth.shape)
    found, mean, deviation = likeness(noise, recording.truth)
    assert abs(found - mean) < 4 * deviation
    # A tenth of the variance is specimen: that must not pass for chance.
    found, mean, deviation = likeness(noise + 0.33 * recording.truth / recording.truth.std(), recording.truth)
    assert found - mean > 4 * deviation
    assert likeness(recording.truth, recording.truth)[0] == pytest.approx(
        fsc(recording.truth, recording.truth).correlation.mean()
    )


def test_noise_alone_is_as_strong_and_as_correlated_as_that_of_the_recording(recording):
    noise = data.noise_only(recording)
    there = recording.full - recording.clean
    assert noise.full.std() == pytest.approx(there.std(), rel=1e-3)
    assert noise.truth is None and noise.clean is None and noise.specimen is None

    def power(volume):  # along z, where back-projection correlates noise most
        return (np.abs(np.fft.rfft(volume, axis=0)) ** 2).mean((1, 2))

    np.testing.assert_allclose(power(noise.full), power(there), rtol=0.25)
    again = reconstruct(noise.tilt_series, noise.tilt_angles, len(noise.full), filter="ramp")
    np.testing.assert_allclose(again, noise.full, atol=1e-4 * noise.full.std())
    even, odd = noise.halves
    assert not np.array_equal(even, odd)
    assert not np.array_equal(data.noise_only(recording, seed=1).full, noise.full)


def test_conditions_cover_the_tables():
    awgn = {(c.specimen, c.level) for c in grid.CONDITIONS.values() if c.noise == "awgn" and c.tilt_range == 60}
    assert {("shrec", s) for s in (0.1, 0.15, 0.2)} | {("built-in", s) for s in (0.1, 0.15, 0.2)} <= awgn
    assert {c.tilt_range for c in grid.CONDITIONS.values()} == {70, 60, 40, 30}
    assert {c.noise for c in grid.CONDITIONS.values()} == {"awgn", "poisson", "mixture"}


def test_a_grid_is_recorded_goes_on_and_keeps_what_it_had(build, capsys):
    words = ["grid", "--profile", "smoke", "--condition", "built-in-awgn-0.1"]
    assert cli.main([*words, "--method", "gaussian", "lowpass"]) == 0
    path = build / "runs" / "smoke" / "records" / "grid" / "built-in-awgn-0.1.json"
    assert capsys.readouterr().out == f"{path}\n"
    first = json.loads(path.read_text())
    assert set(first["metrics"]) == {"noisy", "gaussian_oracle", "gaussian", "lowpass"}
    assert first["parameters"]["level"] == 0.1 and "sigma 0.1" in next(iter(first["data"].values()))
    assert first["metrics"]["gaussian"]["psnr"] > first["metrics"]["noisy"]["psnr"]
    assert first["metrics"]["gaussian"]["seconds"] > 0
    assert cli.main([*words, "--method", "wiener", "gaussian"]) == 0
    second = json.loads(path.read_text())
    assert second["metrics"]["lowpass"] == first["metrics"]["lowpass"] and "wiener" in second["metrics"]
    assert second["metrics"]["gaussian"] == first["metrics"]["gaussian"]  # kept, its time too
    assert grid.collect("smoke")["built-in-awgn-0.1"] == second


def test_a_method_that_fails_is_named_and_the_others_go_on(build, monkeypatch):
    monkeypatch.setattr(get("lowpass"), "needs", ("nothing_there",))
    monkeypatch.setattr(data.Acquisition, "nothing_there", None, raising=False)
    with pytest.raises(
        CryostudyError, match=r"1 of 2 cells failed, .*built-in-awgn-0.1, lowpass: lowpass needs nothing"
    ):
        grid.run("smoke", ["built-in-awgn-0.1"], ["lowpass", "gaussian"], progress=False)
    found = grid.collect("smoke")["built-in-awgn-0.1"]["metrics"]
    assert "needs nothing there" in found["lowpass"]["failed"] and found["gaussian"]["cc"] > 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--condition", "shrek"], "--condition shrek: unknown; use one of shrec-awgn-0.1, "),
        (["--method", "gausian"], "method gausian: unknown; did you mean gaussian"),
        (["--profile", "big"], "--profile big: unknown; use one of smoke, laptop, gpu"),
    ],
)
def test_refusals(words, says, build, capsys):
    assert cli.main(["grid", *words]) == 2
    assert says in capsys.readouterr().err and not list(build.iterdir())


def test_published_records_are_of_known_conditions():
    folder = records.REPOSITORY / "data" / "results" / "grid"
    for path in folder.glob("*.json"):
        record = json.loads(path.read_text())
        assert path.stem == record["name"] and path.stem.removesuffix(f"-{record['seed']}") in {
            **grid.CONDITIONS,
            **paired.SNRS,
            verdict.NAME: None,
            **{f"ablation-{name}": None for name in ablation.names()},
        }
