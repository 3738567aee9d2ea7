"""The page that says which method suits whose data: every recommendation is the best of the benchmarks' records."""

from __future__ import annotations

from fnmatch import fnmatchcase
from statistics import fmean

from cryostudy.pages import benchmarks, reproduction, rules
from cryostudy.pages.benchmarks import CASES, FILLING, FILTERS, SINGLE, Case, Ranking, ahead
from cryostudy.pages.facts import Site
from cryostudy.records import readable

HEAD = """# Which method for my data?

Find what you want and what you have; the row leads to the command and to what it may be expected to give. Each
recommendation is the method with the best mean in the benchmarks of this study, taken from their records whenever
this page is built, so that a new run may change it. All were measured on simulated specimens, where the truth is
known, with noise as reconstruction leaves it; [what real data add](which-real) stands further below. Two names mean
that neither is clearly ahead: the second won in a third of the recordings or more. There is little to gain where raw
did so, or where its score is within {little} of the best.
"""
COMMANDS = """
In the commands, put your own file names, tilt range and thickness; say with `--filter` how the tomogram was
reconstructed where it was not by a ramp filter. `cryostudy restore --help` lists the rest.
"""
TRUST = """## Before you believe it

- Train several seeds and look where they disagree: `--spread 3` writes a map of it.
- See what was filled in: `--wedge-content` writes a map of it.
- Restore an empty part of your own data: nothing should appear. What else can be seen without a truth: {}
- Go back to the raw tomogram for every measurement; look at the restored one.
"""


def write(site: Site) -> str:
    """The page in MyST Markdown."""
    rows, sections = [], []
    for case in CASES:
        ranked = benchmarks.ranking(site, case)
        names = benchmarks.level(case, ranked) if ranked else []
        words = " or ".join(_word(name) for name in names[:2]) or "no record yet"
        if "noisy" in names[1:]:
            words = f"{_word(names[0])}, or raw: little to gain"
        named = "nothing: raw is best" if names[:1] == ["noisy"] else words
        rows.append(f"| {case.want} ({case.have}) | [{named}](which-{case.key}) |")
        sections.append(_section(site, case, ranked))
    table = "\n".join(["| You want to (and you have) | restore with |", "|---|---|", *rows])
    trust = TRUST.format(site.chapter("90_your_tomogram"))
    head = HEAD.format(little=f"{100 * benchmarks.LITTLE:g} %")
    return "\n".join([head, table, COMMANDS, *sections, _gpu(site), _white(site), _real(site), trust])


def _word(method: str) -> str:
    return "raw" if method == "noisy" else f"`{method}`"


def _section(site: Site, case: Case, ranked: Ranking) -> str:
    text = [f"(which-{case.key})=", f"## {case.want[0].upper()}{case.want[1:]}: {case.have}", ""]
    if not ranked:
        return "\n".join([*text, "No record yet: the benchmark that would tell has not been run.", ""])
    best, scores = ranked[0]
    typed = benchmarks.command(case, best)
    if best == "noisy":
        text += ["**Do not restore.** Stay with the raw tomogram, or go back to it when particles are found.", ""]
    if typed:
        text += ["```bash", typed.replace(" --", " \\\n    --"), "```", ""]  # lines that fit a phone
    text += [*_gain(site, case, best, scores), _next(case, ranked)]
    if best != "noisy":
        text += [_cost(site, best), _risk(site, best)]
    return "\n".join([*text, f"- Read: {site.chapter(case.chapter)}", ""])


