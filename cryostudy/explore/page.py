"""The explorers as widgets that move without a kernel: controls linked in the browser to stacks of what was stored."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets as w
from ipywidgets.widgets.widget_string import HTMLStyle

from cryostudy.explore import weights
from cryostudy.explore.card import bar_width, card, ranking, shared, uri
from cryostudy.explore.compare import CONDITIONS, NOISES, SPECIMENS

TERMS = {
    "reconstruction": "reconstruction", "guidance": "guidance", "edge": "edges", "total_variation": "total variation",
}  # fmt: skip
TITLES = {
    "noisy": "noisy", "gaussian_oracle": "Gaussian (oracle width)", "bm4d": "BM4D", "volume_shuffle": "volume shuffle",
    "noise2void": "Noise2Void", "recorrupted": "recorrupted", "noise2noise": "Noise2Noise (two halves)",
    "deepdewedge": "DeepDeWedge (two halves)", "clean": "clean",
}  # fmt: skip
UNTRAINED = (
    "<div class='ex-card'><p>Without reconstruction and guidance nothing fixes the grey values, so this setting was "
    "not trained. Raise one of the two.</p></div>"
)
MISSING = (
    "<div class='ex-card'><p>This setting is not in the record yet; <code>cryostudy grid --explorer</code> goes on "
    "where it was cut short.</p></div>"
)
COMPARE_STYLE = """<style>
.ex-root .widget-html-content{width:100%}
.ex-sheet::after{bottom:auto!important;top:3%}
.ex-sheet{position:relative;overflow:hidden;aspect-ratio:1;width:100%}
.bd-content .ex-sheet img.ex-strip,.ex-sheet img.ex-strip{width:100%;max-width:none;display:block;margin:0!important;
 padding:0!important;border-radius:0!important;image-rendering:pixelated;
 transform:translateY(calc(var(--slice,START) * -100% / COUNT))}
