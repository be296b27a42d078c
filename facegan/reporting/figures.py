"""The figures, drawn by matplotlib on the Agg canvas for white paper; a dark page inverts them with CSS.

The same numbers give the same bytes: the PNG has no date and no version, and no style but the one set here.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from facegan.generation.training_curve import ACCURACIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from facegan.reporting.comparisons import Measure

Lines = Sequence[Mapping[str, float]]
Series = tuple[np.ndarray, np.ndarray]


PAPER, INK, MUTED, GRID = "#ffffff", "#1f2328", "#667080", "#e4e7eb"
LONG = 21  # characters of a title that fit over one of four panels
ARMS = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#b8860b", "#56b4e9", "#7f3b08", "#666666")
"""Told apart by people with any colour vision (after Okabe and Ito)."""
BASELINES = (INK, MUTED)

STYLE: Any = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.facecolor": PAPER,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "lines.solid_capstyle": "round",
}


@dataclass(frozen=True)
class RenderedFigure:
    """One figure as PNG; `width` in CSS px."""

    name: str
    alt: str
    png: bytes
    width: int


def render(name: str, alt: str, size: tuple[float, float], draw: Callable[[Figure], None]) -> RenderedFigure:
    """Draw a figure of `size` inches; the user's own matplotlibrc has no effect on it."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        figure = Figure(figsize=size, dpi=144, layout="constrained", facecolor=PAPER)
        draw(figure)
        buffer = io.BytesIO()
        FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return RenderedFigure(name, alt, buffer.getvalue(), round(size[0] * 96))


def color(index: int) -> str:
    """The colour of the arm with this number."""
    return ARMS[index % len(ARMS)]


def line_of(index: int, name: str, baselines: Sequence[str]) -> dict[str, Any]:
    """Colour and dashes of the curve of an arm with this number, or of a baseline."""
    if name in baselines:
        return {"color": BASELINES[baselines.index(name) % len(BASELINES)], "ls": (0, (5, 2))}
    return {"color": color(index), "ls": "-"}


def arms(measures: Sequence[Measure], names: Sequence[str], confidence: float) -> RenderedFigure:
    """Dots and whiskers: for each metric a panel, for each arm its mean, its interval, and its seeds.

    Baselines stand below the arms, apart from them by a line.
    """
    names = [*names, *measures[0].baselines]
    columns = min(4 if len(measures) > 6 else 3, len(measures))
    rows = -(-len(measures) // columns)
    size = (9.8, rows * (1.15 + 0.3 * len(names)))

    def draw(figure: Figure) -> None:
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis in axes[len(measures) :]:
            axis.set_axis_off()
        for index, (axis, measure) in enumerate(zip(axes, measures, strict=False)):
            _whiskers(axis, measure, names, labels=index % columns == 0)

    alt = (
        f"Each metric for each arm: filled dot = mean over seeds, whisker = {confidence:.0%} interval, "
        "open dots = single seeds" + ("; below the line, baselines" if measures[0].baselines else "")
    )
    return render("arms", alt, size, draw)


def _whiskers(axis: Axes, measure: Measure, names: Sequence[str], labels: bool) -> None:
    axis.set_title(measure.name if len(measure.name) <= LONG else measure.name.replace("/", "/\n"))
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.set_yticks(range(len(names)), names if labels else [""] * len(names))
    axis.tick_params(axis="y", length=0)
    axis.grid(False, axis="y")
    axis.set_xlabel("← lower is better" if measure.better == "lower" else "higher is better →", fontsize=8)
    if not measure.resolved:
        axis.set_xticks([])
        axis.text(0.5, 0.5, wrap(measure.note), transform=axis.transAxes, ha="center", va="center",
                  fontsize=8, color=MUTED)  # fmt: skip
        return
    baselines = list(measure.baselines)
    if baselines:
        axis.axhline(len(names) - len(baselines) - 0.5, color=MUTED, lw=0.8)
    for row, name in enumerate(names):
        arm_color, arm = line_of(row, name, baselines)["color"], {**measure.arms, **measure.baselines}[name]
        if arm.mean is None:
            continue
        if arm.low is not None and arm.high is not None:
            axis.plot([arm.low, arm.high], [row, row], color=arm_color, linewidth=2.2)
        seeds = [value for value in arm.per_seed if value is not None and name not in baselines]
        axis.plot(seeds, [row + 0.24] * len(seeds), "o", mfc="none", mec=arm_color, ms=4, alpha=0.9)
        axis.plot([arm.mean], [row], "o", color=arm_color, ms=7, mec=PAPER, mew=1)
    axis.locator_params(axis="x", nbins=4)


def groups(measures: Sequence[Measure], names: Sequence[str], label: str, confidence: float) -> RenderedFigure:
    """Bars: FMR and FNMR of each group for each arm (mean over seeds), with the interval of each.

    measures: those called `label/fmr:GROUP` and `label/fnmr:GROUP`. A group that is too few to tell has a word.
    """
    panels = [[m for m in measures if m.name.startswith(f"{label}/{rate}:")] for rate in ("fmr", "fnmr")]
    width = 0.8 / len(names)

    def draw(figure: Figure) -> None:
        for axis, panel, title in zip(figure.subplots(1, 2), panels, ("FMR", "FNMR"), strict=True):
            for place, measure in enumerate(panel):
                if not measure.resolved:
                    axis.text(place, 0, "too few", ha="center", va="bottom", fontsize=8, color=MUTED)
                for index, name in enumerate(names):
                    arm, x = measure.arms[name], place + (index + 0.5) * width - 0.4
                    if arm.mean is None:
                        continue
                    axis.bar(x, arm.mean, width * 0.9, color=color(index), label=name if place == 0 else None)
                    if arm.low is not None and arm.high is not None:
                        axis.plot([x, x], [arm.low, arm.high], color=INK, lw=1)
            axis.set_xticks(range(len(panel)), [wrap(m.name.partition(":")[2], 12) for m in panel])
            axis.set_xlim(-0.6, len(panel) - 0.4)
            axis.set_title(f"{title} of each group ({label})")
            axis.set_ylim(bottom=0)
            axis.grid(False, axis="x")
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)

    alt = (
        f"{label}: FMR and FNMR of each group at one threshold, for each arm; bar = mean over seeds, line = "
        f"{confidence:.0%} interval; lower is better, and equal bars are fair"
    )
    return render(label, alt, (9.6, 3.2), draw)