def _gain(site: Site, case: Case, best: str, scores: dict[str, float]) -> list[str]:
    used = [site.records[name] for name in benchmarks.used(site, case)]
    sides = ", ".join(sorted({f"{record['parameters']['side']}³" for record in used}))
    scales = ", ".join(sorted({f"`{record['profile']}`" for record in used}))
    mean, span = _span(scores)
    lines = [
        f"- **Gain.** {case.unit[0].upper()}{case.unit[1:]}, {_word(best)}: {mean} {span}, mean and range over "
        f"{len(scores)} recordings of {sides} voxels at {scales} scale"
    ]
    for name, words in (("noisy", "raw"), ("gaussian_oracle", "the best Gaussian filter")):
        base = benchmarks.cells(site, case, name)
        if name != best and set(base) >= set(scores):
            gains = {cell: case.better * (value - base[cell]) for cell, value in scores.items()}
            mean, span = _span(gains, signed=True)
            lines.append(
                f"  - over {words}, which has {_span(base)[0]}: {mean} {span}, "
                f"ahead in {ahead(case, scores, base)} of {len(gains)}"
            )
    return lines


def _next(case: Case, ranked: Ranking) -> str:
    (_, scores), shown = ranked[0], []
    for name, found in ranked[1:4]:
        won = f"better in {ahead(case, found, scores)} of {len(scores)}"
        shown.append(f"{_word(name)} {_span(found)[0]} ({won})")
    last = f"; last {_word(ranked[-1][0])} {_span(ranked[-1][1])[0]}" if len(ranked) > 5 else ""
    return f"- **Next.** {', '.join(shown) or 'No other was measured'}{last}."


def _cost(site: Site, method: str) -> str:
    for name, record in sorted(site.records.items()):
        found = record["metrics"].get(f"projection.{method}", {})
        if name.startswith(("grid/", "19_")) or "memory_mib" not in found:  # 19 repeats those of other chapters
            continue
        steps = f", {found['steps']} steps" if "steps" in found else ""
        size = next(iter(record["data"].values())).split(" voxels")[0].rsplit("of ", 1)[-1]
        return (
            f"- **Cost.** {readable(found['seconds'])} s and {found['memory_mib']:.0f} MiB for {size} voxels{steps} "
            f"({site.record(name)}: `{record['profile']}`, {record['device']})."
        )
    return "- **Cost.** No record yet."


def _risk(site: Site, method: str) -> str:
    """What may be wrong in what the method gives: what it makes of noise, and what it writes where nothing was seen."""
    parts = []
    control = _metrics(site, "grid/noise-only").get(method)
    if control:
        beyond = abs(control["fsc"] - control["fsc_chance"]) / control["fsc_spread"]
        word = "no more than" if beyond < 2 else "more than"
        left = readable(100 * control["variance_left"])
        parts.append(
            f"of pure noise it leaves {left} % of the variance, which resembles a specimen {word} chance does "
            f"({readable(beyond)} deviations away)"
        )
    inside = {
        f"{name} {thing}": metrics["cc_inside"]
        for name in site.records
        if fnmatchcase(name, "grid/paired-*") and method in FILLING
        for thing, metrics in _metrics(site, name).items()
        if thing.startswith(f"{method}.seed")
    }
    if inside:
        mean, span = _span(inside)
        parts.append(
            "what it writes into the missing wedge was never measured: it correlates with the truth there at "
            f"{mean} {span}, and what is wrong looks like what is right"
        )
    told = _metrics(site, "21_deepdewedge").get("damage")
    if told and method in ("deepdewedge", "recorrupted_wedge"):
        change = _signed(told["told_40"])
        parts.append(f"told too narrow a tilt range (±40°), the CC inside the wedge changed by {change}")
    trained = _metrics(site, "17_recorrupted")
    if method == "recorrupted" and "scale_background" in trained:
        there, here = trained["scale_background"]["cc"], trained["scale_1"]["cc"]
        gaussian = trained["projection.gaussian_oracle"]["cc"]
        parts.append(
            "without the tilt angles the noise is taken from the quietest patches, which gave a CC of "
            f"{readable(there)} instead of {readable(here)} after a short training (best Gaussian filter "
            f"{readable(gaussian)}): then restore with both, and compare"
        )
    if method in FILTERS:
        parts.append("a filter invents nothing, but blurs what is finer than its width")
    text = "; ".join(parts) or "no record yet"
    return f"- **Risk.** {text[0].upper()}{text[1:]}."


