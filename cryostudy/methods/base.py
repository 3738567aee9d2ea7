"""What every method is, and the denoiser that fitting one gives."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from dataclasses import dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryostudy import PROFILES
from cryostudy.data import Acquisition
from cryostudy.errors import InputError
from cryostudy.io.aside import write_aside
from cryostudy.methods.standardise import Standardised
from cryostudy.training import History, choose_device

State = dict[str, Tensor]
REMEDIES = {
    "halves": "two half-tomograms, --even and --odd",
    "tilt_series": "the tilt stack, --tilt-series with --tilt-file and --thickness",
    "tilt_angles": "the tilt angles, --tilt-file or --tilt-range",
}


@dataclass(frozen=True)
class Method:
    """A restoration method; the fields of a subclass are its hyper-parameters, with the paper's values as defaults.

    A subclass sets `name`, `summary`, `paper` and `cost` (short, for `cryostudy methods`), `needs` (fields of the
    acquisition that must be there), `scales` (fields that the profiles `smoke` and `laptop` change; `gpu` is the
    paper), `limits` (smallest and largest value of a number; zero and infinity by default) and `choices` (of a text),
    and defines :meth:`fit` and :meth:`apply`.

    Raises:
        InputError: a hyper-parameter of the wrong type or out of its limits.
    """

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    cost: ClassVar[str] = "seconds"
    needs: ClassVar[tuple[str, ...]] = ()
    scales: ClassVar[dict[str, dict[str, Any]]] = {}
    limits: ClassVar[dict[str, tuple[float, float]]] = {}
    choices: ClassVar[dict[str, tuple[str, ...]]] = {}

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value, about = getattr(self, field.name), f"{self.name}: {field.name}"
            if not fits(value, hints[field.name]):
                raise InputError(f"{about} cannot be {value!r}; give {in_words(hints[field.name])}")
            if field.name in self.choices and value not in self.choices[field.name]:
                raise InputError(f"{about} {value!r} is unknown; use {', '.join(self.choices[field.name])}")
            low, high = self.limits.get(field.name, (0, math.inf))
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, Real) and not low <= float(number) <= min(high, 1e300):
                    raise InputError(f"{about} cannot be {number}; it goes from {low:g} to {high:g}")

    @classmethod
    def at(cls, profile: str, **changes: Any) -> Self:
        """The method at the scale of a profile, with `changes` to single hyper-parameters.

        Raises:
            InputError: unknown profile or hyper-parameter, or a value that does not fit.
        """
        if profile not in PROFILES:
            raise InputError(f"profile {profile}: unknown; use one of {', '.join(PROFILES)}")
        defaults = {field.name: field.default for field in dataclasses.fields(cls)}
        for name, value in changes.items():
            if name not in defaults:
                raise InputError(f"{cls.name} has no parameter {name!r}; it has {', '.join(defaults)}")
            if isinstance(value, list):
                changes[name] = tuple(value)
        return cls(**cls.scales.get(profile, {}) | changes)

    def parameters(self) -> dict[str, Any]:
        """The hyper-parameters by name."""
        return dataclasses.asdict(self)

    def check(self, acquisition: Acquisition) -> None:
        """Raises InputError when the acquisition lacks what the method needs."""
        for need in self.needs:
            if getattr(acquisition, need) is None:
                raise InputError(
                    f"{self.name} needs {need.replace('_', ' ')}, which {acquisition.name} does not have"
                    + (f"; give {REMEDIES[need]}" if need in REMEDIES else "")
                )

    def fit(
        self,
        acquisition: Acquisition,
        *,
        seed: int = 0,
        device: str = "auto",
        folder: Path | None = None,
        progress: bool | None = None,
    ) -> Denoiser:
        """Learn from one acquisition.

        Args:
            seed: of everything random here. device: "auto", "cpu", "cuda", "cuda:1", or several that
                share each batch: "cuda:0,1", or "cpu:2" for two processes.
            folder: where a training run leaves its checkpoint and log, and resumes from.
            progress: show bars; default (None) only on a terminal.
        """
        raise NotImplementedError

    def inputs(self, acquisition: Acquisition) -> tuple[NDArray[Any], ...]:
        """The volumes of a recording that are restored, and then averaged: here the full tomogram alone."""
        return (acquisition.full,)

    def apply(
        self,
        state: State,
        volume: Standardised,
        out: NDArray[np.float32] | None,
        device: str,
        progress: bool | None,
    ) -> NDArray[np.float32]:
        """Restore a volume (z, y, x) with fitted weights; `out` as in :func:`cryostudy.inference.tiled`."""
        raise NotImplementedError


def in_words(hint: Any) -> str:
    """A type as a user knows it: "a whole number or null"."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return " or ".join(map(in_words, typing.get_args(hint)))
    if typing.get_origin(hint) is tuple:
        return f"a list of {len(typing.get_args(hint))}, each {in_words(typing.get_args(hint)[0])}"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", types.NoneType: "null"}
    return words.get(hint, str(hint))


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type such as `int`, `float | None` or `tuple[int, int]`; an int is a float too."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return any(fits(value, part) for part in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        parts = typing.get_args(hint)
        return isinstance(value, tuple) and len(value) == len(parts) and all(map(fits, value, parts))
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, {int: Integral, float: Real}.get(hint, hint))


