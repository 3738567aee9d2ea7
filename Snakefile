# Which run of which chapter depends on what. `make study` calls this; alone: snakemake --cores all --config profile=smoke
import sys
from pathlib import Path

PROFILE = config.get("profile", "laptop")
RUNS = f"_build/runs/{PROFILE}"
CHAPTERS = sorted(path.stem for path in Path("notebooks").glob("[0-9][0-9]_*.ipynb"))
# Every chapter imports the package, whose hash its record keeps, and compares itself with the papers' numbers.
RESULTLESS = {Path("cryostudy", name) for name in ("book.py", "cli.py", "progress.py")}
SOURCES = {path for path in Path("cryostudy").rglob("*") if path.suffix in (".py", ".json")} - RESULTLESS
PACKAGE = sorted(map(str, [*SOURCES, *Path("data/papers").glob("*.csv")]))


rule all:
    input:
        expand(f"{RUNS}/{{name}}.ipynb", name=CHAPTERS),


# A benchmark reads the records of the method chapters, so it comes after them.
AGGREGATES = {"19_single_volume_benchmark": [name for name in CHAPTERS if "02" <= name < "19"]}


rule chapter:
    input:
        lambda wildcards: [f"{RUNS}/{name}.ipynb" for name in AGGREGATES.get(wildcards.name, [])],
        notebook="notebooks/{name}.ipynb",
        package=PACKAGE,
    output:
        f"{RUNS}/{{name}}.ipynb",
    log:
        f"_build/logs/{PROFILE}/{{name}}.log",
    params:
        # The command of this very environment, whatever the search path says.
        cryostudy=Path(sys.executable).with_name("cryostudy"),
    # A chapter uses every core, so chapters run one after the other.
    threads: workflow.cores
    message:
        f"Chapter {{wildcards.name}} at {PROFILE} scale (log: {{log}})"
    shell:
        "{params.cryostudy} chapter {wildcards.name} --profile {PROFILE} --out {output} > {log} 2>&1"
