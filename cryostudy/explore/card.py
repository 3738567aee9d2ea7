"""One setting on a card: slices in one grey range, FSC curve and scores, as HTML that any page can show."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from cryostudy.simulate.builtin import VOXEL_SIZE

# Colours follow the page, light or dark; the curve is the first of the study's colours.
STYLE = """
.ex-card{max-width:44rem;line-height:1.35;white-space:normal;
 color:var(--pst-color-text-base,var(--jp-content-font-color1,inherit))}
.ex-pictures{display:grid;grid-template-columns:1.3rem repeat(3,minmax(0,1fr));gap:4px;align-items:center;
 text-align:center;font-size:.85rem}
.ex-pic{display:block;position:relative;width:100%;aspect-ratio:1;background-size:cover;image-rendering:pixelated;
 margin:0!important;padding:0!important;border-radius:0!important}
.ex-noisy-xy::after,.ex-noisy-xz::after,.ex-sheet::after{content:"20 nm";position:absolute;left:4%;bottom:3%;
 width:var(--bar);text-align:center;border-bottom:3px solid #fff;color:#fff;font-size:.7rem;white-space:nowrap;
 text-shadow:0 0 3px #000,0 0 2px #000}
.ex-numbers{display:flex;flex-wrap:wrap;gap:.5rem 1.5rem;align-items:center;margin-top:.6rem}
.ex-numbers svg{flex:1 1 15rem;min-width:0;max-width:24rem;height:auto}
.ex-axes text{fill:currentColor;font-size:9px}.ex-axes .ex-line{stroke:currentColor}
.ex-axes path{fill:none}.ex-axes .ex-level{stroke:#999;stroke-dasharray:3 3}.ex-axes .ex-noisy{stroke:#999}
.ex-curve{fill:none;stroke:#0072B2;stroke-width:2}
html[data-theme=dark] .ex-curve,body[data-jp-theme-light=false] .ex-curve{stroke:#56B4E9}
.ex-card table{border-collapse:collapse;margin:0;font-size:.8rem;font-variant-numeric:tabular-nums;color:inherit;
 background:none;width:auto;flex:0 1 auto}
.ex-card th,.ex-card td{padding:.12rem .45rem;text-align:right;background:none;color:inherit;font-weight:400;border:0}
.ex-card tr>:first-child{text-align:left}.ex-card thead th{border-bottom:1px solid currentColor}
.ex-slider .widget-readout{max-width:none;min-width:5.6rem;text-align:left}
"""
NUMBERS = {
    "cc": ("CC", "{:.3f}"), "psnr": ("PSNR (dB)", "{:.2f}"), "ssim": ("SSIM", "{:.3f}"),
    "noise_left": ("noise left", "{:.0%}"), "contrast": ("contrast kept", "{:.0%}"),
    "fsc_0.5": ("FSC 0.5 (Å)", "{:.0f}"),
}  # fmt: skip
WIDTH, HEIGHT = 240, 130  # of the FSC plot, in its own units
BAR = 200  # Å; the bar that the style labels


def uri(picture: str) -> str:
    """A stored picture as an address that holds it."""
    return f"data:image/webp;base64,{picture}"


def bar_width(side: int) -> str:
    """Width of the scale bar on a picture `side` voxels wide, for CSS."""
    return f"{100 * BAR / (side * VOXEL_SIZE):.1f}%"


def curve(values: str) -> str:
    """A stored FSC curve as the `d` of an SVG path."""
    heights = [float(value) for value in values.split()]
    points = (f"{WIDTH * (k + 1) / len(heights):.0f},{HEIGHT * (1 - max(v, 0)):.0f}" for k, v in enumerate(heights))
    return "M" + " ".join(points)


def axes(found: Mapping[str, Any]) -> str:
    """The axes of the FSC plot with the noisy volume's curve."""
    highest = float(found["fsc"]["frequency"].split()[-1])
    levels = "".join(
        f"<path class='ex-level' d='M0,{HEIGHT * (1 - v):.0f}H{WIDTH}'/>"
        f"<text x='-3' y='{HEIGHT * (1 - v) + 3:.0f}' text-anchor='end'>{v:g}</text>" for v in (0.143, 0.5, 1)
    )  # fmt: skip
    ticks = "".join(
        f"<text x='{WIDTH * tick / highest:.0f}' y='{HEIGHT + 11}' text-anchor='middle'>{tick:g}</text>"
        for tick in (0.01, 0.02, 0.03, 0.04)
    )
    return (
        f"<g class='ex-axes'><path class='ex-line' d='M0,0V{HEIGHT}H{WIDTH}'/>{levels}{ticks}"
        f"<text x='{WIDTH / 2}' y='{HEIGHT + 24}' text-anchor='middle'>spatial frequency (1/Å)</text>"
        f"<text x='{WIDTH}' y='-4' text-anchor='end'>FSC with the clean volume (grey: noisy)</text>"
        f"<path class='ex-noisy' d='{curve(found['noisy']['fsc'])}'/></g>"
    )


def shared(found: Mapping[str, Any]) -> str:
    """What all cards of a record share, once a page: style, the noisy and the clean pictures, the axes.

    `found`: the metrics of the record of :func:`cryostudy.explore.weights.run`.
    """
    rules = "".join(
        f".ex-{name}-{plane}{{background-image:url({uri(found[name][plane])})}}\n"
        for name in ("noisy", "clean") for plane in ("xy", "xz")
    )  # fmt: skip
    hidden = "width='0' height='0' style='position:absolute' aria-hidden='true'"
    return f"<style>{STYLE}{rules}</style><svg {hidden}><defs><g id='ex-axes'>{axes(found)}</g></defs></svg>"


def card(one: Mapping[str, Any], found: Mapping[str, Any], side: int, *, alone: bool = False) -> str:
    """The card of one restored volume, given its scores and pictures.

    Args:
        found: as of :func:`shared`. side: of the volume, voxels, for the scale bar.
        alone: the card holds all it needs, but for the style; else the page holds :func:`shared`.
    """
    bar = f" style='--bar:{bar_width(side)}'"

    def fixed(name: str, plane: str) -> str:
        own = f" style='background-image:url({uri(found[name][plane])})'" if alone else ""
        return f"<span class='ex-pic ex-{name}-{plane}' role='img' aria-label='{name}, {plane}'{own}></span>"

    rows = "".join(
        f"<span>{plane}</span>{fixed('noisy', plane)}"
        f"<img class='ex-pic' src='{uri(one[plane])}' alt='restored, {plane}'>{fixed('clean', plane)}"
        for plane in ("xy", "xz")
    )
    frame = axes(found) if alone else "<use href='#ex-axes'/>"
    plot = (
        f"<svg viewBox='-28 -14 {WIDTH + 40} {HEIGHT + 42}' role='img' aria-label='FSC with the clean volume, crossing "
        f"0.5 at {one['fsc_0.5']:.0f} Å'>{frame}"
        f"<path class='ex-curve' d='{curve(one['fsc'])}'/></svg>"
    )
    return (
        f"<div class='ex-card'><div class='ex-pictures'{bar}><span></span><span>noisy</span><span>restored</span>"
        f"<span>clean</span>{rows}</div><div class='ex-numbers'>{plot}"
        f"{table({'noisy': found['noisy'], 'restored': one})}</div></div>"
    )


def table(columns: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of scores, one column a volume."""
    head = "".join(f"<th>{html.escape(title)}" for title in columns)
    rows = "".join(
        f"<tr><th>{label}" + "".join(f"<td>{form.format(one[name])}" for one in columns.values())
        for name, (label, form) in NUMBERS.items()
    )  # closing tags that HTML can do without would weigh more than the numbers
    return f"<table><thead><tr><td>{head}<tbody>{rows}</table>"


def ranking(found: Mapping[str, Mapping[str, Any]], titles: Mapping[str, str]) -> str:
    """A table of scores, one row a volume, by the names in `titles`."""
    head = "".join(f"<th scope='col'>{label}</th>" for label, _ in NUMBERS.values())
    rows = "".join(
        f"<tr><th scope='row'>{html.escape(title)}</th>"
        + "".join(f"<td>{form.format(found[name][key])}</td>" for key, (_, form) in NUMBERS.items())
        + "</tr>"
        for name, title in titles.items()
        if name in found
    )
    return f"<div class='ex-card'><table><thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
