"""From the arguments of a command to the functions that do it; what takes seconds to import is imported when needed."""

from __future__ import annotations

import argparse
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from cryostudy.errors import CryostudyError, InputError
from cryostudy.progress import busy


def restore(a: argparse.Namespace) -> None:
    """`cryostudy restore`."""
    with busy("start"):  # torch alone takes seconds to import
        from cryostudy.commands.restore import restore_files

    target, _ = restore_files(
        a.input, even=a.even, odd=a.odd, tilt_series=a.tilt_series, tilt_file=a.tilt_file,
        tilt_range=a.tilt_range and tuple(a.tilt_range), thickness=a.thickness, filter=a.filter, method=a.method,
        denoiser=a.denoiser, out=a.out, profile=a.profile, parameters=given(a), voxel_size=a.voxel_size,
        spread=a.spread, wedge_content=a.wedge_content, seed=a.seed, device=a.device,
    )  # fmt: skip
    print(target)


def train(a: argparse.Namespace) -> None:
    """`cryostudy train`."""
    with busy("start"):  # torch alone takes seconds to import
        from cryostudy.commands.train import train_denoiser

    print(train_denoiser(
        a.method, a.out, noise=a.noise, levels=a.level, tilt_files=a.tilt_file, tomograms=a.tomogram, even=a.even,
        odd=a.odd, tilt_range=a.tilt_range, filter=a.filter, profile=a.profile, parameters=given(a), seed=a.seed,
        device=a.device,
    ))  # fmt: skip


def match(a: argparse.Namespace) -> None:
    """`cryostudy match`."""
    with busy("start"):  # torch alone takes seconds to import
        from cryostudy.commands.match import match_files

    print(match_files(
        a.tomogram, a.template, step=a.angles_step, symmetry=a.symmetry, tilt_file=a.tilt_file,
        tilt_range=a.tilt_range and tuple(a.tilt_range), wedge=a.wedge, defocus=a.defocus, flipped=not a.unflipped,
        mask=a.mask, black=a.black, whiten=a.whiten, resample=a.resample, voxel_size=a.voxel_size, radius=a.radius,
        rate=a.false_positives, noise_reference=not a.no_noise_reference, out=a.out, seed=a.seed, device=a.device,
    ))  # fmt: skip


def list_methods(a: argparse.Namespace) -> None:
    """`cryostudy methods`."""
    from cryostudy import PROFILES
    from cryostudy.methods import Method, available, get

    def line(method: type[Method]) -> str:
        needs = ", ".join(need.replace("_", " ") for need in method.needs) or "one tomogram"
        paper = f" [{method.paper}]" if method.paper else ""
        return f"{method.summary}{paper}; needs {needs}, {method.cost}"

    if a.name is None:
        for name, method in available().items():
            print(f"{name:20} {line(method)}")
        return
    method = get(a.name)
    print(f"{a.name}: {line(method)}\n")
    columns = [method.at(profile).parameters() for profile in PROFILES]
    classes = [cls for cls in method.__mro__ if issubclass(cls, Method) and cls is not Method and cls.__doc__]
    for paragraph in manual([str(cls.__doc__) for cls in classes], [*PROFILES, *columns[0]]):
        print(paragraph + "\n")
    print(f"{'parameter':18}" + "".join(f"{profile:>28}" for profile in PROFILES))
    for parameter in columns[0]:
        choices = f"  one of {', '.join(method.choices[parameter])}" if parameter in method.choices else ""
        print(f"{parameter:18}" + "".join(f"{column[parameter]!s:>28}" for column in columns) + choices)


def manual(texts: Sequence[str], names: Sequence[str]) -> Iterator[str]:
    """The paragraphs of the docstrings of a method's classes, its own first, for who uses it.

    Left out are the roles of Sphinx, what is raised, sentences on subclasses, and such as begin with an attribute that
    is not of `names` or that a text before this has explained.
    """
    known: set[str] = set()
    for text in texts:
        said: set[str] = set()
        plain = re.sub(r":\w+:`~?(?:cryostudy\.)?([^`]+)`", r"\1", inspect.cleandoc(text).partition("\nRaises:")[0])
        for paragraph in plain.split("\n\n"):
            if paragraph.startswith(".. math::"):
                yield textwrap.indent(paragraph.removeprefix(".. math::").strip(), "    ")
                continue
            kept = []
            for sentence in re.split(r"(?<=[.:])\s+(?=[A-Z`])", paragraph):
                first = re.match(r"`(\w+)`", sentence)
                if "subclass" in sentence or (first and (first[1] not in names or first[1] in known)):
                    continue
                said |= {first[1]} if first else set()
                kept.append(sentence)
            if kept:
                yield textwrap.fill(" ".join(kept), 100, break_long_words=False, break_on_hyphens=False)
        known |= said


