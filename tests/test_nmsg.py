"""NMSG: noise is learnt with its level and spectrum, each network from its own gradient, and the targets differ."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from cryostudy import noise
from cryostudy.data import Acquisition
from cryostudy.errors import InputError
from cryostudy.fourier import multiplicity, shell_index
from cryostudy.losses.gradient_penalty import gradient_penalty, wasserstein
from cryostudy.methods import Denoiser
from cryostudy.methods.nmsg import NMSG
from cryostudy.models.nmsg import NoiseGenerator

SMALL = NMSG.at("smoke", steps=3, noise_steps=4, patch=16)


def coloured(shape=(40, 40, 40), seed=0):
    """Gaussian noise of variance 1 whose neighbours along x carry part of it."""
    field = ndimage.gaussian_filter1d(np.random.default_rng(seed).standard_normal(shape), 0.7, mode="wrap")
    return torch.from_numpy((field / field.std()).astype(np.float32))


def cut(volume, side=20):
    """A volume (z, y, x) as samples (n, 1, side, side, side)."""
    return volume.unfold(0, side, side).unfold(1, side, side).unfold(2, side, side).reshape(-1, 1, side, side, side)


def misplaced(samples, data):
    """Share of the power of data (n, 1, z, y, x) that samples have in another Fourier shell, or not at all."""
    found, wanted = (torch.stack([noise.spectrum(s[0].numpy(), side=20) for s in v]).mean(0) for v in (samples, data))
    index, _ = shell_index(samples.shape[-3:])
    difference = torch.bincount(index.flatten(), (multiplicity(samples.shape[-3:]) * (found - wanted)).flatten())
    return (difference.abs().sum() / (multiplicity(samples.shape[-3:]) * wanted).sum()).item()


def neighbours(samples):
    """Correlation of neighbours along z, y and x."""
    pairs = ((samples.narrow(a, 1, 19), samples.narrow(a, 0, 19)) for a in (2, 3, 4))
    return [(one * two).mean().item() / samples.square().mean().item() for one, two in pairs]


# The losses


@pytest.mark.parametrize("side", [2, 5])
@pytest.mark.parametrize("slope", [0.0, 1.0, 3.0])
def test_penalty_of_a_linear_critic_is_its_slope_off_1_whatever_the_size(side, slope):
    real, fake = torch.randn(2, 3, 1, side, side, side, generator=torch.Generator().manual_seed(0))
    mix = torch.rand(3, 1, 1, 1, 1, generator=torch.Generator().manual_seed(1))
    penalty = gradient_penalty(lambda x: slope * x.mean((1, 2, 3, 4)), real, fake, mix)
    assert penalty.item() == pytest.approx((slope - 1) ** 2, abs=1e-5)


def test_distance_of_shifted_samples_is_the_shift():
    real = torch.randn(3, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    assert wasserstein(lambda x: x.mean((1, 2, 3, 4)), real + 2.5, real).item() == pytest.approx(2.5, abs=1e-5)


# The generator


def test_noise_is_the_same_everywhere_and_of_any_size():
    generator = NoiseGenerator(4)
    white = generator.latent(1, (9, 10, 11), torch.Generator().manual_seed(0))
    whole = generator(white)
    assert whole.shape == (1, 1, 9, 10, 11)
    part = generator(white[..., 3:, 2:, 4:])  # the noise of a part of the white noise is a part of the noise
    torch.testing.assert_close(part, whole[..., 3:, 2:, 4:], atol=1e-5, rtol=1e-4)


def test_flat_generator_draws_every_slice_on_its_own():
    generator = NoiseGenerator(4, flat=True)
    white = generator.latent(1, (6, 8, 8), torch.Generator().manual_seed(0))
    other = white.clone()
    other[:, :, 2] += 1
    changed = (generator(white) != generator(other)).flatten(3).any(-1).flatten()
    assert changed.tolist() == [False, False, True, False, False, False]


# The adversarial game


def weights(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def played(monkeypatch, turns, steps=1):
    """Generator, critic and their state before, after some steps of the game."""
    kept = {}

    def watched(network, *args, **options):
        kept["before"] = weights(network.generator), weights(network.critic)
        history = train(network, *args, **options)
        kept["after"] = weights(network.generator), weights(network.critic)
        return history

    from cryostudy.methods import nmsg
    from cryostudy.training import train

    with monkeypatch.context() as patch:
        patch.setattr(nmsg, "train", watched)
        method = NMSG.at("smoke", noise_steps=steps, noise_critic=turns, noise_patches=8)
        method.learn_noise(coloured((24, 24, 24)), device="cpu", progress=False)
    return kept


def test_generator_waits_for_its_turn_and_each_part_gets_only_its_own_gradient(monkeypatch):
    waits, moves = played(monkeypatch, turns=100), played(monkeypatch, turns=1)
    assert torch.equal(waits["before"][0], waits["after"][0]) and not torch.equal(moves["before"][0], moves["after"][0])
    assert not torch.equal(waits["before"][1], waits["after"][1])
    assert torch.equal(waits["after"][1], moves["after"][1])  # the generator's turn moves the critic no other way
    third = played(monkeypatch, turns=3, steps=3)
    assert not torch.equal(third["before"][0], third["after"][0])


def test_generated_noise_has_the_level_and_the_spectrum_of_the_data():
    method = NMSG.at("laptop", noise_steps=150, noise_channels=4, noise_batch=4, noise_patches=1000)
    generator, history = method.learn_noise(coloured(), device="cpu", progress=False)
    data = cut(coloured(seed=7))
    with torch.no_grad():
        found, start = (
            g(g.latent(8, (20, 20, 20), torch.Generator().manual_seed(1))) for g in (generator, NoiseGenerator(4))
        )

    assert found.std().item() == pytest.approx(data.std().item(), rel=0.05)
    assert misplaced(found, data) < 0.15 < 0.5 * misplaced(start, data)
    assert neighbours(found) == pytest.approx(neighbours(data), abs=0.06)
    assert np.isfinite([row["total"] for row in history.rows]).all()


def test_noise_far_from_white_is_not_taken_for_divergence():
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((32, 32, 32)), 2)
    volume = torch.from_numpy((smooth / smooth.std()).astype(np.float32))
    method = NMSG.at("laptop", noise_steps=30, noise_channels=2, noise_side=12, noise_batch=4)
    _, history = method.learn_noise(volume, device="cpu", progress=False)
    assert history.step == 30 and min(history.column("total")[1]) >= 1
    assert max(history.column("distance")[1]) > 1  # a plain loss would have been negative here


# Where the noise is learnt from


def test_signal_poor_patches_leave_the_signal_out():
    volume = torch.from_numpy(np.random.default_rng(0).standard_normal((40, 40, 40), dtype=np.float32))
    volume[:, :, 20:] += (
        5 * torch.from_numpy(ndimage.gaussian_filter(np.random.default_rng(1).normal(size=(40, 40, 20)), 2) * 8).float()
    )
    method = NMSG.at("laptop", noise_side=12, noise_patches=16)
    found = method.signal_poor(volume)
    assert found.shape == (16, 1, 12, 12, 12) and abs(found.mean().item()) < 1e-6
    assert found.var().item() == pytest.approx(1, abs=0.05) and volume.var() > 1.5


def test_slices_come_from_top_and_bottom():
    volume = torch.arange(20.0)[:, None, None].expand(20, 16, 16).contiguous()
    found = NMSG.at("laptop", noise="slices", noise_share=0.2, noise_side=16).signal_poor(volume)
    assert found.shape == (4, 1, 1, 16, 16)
    assert (found[:, 0, 0, 0, 0] + 9.5).tolist() == [0, 1, 18, 19]


# The two targets


@dataclass(frozen=True)
class Scaling(NMSG):
    """The best single factor in place of a U-Net."""

    name: ClassVar[str] = ""

    def network(self):
        factor = nn.Conv3d(1, 1, 1, bias=False)
        nn.init.constant_(factor.weight, 0.3)
        return factor


@pytest.mark.parametrize("alpha", [1.0, 2.0])
@pytest.mark.parametrize("target", ["noisy", "clean"])
def test_noisy_target_keeps_noise_and_clean_target_does_not(target, alpha, monkeypatch):
    def perfect(self, noisy, **options):  # noise of exactly the volume's kind
        generator = NoiseGenerator(1)
        with torch.no_grad():
            for value in generator.parameters():
                value.zero_()
            generator.linear.weight[0, 0, 4, 4, 4] = 1
        return generator.requires_grad_(False), None

    monkeypatch.setattr(NMSG, "learn_noise", perfect)
    volume = np.random.default_rng(0).standard_normal((40, 40, 40), dtype=np.float32)
    method = Scaling.at(
        "smoke",
        target=target,
        alpha=alpha,
        weights=(1, 0, 0, 0),
        steps=150,
        batch=2,
        learning_rate=0.02,
        validation=0.0,
    )
    factor = method.fit(Acquisition(full=volume), progress=False).state["weight"].item()
    assert factor == pytest.approx(1 / (1 + alpha**2) if target == "noisy" else 0, abs=0.03)


# The method


@pytest.fixture(scope="module")
def recording():
    clean = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(34, 36, 38)), 2.5)
    return Acquisition(
        full=(clean / clean.std() + np.random.default_rng(1).normal(size=clean.shape)).astype(np.float32)
    )


def test_same_seed_same_bits_and_nobody_elses_random_numbers(recording, tmp_path):
    rng = torch.get_rng_state()
    one = SMALL.fit(recording, seed=3, folder=tmp_path, progress=False)
    assert torch.equal(torch.get_rng_state(), rng)
    assert (tmp_path / "noise" / "log.csv").exists() and (tmp_path / "log.csv").exists()
    (tmp_path / "checkpoint.pt").unlink()  # the noise of the first stage is found again
    two = SMALL.fit(recording, seed=3, folder=tmp_path, progress=False)
    other = SMALL.fit(recording, seed=4, progress=False)
    assert set(one.state) == set(SMALL.network().state_dict())
    for name, value in one.state.items():
        assert torch.equal(value, two.state[name])
    assert any(not torch.equal(value, other.state[name]) for name, value in one.state.items())
    one.save(tmp_path / "denoiser.pt")
    np.testing.assert_array_equal(Denoiser.load(tmp_path / "denoiser.pt")(recording.full), two(recording.full))


@pytest.mark.parametrize("shape", [(9, 30, 41), (20, 8, 27)])
@pytest.mark.parametrize("kind", ["slices", "patches"])
def test_volumes_thinner_than_a_patch(shape, kind):
    volume = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    method = NMSG.at("smoke", steps=1, noise_steps=2, noise=kind, noise_channels=2)
    restored = method.fit(Acquisition(full=volume), progress=False)(volume)
    assert restored.shape == shape and np.isfinite(restored).all()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"noise": "white"}, "use slices, patches"), ({"target": "none"}, "use noisy, clean"),
        ({"alpha": 0.0}, "alpha cannot be 0"), ({"noise_side": 4}, "it goes from 12"),
    ],
)  # fmt: skip
def test_wrong_hyper_parameters_are_one_line(wrong, says):
    with pytest.raises(InputError) as refusal:
        NMSG.at("smoke", **wrong)
    assert says in str(refusal.value) and "\n" not in str(refusal.value)