def attack(measures: Sequence[Measure], names: Sequence[str], label: str, confidence: float) -> RenderedFigure:
    """Share of pairs judged wrongly over the size of the perturbation, for each arm (mean over seeds, with interval).

    measures: those called `label/dodging@eps=X` and `label/impersonation@eps=X`.
    """
    sides = ("dodging", "impersonation")

    def draw(figure: Figure) -> None:
        for axis, side in zip(figure.subplots(1, 2, sharey=True), sides, strict=True):
            panel = [m for m in measures if m.name.startswith(f"{label}/{side}@eps=")]
            for index, name in enumerate(names):
                points = [(place, m.arms[name]) for place, m in enumerate(panel) if m.arms[name].mean is not None]
                axis.plot([x for x, _ in points], [arm.mean for _, arm in points], marker="o", ms=4, color=color(index),
                          lw=2, label=name)  # fmt: skip
                for x, arm in points:
                    if arm.low is not None and arm.high is not None:
                        axis.plot([x + 0.04 * index] * 2, [arm.low, arm.high], color=color(index), lw=1)
            axis.set_xticks(range(len(panel)), [m.name.rpartition("=")[2] for m in panel])
            axis.set(ylim=(0, 1.02), xlabel="largest perturbation, in 1/255 of the range")
            axis.set_title(f"{side.capitalize()}: pairs judged wrongly ({label})")
        figure.axes[0].legend(loc="lower right", fontsize=8)

    alt = (
        f"{label}: share of pairs judged wrongly over the size of the perturbation, for each arm, with its "
        f"{confidence:.0%} interval; 0 is without an attack; lower is better"
    )
    return render(label, alt, (9.6, 3.4), draw)


def domains(measures: Sequence[Measure], names: Sequence[str], label: str, confidence: float) -> RenderedFigure:
    """Heat map: EER, and FMR and FNMR at the threshold of home, of each arm (mean over seeds) in each domain.

    measures: those called `label/FIGURE@domain=DOMAIN`. Baselines stand below the arms.
    """
    names = [*names, *measures[0].baselines]
    columns = list(dict.fromkeys(m.name.partition("@domain=")[2] for m in measures))
    panels = {"eer": "EER", "fmr": "FMR at the threshold of home", "fnmr": "FNMR at the threshold of home"}

    def draw(figure: Figure) -> None:
        for axis, (rate, title) in zip(figure.subplots(3, 1, sharex=True), panels.items(), strict=True):
            of_domain = {m.name.partition("@domain=")[2]: m for m in measures if m.name.startswith(f"{label}/{rate}@")}
            values = np.full((len(names), len(columns)), np.nan)
            for column, domain in enumerate(columns):
                arms = {**of_domain[domain].arms, **of_domain[domain].baselines}
                values[:, column] = [np.nan if (mean := arms[name].mean) is None else mean for name in names]
            _heat(axis, values, title)
            axis.set_yticks(range(len(names)), names)
            axis.set_xticks(range(len(columns)), [wrap(column, 14) for column in columns])

    alt = (
        f"{label}: EER, FMR and FNMR of each arm (rows) in each domain (columns), the rates at the threshold that val "
        "people of home set; lower and lighter is better"
    )
    return render(label, alt, (9.6, 1.6 + 3 * (0.35 + 0.24 * len(names))), draw)


