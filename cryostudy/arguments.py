"""What the command line takes: its parsers, whose texts are the manual."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn

from cryostudy import __version__
from cryostudy.errors import InputError


class Parser(argparse.ArgumentParser):
    """An argument parser that refuses in one line, as everything here does."""

    def error(self, message: str) -> NoReturn:
        if "-p/--parameter: expected 2" in message:
            message += ", a name and a value, as in -p steps 400"
        raise InputError(f"{message}; see {self.prog} --help")


def parser() -> argparse.ArgumentParser:
    """The argument parser; its texts are the manual."""
    top = Parser(
        prog="cryostudy",
        description="Restore cryo-electron tomograms, and re-run the study that says which method to trust.",
    )
    top.add_argument("--version", action="version", version=f"cryostudy {__version__}")
    commands = top.add_subparsers(required=True, dest="command", metavar="COMMAND")

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
    add_parameter(p, "change one hyper-parameter of the method, e.g. -p steps 400")
    p.add_argument("--voxel-size", type=float, help="Å, where the header has none")
    p.add_argument("--spread", type=int, metavar="K",
                   help="train K seeds and write OUT_spread.mrc too: how far their restorations differ at each voxel; "
                   "OUT is that of the first")  # fmt: skip
    p.add_argument("--wedge-content", action="store_true",
                   help="write OUT_filled.mrc too: which part of each voxel's surroundings, 0 to 1, was filled into "
                   "the missing wedge; needs the tilt angles")  # fmt: skip
    add_seed_and_device(p)

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
    add_parameter(p, "change one hyper-parameter of the method, e.g. -p steps 400")
    add_seed_and_device(p)

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

    p = commands.add_parser("methods", help="list the methods", description="List the methods and what they need.")
    p.add_argument("name", nargs="?", help="show one method with its parameters at every profile")

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

    p = commands.add_parser(
        "chapter", help="run a chapter of the study",
        description="Execute a chapter's notebook with papermill; keeps the executed notebook and its record.",
        epilog="example: cryostudy chapter 02_volume_shuffle --profile laptop -p seed 1",
    )  # fmt: skip
    p.add_argument("name", nargs="?", help="the chapter, e.g. 02_volume_shuffle (default: list them)")
    p.add_argument("--parameters", action="store_true", help="list the chapter's parameters instead of running it")
    add_profile(p)
    add_parameter(p, "a papermill parameter of the chapter")
    p.add_argument(
        "--out",
        type=Path,
        help="the executed notebook (default: _build/runs/PROFILE/NAME.ipynb, with -p in own/ there)",
    )

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
    return top


def add_profile(p: argparse.ArgumentParser) -> None:
    """--profile, the same for every command that has it."""
    p.add_argument(
        "--profile", default="laptop", help="smoke (tests, no results), laptop or gpu (default: %(default)s)"
    )


def add_parameter(p: argparse.ArgumentParser, about: str) -> None:
    """-p, which may be repeated."""
    p.add_argument(
        "-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help=about
    )  # fmt: skip


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
