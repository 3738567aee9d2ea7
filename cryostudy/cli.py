"""The command line: `cryostudy restore | train | match | methods | simulate | chapter | grid | run | fetch`."""

from __future__ import annotations

import argparse
import errno
import inspect
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from cryostudy import __version__
from cryostudy.errors import CryostudyError, InputError
from cryostudy.progress import busy


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 2 for what the user can mend, 130 for Ctrl-C, 143 for SIGTERM."""
    with warnings.catch_warnings(), terminated_as_interrupted():
        warnings.filterwarnings("ignore", category=UserWarning, module="lightning")
        warnings.showwarning = lambda message, *_, **__: say(f"note: {message}")
        try:
            arguments = parser().parse_args(argv)
            arguments.run(arguments)
            sys.stdout.flush()
        except CryostudyError as error:
            say(str(error))
            return 2
        except KeyboardInterrupt as stop:
            say("stopped; run the same command again to go on from the last checkpoint")
            return 143 if isinstance(stop, Terminated) else 130
        except BrokenPipeError:  # the reader of our output has seen enough, as in `cryostudy methods | head -1`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except OSError as error:
            from cryostudy.io.destination import FULL  # with numpy, which `--help` does not wait for

            place = f"{error.filename}: " if error.filename else ""
            reason = f"{error.strerror or error}; check its permissions"
            if error.errno in FULL:
                reason = "disk full; free space"
            elif error.errno == errno.EFBIG:
                reason = "larger than files may be here; raise the limit (ulimit -f)"
            say(f"{place}{reason} or choose another folder")
            return 2
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and not re.search("out of memory|can't allocate memory", str(error)):
                raise
            say("out of memory; crop the volume, or choose a smaller profile or method")
            return 2
    return 0


class Terminated(KeyboardInterrupt):
    """SIGTERM, which batch systems send before they kill: an end as orderly as that of Ctrl-C."""


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Raise Terminated at SIGTERM within the block, so that training keeps its last step; main thread only."""

    def stop(*_: object) -> NoReturn:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def say(text: str) -> None:
    """One line on stderr."""
    print("cryostudy:", " ".join(text.splitlines()), file=sys.stderr)


