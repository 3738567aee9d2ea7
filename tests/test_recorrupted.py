"""The noise is found as strong as it is, sampled as it is, and the pair it makes is independent."""

import numpy as np
import pytest
import torch

from cryostudy import noise
from cryostudy.data import Acquisition, simulated
from cryostudy.errors import InputError
from cryostudy.methods import get
from cryostudy.tomography import project

SHAPE = (64, 64, 64)
ANGLES = tuple(range(-60, 61, 3))


def correlation(a, b):
    return np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]


@pytest.fixture(scope="module", params=[1 / 2, 1 / 4, 1 / 6], ids=["SNR 1/2", "SNR 1/4", "SNR 1/6"])
def recording(request):
    return simulated(SHAPE, "ddw", request.param, tilt_step=3.0, densities="built-in", seed=1)


def test_the_level_is_within_two_percent_from_every_source(recording):
    true = float((recording.tilt_series - project(recording.truth, recording.tilt_angles)).std())
    unit = noise.fbp_noise(SHAPE, recording.tilt_angles, recording.filter, seed=7)
    found = {
        "tilt series": np.sqrt(np.mean(noise.level_of_series(recording.tilt_series) ** 2)),
        "halves": noise.level_of_volume((recording.halves[0] - recording.halves[1]) / 2, unit),
        "volume": noise.level_of_volume(recording.full, unit),
    }
    for source, level in found.items():
        assert level == pytest.approx(true, rel=0.02), source


def test_levels_differ_between_tilts():
    series = np.random.default_rng(0).standard_normal((5, 96, 96)) * np.arange(1, 6)[:, None, None]
    np.testing.assert_allclose(noise.level_of_series(series.astype(np.float32)), np.arange(1, 6), rtol=0.05)


def test_the_pair_is_uncorrelated_at_the_right_level_only(recording):
    unit = noise.fbp_noise(SHAPE, recording.tilt_angles, recording.filter, seed=3)
    level = noise.level_of_volume(
        recording.full, noise.fbp_noise(SHAPE, recording.tilt_angles, recording.filter, seed=4)
    )
    checks = [noise.pair_correlation(recording.full, scale * level * unit) for scale in (0.7, 1.0, 1.4)]
    assert checks[0] > 0.2 and abs(checks[1]) < 0.03 and checks[2] < -0.2


def test_a_field_has_the_spectrum_it_was_drawn_from():
    sample = noise.fbp_noise((64, 64, 96), ANGLES, "ramp", seed=1)
    power = noise.spectrum(sample)
    drawn = noise.field((48, 80, 72), power, seed=2)
    assert drawn.std() == pytest.approx(sample.std(), rel=0.05)
    again = noise.spectrum(drawn)
    assert correlation(power.sqrt(), again.sqrt()) > 0.8
    empty = power < 0.2 * power.mean()  # the missing wedge
    assert empty.any() and again[empty].mean() < 0.3 * again[~empty].mean()
    assert (again.sum() / power.sum()).item() == pytest.approx(1, rel=0.1)


def test_white_noise_has_a_flat_spectrum_of_its_variance():
    volume = 3 * np.random.default_rng(0).standard_normal((64, 64, 64)).astype(np.float32)
    power = noise.spectrum(volume)[2:-2, 2:-2, 2:-2]
    assert power.mean().item() == pytest.approx(9, rel=0.03) and power.std() / power.mean() < 0.3


def test_padding_stays_out_of_the_estimate():
    sample = noise.fbp_noise(SHAPE, ANGLES, "ramp", seed=5)
    padded = np.zeros((64, 100, 64), np.float32)
    padded[:, 18:82] = sample
    method = get("recorrupted").at("smoke", steps=1, source="background")
    method.fit(Acquisition(full=padded))  # its quietest patches would be the padding
    power = noise.spectrum(padded, quietest=8, content=padded != 0)
    assert noise.field(SHAPE, power).std() == pytest.approx(sample.std(), rel=0.15)
    with pytest.raises(InputError, match="crop the volume's zero border"):
        noise.spectrum(padded, content=np.zeros(padded.shape, bool))


def test_sources_ask_for_what_they_need():
    lonely = Acquisition(full=np.random.default_rng(0).standard_normal((32, 32, 32), dtype=np.float32), name="lonely")
    for source, needs in (("halves", "halves"), ("volume", "tilt angles and filter"), ("tilt_series", "a tilt series")):
        with pytest.raises(InputError, match=f"source {source} needs {needs}.*, which lonely does not have"):
            get("recorrupted").at("smoke", source=source).fit(lonely)


@pytest.mark.parametrize("source", ["tilt_series", "halves", "volume", "background"])
def test_every_source_fits_and_repeats_to_the_bit(source):
    acquisition = simulated((32, 32, 32), "ddw", 0.5, tilt_step=6.0, densities="built-in", seed=2)
    method = get("recorrupted").at("smoke", steps=2, source=source)
    one, two = (method.fit(acquisition, seed=4).state for _ in range(2))
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_short_training_beats_the_raw_volume_and_the_wrong_noise():
    acquisition = simulated((48, 48, 48), "ddw", 0.25, tilt_step=4.0, densities="built-in", seed=0)
    settings = {"source": "volume", "steps": 60, "channels": 8, "batch": 2}
    found = {
        white: correlation(get("recorrupted").at("smoke", white=white, **settings).fit(acquisition)(acquisition.full),
                           acquisition.clean)
        for white in (False, True)
    }  # fmt: skip
    raw = correlation(acquisition.full, acquisition.clean)
    assert found[False] > raw + 0.2 and found[False] > found[True]


def test_on_pure_noise_nothing_is_left_that_resembles_a_specimen():
    pure = noise.fbp_noise((48, 48, 48), ANGLES, "ramp", seed=9)
    alone = Acquisition(full=pure, tilt_angles=ANGLES, filter="ramp")
    restored = get("recorrupted").at("smoke", source="volume", steps=60, channels=8, batch=2).fit(alone)(pure)
    assert restored.std() < 0.5 * pure.std()
    absent = simulated((48, 48, 48), "ddw", 1.0, tilt_step=6.0, densities="built-in", seed=3).clean
    assert abs(correlation(restored, absent)) < 0.1