def _heat(axis: Axes, values: np.ndarray, title: str) -> None:
    """A heat map (rows, columns), from 0, with the numbers in it; a dash for NaN."""
    top = float(np.nanmax(values, initial=1e-9))
    axis.imshow(np.nan_to_num(values), cmap="YlOrBr", vmin=0, vmax=1.4 * top, aspect="auto")
    for row, of_row in enumerate(values):
        for column, value in enumerate(of_row):
            text = "–" if np.isnan(value) else f"{value:.3f}"
            axis.text(column, row, text, ha="center", va="center", fontsize=8)
    axis.set_title(title)
    axis.tick_params(length=0)
    axis.grid(False)
    axis.spines[:].set_visible(False)


Draw = Callable[[Sequence["Measure"], Sequence[str], str, float], RenderedFigure]
OWN: dict[str, Draw] = {"@domain=": domains, ":": groups, "@eps=": attack}
"""What is in the name of metrics that are many, and have a figure of their own instead of a bar for each."""


def own_figures(measures: Sequence[Measure]) -> dict[tuple[Draw, str], list[Measure]]:
    """The metrics of each figure of OWN, {(what draws it, the benchmark's label): metrics}."""
    own: dict[tuple[Draw, str], list[Measure]] = {}
    for measure in measures:
        if mark := next((mark for mark in OWN if mark in measure.name), None):
            own.setdefault((OWN[mark], measure.benchmark), []).append(measure)
    return own


def wrap(text: str, width: int = 26) -> str:
    """Lines of at most `width` characters."""
    import textwrap

    return "\n".join(textwrap.wrap(text, width))


def det(
    curves: Mapping[str, Sequence[Series]], n_genuine: int, n_impostor: int, baselines: Sequence[str] = ()
) -> RenderedFigure:  # fmt: skip
    """Detection error trade-off: FRR over FAR, per arm the mean over seeds and a thin line for each seed.

    Baselines are dashed.
    """
    floor_x, floor_y = 1 / max(n_impostor, 1), 1 / max(n_genuine, 1)
    x_resolved = min(10 / max(n_impostor, 1), 1)
    x_min = max(floor_x, x_resolved / 4)
    grid = np.geomspace(x_min, 1, 400)

    def on_grid(far: np.ndarray, frr: np.ndarray) -> np.ndarray:
        index = np.searchsorted(far, grid * (1 + 1e-9), side="right") - 1
        return frr[np.maximum(index, 0)]

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        axis.axvspan(x_min, x_resolved, color=GRID, alpha=0.55, lw=0)
        axis.plot([x_min, 1], [x_min, 1], color=MUTED, lw=1, ls=(0, (2, 3)))
        for index, (name, lines) in enumerate(curves.items()):
            frr_on_grid = np.stack([on_grid(*line) for line in lines])
            for line in frr_on_grid:
                axis.step(
                    grid,
                    np.maximum(line, floor_y),
                    where="post",
                    color=line_of(index, name, baselines)["color"],
                    lw=0.7,
                    alpha=0.45,
                )
            mean = np.maximum(frr_on_grid.mean(axis=0), floor_y)
            axis.step(grid, mean, where="post", **line_of(index, name, baselines), lw=2, label=name)
        axis.set(xscale="log", yscale="log", xlim=(x_min, 1), ylim=(max(floor_y, 3e-3), 1.05))
        axis.xaxis.set_major_formatter(_plain)
        axis.yaxis.set_major_formatter(_plain)
        axis.set_title("DET: one mistake traded for the other")
        axis.set_xlabel("FAR: share of strangers accepted")
        axis.set_ylabel("FRR: share of the same person rejected")
        axis.legend(loc="lower left")

    alt = "FRR over FAR for each arm on logarithmic axes, lower left is better; dotted: both equal (EER)"
    return render("det", alt, (4.7, 3.9), draw)


def _plain(value: float, _: float) -> str:
    return f"{value:g}"


def cmc(curves: Mapping[str, Sequence[Series]], baselines: Sequence[str] = ()) -> RenderedFigure:
    """Cumulative match characteristic: share of searches with the right person among the k best. Baselines: dashed."""

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        lowest, last = 1.0, 2.0
        for index, (name, lines) in enumerate(curves.items()):
            length = min(len(rate) for _, rate in lines)
            rates = np.stack([rate[:length] for _, rate in lines])
            rank = lines[0][0][:length]
            lowest, last = min(lowest, rates.min()), max(last, rank[-1])
            style = line_of(index, name, baselines)
            axis.plot(rank, rates.T, color=style["color"], lw=0.7, alpha=0.45)
            axis.plot(rank, rates.mean(axis=0), marker="o", ms=3.5, **style, lw=2, label=name)
        axis.set(xlim=(0.7, min(last, 20) + 0.3), ylim=(max(0, lowest - 0.05), 1.01))
        axis.xaxis.set_major_locator(mpl.ticker.MaxNLocator(8, integer=True))
        axis.set_title("CMC: found among the k best")
        axis.set_xlabel("k, the rank")
        axis.set_ylabel("share of searches")
        axis.legend(loc="lower right")

    alt = "Share of searches that find the person among the k best, for each arm; higher is better"
    return render("cmc", alt, (4.7, 3.9), draw)