class Parser(argparse.ArgumentParser):
    """An argument parser that refuses in one line, as everything here does."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def parser() -> argparse.ArgumentParser:
    """The argument parser; its texts are the manual."""
    top = Parser(
        prog="cryostudy",
        description="Restore cryo-electron tomograms, and re-run the study that says which method to trust.",
    )
    top.add_argument("--version", action="version", version=f"cryostudy {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    p = commands.add_parser(
        "restore", help="restore a tomogram",
        description="Train a method on a tomogram and restore it. A training run cut short goes on where it was.",
        epilog="examples: cryostudy restore tomogram.mrc --method recorrupted --out restored.mrc; with what "
        "`cryostudy train` wrote: cryostudy restore tomogram.mrc --denoiser dncnn.pt; fill the missing wedge: "
        "cryostudy restore --even even.mrc --odd odd.mrc --tilt-range -60 60 --method deepdewedge --wedge-content",
    )  # fmt: skip
    p.add_argument("input", nargs="?", type=Path, help="the tomogram (MRC)")
    p.add_argument("--even", type=Path,
                   help="half-tomogram from even tilts or frames; halves are checked for shared noise, a shift and "
                   "inverted contrast")  # fmt: skip
    p.add_argument("--odd", type=Path, help="half-tomogram from odd tilts or frames")
    p.add_argument(
        "--tilt-series", type=Path, help="tilt stack to reconstruct first; needs --tilt-file and --thickness"
    )
    p.add_argument("--tilt-file", type=Path,
                   help="tilt angles: .tlt, .rawtlt or .mdoc; compared with the missing wedge in the tomogram's own "
                   "spectrum")  # fmt: skip
    p.add_argument("--tilt-range", type=float, nargs=2, metavar=("MIN", "MAX"),
                   help="first and last tilt of a tomogram, degrees, in place of --tilt-file; steps of 2 degrees are "
                   "assumed")  # fmt: skip
    p.add_argument("--thickness", type=int, help="thickness of the reconstruction, voxels")
    p.add_argument("--filter",
                   help="ramp, hamming, sirt-like or none: of the reconstruction to make (default: ramp), or of that "
                   "which made the tomogram; with the tilt angles it tells recorrupted and recorrupted_wedge what the "
                   "noise is like")  # fmt: skip
    p.add_argument("--method", help="see `cryostudy methods` (default: recorrupted; with halves: noise2noise)")
    p.add_argument("--denoiser", type=Path, help="a trained denoiser (.pt) to apply; then nothing is trained")
    p.add_argument("--out", type=Path, help="the restored tomogram (default: INPUT_METHOD.mrc beside the input)")
    add_profile(p)
    p.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
                   help="change one hyper-parameter of the method, e.g. -p steps 400")  # fmt: skip
    p.add_argument("--voxel-size", type=float, help="Å, where the header has none")
    p.add_argument("--spread", type=int, metavar="K",
                   help="train K seeds and write OUT_spread.mrc too: how far their restorations differ at each voxel; "
                   "OUT is that of the first")  # fmt: skip
    p.add_argument("--wedge-content", action="store_true",
                   help="write OUT_filled.mrc too: which part of each voxel's surroundings, 0 to 1, was filled into "
                   "the missing wedge; needs the tilt angles")  # fmt: skip
    add_seed_and_device(p)
    p.set_defaults(run=restore)

    p = commands.add_parser(
        "train", help="train a denoiser on simulated specimens, or on several tomograms together",
        description="Train a supervised method (dncnn, ffdnet, vnet) on simulated specimens (10 Å per voxel), noisy "
        "and clean; no tomogram is needed. Or train one network on several tomograms (recorrupted_wedge, blind_wedge) "
        "or pairs of halves (noise2noise, topaz, deepdewedge). Apply it with `cryostudy restore --denoiser`. A run "
        "cut short goes on where it was.",
        epilog="examples: cryostudy train dncnn --out dncnn.pt --noise ddw --level 0.1 1; cryostudy train deepdewedge "
        "--out ddw.pt --even a_even.mrc b_even.mrc --odd a_odd.mrc b_odd.mrc --tilt-range -60 60",
    )  # fmt: skip
    p.add_argument("method", help="the method, see above")
    p.add_argument("--tomogram", type=Path, nargs="+", default=[], help="tomograms to train on")
    p.add_argument("--even", type=Path, nargs="+", default=[], help="half-tomograms to train on")
    p.add_argument("--odd", type=Path, nargs="+", default=[], help="the other halves, in the same order")
    p.add_argument("--out", type=Path, required=True, help="the denoiser to write (.pt); must not exist yet")
    p.add_argument("--noise", help="ddw, awgn, poisson, mixture or white (default: the method's, ddw)")
    p.add_argument("--level", type=float, nargs="+",
                   help="SNR for ddw and white, sigma for awgn ...; one, or the lowest and the highest "
                   "(default: half to twice the level of `cryostudy simulate`)")  # fmt: skip
    p.add_argument("--tilt-file", type=Path, nargs="+", default=[],
                   help="tilt angles: .tlt, .rawtlt or .mdoc; one for all, or one for each tomogram (to simulate: "
                   "default ±60° in steps of 2°)")  # fmt: skip
    p.add_argument("--tilt-range", type=float, nargs=2, metavar=("MIN", "MAX"),
                   help="of the tomograms, degrees, in place of --tilt-file")  # fmt: skip
    p.add_argument("--filter", help="ramp, hamming, sirt-like or none: of the tomograms' reconstruction")
    add_profile(p)
    p.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
                   help="change one hyper-parameter of the method, e.g. -p steps 400")  # fmt: skip
    add_seed_and_device(p)
    p.set_defaults(run=train)

    p = commands.add_parser(
        "match", help="find a particle in a tomogram",
        description="Template matching: where a particle lies in a tomogram and how it is turned. Writes scores.mrc, "
        "orientations.mrc with orientations.csv, particles.star (RELION 5) and record.json. A search cut short goes on "
        "where it was.",
        epilog="example: cryostudy match tomogram.mrc ribosome.mrc --angles-step 10 --tilt-range -60 60 --out matched",
    )  # fmt: skip
    p.add_argument("tomogram", type=Path, help="the tomogram (MRC)")
    p.add_argument("template", type=Path, help="the particle's density (MRC), at the tomogram's voxel size")
    p.add_argument("--angles-step", type=float, default=10.0,
                   help="degrees between orientations, 0.5 to 90; half the step takes eight times as long "
                   "(default: %(default)s)")  # fmt: skip
    p.add_argument("--symmetry", default="C1",
                   help="of the template, whose main axis must lie along z: C1, C2 ..., D2 ..., T, O, I; fewer "
                   "orientations are searched (default: %(default)s)")  # fmt: skip
    p.add_argument("--tilt-file", type=Path, help="tilt angles: .tlt, .rawtlt or .mdoc")
    p.add_argument("--tilt-range", type=float, nargs=2, metavar=("MIN", "MAX"),
                   help="first and last tilt, degrees, in place of --tilt-file")  # fmt: skip
    p.add_argument("--wedge", default="template",
                   help="template: cut the missing wedge out of the template, as fits a raw tomogram; both: out of "
                   "the tomogram too; none: match the whole template, as fits a tomogram whose wedge was filled, or "
                   "where no tilt angles are given (default: %(default)s)")  # fmt: skip
    p.add_argument(
        "--defocus",
        type=float,
        help="underfocus in Å (30000 for 3 µm): weight the template by the CTF at 300 kV and Cs 2.7 mm",
    )
    p.add_argument(
        "--unflipped", action="store_true", help="with --defocus: the tomogram was not corrected for the CTF's sign"
    )
    p.add_argument("--mask", type=Path, help="of the template's shape, 0 to 1 (default: a ball around the particle)")
    p.add_argument("--black", action="store_true", help="particles are darker than the tomogram's background")
    p.add_argument("--whiten", action="store_true",
                   help="bring every spatial frequency of the tomogram to the same power first; helps with some "
                   "particles and harms with others (chapter 30)")  # fmt: skip
    p.add_argument("--resample", action="store_true", help="bring template and mask to the tomogram's voxel size")
    p.add_argument("--voxel-size", type=float, help="Å, of the tomogram, in place of what its header says")
    p.add_argument("--radius", type=float,
                   help="of the particle, Å: peaks are no closer (default: of a ball around the template)")  # fmt: skip
    p.add_argument("--false-positives", type=float, default=1.0, metavar="RATE",
                   help="how many peaks of noise to accept in the whole tomogram (default: %(default)s)")  # fmt: skip
    p.add_argument("--no-noise-reference", action="store_true",
                   help="do not match a phase-randomised template too; half the time, and a threshold that knows noise "
                   "only")  # fmt: skip
    p.add_argument("--out", type=Path, help="folder to write into (default: TOMOGRAM_TEMPLATE beside the tomogram)")
    add_seed_and_device(p)
    p.set_defaults(run=match)

    p = commands.add_parser("methods", help="list the methods", description="List the methods and what they need.")
    p.add_argument("name", nargs="?", help="show one method with its parameters at every profile")
    p.set_defaults(run=list_methods)

    p = commands.add_parser(
        "simulate", help="simulate a recording with known truth",
        description="Simulate a specimen and its recording; writes the volumes full, even, odd, truth, clean, labels "
        "and membrane, the tilt series with its angles, particles.json and record.json.",
    )  # fmt: skip
    p.add_argument("--out", type=Path, required=True, help="folder to write into (new or empty)")
    p.add_argument(
        "--shape", type=int, nargs=3, default=(96, 96, 96), metavar=("Z", "Y", "X"), help="(default: 96 96 96)"
    )
    p.add_argument("--noise", default="ddw", help="ddw, awgn, poisson, mixture or white (default: %(default)s)")
    p.add_argument("--level", type=float, help="SNR for ddw and white, sigma for awgn ... (default: the preset's)")
    p.add_argument("--tilt-range", type=float, default=60.0, help="degrees to either side (default: %(default)s)")
    p.add_argument("--tilt-step", type=float, default=2.0, help="degrees (default: %(default)s)")
    p.add_argument("--filter", default="ramp", help="ramp, hamming or sirt-like (default: %(default)s)")
    p.add_argument("--densities", default="auto", help="auto, shrec or built-in (default: %(default)s)")
    p.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    p.set_defaults(run=simulate)

    p = commands.add_parser(
        "chapter", help="run a chapter of the study",
        description="Execute a chapter's notebook with papermill; keeps the executed notebook and its record.",
        epilog="example: cryostudy chapter 02_volume_shuffle --profile laptop -p seed 1",
    )  # fmt: skip
    p.add_argument("name", nargs="?", help="the chapter, e.g. 02_volume_shuffle (default: list them)")
    p.add_argument("--parameters", action="store_true", help="list the chapter's parameters instead of running it")
    add_profile(p)
    p.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
                   help="a papermill parameter of the chapter")  # fmt: skip
    p.add_argument(
        "--out",
        type=Path,
        help="the executed notebook (default: _build/runs/PROFILE/NAME.ipynb, with -p in own/ there)",
    )
    p.set_defaults(run=chapter)

    p = commands.add_parser(
        "grid", help="run the tables of the papers, every method on every data set",
        description="Run every method on every data set, noise and missing wedge of the tables of papers 000 and 001; "
        "chapter 19 reads the records (_build/runs/PROFILE/records/grid). A grid cut short goes on where it was. At "
        "laptop scale it takes hours on two cores: --condition and --method choose a part of it.",
        epilog="example: cryostudy grid --condition shrec-awgn-0.1 --method bm4d recorrupted",
    )  # fmt: skip
    add_profile(p)
    p.add_argument("--paired", action="store_true",
                   help="the methods with two halves or a filled wedge against SNR and seeds (Figure 5 of paper 004) "
                   "instead; chapter 29 reads the records")  # fmt: skip
    p.add_argument("--downstream", action="store_true",
                   help="picking, poses, membranes and SNR of restored volumes instead, as in paper 003; chapters 30 "
                   "to 39 read the records")  # fmt: skip
    p.add_argument("--ablation", metavar="NAME",
                   help="the parameter grid of data/ablations/NAME.yml instead, with several seeds (a wrong name lists "
                   "them); chapters 40 to 43 read the records")  # fmt: skip
    p.add_argument("--explorer", action="store_true",
                   help="the volumes that the explorers show instead: the loss weights, and the methods side by side; "
                   "chapter 50 reads the records")  # fmt: skip
    p.add_argument("--condition", nargs="+", default=[], help="(default: all; a wrong name lists them)")
    p.add_argument(
        "--method",
        nargs="+",
        default=[],
        help="(default: all of `cryostudy methods`; with --paired or --downstream those of their chapters)",
    )
    p.add_argument("--seed", type=int, help="(default: 0; with --downstream or --ablation all of 0, 1 and 2)")
    add_device(p)
    p.set_defaults(run=run_grid)

    p = commands.add_parser(
        "run", help="run one cell of a run grid",
        description="Execute one cell of a run grid (data/runs/NAME.yml: data set, noise, method, seed, profile) with "
        "papermill. `make grid GRID=NAME` runs all cells that are out of date, on this machine or on a cluster.",
        epilog="example: cryostudy run smoke built-in_white-0.25_gaussian_seed0 --profile smoke",
    )  # fmt: skip
    p.add_argument("grid", nargs="?", help="its name, or the path of a YAML file (default: list them)")
    p.add_argument("cell", nargs="?", help="(default: list them)")
    p.add_argument("--data", metavar="NAME", help="make this data set of the grid ready instead, for machines offline")
    p.add_argument("--table", action="store_true", help="write the table of all cells instead, and say which failed")
    add_profile(p)
    p.set_defaults(run=run_cell)

    p = commands.add_parser(
        "fetch", help="download a data set",
        description="Download a data set into the folder that CRYOSTUDY_DATA names, and verify it. A download cut "
        "short goes on where it was.",
        epilog="example: cryostudy fetch empiar-10045 05 --yes",
    )  # fmt: skip
    p.add_argument("name", nargs="?", help="its name; without one, lists what there is")
    p.add_argument("item", nargs="?", help="which of its tomograms (default: as `--about` says)")
    p.add_argument("--yes", action="store_true", help="download 1 GB or more, or what has no stated size")
    p.add_argument("--about", action="store_true", help="say what it is, its licence and layout; download nothing")
    p.set_defaults(run=fetch)
    return top


def add_profile(p: argparse.ArgumentParser) -> None:
    """--profile, the same for every command that has it."""
    p.add_argument(
        "--profile", default="laptop", help="smoke (tests, no results), laptop or gpu (default: %(default)s)"
    )


def add_seed_and_device(p: argparse.ArgumentParser) -> None:
    """--seed and --device, the same for every command that trains."""
    p.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    add_device(p)


def add_device(p: argparse.ArgumentParser) -> None:
    """--device."""
    p.add_argument(
        "--device",
        default="auto",
        help=(
            "auto, cpu, cuda, cuda:1; cuda:0,1 trains on both GPUs, which share each batch, and cpu:2 in two "
            "processes: give a batch that is a multiple, as in -p batch 2; what trains nothing takes the first "
            "(default: %(default)s)"
        ),
    )


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

    if a.name is None:
        for name, method in available().items():
            needs = ", ".join(need.replace("_", " ") for need in method.needs) or "one tomogram"
            paper = f" [{method.paper}]" if method.paper else ""
            print(f"{name:20} {method.summary}{paper}; needs {needs}, {method.cost}")
        return
    method = get(a.name)
    needs = ", ".join(need.replace("_", " ") for need in method.needs) or "one tomogram"
    print(f"{a.name}: {method.summary}{f' [{method.paper}]' if method.paper else ''}; needs {needs}, {method.cost}\n")
    for cls in (cls for cls in method.__mro__ if issubclass(cls, Method) and cls is not Method and cls.__doc__):
        about = inspect.cleandoc(str(cls.__doc__)).partition("\nRaises:")[0].rstrip()
        print(re.sub(r":\w+:`~?(?:cryostudy\.)?([^`]+)`", r"\1", about) + "\n")  # without the roles of Sphinx
    print(f"{'parameter':18}" + "".join(f"{profile:>28}" for profile in PROFILES))
    columns = [method.at(profile).parameters() for profile in PROFILES]
    for parameter in columns[0]:
        choices = f"  one of {', '.join(method.choices[parameter])}" if parameter in method.choices else ""
        print(f"{parameter:18}" + "".join(f"{column[parameter]!s:>28}" for column in columns) + choices)


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


if __name__ == "__main__":
    sys.exit(main())
