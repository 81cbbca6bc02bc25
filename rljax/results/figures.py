"""Figures of learning curves: the interquartile mean over seeds and its bootstrap interval.

Figures are made without pyplot, so they need no display and no global state. matplotlib is slow to
import, so it is imported when the first figure is drawn.
"""

import itertools
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rljax.results import statistics
from rljax.results.texts import human

EPISODIC_RETURN = "charts/episodic_return"
EVALUATION_RETURN = "eval/episodic_return"  # of the evaluations during training
AXIS_LABELS = {EVALUATION_RETURN: "evaluation return", "eval/episodic_length": "evaluation length"}
FORMATS = (".png", ".pdf", ".svg")
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
DASHES = ("-", "--", ":", "-.")  # line styles, varied after the colorblind-safe palette is used up
HELD = (0, (1, 2))  # line style of a curve after all its runs have stopped
GAPS = (0, (4, 4))  # line style of a line drawn over an equal one
MIN_SEEDS = 10  # percentile-bootstrap intervals of fewer runs are too narrow
MAX_FAINT_SEEDS = 10  # up to this number, each seed is drawn as a faint line
GREY = "#666666"
LIGHT_GREY = "#C8C8C8"  # color of muted lines


class Line(NamedTuple):
    """The curves of all seeds of one setting.

    Attributes:
      steps: environment steps, `[P]`.
      values: metric of each seed, `[seeds, P]`.
      group: heading in the legend, such as the agent.
      label: label within the group; "" if it is the only line of the group.
      stopped: environment steps at which each run stopped early, `[seeds]`, NaN if it did not.
      muted: drawn thin, grey and without a band.
    """

    steps: np.ndarray
    values: np.ndarray
    group: str
    label: str = ""
    stopped: np.ndarray | None = None
    muted: bool = False

    @property
    def num_stopped(self) -> int:
        """Number of runs that stopped early."""
        return 0 if self.stopped is None else int((~np.isnan(self.stopped)).sum())

    @property
    def end(self) -> float:
        """The report in which the last run stopped; infinity if a run did not stop."""
        if self.stopped is None or np.isnan(self.stopped).any():
            return float("inf")
        later = self.steps[self.steps >= self.stopped.max()]
        return float(later[0]) if len(later) else float("inf")

    @property
    def num_diverged(self) -> int:
        """Number of runs without a value in the last report, which had one before."""
        known = np.isfinite(self.values)
        return int((known.any(axis=1) & ~known[:, -1]).sum())


def learning_curves(
    panels: Mapping[str, Sequence[Line]], metric: str, *, legend_title: str = "",
    grid: Sequence[int] = (), note: str = "", ax: Any = None, path: str | Path | None = None,
) -> Any:  # fmt: skip
    """Draws panels of curves with one legend.

    Args:
      panels: title -> lines; lines of equal group and label have the same style in all panels.
      metric: name of the metric, such as "charts/episodic_return".
      legend_title: title of the legend, such as the name of a swept field.
      grid: for lines that are the settings of a sweep, the number of values of each swept field;
        the values have an order, so their colors go from dark to light.
      note: added to the note below the figure, which describes lines and bands.
      ax: matplotlib axes to draw a single panel into; None makes a new figure.
      path: file to write; its directory is created if it does not exist.

    Returns:
      The matplotlib figure.

    Raises:
      ValueError: `path` does not end in .png, .pdf or .svg.
    """
    check_format(path)
    style = _style_of_each(panels, grid)
    names = list(style)
    widest = max(len(label or group) for group, label in names) if len(names) > 1 else 0
    figure, axes = (ax.figure, [ax]) if ax is not None else _new_figure(len(panels), widest)
    for axis, (title, lines) in zip(axes, panels.items(), strict=True):
        _decorate(axis, title, metric, lines)
        for i, line in enumerate(lines):
            color, dashes = style[line.group, line.label]
            if any(_coincide(line, other) for other in lines[:i]):
                dashes = GAPS  # shows the line below it
            _draw(axis, line, color, dashes, faint=len(lines) == 1)
        axis.set_xlim(0, max(float(np.max(line.steps)) for line in lines))
    if len(names) > 1:
        _legend(axes[0] if ax is not None else figure, style, legend_title, own=ax is None)
    if ax is None:
        notes = _note([line for lines in panels.values() for line in lines])
        write_note(figure, f"{notes}; {note}" if note else notes)
    if path is not None:
        from rljax.results import canvas

        canvas.save(figure, path)
    return figure