@dataclass(frozen=True)
class Denoiser:
    """A fitted method: a callable volume -> volume that can be saved, loaded and run on a memory map.

    `state`: weights by name. `history`: of the training run, None where nothing was trained.
    """

    method: Method
    state: State
    history: History | None = None

    def __repr__(self) -> str:
        steps = f", trained {self.history.step} steps" if self.history else ""
        return f"Denoiser({self.method}, {sum(value.numel() for value in self.state.values())} weights{steps})"

    def __call__(
        self,
        volume: NDArray[Any],
        *,
        out: NDArray[np.float32] | None = None,
        device: str = "auto",
        progress: bool | None = None,
    ) -> NDArray[np.float32]:
        """Restore a volume (z, y, x); the result has its grey values' mean and scale.

        Args:
            out: float32 array or memory map to write into, made here by default.
        """
        standardised = Standardised.of(volume)
        restored = self.method.apply(self.state, standardised, out, choose_device(device), progress)
        standardised.undo(restored)
        return restored

    def restore(
        self,
        acquisition: Acquisition,
        *,
        out: NDArray[np.float32] | None = None,
        device: str = "auto",
        progress: bool | None = None,
    ) -> NDArray[np.float32]:
        """Restore a recording: the mean of what becomes of each of its :meth:`Method.inputs`, on the scale of `full`.

        Args: as of a call.
        """
        whole = Standardised.of(acquisition.full)
        inputs = [replace(whole, volume=volume) for volume in self.method.inputs(acquisition)]
        restored = self.method.apply(self.state, inputs[0], out, choose_device(device), progress)
        for volume in inputs[1:]:
            restored += self.method.apply(self.state, volume, None, choose_device(device), progress)
        if len(inputs) > 1:
            restored /= len(inputs)
        whole.undo(restored)
        return restored

    def save(self, path: Path) -> None:
        """Write the denoiser, atomically."""
        content = {
            "method": self.method.name,
            "parameters": self.method.parameters(),
            "state": {name: value.cpu() for name, value in self.state.items()},
            "history": vars(self.history) if self.history else None,
        }

        def write(aside: Path) -> None:
            with aside.open("wb") as file:  # given a path, torch reports a full disk as a RuntimeError
                torch.save(content, file)

        write_aside(path, write)

    @staticmethod
    def load(path: Path) -> Denoiser:
        """Read a denoiser written by :meth:`save`.

        Raises:
            InputError: the file is missing or is no denoiser of this study.
        """
        from cryostudy.methods import get  # the registry imports the methods, which import this module

        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            parameters = {k: tuple(v) if isinstance(v, list) else v for k, v in content["parameters"].items()}
            method = get(content["method"])(**parameters)
            history = History(**content["history"]) if content["history"] else None
            return Denoiser(method, content["state"], history)
        except FileNotFoundError:
            raise InputError(f"{path}: no such denoiser") from None
        except InputError:
            raise
        except Exception as error:  # pickle, zip and key errors alike: not one of ours
            raise InputError(
                f"{path}: not a denoiser of this version of cryostudy ({type(error).__name__}); fit it again"
            ) from None
