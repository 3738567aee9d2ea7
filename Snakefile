# Which run of which chapter depends on what. `make study` calls this; alone: snakemake --cores all --config profile=smoke
import sys
from pathlib import Path

PROFILE = config.get("profile", "laptop")
RUNS = f"_build/runs/{PROFILE}"
CHAPTERS = sorted(path.stem for path in Path("notebooks").glob("[0-9][0-9]_*.ipynb"))
# Every chapter imports the package, whose hash its record keeps, and compares itself with the papers' numbers.
RESULTLESS = {Path("cryostudy", name) for name in ("book.py", "cli.py", "progress.py", "publishing.py")}
SOURCES = {path for path in Path("cryostudy").rglob("*") if path.suffix in (".py", ".json")} - RESULTLESS
PACKAGE = sorted(map(str, [*SOURCES, *Path("data/papers").glob("*.csv")]))


rule all:
    input:
        expand(f"{RUNS}/{{name}}.ipynb", name=CHAPTERS),


# A benchmark reads the records of the method chapters, so it comes after them, and those of the published grids. The
# chapters on halves and the wedge find what chapter 17, those on the wedge what chapter 21, and the one on real
# particles what chapter 27 has trained. An ablation reads its parameter grid and the published records of that grid.
RESULTS = Path("data/results/grid")
GRIDS = sorted(map(str, set(RESULTS.glob("*.json")) - set(RESULTS.glob("ablation-*"))))
RESTORED = [f"{RUNS}/{name}.ipynb" for name in CHAPTERS if name[:2] in ("17", "20", "21", "23")]
READS = {
    "19_single_volume_benchmark": [f"{RUNS}/{name}.ipynb" for name in CHAPTERS if "02" <= name < "19"] + GRIDS,
    "29_paired_benchmark": GRIDS,
    "22_isonet": [f"{RUNS}/21_deepdewedge.ipynb"],
    **{name: [f"{RUNS}/17_recorrupted.ipynb"] for name in CHAPTERS if name[:2] in ("20", "21", "23", "24", "25")},
    **{name: RESTORED + GRIDS for name in CHAPTERS if name[:2] in ("30", "31", "32", "33")},
    "34_real_particles": [f"{RUNS}/27_ribosomes.ipynb"],
    "39_downstream_summary": GRIDS,
    **{
        path.stem: [str(path), *sorted(map(str, RESULTS.glob(f"ablation-{path.stem}-*.json")))]
        for path in Path("data/ablations").glob("*.yml")
    },
    "50_explorer": sorted(map(str, Path("data/results/explorer").glob("*.json"))),
}


rule chapter:
    input:
        lambda wildcards: READS.get(wildcards.name, []),
        notebook="notebooks/{name}.ipynb",
        package=PACKAGE,
    output:
        f"{RUNS}/{{name}}.ipynb",
    log:
        f"_build/logs/{PROFILE}/{{name}}.log",
    params:
        # The command of this very environment, whatever the search path says.
        cryostudy=Path(sys.executable).with_name("cryostudy"),
    # Small networks gain little from a second core, so two chapters run at a time with half of the cores each. A GPU
    # is one chapter's.
    threads: workflow.cores if PROFILE == "gpu" else max(1, workflow.cores // 2)
    message:
        f"Chapter {{wildcards.name}} at {PROFILE} scale (log: {{log}})"
    shell:
        "OMP_NUM_THREADS={threads} {params.cryostudy} chapter {wildcards.name} --profile {PROFILE} --out {output} > {log} 2>&1"
