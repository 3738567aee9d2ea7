"""`cryostudy chapter`: execute a notebook with papermill and put its record at its top."""

from __future__ import annotations

import ast
import difflib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat

from cryostudy import PROFILES, records
from cryostudy.errors import CryostudyError, InputError
from cryostudy.io.aside import locked, write_aside

NOTEBOOKS = records.REPOSITORY / "notebooks"


def chapters() -> list[str]:
    """The names of all chapters, in order."""
    return sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))


def defaults(name: str) -> dict[str, tuple[Any, str]]:
    """The parameters of a chapter but for `profile`: name -> default value and comment.

    Raises:
        InputError: unknown chapter.
    """
    import papermill

    if name not in chapters():
        near = difflib.get_close_matches(name, chapters(), n=1, cutoff=0.7)
        near = near or [other for other in chapters() if name and other.startswith(name)][:1]
        hint = f"did you mean {near[0]}?" if near else "`cryostudy chapter` lists them"
        raise InputError(f"chapter {name}: unknown; {hint}")
    found = papermill.inspect_notebook(str(NOTEBOOKS / f"{name}.ipynb"))
    return {key: (ast.literal_eval(p["default"]), p["help"]) for key, p in found.items() if key != "profile"}


def title(name: str) -> str:
    """The heading of a chapter."""
    first = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4).cells[0].source
    return str(first.splitlines()[0].lstrip("# "))


def check_value(chapter: str, name: str, value: Any, default: Any) -> None:
    """Raise InputError, before a kernel starts, for a value that is not of the kind of the default."""
    kinds: dict[Any, str] = {bool: "True or False", (int, float): "a number", str: "text", (list, tuple): "a list"}
    for kind, needed in kinds.items():
        if isinstance(default, kind):
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                raise InputError(f"chapter {chapter}, -p {name} {value}: needs {needed}, such as {default!r}")
            return


def run_chapter(name: str, profile: str = "laptop", parameters: Mapping[str, Any] | None = None,
                out: Path | None = None) -> Path:  # fmt: skip
    """Execute a chapter; returns the executed notebook.

    By default it is `_build/runs/PROFILE/NAME.ipynb`, and with `parameters` `_build/runs/PROFILE/own/NAME.ipynb`, so
    that the study's own run stays. Its record goes to `records/NAME.json` beside it. A chapter that fails is kept as
    `NAME.failed.ipynb`, and an earlier good run is left as it was.

    Raises:
        InputError: unknown chapter, profile or parameter. CryostudyError: a cell failed.
    """
    known = defaults(name)
    if profile not in PROFILES:
        raise InputError(f"--profile {profile}: unknown; use one of {', '.join(PROFILES)}")
    source = NOTEBOOKS / f"{name}.ipynb"
    for parameter, value in (parameters or {}).items():
        if parameter not in known:
            hint = "use --profile" if parameter == "profile" else f"it has {', '.join(known)}"
            raise InputError(f"chapter {name} has no parameter {parameter!r}; {hint}")
        check_value(name, parameter, value, known[parameter][0])
    runs = records.build_folder() / "runs" / profile
    target = (out or (runs / "own" if parameters else runs) / f"{name}.ipynb").absolute()
    if target.suffix != ".ipynb" or target.is_dir() or target.resolve() == source.resolve():
        raise InputError(f"--out {target}: give the name of a notebook (.ipynb) that is not the chapter's own")
    return execute(
        f"chapter {name}", source, target, {**(parameters or {}), "profile": profile}, name,
        again=f"cryostudy chapter {name} --profile {profile}",
    )  # fmt: skip


