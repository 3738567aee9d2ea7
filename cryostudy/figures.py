"""Every plot of the study, in one style: shared grey range, scale bars, units, and where the data came from.

Colours are Okabe and Ito's, which colour-blind readers can tell apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryostudy.metrics import FSC, affine_fit
from cryostudy.training import History

COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
Volumes = Mapping[str, NDArray[Any]]
Figure = Any  # matplotlib's; imported where it is used, so that the command line starts quickly


def style() -> None:
    """Set matplotlib's defaults for the study."""
    import matplotlib as mpl
    from cycler import cycler

    mpl.rcParams.update({
        "figure.dpi": 120, "savefig.dpi": 120, "font.size": 10, "axes.titlesize": 10, "axes.labelsize": 10,
        "axes.spines.top": False, "axes.spines.right": False, "figure.facecolor": "white",
        "axes.prop_cycle": cycler(color=COLOURS), "image.cmap": "gray", "legend.frameon": False,
        "figure.constrained_layout.use": True,
    })  # fmt: skip


def note(figure: Figure, text: str) -> None:
    """One grey line under a figure: noise model, seed, profile, device."""
    import textwrap

    width = int(figure.get_figwidth() * 15)
    figure.supxlabel("\n".join(textwrap.wrap(text, width)), fontsize=8, color="0.35")


def grey_range(volume: NDArray[Any]) -> tuple[float, float]:
    """The range from the 0.5th to the 99.5th percentile, for a picture that single voxels do not wash out."""
    low, high = np.percentile(volume, [0.5, 99.5])
    return float(low), float(high if high > low else low + 1)