def check_format(path: str | Path | None) -> None:
    """Checks that a figure can be written to `path`.

    Raises:
      ValueError: `path` does not end in .png, .pdf or .svg.
    """
    if path is not None and Path(path).suffix.lower() not in FORMATS:
        raise ValueError(f"`path` is {str(path)!r}, but it must end in {', '.join(FORMATS)}.")


def write_note(figure: Any, note: str) -> None:
    """Writes a note into the lower right corner, wrapped to the width of the figure."""
    letters = int(figure.get_figwidth() * 18)
    lines = textwrap.wrap(note, letters, break_long_words=False)
    figure.supxlabel("\n".join(lines), x=0.99, ha="right", fontsize=7.5, color=GREY)


def _style_of_each(
    panels: Mapping[str, Sequence[Line]], grid: Sequence[int]
) -> dict[tuple[str, str], Any]:
    """Returns `{(group, label): (color, line style)}`, by group; muted lines are last."""
    lines = [line for panel in panels.values() for line in panel]
    names = list(dict.fromkeys((line.group, line.label) for line in lines if not line.muted))
    groups = list(dict.fromkeys(group for group, _ in names))
    names.sort(key=lambda name: groups.index(name[0]))  # stable: keeps the order within a group
    style = dict(zip(names, styles(len(names), grid), strict=True))
    return style | {(line.group, line.label): (LIGHT_GREY, "-") for line in lines if line.muted}


def _note(lines: Sequence[Line]) -> str:
    """Returns what the lines and bands are, and how many runs diverged."""
    numbers = [len(line.values) for line in lines]
    low, high = min(numbers), max(numbers)
    if high == 1:
        note = "one seed"
    else:
        seeds = f"{low} seeds" if low == high else f"{low} to {high} seeds"
        note = f"interquartile mean over {seeds}, 95 % bootstrap interval"
        note += f" (too narrow below {MIN_SEEDS} seeds)" if high < MIN_SEEDS else ""
    if stopped := sum(line.num_stopped for line in lines):
        note += f"; {stopped} of {sum(numbers)} runs stopped early and keep their last value"
    diverged = sum(line.num_diverged for line in lines)
    return f"{note}; {diverged} of {sum(numbers)} runs diverged" if diverged else note


def _coincide(line: Line, other: Line) -> bool:
    """Whether two lines are almost equal, so that the second would hide the first."""
    if not np.array_equal(line.steps, other.steps):
        return False
    x, y = statistics.iqm(line.values.T[..., None]), statistics.iqm(other.values.T[..., None])
    known = np.isfinite(x) & np.isfinite(y)
    if not known.any():
        return False
    height = max(np.ptp(x[known]), np.ptp(y[known]), 1e-9)
    return bool((np.abs(x - y)[known] < 0.003 * height).mean() > 0.8)


