"""The restoration methods, one file each. A new file here with a `Method` subclass is a new method; nothing else."""

from __future__ import annotations

import difflib
import importlib
import pkgutil

from cryostudy.errors import InputError
from cryostudy.methods.base import PROFILES, Denoiser, Method

__all__ = ["PROFILES", "Denoiser", "Method", "available", "get"]


def available() -> dict[str, type[Method]]:
    """Every method by name, in alphabetical order."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return {cls.name: cls for cls in sorted(Method.__subclasses__(), key=lambda cls: cls.name)}


def get(name: str) -> type[Method]:
    """A method by name.

    Raises:
        InputError: there is none of that name; lists those there are.
    """
    methods = available()
    if name in methods:
        return methods[name]
    near = difflib.get_close_matches(name, methods, n=1)
    hint = f"did you mean {near[0]}?" if near else f"use one of {', '.join(methods)}"
    raise InputError(f"--method {name}: unknown; {hint}")
