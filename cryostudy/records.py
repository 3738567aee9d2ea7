"""What ran, on what, from what, with what result: one JSON record a run.

`book/records.md` explains every field to readers; keep the two in step. torch is imported where it is needed, for
`cryostudy chapter`, which only starts a notebook, would wait seconds for it.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import re
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryostudy import __version__, sources
from cryostudy.errors import InputError
from cryostudy.io.aside import write_aside

PACKAGE = Path(__file__).resolve().parent
REPOSITORY = PACKAGE.parent
RESULTLESS = ("book.py", "cli.py", "figures.py", "progress.py", "publishing.py")  # they cannot change a number
TRAINED: dict[str, float] = {}  # seconds that each network took, of those used since the record began, by its folder
PACKAGES = ("torch", "numpy", "scipy", "mrcfile", "lightning", "scikit-image", "matplotlib", "papermill")


def build_folder() -> Path:
    """Where runs and artefacts go: $CRYOSTUDY_BUILD, else `_build` in the checkout, else in the current folder."""
    if named := os.environ.get("CRYOSTUDY_BUILD"):
        return Path(named)
    root = REPOSITORY if (REPOSITORY / "notebooks").is_dir() else Path.cwd()
    return root / "_build"


@functools.cache
def package_files(package: Path = PACKAGE) -> dict[str, str]:
    """:func:`cryostudy.sources.digest` of each file of the package that can change a result, by its path below it."""
    found = sorted(path for path in package.rglob("*") if path.suffix in (".py", ".json"))
    named = {path.relative_to(package).as_posix(): path for path in found}
    return {name: sources.digest(path) for name, path in named.items() if name not in RESULTLESS}


def package_hash(package: Path = PACKAGE) -> str:
    """SHA-256 over :func:`package_files` (paths and contents): equal hashes mean code that does the same."""
    return hashlib.sha256(json.dumps(package_files(package)).encode()).hexdigest()


def modules() -> dict[str, str]:
    """:func:`package_files` of those that this process has imported: the code that a run can have used."""
    places = (Path(file) for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None)))
    loaded = {path.relative_to(PACKAGE).as_posix() for path in places if path.is_relative_to(PACKAGE)}
    return {name: digest for name, digest in package_files().items() if name in loaded}


def changed(record: Mapping[str, Any]) -> list[str]:
    """The files among those a run imported that are no longer what they were; the whole package in older records."""
    if "modules" not in record:
        return [] if record["package_sha256"] == package_hash() else ["cryostudy"]
    now = package_files()
    return [name for name, digest in record["modules"].items() if now.get(name) != digest]


@contextmanager
def noting(files: Sequence[Path] = ()) -> Iterator[list[str]]:
    """The list holds, after the block, what it warned of, for the `notes` of a record; the warnings come all the same.

    Of `files` the notes keep the names alone, for folders are nobody else's business.
    """
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            yield notes
        finally:
            for warning in caught:
                text = str(warning.message)
                for file in sorted(files, key=lambda file: -len(str(file))):
                    text = text.replace(str(file), file.name)
                notes.append(text)
    for w in caught:
        warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def code_hash(notebook: Path) -> str:
    """SHA-256 over the code cells of a notebook, outputs, prose and injected parameters left out."""
    cells = json.loads(notebook.read_text())["cells"]
    generated = {"injected-parameters", "record"}
    code = [
        "".join(cell["source"])
        for cell in cells
        if cell["cell_type"] == "code" and not generated & set(cell["metadata"].get("tags", []))
    ]
    return hashlib.sha256("\0".join(code).encode()).hexdigest()


def commit() -> str:
    """The checkout's commit, with "+changes" when files differ from it; "" outside a checkout."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(REPOSITORY), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        if git("ls-files", "--", "cryostudy/records.py") == "":  # installed below somebody else's checkout
            return ""
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--", "cryostudy") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def device_name(device: str = "auto") -> str:
    """The device in words, as it stands beside every figure."""
    import torch

    from cryostudy.training import choose_devices

    device, *others = choose_devices(device)
    many = f"{1 + len(others)} x " if others else ""
    if device.startswith("cuda"):
        return many + torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    processes = f", {1 + len(others)} processes" if others else ""
    return f"{model} CPU, {threads} thread{'s' * (threads > 1)}{processes}"


