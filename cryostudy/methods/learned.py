"""What every trained method shares: patches of one recording, a held-out part, the loop, and the tiled pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from cryostudy.data import Acquisition
from cryostudy.inference import tiled
from cryostudy.methods.base import Denoiser, Method, State
from cryostudy.methods.patches import central_box, crop, hold_out, patch_positions, random_crop
from cryostudy.methods.standardise import Standardised
from cryostudy.training import Batch, Terms, train

HALF = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}
CHECKS = 4  # held-out patches looked at in each validation


@dataclass(frozen=True)
class Learned(Method):
    """A method that trains a network on random patches of the recording it restores.

    A subclass sets `scales`, overrides defaults, and defines :meth:`network` and `fit`, which calls :meth:`learn`.
    `halo` and `multiple` are what :func:`cryostudy.inference.tiled` must know of its network, `tile` the largest side
    that fits a laptop's memory. `keep_last`: where the held-out loss is no guide, the last weights are kept.

    `patch`: side of the cubes that are trained on, voxels. `batch`: how many a step. `steps`, `learning_rate`, `betas`:
    of the optimiser, Adam. `decay`: the learning rate rises for a twentieth of the steps and falls to zero along a half
    cosine. `validation`: share of the recording that is not trained on but tells which weights are best. `patience`:
    stop after so many of twenty looks at it without a better one; None, never. `train_voxels`: of a larger recording,
    the central part of this size is trained on. `precision`: "32-true" is float32; "bf16-mixed" and "16-mixed" train
    and restore with half the bits in the convolutions.
    """

    tile: ClassVar[int] = 128
    halo: ClassVar[int] = 24
    multiple: ClassVar[int] = 4
    keep_last: ClassVar[bool] = False
    limits: ClassVar[dict[str, tuple[float, float]]] = {
        **dict.fromkeys(("channels", "levels", "blocks", "batch", "epochs", "steps", "patience"), (1, 10**9)),
        "patch": (8, 10**4), "train_voxels": (8**3, 10**12), "learning_rate": (0, 10), "betas": (0, 0.99999),
        "validation": (0, 0.9),
    }  # fmt: skip
    choices: ClassVar[dict[str, tuple[str, ...]]] = {"precision": ("32-true", "16-mixed", "bf16-mixed")}

    patch: int = 64
    batch: int = 4
    steps: int | None = 10_000
    learning_rate: float = 4e-4
    betas: tuple[float, float] = (0.9, 0.999)
    decay: bool = True
    validation: float = 0.2
    patience: int | None = None
    train_voxels: int = 2**26
    precision: str = "32-true"

    def network(self) -> nn.Module:
        """An untrained network with this method's hyper-parameters."""
        raise NotImplementedError

    def untrained(self, seed: int) -> nn.Module:
        """A :meth:`network` whose first weights this seed draws; torch's own generator stays as it was."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return self.network()

    def trained(self, state: State, device: str) -> nn.Module:
        """A :meth:`network` with fitted weights, ready to restore."""
        with torch.random.fork_rng(devices=[]):  # its first weights are random, and thrown away
            network = self.network().to(device)
        network.load_state_dict(state)
        return network.eval()

    def tiles(
        self,
        function: Callable[[Tensor], Tensor],
        volume: NDArray[Any],
        device: str | torch.device,
        out: NDArray[np.float32] | None = None,
        progress: bool | None = False,
    ) -> NDArray[np.float32]:
        """:func:`cryostudy.inference.tiled` with the tiles that fit this method's network."""
        half = HALF.get(self.precision)
        with torch.autocast(torch.device(device).type, half, enabled=half is not None):
            return tiled(
                function, volume, out=out, tile=self.tile, halo=self.halo, blend=8, multiple=self.multiple,
                device=device, progress=progress,
            )  # fmt: skip

    def predict(self, network: nn.Module, noisy: Tensor) -> Tensor:
        """The estimate of the clean volume from a noisy one, both (batch, 1, z, y, x)."""
        return torch.as_tensor(network(noisy))

    def restore(self, network: nn.Module, noisy: Tensor) -> Tensor:
        """What restores a tile: :meth:`predict`, or more passes of the network than training could be watched with."""
        return self.predict(network, noisy)

    def region(self, shape: tuple[int, ...]) -> tuple[slice, ...]:
        """The part of a volume that is trained on."""
        return central_box(shape, self.train_voxels)

    def learn(
        self,
        acquisition: Acquisition,
        volumes: tuple[Tensor, ...],
        loss: Callable[[nn.Module, Batch], Terms],
        *,
        pairs: Callable[[Batch, Generator], Batch] | None = None,
        mirror: bool = True,
        network: nn.Module | None = None,
        steps: int | None = None,
        seed: int = 0,
        device: str = "auto",
        folder: Path | None = None,
        progress: bool | None = None,
    ) -> Denoiser:
        """Train on random crops of `volumes` and keep the weights that do best on the part held out.

        Args:
            acquisition: whose `full` the first volume is a part of. Its `clean`, where there is one, is looked at only
                to log `cc_clean`, the true correlation on the held-out patches, beside the loss; it chooses nothing.
            volumes: (z, y, x), of one shape, the :meth:`region` of the standardised recording; cropped together.
            loss: (network, batch) -> terms with their weighted sum `"total"`. It draws nothing at random.
            pairs: (crops (batch, 1, z, y, x), generator) -> batch, where something random belongs to a training pair
                (masks, fresh noise). The generator is seeded by the step, so that a resumed run repeats itself.
            mirror: mirror crops at random along each axis.
            network: default, a new one of :meth:`network`. steps: default, the method's.
        """
        noisy = volumes[0]
        region = self.region(acquisition.full.shape)
        training, held_out = hold_out(tuple(noisy.shape), self.validation)
        learn = tuple(volume[training] for volume in volumes)
        make = pairs or (lambda crops, _: crops)
        checks: list[Batch] = []
        truths: list[tuple[Tensor, Tensor]] = []
        if held_out:
            check = tuple(volume[held_out] for volume in volumes)
            corners = patch_positions(tuple(check[0].shape), self.patch, limit=CHECKS, seed=seed)
            crops = collate([tuple(crop(volume, corner, self.patch) for volume in check) for corner in corners])
            checks = [make(crops, generator(seed, 2))]  # one batch: several are slower on a CPU, one by one
            if acquisition.clean is not None:
                clean = torch.as_tensor(np.ascontiguousarray(acquisition.clean[region][held_out]))
                truths = [(crops[0], torch.stack([crop(clean, corner, self.patch) for corner in corners])[:, None])]

        def draw(step: int) -> Batch:
            rng = np.random.default_rng((seed, 1, step))
            crops = [random_crop(learn, self.patch, rng, mirror=mirror) for _ in range(self.batch)]
            return make(collate(crops), generator(seed, 1, step))

        standard = [float(noisy.double().mean()), float(noisy.double().square().mean())]
        return self.optimise(
            loss, draw, checks, truths, data=(acquisition.full.shape, standard), network=network, steps=steps,
            seed=seed, device=device, folder=folder, progress=progress,
        )  # fmt: skip

    def optimise(
        self,
        loss: Callable[[nn.Module, Batch], Terms],
        draw: Callable[[int], Batch],
        checks: Sequence[Batch],
        truths: Sequence[tuple[Tensor, Tensor]],
        *,
        data: tuple[object, ...],
        network: nn.Module | None = None,
        steps: int | None = None,
        seed: int = 0,
        device: str = "auto",
        folder: Path | None = None,
        progress: bool | None = None,
    ) -> Denoiser:
        """The rest of :meth:`learn`, for a method that draws its own batches.

        Args:
            draw: step -> batch, the same one each time. checks: batches of the held-out part.
            truths: noisy (batch, 1, z, y, x) and clean crops that only `cc_clean` is computed from; may be empty.
            data: what the batches are drawn from; a checkpoint is resumed where its `repr` is the same.
        """

        def validate(model: nn.Module) -> float:
            where = next(model.parameters()).device
            return float(np.mean([loss(model, tuple(t.to(where) for t in batch))["total"].item() for batch in checks]))

        def watch(model: nn.Module) -> float:
            where = next(model.parameters()).device
            found = torch.cat([self.predict(model, noisy.to(where)).flatten().cpu() for noisy, _ in truths])
            return torch.corrcoef(torch.stack([found, torch.cat([clean.flatten() for _, clean in truths])]))[
                0, 1
            ].item()

        network = self.untrained(seed) if network is None else network
        count = steps or self.steps
        assert count is not None, f"{self.name} gives no number of steps"
        history = train(
            network, loss, draw,
            steps=count, learning_rate=self.learning_rate, betas=self.betas, decay=self.decay,
            validate=validate if checks else None, watch=watch if truths else None, validate_every=max(1, count // 20),
            patience=self.patience, keep_last=self.keep_last, device=device, precision=self.precision, folder=folder,
            key=repr((self, seed, *data)), progress=progress,
        )  # fmt: skip
        return Denoiser(self, {name: value.cpu() for name, value in network.state_dict().items()}, history)

    def apply(
        self,
        state: State,
        volume: Standardised,
        out: NDArray[np.float32] | None,
        device: str,
        progress: bool | None,
    ) -> NDArray[np.float32]:
        return self.tiles(partial(self.restore, self.trained(state, device)), volume.array(), device, out, progress)


def collate(patches: list[tuple[Any, ...]]) -> Batch:
    """Patches of (z, y, x) volumes -> batch of (batch, 1, z, y, x)."""
    return tuple(torch.stack(parts)[:, None] for parts in zip(*patches, strict=True))


def generator(*seeds: int) -> Generator:
    """A torch generator seeded by several numbers."""
    return Generator().manual_seed(int(np.random.default_rng(seeds).integers(2**62)))
