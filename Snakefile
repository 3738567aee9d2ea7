# The whole study: data, chapters, run grids, their tables, the site. `make study` and `make grid` call this; alone:
#   snakemake --cores all --config profile=smoke                      # everything, on this machine
#   snakemake grids --cores all --config profile=smoke grid=mine.yml  # one run grid
#   snakemake --profile profiles/slurm --config profile=gpu           # on a cluster, see book/cluster.md
# What is out of date is told by content: of notebooks and records their checksums, of code a digest of what a job can
# reach, comments left out. So neither a touched file nor another checkout runs anything again.
import os
import shlex
import sys
from pathlib import Path

from cryostudy import runs, staleness
from cryostudy.commands import run as grids
from cryostudy.errors import InputError

PROFILE = config.get("profile", "laptop")
HERE = Path(os.path.relpath(workflow.basedir))
BUILD = os.environ.get("CRYOSTUDY_BUILD", "_build")
RUNS = f"{BUILD}/runs/{PROFILE}"
LOGS = f"{BUILD}/logs/{PROFILE}"
SITE = f"{BUILD}/site/{PROFILE}"
CHAPTERS = sorted(path.stem for path in HERE.glob("notebooks/[0-9][0-9]_*.ipynb"))
PYTHON = shlex.quote(sys.executable)  # of this very environment, whatever the search path says
# Small networks gain little from a second core, so two chapters run at a time with half of the cores each, and a cell
# has one. A GPU is one job's. A cluster's profile sets threads for itself.
CORES = workflow.resource_settings.cores or 1
THREADS = CORES if PROFILE == "gpu" else max(1, CORES // 2)


# The run grids: those named (config grid=a,b.yml), else `smoke`, which is cheap; a file is checked once, not in each job.
def read(name):
    return runs.read(name, PROFILE, check=workflow.is_main_process)


try:
    NAMED = [name for name in str(config.get("grid", "smoke")).split(",") if name]
    GRIDS = {grid.name: (name, grid) for name in NAMED for grid in [read(name)]}
except InputError as error:
    sys.exit(f"snakemake: {error}")  # one line, where an exception would be a page


def cell(wildcards):
    return GRIDS[wildcards.grid][1].cells[wildcards.cell]


def given(wildcards):
    return shlex.quote(GRIDS[wildcards.grid][0])


wildcard_constraints:
    grid="[^/]+",
    cell="[^/]+",
    name="[^/]+",


localrules: all, grids, data, table, site


rule all:
    input:
        f"{SITE}/index.html",


rule grids:
    input:
        expand(f"{RUNS}/grids/{{grid}}.json", grid=GRIDS),


# Data sets are had here, once, on the machine that Snakemake runs on: a cluster's nodes may have no network.
rule data:
    output:
        f"{RUNS}/grids/{{grid}}/data/{{name}}.txt",
    log:
        f"{LOGS}/grids/{{grid}}/data-{{name}}.log",
    params:
        given=given,
        dataset=lambda wildcards: shlex.quote(next(
            cell.dataset for cell in GRIDS[wildcards.grid][1].cells.values()
            if grids.data_name(cell.dataset) == wildcards.name
        )),
    message:
        "Data set {wildcards.name} (log: {log})"
    shell:
        "{PYTHON} -m cryostudy run {params.given} --data {params.dataset} --profile {PROFILE} > {output} 2> {log}"


rule run:
    input:
        lambda wildcards: f"{RUNS}/grids/{wildcards.grid}/data/{grids.data_name(cell(wildcards).dataset)}.txt",
    output:
        f"{RUNS}/grids/{{grid}}/{{cell}}.ipynb",
        f"{RUNS}/grids/{{grid}}/records/{{cell}}.json",
    log:
        f"{LOGS}/grids/{{grid}}/{{cell}}.log",
    params:
        given=given,
        code=lambda wildcards: staleness.cell(cell(wildcards)),
    threads: CORES if PROFILE == "gpu" else 1
    message:
        f"Cell {{wildcards.cell}} at {PROFILE} scale (log: {{log}})"
    shell:
        "OMP_NUM_THREADS={threads} {PYTHON} -m cryostudy run {params.given} {wildcards.cell} --profile {PROFILE} > {log} 2>&1"


rule table:
    input:
        lambda wildcards: expand(f"{RUNS}/grids/{wildcards.grid}/records/{{cell}}.json", cell=GRIDS[wildcards.grid][1].cells),
    output:
        f"{RUNS}/grids/{{grid}}.json",
        f"{RUNS}/grids/{{grid}}.csv",
    params:
        given=given,
    message:
        "Table of run grid {wildcards.grid}: {output}"
    shell:
        "{PYTHON} -m cryostudy run {params.given} --table --profile {PROFILE} > /dev/null"


# A benchmark reads the records of the method chapters, so it comes after them, and those of the published grids. The
# chapters on halves and the wedge find what chapter 17, those on the wedge what chapter 21, and the one on real
# particles what chapter 27 has trained. An ablation reads its parameter grid and the published records of that grid.
RESULTS = HERE / "data/results/grid"
PUBLISHED = sorted(map(str, set(RESULTS.glob("*.json")) - set(RESULTS.glob("ablation-*"))))
RESTORED = [f"{RUNS}/{name}.ipynb" for name in CHAPTERS if name[:2] in ("17", "20", "21", "23")]
READS = {
    "19_single_volume_benchmark": [f"{RUNS}/{name}.ipynb" for name in CHAPTERS if "02" <= name < "19"] + PUBLISHED,
    "29_paired_benchmark": PUBLISHED,
    "22_isonet": [f"{RUNS}/21_deepdewedge.ipynb"],
    **{name: [f"{RUNS}/17_recorrupted.ipynb"] for name in CHAPTERS if name[:2] in ("20", "21", "23", "24", "25")},
    **{name: RESTORED + PUBLISHED for name in CHAPTERS if name[:2] in ("30", "31", "32", "33")},
    "34_real_particles": [f"{RUNS}/27_ribosomes.ipynb"],
    "39_downstream_summary": PUBLISHED,
    **{
        path.stem: [str(path), *sorted(map(str, RESULTS.glob(f"ablation-{path.stem}-*.json")))]
        for path in HERE.glob("data/ablations/*.yml")
    },
    "50_explorer": sorted(map(str, HERE.glob("data/results/explorer/*.json"))),
}


# Every chapter also compares itself with the papers' numbers.
rule chapter:
    input:
        lambda wildcards: READS.get(wildcards.name, []),
        sorted(map(str, HERE.glob("data/papers/*.csv"))),
        notebook=str(HERE / "notebooks/{name}.ipynb"),
    output:
        f"{RUNS}/{{name}}.ipynb",
    log:
        f"{LOGS}/{{name}}.log",
    wildcard_constraints:
        name="[0-9][0-9]_[^/]+",
    params:
        code=lambda wildcards: staleness.chapter(HERE / f"notebooks/{wildcards.name}.ipynb"),
    threads: THREADS
    message:
        f"Chapter {{wildcards.name}} at {PROFILE} scale (log: {{log}})"
    shell:
        "OMP_NUM_THREADS={threads} {PYTHON} -m cryostudy chapter {wildcards.name} --profile {PROFILE} --out {output} > {log} 2>&1"


rule site:
    input:
        expand(f"{RUNS}/{{name}}.ipynb", name=CHAPTERS),
        rules.grids.input,
    output:
        f"{SITE}/index.html",
    params:
        sources=lambda wildcards: staleness.site(HERE),
    message:
        "Site: {output}"
    shell:
        # Without its mark the site is built, not only compared, for Snakemake has removed its front page.
        "rm -f {SITE}/.fingerprint && {PYTHON} -m cryostudy.book build --chapters {RUNS} --out {SITE}"


# Once all is done that can be: what failed, and the table of a grid without its failed cells.
onerror:
    if workflow.is_main_process:
        jobs = list(workflow.dag.jobs)
        print(file=sys.stderr)
        for name in sorted({job.wildcards.grid for job in jobs if job.rule.name == "run"}):
            print("\n".join(grids.lines(grids.write_table(GRIDS[name][1])[1])), file=sys.stderr)
        for name in sorted({job.wildcards.name for job in jobs if job.rule.name == "chapter"}):
            if not Path(f"{RUNS}/{name}.ipynb").exists():
                log = Path(f"{LOGS}/{name}.log")
                print(f"failed: {name}: {grids.said(log)} (log: {log})", file=sys.stderr)