def execute(
    what: str, source: Path, target: Path, parameters: Mapping[str, Any], name: str, *, again: str
) -> Path:  # fmt: skip
    """Execute a notebook with papermill into `target`; returns `target`.

    Its record goes to `records/NAME.json` beside `target` when all is done (a cell writes it to `$CRYOSTUDY_RECORD`). A
    failed run is kept as `*.failed.ipynb`, and an earlier good one is left as it was.

    Args:
        what: how messages call it. again: the command that runs it again, for the note at its top.
    Raises:
        CryostudyError: a cell failed, or there is no record of this run.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    record = target.parent / "records" / f"{name}.json"
    record.parent.mkdir(parents=True, exist_ok=True)
    pending = record.with_name(f"{target.stem}.json.pending")  # an earlier run keeps its record until this one is whole
    failed = target.with_name(f"{target.stem}.failed.ipynb")
    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what it has to say comes as an exception too
    with locked(failed):
        os.truncate(failed, 0)
        pending.unlink(missing_ok=True)
        before = dict(os.environ)
        os.environ |= {"CRYOSTUDY_RECORDS": str(record.parent), "CRYOSTUDY_RECORD": str(pending)}
        try:
            papermill.execute_notebook(
                str(source), str(failed), dict(parameters), kernel_name="python3",
                cwd=os.getcwd(), request_save_on_cell_execute=False, progress_bar={"disable": None},
                extra_arguments=["--log-level=CRITICAL"],  # of the kernel, which warns of its transport at each start
            )  # fmt: skip
            if not pending.exists():
                raise CryostudyError(f"{what} wrote no record; its last cell must call record.finish(); see {failed}")
            notebook = with_record(nbformat.read(failed, as_version=4), json.loads(pending.read_text()), again)
            write_aside(target, lambda aside: nbformat.write(notebook, aside))
            os.replace(pending, record)
        except PapermillExecutionError as error:
            said = f"{error.ename}: {error.evalue}".strip().splitlines()[0].removesuffix(":")
            raise CryostudyError(f"{what} failed in cell {error.exec_count}: {said}; see {failed}") from None
        except DeadKernelError:
            raise CryostudyError(f"{what}: its process died, perhaps for want of memory") from None
        except OSError as error:  # a full disk, on which what there is of the notebook cannot be read
            error.filename = error.filename or str(target)
            os.truncate(failed, 0)
            raise
        finally:
            pending.unlink(missing_ok=True)
            os.environ.clear()
            os.environ.update(before)
        failed.unlink()
    return target


def with_record(notebook: Any, record: Mapping[str, Any], again: str) -> Any:
    """The executed notebook with a summary of its record below the title, and without what differs from run to run."""
    cell = nbformat.v4.new_markdown_cell(summary(record, again), metadata={"tags": ["record"]}, id="record")
    notebook.cells.insert(1, cell)
    for other in notebook.cells:
        for key in ("papermill", "execution"):
            other.metadata.pop(key, None)
    notebook.metadata.pop("papermill", None)
    return notebook


def summary(record: Mapping[str, Any], again: str) -> str:
    """The record as a folded note for the reader; `again` is the command that makes another."""
    changed = ", ".join(f"{k} = {v}" for k, v in record["parameters"].items())
    trained = record.get("trained", {"networks": 0})
    cost = f"- **networks** {trained['networks']}, trained in {trained.get('seconds', 0):.0f} s, earlier runs included"
    lines = [
        f":::{{admonition}} This page was run at `{record['profile']}` scale, seed {record['seed']}, "
        f"on {record['device']}, in {record['wall_seconds']:.0f} s",
        ":class: note dropdown run-record",
        "",
        f"- **parameters** {changed}",
        *(f"- **data** `{name}`: {text}" for name, text in record["data"].items()),
        *(f"- **input** `{name}` SHA-256 `{digest[:16]}…`" for name, digest in record["inputs"].items()),
        *([cost] if trained["networks"] else []),
        f"- **started** {record['started']}, peak memory {record['peak_memory']['host_mib']:.0f} MiB",
        f"- **package** `{record['package_sha256'][:16]}…`, notebook `{record['notebook_sha256'][:16]}…`, "
        f"commit `{record['commit'] or 'none'}`",
        "- **versions** " + ", ".join(f"{name} {text}" for name, text in record["versions"].items() if text),
        "",
        f"What each entry means: [](../records.md). [Run it again](../rerun.md): "
        f"`cryostudy chapter {record['name']} --profile {record['profile']}`.",
        ":::",
    ]
    return "\n".join(lines)