def peak_memory(device: str = "auto") -> dict[str, float]:
    """Largest memory of this process so far in MiB: `host`, and `device` on a GPU.

    Those that train on several devices are other processes.
    """
    import torch

    from cryostudy.training import choose_device

    unit = 2**20 if sys.platform == "darwin" else 2**10
    found = {"host_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)}
    first = choose_device(device)
    if first.startswith("cuda"):
        found["device_mib"] = round(torch.cuda.max_memory_allocated(first) / 2**20, 1)
    return found


@contextmanager
def memory_of(device: str = "auto") -> Iterator[list[float]]:
    """Measure what a block needs: the list holds, after it, the largest memory in MiB beyond what was in use before.

    On a GPU that of the device; on a CPU the resident memory, which only Linux tells for a block (elsewhere the list
    stays empty).
    """
    import torch

    from cryostudy.training import choose_device

    found: list[float] = []
    first = choose_device(device)
    on_gpu = first.startswith("cuda")
    status, clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")

    def resident(field: str) -> float:
        return float(re.findall(rf"{field}:\s+(\d+) kB", status.read_text())[0]) / 2**10

    before: float | None = None
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(first)
        before = torch.cuda.memory_allocated(first) / 2**20
    else:
        try:
            ctypes.CDLL(None).malloc_trim(0)  # what was freed but kept would hide what the block needs
            clear.write_text("5")  # the kernel's way to start the high-water mark anew
            before = resident("VmRSS")
        except (OSError, IndexError, AttributeError):  # another system
            pass
    yield found
    if before is not None:
        after = torch.cuda.max_memory_allocated(first) / 2**20 if on_gpu else resident("VmHWM")
        found.append(round(max(0.0, after - before), 1))


@dataclass
class Record:
    """One run while it goes on. Start it with :func:`start`, end it with :meth:`finish`."""

    name: str
    content: dict[str, Any]
    started: float = field(default_factory=time.monotonic)

    def data(self, acquisition: Any) -> None:
        """Note a data set by its name and description (noise model, level, seed)."""
        self.content["data"][acquisition.name] = acquisition.description

    def add(self, name: str, metrics: Mapping[str, float | int | str]) -> None:
        """Add the metrics of one thing, e.g. `add("white.gaussian", {"cc": 0.9})`.

        Raises:
            InputError: a value is NaN: a metric that could not be computed has no place in a record.
        """
        # Numbers of numpy and torch become Python's own: JSON knows no others.
        plain = {key: value.item() if hasattr(value, "item") else value for key, value in metrics.items()}
        for key, value in plain.items():
            if isinstance(value, float) and math.isnan(value):
                raise InputError(f"record {self.name}: {name}.{key} is NaN")
        self.content["metrics"].setdefault(name, {}).update(plain)

    def closed(self) -> dict[str, Any]:
        """The whole content, with wall time, what networks took, peak memory and imported code up to now."""
        self.content["wall_seconds"] = round(time.monotonic() - self.started, 2)
        self.content["trained"] = {"networks": len(TRAINED), "seconds": round(sum(TRAINED.values()), 2)}
        self.content["peak_memory"] = peak_memory(self.content["device_asked"])
        self.content["modules"] = modules()
        return self.content

    def finish(self, folder: Path | None = None) -> Path:
        """Write the record as `folder/NAME.json` (default: $CRYOSTUDY_RECORDS, or `_build/runs/PROFILE/own/records`: a
        notebook run by other means may have other parameters than the study's).

        `cryostudy chapter` names the file by $CRYOSTUDY_RECORD and moves it to its place when the chapter is done.
        """
        if folder is None:
            if pending := os.environ.get("CRYOSTUDY_RECORD"):
                return write_json(Path(pending), self.closed())
            named = os.environ.get("CRYOSTUDY_RECORDS")
            folder = Path(named) if named else build_folder() / "runs" / self.content["profile"] / "own" / "records"
        return write_json(folder / f"{self.name}.json", self.closed())

    def glue(self) -> None:
        """Hand every metric of this record to the page, as `{glue:text}` keys `thing.metric`; call it in a notebook."""
        self.closed()
        for name, metrics in self.content["metrics"].items():
            for key, value in metrics.items():
                glue(f"{name}.{key}", readable(value))
        for key in ("profile", "seed", "device", "wall_seconds"):
            glue(f"run.{key}", readable(self.content[key]))


def start(
    name: str,
    *,
    parameters: Mapping[str, Any],
    profile: str,
    seed: int,
    device: str = "auto",
    inputs: Sequence[Path | str] = (),
) -> Record:
    """Begin the record of a run.

    Args:
        name: of the chapter or run; names the file. parameters: everything the user could set.
        inputs: files that were read; their SHA-256 is kept.
    Raises:
        InputError: negative seed.
    """
    if not 0 <= seed < 2**63:
        raise InputError(f"--seed {seed}: give a whole number from 0 on")
    TRAINED.clear()
    files = [Path(path) for path in inputs]
    names = [path.name for path in files]
    notebook = REPOSITORY / "notebooks" / f"{name}.ipynb"
    return Record(
        name,
        {
            "name": name,
            "profile": profile,
            "parameters": dict(parameters),
            "seed": seed,
            "device": device_name(device),
            "device_asked": device,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "data": {},
            "notes": [],
            "metrics": {},
            "inputs": {
                # even/tomogram.mrc and odd/tomogram.mrc need their folders to be told apart
                "/".join(path.absolute().parts[-1 if names.count(path.name) == 1 else -2 :]): file_hash(path)
                for path in files
            },
            "notebook_sha256": code_hash(notebook) if notebook.exists() else "",
            "package_sha256": package_hash(),
            "commit": commit(),
            "versions": {"python": platform.python_version(), "cryostudy": __version__}
            | {package: version(package) for package in PACKAGES},
        },
    )


def write_json(path: Path, content: Mapping[str, Any]) -> Path:
    """Write a record, atomically."""
    text = json.dumps(content, indent=1, ensure_ascii=False, default=str)
    write_aside(path, lambda aside: aside.write_text(text + "\n"))
    return path


def version(package: str) -> str:
    """The installed version, "" if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def readable(value: Any) -> str:
    """A metric as prose shows it: three or four significant digits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:d}"
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"


def glue(name: str, text: str) -> None:
    """Put a text under a glue key into the executed notebook (MyST-NB's format; needs nothing but IPython)."""
    from IPython.display import display

    prefix = "application/papermill.record/"
    metadata = {"scrapbook": {"name": name, "mime_prefix": prefix}}
    display({f"{prefix}text/plain": text}, raw=True, metadata=metadata)