def gan(lines: Lines) -> RenderedFigure:
    """Curves of the generator's training: losses, G's other terms, D's mean logits and accuracy, ADA's values."""
    names = [name for name in _keys(lines) if name != "nimg"]
    logits = [name for name in names if name.endswith("logits")]
    adversarial = [name for name in names if name in ("d", "g", "gp", "r1", "r2")]
    accuracy = [name for name in names if name in ACCURACIES]
    adaptive = [name for name in names if name in ("ada_p", "ada_r")]
    rest = [name for name in names if name not in {*logits, *adversarial, *accuracy, *adaptive}]
    groups = [
        ("Adversarial losses", adversarial, "linear"),
        ("Other terms of G", rest, "log"),
        ("D's mean logits", logits, "linear"),
        ("D's accuracy", accuracy, "share"),
        ("Augmentation (ADA)", adaptive, "linear"),
    ]
    groups = [group for group in groups if group[1]]

    def draw(figure: Figure) -> None:
        for axis, (title, members, scale) in zip(
            figure.subplots(1, len(groups), squeeze=False)[0], groups, strict=True
        ):
            positive = True
            for index, name in enumerate(members):
                nimg, value = _column(lines, name)
                positive = positive and bool((value > 0).all())
                axis.plot(nimg, value, color=color(index), lw=0.6, alpha=0.25)
                axis.plot(nimg, smooth(value), color=color(index), lw=1.6, label=name.replace("_", " "))
            if scale == "log" and positive:
                axis.set_yscale("log")
                axis.yaxis.set_major_formatter(_plain)
            if scale == "share":
                axis.set_ylim(-0.02, 1.02)
            axis.set_title(title)
            axis.set_xlabel("thousand images seen")
            axis.legend(fontsize=8)

    return render("gan", "Training curves of the generator over thousand images seen", (9.6, 2.9), draw)


def recognizers(curves: Mapping[str, Sequence[Lines]]) -> RenderedFigure:
    """Loss and EER on val people over images seen: a thin line for each seed, a thick one for the mean."""

    def draw(figure: Figure) -> None:
        for axis, (name, title) in zip(
            figure.subplots(1, 2),
            (("loss", "Training loss"), ("val_eer", "EER on validation people")),
            strict=True,
        ):
            for index, (arm, seeds) in enumerate(curves.items()):
                arm_color = color(index)
                columns = [column for column in (_column(lines, name) for lines in seeds) if len(column[0])]
                smoothed = [(x, smooth(y) if name == "loss" else y) for x, y in columns]
                mark = "" if name == "loss" else "o"
                for x, y in smoothed:
                    axis.plot(x, y, color=arm_color, lw=0.7, alpha=0.45, marker=mark, ms=2.5)
                if smoothed and all(np.array_equal(x, smoothed[0][0]) for x, _ in smoothed):
                    mean = np.mean([y for _, y in smoothed], axis=0)
                    axis.plot(smoothed[0][0], mean, color=arm_color, lw=2, label=arm, marker=mark, ms=4)
            axis.set_title(title)
            axis.set_xlabel("thousand images seen")
            axis.set_ylim(bottom=0)
            if axis.get_legend_handles_labels()[0]:
                axis.legend(fontsize=8)
            else:
                axis.text(0.5, 0.5, "not recorded", transform=axis.transAxes, ha="center", color=MUTED)

    alt = "Training loss and equal error rate on validation people, for each arm, over thousand images seen"
    return render("recognizers", alt, (9.6, 3.1), draw)


def _keys(lines: Lines) -> Iterator[str]:
    return iter(dict.fromkeys(key for line in lines for key in line))


def _column(lines: Lines, name: str) -> Series:
    """Thousands of images and the values of one key, over the lines that have it."""
    points = [(line["nimg"] / 1000, line[name]) for line in lines if line.get(name) is not None]
    x, y = np.asarray(points, np.float64).reshape(-1, 2).T
    return x, y


def smooth(values: np.ndarray) -> np.ndarray:
    """Moving average over about a fortieth of the curve, shorter towards its ends."""
    half_width = len(values) // 80
    if half_width == 0:
        return values
    cumulative = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - half_width, 0), np.minimum(index + half_width + 1, len(values))
    return (cumulative[high] - cumulative[low]) / (high - low)