.ex-name{position:absolute;left:6px;bottom:4px;color:#fff;background:#222;padding:0 .35em;font-size:.8rem}
.ex-after .ex-name{left:auto;right:6px}
.ex-after{clip-path:inset(0 0 0 var(--mix,50%))}
.ex-edge{height:100%;border-left:2px solid #E69F00;margin-left:var(--mix,50%);pointer-events:none}
.ex-ranges label{display:grid;grid-template-columns:6.5rem 1fr 3rem;gap:.5rem;align-items:center;
 color:var(--pst-color-text-base,var(--jp-content-font-color1,inherit))}
.ex-ranges input{width:100%}
</style>"""


def tree(levels: Sequence[int], leaf: Callable[[tuple[int, ...]], w.Widget], layout: w.Layout) -> list[list[w.Stack]]:
    """Nested stacks: one of `levels[0]` stacks of `levels[1]` ... of leaves; returned by depth, the whole one first.

    Args:
        leaf: the widget for the indices chosen at each level.
    """
    depths: list[list[w.Stack]] = [[] for _ in levels]

    def grow(chosen: tuple[int, ...]) -> w.Widget:
        if len(chosen) == len(levels):
            return leaf(chosen)
        children = [grow((*chosen, k)) for k in range(levels[len(chosen)])]
        stack = w.Stack(children, selected_index=0, layout=layout)
        depths[len(chosen)].append(stack)
        return stack

    grow(())
    return depths


def link(control: w.Widget, stacks: Sequence[w.Stack]) -> None:
    """Let a control choose the child of every one of these stacks, in the browser."""
    for stack in stacks:
        stack.selected_index = control.index
        w.jslink((control, "index"), (stack, "selected_index"))


def slider(name: str, levels: Sequence[float], layout: w.Layout) -> w.SelectionSlider:
    """A slider over the stored weights of one term, starting at the paper's."""
    paper = weights.PAPER[weights.TERMS.index(name)]
    rising = sorted(levels)
    control = w.SelectionSlider(
        options=[(f"{level:g}{' (paper)' if level == paper else ''}", level) for level in rising],
        value=paper, description=TERMS[name], style={"description_width": "7.5rem"}, layout=layout,
    )  # fmt: skip
    control.add_class("ex-slider")
    return control


def loss_weights(record: Mapping[str, Any]) -> w.VBox:
    """The loss-weight explorer of a record of :func:`cryostudy.explore.weights.run`."""
    found, side = record["metrics"], record["parameters"]["side"]
    narrow = w.Layout(width="100%", max_width="20rem")
    sliders = {name: slider(name, levels, narrow) for name, levels in record["parameters"]["levels"].items()}
    wide, plain = w.Layout(width="100%", margin="0"), HTMLStyle()
    untrained, missing = (w.HTML(text, layout=wide, style=plain) for text in (UNTRAINED, MISSING))

    def leaf(chosen: tuple[int, ...]) -> w.HTML:
        values = [control.options[k][1] for control, k in zip(sliders.values(), chosen, strict=True)]
        if one := found.get(weights.key(values)):
            return w.HTML(card(one, found, side), layout=wide, style=plain)
        return missing if tuple(values) in weights.settings() else untrained

    stacks = tree([len(control.options) for control in sliders.values()], leaf, wide)
    for control, depth in zip(sliders.values(), stacks, strict=True):
        link(control, depth)
    controls = w.Box(list(sliders.values()), layout=w.Layout(flex_flow="row wrap", width="100%"))
    return w.VBox([w.HTML(shared(found), layout=wide, style=plain), controls, stacks[0][0]], layout=wide)


def methods(records: Mapping[str, Mapping[str, Any]]) -> w.VBox:
    """The explorer of methods, of the records of :func:`cryostudy.explore.compare.run` by condition.

    Specimens without a record of each noise, and methods that not every record holds, are left out.
    """
    specimens = {key: t for key, t in SPECIMENS.items() if all(f"{key}-{noise}" in records for noise in NOISES)}
    there = [name for name, (specimen, _) in CONDITIONS.items() if specimen in specimens]
    names = [name for name in TITLES if all(name in records[c]["metrics"] for c in there)]
    count, side = (records[there[0]]["parameters"][key] for key in ("slices", "side"))
    wide, over, plain = w.Layout(width="100%", margin="0"), w.Layout(grid_area="1 / 1", margin="0"), HTMLStyle()
    narrow, look = w.Layout(width="100%", max_width="20rem"), {"description_width": "4.5rem"}

    def choose(label: str, options: Mapping[str, str], value: str) -> w.Dropdown:
        return w.Dropdown(
            options=[(title, key) for key, title in options.items()], value=value, description=label,
            style=look, layout=narrow,
        )  # fmt: skip

    titles = {name: TITLES[name] for name in names}
    scored = {name: title for name, title in titles.items() if name != "clean"}
    specimen = choose("specimen", specimens, next(iter(specimens)))
    noise = choose("noise", NOISES, next(iter(NOISES)))
    left, right = choose("left", titles, "noisy"), choose("right", titles, "volume_shuffle")
    sheets: dict[tuple[int, ...], w.HTML] = {}

    def condition(chosen: Sequence[int]) -> Mapping[str, Any]:
        return records[f"{list(specimens)[chosen[0]]}-{list(NOISES)[chosen[1]]}"]["metrics"]

    def sheet(chosen: tuple[int, ...]) -> w.HTML:
        if chosen not in sheets:  # left and right show the same widgets, so that each picture is in the page once
            title = html.escape(titles[names[chosen[2]]])
            strip = uri(condition(chosen)[names[chosen[2]]]["sheet"])
            sheets[chosen] = w.HTML(
                f"<div class='ex-sheet' style='--bar:{bar_width(side)}'>"
                f"<img class='ex-strip' src='{strip}' alt='xy slice, {title}'>"
                f"<span class='ex-name'>{title}</span></div>", layout=wide, style=plain,
            )  # fmt: skip
        return sheets[chosen]

    sizes = [len(specimens), len(NOISES), len(names)]
    sides = [tree(sizes, sheet, wide) for _ in ("left", "right")]
    tables = tree(sizes[:2], lambda chosen: w.HTML(ranking(condition(chosen), scored), layout=wide, style=plain), wide)
    for control, depth in ((specimen, 0), (noise, 1)):
        link(control, [stack for stacks in (*sides, tables) for stack in stacks[depth]])
    link(left, sides[0][2])
    link(right, sides[1][2])
    before, after = (w.Box([stacks[0][0]], layout=over) for stacks in sides)
    after.add_class("ex-after")
    edge = w.HTML("<div class='ex-edge'></div>", layout=over, style=plain)
    edge.add_class("ex-over")
    pictures = w.GridBox(
        [before, after, edge],
        layout=w.Layout(grid_template_columns="100%", width="100%", max_width="26rem", margin="0"),
    )
    style = COMPARE_STYLE.replace("START", str(count // 2)).replace("COUNT", str(count))
    controls = w.Box([specimen, noise, left, right], layout=w.Layout(flex_flow="row wrap", width="100%"))
    ranges = w.HTML(style + range_input("slice", "slice", count - 1, count // 2, "")
                    + range_input("left | right", "mix", 100, 50, "%"), layout=wide, style=plain)  # fmt: skip
    root = w.VBox([controls, ranges, pictures, tables[0][0]], layout=wide)
    root.add_class("ex-root")
    return root


def range_input(label: str, variable: str, highest: int, value: int, unit: str) -> str:
    """A native slider that sets a CSS variable of the explorer; widgets' sliders can be linked to no such thing."""
    act = (
        f"this.closest('.ex-root').style.setProperty('--{variable}',this.value+'{unit}');"
        f"this.nextElementSibling.value=this.value+'{unit}'"
    )
    return (
        f"<div class='ex-ranges'><label>{label}<input type='range' min='0' max='{highest}' value='{value}' "
        f'oninput="{act}"><output>{value}{unit}</output></label></div>'
    )