def _new_figure(num_panels: int, legend_letters: int) -> tuple[Any, list[Any]]:
    from rljax.results import canvas

    columns = 2 if num_panels == 4 else min(num_panels, 3)
    rows = -(-num_panels // columns)
    width, height = (6.4, 4.0) if num_panels == 1 else (4.0 * columns, 3.0 * rows)
    if legend_letters:  # room for the legend beside the panels
        width += 0.7 + 0.07 * legend_letters
    figure = canvas.new(width, height)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[num_panels:]:
        axis.remove()
    return figure, axes[:num_panels]


def styles(count: int, grid: Sequence[int]) -> Iterable[tuple[Any, Any]]:
    """Returns a color and a line style for each line.

    In a grid of two fields, colors show the field with more values and line styles the other one.
    """
    if not grid:
        return itertools.islice(((c, d) for d in itertools.cycle(DASHES) for c in PALETTE), count)
    import matplotlib

    def ordered(number):
        return [tuple(c) for c in matplotlib.colormaps["viridis"](np.linspace(0, 0.85, number))]

    if len(grid) != 2 or min(grid) > len(DASHES):
        return [(color, "-") for color in ordered(count)]
    first, second = grid
    if first >= second:
        return list(itertools.product(ordered(first), DASHES[:second]))
    return [(color, dash) for dash in DASHES[:first] for color in ordered(second)]


def _decorate(axis: Any, title: str, metric: str, lines: Sequence[Line]) -> None:
    axis.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axis.set_xlabel("environment steps")
    axis.set_ylabel(axis_label(metric))
    plain_axes(axis)
    axis.margins(y=0.06)
    axis.xaxis.set_major_formatter(lambda x, _: human(x))
    if any((np.abs(line.values[np.isfinite(line.values)]) >= 1e4).any() for line in lines):
        axis.yaxis.set_major_formatter(lambda y, _: human(y).replace("-", "\N{MINUS SIGN}"))


def axis_label(metric: str) -> str:
    """Returns the name of a metric on an axis: "episodic return", "evaluation return", "kl"."""
    return AXIS_LABELS.get(metric) or metric.split("/")[-1].replace("_", " ")


def plain_axes(axis: Any) -> None:
    """Removes the upper and right borders, and draws a light grid below the data."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color("#999999")
    axis.tick_params(color="#999999", labelsize=9)
    axis.grid(True, color="#E6E6E6", linewidth=0.8)
    axis.set_axisbelow(True)


def _draw(axis: Any, line: Line, color: Any, dashes: Any, faint: bool) -> None:
    """Draws one line, its band and, if `faint`, its seeds; missing points are interpolated."""
    if line.muted:
        middle = statistics.iqm(line.values.T[..., None])
        axis.plot(line.steps, middle, color=color, linewidth=0.7, zorder=1)
        return
    middle, low, high = statistics.iqm_curve(line.values)
    known = np.isfinite(middle)  # without reports in which no episode ended
    mark = "o" if known.sum() == 1 else ""
    name = f"{line.group} {line.label}".strip()
    solid, held = known & (line.steps <= line.end), known & (line.steps >= line.end)
    axis.plot(
        line.steps[solid], middle[solid], color=color, linestyle=dashes, linewidth=1.9, marker=mark,
        label=name, zorder=3, solid_capstyle="round",
    )  # fmt: skip
    if held.any():  # all runs have stopped
        x, y = line.steps[held], middle[held]
        axis.plot(x, y, color=color, linestyle=HELD, linewidth=1.4, zorder=3)
        axis.plot(x[:1], y[:1], color=color, marker="D", markersize=5, zorder=4)
    if len(line.values) == 1:
        return
    band = axis.fill_between(line.steps[known], low[known], high[known], color=color, alpha=0.18)
    band.set(linewidth=0, zorder=2)
    if faint and len(line.values) <= MAX_FAINT_SEEDS:
        for values in line.values:
            known = np.isfinite(values)
            axis.plot(line.steps[known], values[known], color=color, linewidth=0.6, alpha=0.3)


def _legend(owner: Any, style: Mapping[tuple[str, str], Any], title: str, own: bool) -> None:
    """Draws the legend by group: a heading and its labels, or one row for a group of one."""
    from matplotlib.lines import Line2D

    handles, labels, headings = [], [], []
    groups = list(dict.fromkeys(group for group, _ in style))
    for group in groups:
        rows = [(label, look) for (of, label), look in style.items() if of == group]
        single = len(rows) == 1
        if not single and len(groups) > 1:
            headings.append(len(labels))
            handles.append(Line2D([], [], linestyle="none"))
            labels.append(group)
        for label, (color, dashes) in rows:
            handles.append(Line2D([], [], color=color, linestyle=dashes, linewidth=2.2))
            labels.append(f"{group} {label}".strip() if single else label or group)
    legend = owner.legend(
        handles, labels, title=title or None, loc="outside right upper" if own else "best",
        frameon=not own, fontsize=9, title_fontsize=9, alignment="left",
    )  # fmt: skip
    for row in headings:
        legend.get_texts()[row].set_fontweight("bold")