def simulate(a: argparse.Namespace) -> None:
    """`cryostudy simulate`."""
    with busy("start"):  # torch alone takes seconds to import
        from cryostudy.commands.simulate import write_simulation

    write_simulation(
        a.out, shape=tuple(a.shape), noise=a.noise, level=a.level, tilt_range=a.tilt_range, tilt_step=a.tilt_step,
        filter=a.filter, densities=a.densities, seed=a.seed,
    )  # fmt: skip


def chapter(a: argparse.Namespace) -> None:
    """`cryostudy chapter`."""
    with busy("start"):  # torch alone takes seconds to import
        from cryostudy.commands.chapter import chapters, defaults, run_chapter, title

    if a.name is None:
        for name in chapters():
            print(f"{name:28} {title(name)}")
    elif a.parameters:
        for name, (value, text) in defaults(a.name).items():
            print(f"{f'{name} = {value!r}':28} {text}".rstrip())
    else:
        print(run_chapter(a.name, a.profile, given(a), a.out))


def run_grid(a: argparse.Namespace) -> None:
    """`cryostudy grid`."""
    with busy("start"):  # torch alone takes seconds to import
        from cryostudy import ablation, failures, grid, paired, verdict
        from cryostudy.explore import compare, store, weights

    if a.paired + a.downstream + a.explorer + (a.ablation is not None) > 1:
        raise InputError("--paired, --downstream, --ablation and --explorer are different grids; leave all but one out")
    if (a.explorer or a.ablation is not None) and (a.condition or a.method):
        raise InputError(f"{'--condition' if a.condition else '--method'}: this grid has its own; leave it out")
    if a.paired and a.seed is not None:
        raise InputError(f"--seed {a.seed}: the paired grid has seeds of its own; leave it out")
    if a.downstream and a.condition:
        raise InputError(f"--condition {a.condition[0]}: the downstream grid has one; leave it out")
    if a.paired:
        found = paired.run(a.profile, a.condition, a.method, device=a.device)
    elif a.ablation is not None:
        found = ablation.run(a.ablation, a.profile, seeds=() if a.seed is None else (a.seed,), device=a.device)
    elif a.downstream:
        found = verdict.run(a.profile, a.method, seeds=() if a.seed is None else (a.seed,), device=a.device)
    elif a.explorer:
        store.check(a.profile)
        failed: dict[str, str] = {}
        found = []
        with failures.tried("weights", failed):
            found.append(weights.run(a.profile, seed=a.seed or 0, device=a.device))
        with failures.tried("methods", failed):
            found += compare.run(a.profile, seed=a.seed or 0, device=a.device)
        failures.conclude(failed, 2)
    else:
        found = grid.run(a.profile, a.condition, a.method, seed=a.seed or 0, device=a.device)
    for path in found:
        print(path)


def run_cell(a: argparse.Namespace) -> None:
    """`cryostudy run`."""
    from cryostudy import runs

    if a.grid is None:
        print("\n".join(f"{name:12} {', '.join(runs.profiles(name))}" for name in runs.names()))
        return
    if (a.cell is not None) + (a.data is not None) + a.table > 1:
        raise InputError("a cell, --data and --table are different things to ask for; leave all but one out")
    with busy("start"):  # torch alone takes seconds to import
        from cryostudy.commands import run

        grid = runs.read(a.grid, a.profile)
    if a.table:
        path, failed = run.write_table(grid)
        print(path)
        if failed:
            print("\n".join(run.lines(failed)), file=sys.stderr)
            raise CryostudyError(f"run grid {grid.name}: {len(failed)} of {len(grid.cells)} cells failed, see above")
    elif a.data:
        print(run.get_data(a.data, grid.profile))
    else:
        print("\n".join(grid.cells) if a.cell is None else run.run_cell(grid, a.cell))


def fetch(a: argparse.Namespace) -> None:
    """`cryostudy fetch`."""
    from cryostudy.commands import fetch as command

    if a.name is None:
        print("\n".join(command.listing()))
    elif a.about:
        print(command.describe(a.name))
    else:
        for path in command.fetch(a.name, a.item, yes=a.yes):
            print(path)


def given(a: argparse.Namespace) -> dict[str, Any]:
    """The -p NAME VALUE pairs."""
    return {name: value(text) for name, text in a.parameter}


def value(text: str) -> Any:
    """A parameter's value as YAML reads it: 3, 0.5, true, [1, 2], null, text. 2e-4 is a number here."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[+-]?[\d.]+[eE][+-]?\d+$"), [*"+-.0123456789"])
    try:
        return yaml.load(text, Loader)
    except (ValueError, yaml.YAMLError):
        raise InputError(f"parameter value {text!r} is not readable; give a number, a text or a [list]") from None


COMMANDS = {
    "restore": restore, "train": train, "match": match, "methods": list_methods, "simulate": simulate,
    "chapter": chapter, "grid": run_grid, "run": run_cell, "fetch": fetch,
}  # fmt: skip
