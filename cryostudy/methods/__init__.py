"""The restoration methods, one file each. A new file here with a `Method` subclass is a new method; nothing else."""

from __future__ import annotations

import difflib
import importlib
import pkgutil

from cryostudy.errors import InputError
from cryostudy.methods.base import Denoiser, Method

__all__ = ["Denoiser", "Method", "available", "get"]


def available() -> dict[str, type[Method]]:
    """Every method by name, in alphabetical order."""
    found = {}
    for entry in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{entry.name}")
        for cls in vars(module).values():  # those defined there, not those imported to build upon
            if isinstance(cls, type) and issubclass(cls, Method) and cls.name and cls.__module__ == module.__name__:
                found[cls.name] = cls
    return dict(sorted(found.items()))


def get(name: str) -> type[Method]:
    """A method by name.

    Raises:
        InputError: there is none of that name; lists those there are.
    """
    if any(entry.name == name for entry in pkgutil.iter_modules(__path__)):  # the other files can wait
        found = vars(importlib.import_module(f"{__name__}.{name}")).values()
        own = [cls for cls in found if isinstance(cls, type) and issubclass(cls, Method) and cls.name == name]
        if own:
            return own[0]
    methods = available()
    near = difflib.get_close_matches(name, methods, n=1)
    hint = f"did you mean {near[0]}?" if near else f"use one of {', '.join(methods)}"
    raise InputError(f"method {name}: unknown; {hint}")
