"""The study through Snakemake and run directly, at smoke scale: are all records the same but for times?

    python tests/whole_study.py                          # every chapter, the grid `smoke` and the site: 20 minutes
    python tests/whole_study.py 01_simulation 16_noise   # some chapters

Too long for a test. Either run starts from nothing in a folder of its own below _build/whole_study.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from orchestration import ROOT, environment, runs, words

from cryostudy import runs as grids
from cryostudy import same


def main(names: list[str]) -> int:
    """Runs both and prints where they differ; returns 0 where they do not."""
    folder = ROOT / "_build" / "whole_study"
    shutil.rmtree(folder, ignore_errors=True)
    through, direct = folder / "through", folder / "direct"
    through.mkdir(parents=True)
    direct.mkdir()
    targets = [str(runs(through) / f"{name}.ipynb") for name in names] or ["all"]
    command = words(through, "all", Path("smoke"))
    command[command.index("all") : command.index("all") + 1] = targets
    failed = subprocess.run(command, env=environment(through), cwd=ROOT).returncode
    chapters = names or sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"))
    calls = [["chapter", name] for name in chapters]
    calls += [] if names else [["run", "smoke", cell] for cell in grids.read("smoke", "smoke").cells]
    for call in calls:
        print("direct:", *call, flush=True)
        line = [sys.executable, "-m", "cryostudy", *call, "--profile", "smoke"]
        failed |= subprocess.run(line, env=environment(direct), cwd=ROOT, stdout=subprocess.DEVNULL).returncode
    for made in (through, direct):  # tables are of Snakemake alone
        for table in (runs(made) / "grids").glob("*.json"):
            table.unlink()
    return same.main(str(runs(through)), str(runs(direct))) or failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