def slices(
    volumes: Volumes,
    *,
    voxel_size: float = 0.0,
    centre: tuple[int, int, int] | None = None,
    like: str | None = None,
    match: bool = True,
    thickness: int = 1,
    caption: str = "",
    width: float = 8.0,
) -> Figure:
    """xy slices above, xz slices below, one column a volume, all in one grey range, with scale bars.

    Args:
        volumes: title -> (z, y, x), all of one shape.
        voxel_size: Å; 0 draws the scale bar in voxels.
        centre: the voxel both slices pass through, default the middle.
        like: the volume (by title) whose grey range all share, default the last. match: bring every volume to that
            one's grey values by its least-squares affine fit, which shows structure instead of scale.
        thickness: slices averaged in each view.
        caption: what :func:`note` writes below.
    """
    import matplotlib.pyplot as plt

    titles = list(volumes)
    reference = np.asarray(volumes[like or titles[-1]], np.float32)
    shown = {t: affine_fit(v, reference) if match and v is not volumes[like or titles[-1]] else np.asarray(v)
             for t, v in volumes.items()}  # fmt: skip
    low, high = grey_range(reference)
    z, y, x = reference.shape
    cz, cy, _ = centre or (z // 2, y // 2, x // 2)
    half, rest = thickness // 2, thickness - thickness // 2
    column = width / len(titles)
    figure, axes = plt.subplots(
        2, len(titles), squeeze=False, height_ratios=[y, z],
        figsize=(width, column * (y + z) / x + 0.7),
    )  # fmt: skip
    for column_axes, title in zip(axes.T, titles, strict=True):
        volume = shown[title]
        views = [volume[max(cz - half, 0) : cz + rest].mean(0), volume[:, max(cy - half, 0) : cy + rest].mean(1)]
        for ax, view in zip(column_axes, views, strict=True):
            ax.imshow(view, vmin=low, vmax=high, origin="lower", interpolation="nearest")
            ax.set_xticks([])
            ax.set_yticks([])
            ax.spines[:].set_visible(False)
        column_axes[0].set_title(title)
    for ax, plane in zip(axes[:, 0], ("xy", "xz"), strict=True):
        ax.set_ylabel(plane, rotation=0, ha="right", va="center")
        scale_bar(ax, x, voxel_size)
    if caption:
        note(figure, caption)
    return figure


def scale_bar(ax: Any, width: int, voxel_size: float, *, left: float = 0.0, bottom: float = 0.0) -> None:
    """A bar of a round length, about a quarter of an image `width` voxels wide whose corner is at (left, bottom)."""
    from matplotlib.patches import Rectangle

    span = width * (voxel_size / 10 if voxel_size else 1) / 4  # nm, or voxels
    step = 10.0 ** np.floor(np.log10(span))
    length = max(m * step for m in (1, 2, 5) if m * step <= span)
    bar = length / (voxel_size / 10) if voxel_size else length
    pad = 0.04 * width
    ax.add_patch(Rectangle((left + pad, bottom + pad), bar, max(1.0, 0.018 * width), color="white", ec="black", lw=0.5))
    label = f"{length:g} {'nm' if voxel_size else 'voxels'}"
    ax.text(left + pad + bar / 2, bottom + pad + 0.03 * width, label, color="white",
            ha="center", va="bottom", fontsize=8, path_effects=[_outline()])  # fmt: skip


def _outline() -> Any:
    from matplotlib.patheffects import withStroke

    return withStroke(linewidth=2, foreground="black")


def spectra(volumes: Volumes, *, voxel_size: float = 0.0, caption: str = "", width: float = 8.0) -> Figure:
    """Log-amplitude of the central xz plane of the Fourier transform, where the missing wedge shows.

    One column a volume; all scaled to their own maximum, four decades.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(volumes), squeeze=False, figsize=(width, width / len(volumes) + 0.25))
    nyquist = 1 / (2 * voxel_size) if voxel_size else 0.5
    for ax, (title, volume) in zip(axes[0], volumes.items(), strict=True):
        centred = volume - volume.mean()
        # A sum over y in real space is the ky = 0 plane; averaging neighbours keeps speckle down.
        plane = np.abs(np.fft.fftn(centred, axes=(0, 1, 2))[:, [0, 1, -1], :]).mean(1)
        plane = np.fft.fftshift(np.log10(np.maximum(plane / plane.max(), 1e-4)))
        image = ax.imshow(plane, origin="lower", extent=[-nyquist, nyquist, -nyquist, nyquist], vmin=-4, vmax=0,
                          cmap="magma", aspect="equal")  # fmt: skip
        ax.set_title(title)
        ax.set_xlabel(f"$k_x$ (1/{'Å' if voxel_size else 'voxel'})")
        ticks = [-nyquist / 2, nyquist / 2] if width / len(volumes) > 1.9 else [0.0]  # as many as have room
        ax.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
        ax.set_yticks(*((ticks, [f"{tick:.2g}" for tick in ticks]) if ax is axes[0, 0] else ([],)))
    axes[0, 0].set_ylabel(f"$k_z$ (1/{'Å' if voxel_size else 'voxel'})")
    figure.colorbar(image, ax=list(axes[0]), label="log$_{10}$ amplitude", shrink=0.65, aspect=14)
    if caption:
        note(figure, caption)
    return figure


def fsc_curves(curves: Mapping[str, FSC], *, voxel_size: float = 0.0, caption: str = "") -> Figure:
    """FSC against spatial frequency, with the thresholds 0.5 and 0.143."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(6.5, 3.6))
    for title, curve in curves.items():
        ax.plot(curve.frequency, curve.correlation, label=title)
    for threshold in (0.5, 0.143):
        ax.axhline(threshold, color="0.7", lw=0.8, ls="--", zorder=0)
        ax.annotate(f"{threshold}", (1.0, threshold), xycoords=("axes fraction", "data"), fontsize=8, va="bottom",
                    ha="right", color="0.4")  # fmt: skip
    ax.set(xlabel=f"spatial frequency (1/{'Å' if voxel_size else 'voxel'})", ylabel="FSC", ylim=(-0.1, 1.05))
    ax.axhline(0, color="0.8", lw=0.8, zorder=0)
    ax.legend(fontsize=9)
    if caption:
        note(figure, caption)
    return figure


def learning_curves(histories: Mapping[str, History], *, caption: str = "") -> Figure:
    """Training and held-out loss against the step, one panel a run; a circle marks the weights that were kept.

    Where the run knew the truth, the true correlation on the same held-out patches is drawn on a second axis.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(histories), squeeze=False, figsize=(max(5.0, 4.3 * len(histories)), 3.1))
    for ax, (title, history) in zip(axes[0], histories.items(), strict=True):
        steps, total = history.column("total")
        ax.plot(steps, total, color="0.75", lw=0.8, label="training batch")
        if len(total) > 20:
            smooth = np.convolve(total, np.ones(10) / 10, mode="valid")
            ax.plot(steps[9:], smooth, label="mean of 10 steps")
        steps, held_out = history.column("validation")
        if steps:
            ax.plot(steps, held_out, "-", color=COLOURS[1], label="held-out patches")
            kept = dict(zip(steps, held_out, strict=True)).get(history.best_step, history.best_validation)
            ax.plot(history.best_step, kept, "o", mfc="none", color=COLOURS[1], label="weights kept")
        ax.set(xlabel="step", ylabel="loss (variance of the volume = 1)", title=title)
        if total:  # single batches may fly off; the held-out curve past its start is always in sight
            seen = [*np.percentile(total, [0.5, 97]), *held_out[1:]]
            margin = 0.04 * (max(seen) - min(seen))
            ax.set_ylim(min(seen) - margin, max(seen) + margin or 1)
        handles, labels = ax.get_legend_handles_labels()
        steps, true = history.column("cc_clean")
        if steps:
            twin = ax.twinx()
            twin.spines["right"].set_visible(True)
            handles += twin.plot(steps, true, ":", color=COLOURS[2], label="truth (right axis)")
            labels.append("truth (right axis)")
            twin.set_ylabel("CC with the truth", color=COLOURS[2])
    # Above the panels: inside, it would lie on one curve or another.
    figure.legend(handles, labels, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3 if len(histories) == 1 else 5,
                  fontsize=8)  # fmt: skip
    if caption:
        note(figure, caption)
    return figure


def matrix(
    values: NDArray[Any], rows: Sequence[str], columns: Sequence[str], *, label: str, caption: str = "",
    better: str = "higher", width: float = 7.2,
) -> Figure:  # fmt: skip
    """Numbers on coloured squares, one row a method, NaN left empty; the best of each column is framed.

    Args:
        values: (rows, columns). label: of the numbers, with their unit. better: "higher" or "lower".
    """
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(width, 1.4 + 0.19 * len(rows)))
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, [5, 95]) if finite.size else (0.0, 1.0)
    ax.imshow(values, cmap="cividis" if better == "higher" else "cividis_r", aspect="auto", vmin=low, vmax=high)
    for i, j in zip(*np.nonzero(np.isfinite(values)), strict=True):
        dark = (values[i, j] - low) / max(high - low, 1e-12) < 0.5
        text = f"{values[i, j]:.2f}".replace("0.", ".", 1) if abs(values[i, j]) < 1 else f"{values[i, j]:.3g}"
        ax.text(j, i, text, ha="center", va="center", fontsize=7, color="w" if dark == (better == "higher") else "k")
    pick = np.nanargmax if better == "higher" else np.nanargmin
    for j in range(len(columns)):
        if np.isfinite(values[:, j]).any():
            ax.add_patch(plt.Rectangle((j - 0.5, pick(values[:, j]) - 0.5), 1, 1, fill=False, ec=COLOURS[1], lw=1.5))
    ax.set_xticks(range(len(columns)), columns, fontsize=6.5)
    ax.set_yticks(range(len(rows)), rows, fontsize=7.5)
    ax.tick_params(length=0, top=True, bottom=False, labeltop=True, labelbottom=False)
    ax.spines[:].set_visible(False)
    ax.set_title(label, loc="left", fontsize=9)
    note(figure, caption)
    return figure


Spread = tuple[float, float, float]  # mean, smallest, largest


def ranges(
    panels: Mapping[str, Mapping[str, Spread]], *, label: str, own: Mapping[str, Mapping[str, float]] | None = None,
    lines: Mapping[str, Mapping[str, float]] | None = None, caption: str = "",
) -> Figure:  # fmt: skip
    """One panel a noise, one row a variant: a dot at the mean over seeds, a bar from the smallest to the largest value.

    Args:
        panels: title -> row -> spread, in the same rows everywhere. label: of the axis, with its unit.
        own: title -> row -> one value more, drawn as a ring. lines: title -> name -> a value to compare with.
    """
    import matplotlib.pyplot as plt

    rows = list(next(iter(panels.values())))
    figure, axes = plt.subplots(
        1, len(panels), squeeze=False, sharey=True, figsize=(8.0, 1.5 + 0.27 * len(rows)), layout="constrained"
    )
    for ax, (title, spreads) in zip(axes[0], panels.items(), strict=True):
        for k, (name, value) in enumerate((lines or {}).get(title, {}).items()):
            ax.axvline(value, color="0.6", lw=0.9, ls=("--", ":", "-.")[k % 3], zorder=0, label=name)
        for y, row in enumerate(rows):
            mean, low, high = spreads[row]
            ax.plot([low, high], [y, y], color=COLOURS[0], lw=2.5, alpha=0.5)
            ax.plot(mean, y, "o", color=COLOURS[0], ms=5, label="mean and range of the seeds" if y == 0 else None)
            if own:
                ax.plot(
                    own[title][row], y, "o", mfc="none", color=COLOURS[1], ms=9, label="this page" if y == 0 else None
                )
        ax.set(title=title, xlabel=label, yticks=range(len(rows)))
        ax.locator_params(axis="x", nbins=5)
        ax.grid(axis="y", color="0.92")
        ax.set_axisbelow(True)
    axes[0, 0].set_yticklabels(rows)
    axes[0, 0].invert_yaxis()
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, fontsize=8)
    if caption:
        note(figure, caption)
    return figure


def spread_table(columns: Mapping[str, Mapping[str, Spread]], rows: Mapping[str, str], *, signed: bool = False) -> Any:
    """A Markdown table of means with the smallest and largest value in brackets.

    Args:
        columns: label -> name -> spread. rows: label -> name. signed: with + and -, for differences.
    """
    from IPython.display import Markdown

    from cryostudy.records import readable

    def shown(value: float) -> str:
        return ("+" if signed and value > 0 else "") + readable(value)

    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for label, name in rows.items():
        cells = []
        for spreads in columns.values():
            mean, low, high = spreads.get(name, (np.nan,) * 3)
            around = f" ({shown(low)} to {shown(high)})" if high > low else ""
            cells.append("–" if np.isnan(mean) else shown(mean) + around)
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return Markdown("\n".join(lines))


def table(scores: Mapping[str, Mapping[str, Any]], rows: Mapping[str, str], columns: Mapping[str, str]) -> Any:
    """A Markdown table out of a record's metrics, for display in a notebook.

    Args:
        scores: `record.content["metrics"]`. rows: label -> name in it. columns: label -> metric.
    """
    from IPython.display import Markdown

    from cryostudy.records import readable

    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for label, name in rows.items():
        cells = [readable(scores[name][metric]) if metric in scores[name] else "–" for metric in columns.values()]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return Markdown("\n".join(lines))