def _gpu(site: Site) -> str:
    seconds = [
        found["seconds"]
        for name in site.records
        if not name.startswith(("grid/", "19_"))
        for thing, found in _metrics(site, name).items()
        if thing.startswith("projection.") and "memory_mib" in found and "steps" in found
        if "CPU" in site.records[name]["device"]
    ]
    text = "(which-gpu)=\n## Do I need a GPU?\n\n"
    if seconds:
        low, high = readable(min(seconds)), readable(max(seconds))
        text += f"No: the trainings above and their like took {low} to {high} s on a CPU. "
    return text + (
        "Training draws patches, so its time depends on the steps and not on the size of the tomogram; restoring grows "
        "with the size. With a GPU, add `--profile gpu` for networks and numbers of steps as the papers have them; "
        "what that gains stands above only where a line says `gpu`.\n"
    )


def _white(site: Site) -> str:
    scores = {name: _metrics(site, "19_single_volume_benchmark").get(f"white.{name}") for name in SINGLE}
    found = {name: metrics["cc"] for name, metrics in scores.items() if metrics}
    text = "(which-white)=\n## If the noise is independent from voxel to voxel\n\n"
    if not found:
        return f"{text}No record yet.\n"
    best = sorted(found, key=lambda name: -found[name])
    listed = ", ".join(f"`{name}` {readable(found[name])}" for name in best[:3])
    return (
        f"{text}Reconstruction makes noise that is not: neighbours share the noise of the projections they come from, "
        "and a network that predicts a voxel from its neighbours learns to predict that noise; blind-spot networks "
        "fare above as they do for this reason. Where noise really is independent, in simulations above all, the order "
        f"is {listed} (CC; `gaussian` {readable(found['gaussian'])}). {site.chapter('16_noise')} says how to tell.\n"
    )


def _real(site: Site) -> str:
    lines = ["(which-real)=", "## What real data add", ""]
    tube = _metrics(site, "18_microtubule")
    if "microtubule.recorrupted" in tube:
        wall = {name: readable(tube[f"microtubule.{name}"]["wall_contrast"])
                for name in ("raw", "gaussian_best", "recorrupted")}  # fmt: skip
        lines.append(
            f"- One real microtubule, one volume, `recorrupted`: its wall stands {wall['recorrupted']} deviations out "
            f"of the background, raw {wall['raw']}, best Gaussian filter {wall['gaussian_best']}. "
            f"{site.chapter('18_microtubule')}"
        )
    ribosomes = _metrics(site, "27_ribosomes")
    if "average.noise2noise" in ribosomes:
        fsc = {
            name: readable(ribosomes[f"average.{name}"]["truth_mean"]) for name in ("raw", "noise2noise", "deepdewedge")
        }
        lines.append(
            f"- Real ribosomes, averaged: the FSC with the known structure is {fsc['raw']} from raw sub-tomograms, "
            f"{fsc['noise2noise']} after `noise2noise` and {fsc['deepdewedge']} after `deepdewedge`. "
            f"{site.chapter('27_ribosomes')}"
        )
    sources = rules.Sources(site.records, site.root / "data" / "papers")
    figure = next(
        item for paper in reproduction.papers(site.root) if paper["key"] == "003"
        for item in paper["items"] if item["item"] == "Figure 8"
    )  # fmt: skip
    place = reproduction.anchor("003", "Figure 8")
    lines.append(
        "- On real virus-like particles {cite}`jones2026` find template matching best in the raw tomogram. Verdict of "
        f"this study's simulations: [{reproduction.judge(figure, sources).word}]({place}). Pick in both, and compare."
    )
    return "\n".join([*lines, ""])


def _metrics(site: Site, name: str) -> dict[str, dict[str, float]]:
    return dict(site.records.get(name, {}).get("metrics", {}))


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _span(scores: dict[str, float], signed: bool = False) -> tuple[str, str]:
    """Mean and range of scores, as text."""
    show = _signed if signed else readable
    values = scores.values()
    return show(fmean(values)), f"({show(min(values))} to {show(max(values))})"
