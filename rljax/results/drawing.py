"""Figures of one result: its learning curves, and the heat map of a sweep of two fields."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rljax.results import arrays, figures, statistics, sweeps, texts

if TYPE_CHECKING:
    from rljax.results.result import Result

MAX_LINES = 12  # settings with a color of their own
NUM_BEST = 6  # settings in color if there are more than MAX_LINES


def curves(result: "Result", path: str | Path | None, metric: str | None, ax: Any) -> Any:
    """Draws the figure of `Result.plot`."""
    metric = metric or result.return_metric
    ordered = sweeps.is_product(result.sweep)
    title = "".join(result.sweep) if len(result.sweep) == 1 and ordered else ""
    grid = [] if not ordered else [len(values) for values in result.sweep.values()]
    steps, values = arrays.curve(result, metric)
    num_settings, stopped = len(values), [None] * len(values)
    if result.stopped is not None:
        stopped = np.asarray(result.stopped).reshape(num_settings, -1)
    texts_of = [texts.setting(setting) for setting in result.settings]
    labels = [text.partition("=")[2] if title else text for text in texts_of]
    lines = [
        figures.Line(steps, values[i], result.label, labels[i], stopped[i])
        for i in range(num_settings)
    ]
    note = ""
    if num_settings > MAX_LINES:
        lines, grid = highlighted(lines, result.ranking()), []
        note = highlight_note(result.evaluation is not None)
    return figures.learning_curves(
        {result.title: lines}, metric, legend_title=title, grid=grid, note=note, ax=ax, path=path
    )


def highlighted(lines: Sequence[figures.Line], ranking: Sequence[int]) -> list[figures.Line]:
    """Returns the best lines first, and the others muted, with one label."""
    others = f"{len(lines) - NUM_BEST} other settings"
    group = lines[0].group if len({line.group for line in lines}) == 1 else ""
    muted = [lines[i]._replace(group=group, label=others, muted=True) for i in ranking[NUM_BEST:]]
    return [*(lines[i] for i in ranking[:NUM_BEST]), *muted]


def highlight_note(evaluated: bool) -> str:
    """Returns the note on the colors of `highlighted` lines."""
    return f"in color the {NUM_BEST} settings with the highest {score_name(evaluated)}"


def score_name(evaluated: bool) -> str:
    """Returns what a score is: "evaluation return" or "return"."""
    return "evaluation return" if evaluated else "return"


def heatmap(result: "Result", path: str | Path | None, ax: Any) -> Any:
    """Draws the figure of `Result.heatmap`."""
    figures.check_format(path)
    if len(result.sweep) != 2 or not sweeps.is_product(result.sweep):
        swept = ", ".join(result.sweep) or "nothing"
        raise ValueError(
            f"a heat map shows a sweep of two fields, but {result.title} sweeps {swept}: draw it "
            "with `run.plot()`."
        )
    (rows, columns), shape = result.sweep, [len(values) for values in result.sweep.values()]
    order = [np.argsort(result.sweep[field], kind="stable") for field in (rows, columns)]
    scores = result.scores(result.evaluation is not None).reshape(*shape, -1)[np.ix_(*order)]
    values = statistics.iqm(scores[..., None])
    ticks = [
        [texts.value(result.sweep[f][i]) for i in at]
        for f, at in zip(result.sweep, order, strict=True)
    ]
    axis, figure = ax, None if ax is None else ax.figure
    if axis is None:
        from rljax.results import canvas

        figure = canvas.new(2.4 + 0.75 * shape[1], 1.6 + 0.45 * shape[0])
        axis = figure.subplots()
    image = axis.imshow(values, cmap="viridis", origin="lower", aspect="auto")
    axis.set_title(result.title, loc="left", fontsize=11, fontweight="bold")
    axis.set_xlabel(columns)
    axis.set_ylabel(rows)
    axis.set_xticks(range(shape[1]), ticks[1])
    axis.set_yticks(range(shape[0]), ticks[0])
    axis.tick_params(length=0, labelsize=9)
    axis.spines[:].set_visible(False)
    bar = axis.figure.colorbar(image, ax=axis)
    bar.outline.set_visible(False)
    bar.set_label(f"{score_name(result.evaluation is not None)}, interquartile mean")
    _print_cells(axis, image, values, scores)
    if path is not None:
        from rljax.results import canvas

        canvas.save(figure, path)
    return figure


def _print_cells(axis: Any, image: Any, values: np.ndarray, scores: np.ndarray) -> None:
    """Prints the value of each cell, and how many of its runs have a score if some diverged."""
    for (row, column), value in np.ndenumerate(values):
        color = image.cmap(image.norm(value))
        known = int((~np.isnan(scores[row, column])).sum())
        missing = "" if known == scores.shape[-1] else f"\n{known} of {scores.shape[-1]} runs"
        dark = np.isfinite(value) and sum(color[:3]) < 1.4
        axis.text(
            column, row, (texts.human(value) if known else "no run") + missing * (known > 0),
            ha="center", va="center", fontsize=9 if not missing else 7.5,
            color="white" if dark else "black",
        )  # fmt: skip
