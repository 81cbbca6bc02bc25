"""One figure that compares algorithms, after Agarwal et al. (2021), section 4.

Aggregates with intervals, the performance profile, and the sample efficiency.
https://arxiv.org/abs/2108.13264
"""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rljax.results import comparison, figures, pools, statistics, texts
from rljax.results.comparison import Bound, Comparison

WIDTH = 7.0  # inches, the text width of two columns
NUM_POINTS = 41  # of the sample-efficiency curve
NUM_THRESHOLDS = 201  # of the performance profile
MAX_LETTERS = 30  # of a line of a name beside the intervals
SAME_LENGTH = 0.02  # relative difference up to which two runs have equally many steps


class Efficiency(NamedTuple):
    """The sample-efficiency curve of one algorithm.

    Attributes:
      at: environment steps, or fractions of the longest run on each environment, `[K]`.
      iqm, low, high: interquartile mean and its 95 % stratified-bootstrap interval, `[K]`.
    """

    at: np.ndarray
    iqm: np.ndarray
    low: np.ndarray
    high: np.ndarray


def report(
    results: pools.Runs, low: Bound = None, high: Bound = None, path: str | Path | None = None
) -> Any:
    """Draws intervals, performance profile and sample efficiency of algorithms in one figure.

    Runs are grouped into algorithms as in `rljax.compare`. The figure has the width of a page with
    two columns, 7 inches, and all texts of at least 7 points.

    Args:
      results: results, or the directories they were saved in; or a mapping of a name for each.
      low, high: returns that are 0 and 1 in normalized scores; numbers, or `{env_id: number}`.
        Several environments need them.
      path: file to write (.png, .pdf or .svg); None writes nothing.

    Returns:
      The matplotlib figure.

    Raises:
      ValueError: a bound is missing, no environment is common to all algorithms, or `path` has
        another suffix.

    Example:
      >>> import numpy as np, rljax
      >>> steps = np.arange(1, 5) * 1000
      >>> def run(agent, level):
      ...     returns = level * np.linspace(0.2, 1, 4) + np.arange(10)[:, None]
      ...     metrics = {"charts/episodic_return": returns}
      ...     return rljax.Result(agent, "CartPole-v1", {}, {}, 10, 0, steps, metrics)
      >>> figure = rljax.report([run("ppo", 480), run("dqn", 300)], low=0, high=500)
      >>> [axis.get_xlabel() for axis in figure.axes[-2:]]
      ['normalized return', 'environment steps']
    """
    figures.check_format(path)
    runs = pools.load(results)
    metric, note = pools.return_metric(runs)
    found = pools.pooled(runs, metric)
    compared = comparison.compared(found, low, high)
    if compared.normalized is None and len(compared.env_ids) > 1:
        raise ValueError(
            f"`low` and `high` are missing: returns of {', '.join(compared.env_ids)} have no "
            "common scale, so give the returns that are 0 and 1."
        )
    curves, unit = efficiency(found, compared, metric, low, high)
    style = dict(zip(compared.scores, figures.styles(len(compared.scores), ()), strict=True))
    figure = _draw(compared, curves, unit, metric, style)
    figures.write_note(figure, _note(found, compared, note))
    if path is not None:
        from rljax.results import canvas

        canvas.save(figure, path)
    return figure


def efficiency(
    found: Mapping[str, Sequence[pools.Pool]], compared: Comparison, metric: str, low: Bound,
    high: Bound,
) -> tuple[dict[str, Efficiency], str]:  # fmt: skip
    """Returns the sample-efficiency curve of each algorithm, and the unit of its points.

    The curves of all runs are interpolated linearly at common points: environment steps, or, if the
    environments were trained for different numbers of steps, fractions of the longest run on each.
    A curve starts where all runs have a return.

    Args:
      found: pools by environment.
      compared: their comparison.
      metric: metric of the curves.
      low, high: bounds of normalized scores.
    """
    bounds = comparison.bounds_of(compared.env_ids, low, high)
    by_name = {
        name: [next(p for p in found[env] if p.name == name) for env in compared.env_ids]
        for name in compared.scores
    }
    last = {name: [pool.curve(metric)[0][-1] for pool in by_name[name]] for name in by_name}
    longest = np.max(list(last.values()), axis=0).astype(np.float64)  # [environments]
    by_steps = longest.max() <= (1 + SAME_LENGTH) * longest.min()
    scale = np.full_like(longest, longest.max()) if by_steps else longest
    curves = {}
    for name, of_env in by_name.items():
        points = np.linspace(0, np.min(last[name] / scale), NUM_POINTS)[1:]
        scores = _at(points, [pool.curve(metric) for pool in of_env], scale)
        scores = scores if bounds is None else comparison.normalize(scores, bounds)
        intervals = np.transpose([_interval(x) for x in scores])
        at = points * scale[0] if by_steps else points
        curves[name] = Efficiency(at, statistics.iqm(scores), *intervals)
    return curves, "environment steps" if by_steps else "fraction of training"


def _at(
    points: np.ndarray, curves: Sequence[tuple[np.ndarray, np.ndarray]], scale: np.ndarray
) -> np.ndarray:
    """Interpolates the curves of each environment, `(steps [P], values [seeds, P])`.

    Returns:
      Values at `points * scale`, `[K, seeds, environments]`; NaN outside the known values of a run.
    """
    seeds = max(len(values) for _, values in curves)
    result = np.full((len(points), seeds, len(curves)), np.nan)
    for task, (steps, values) in enumerate(curves):
        for seed, row in enumerate(values):
            known = np.isfinite(row)
            if known.any():
                result[:, seed, task] = np.interp(
                    points * scale[task], steps[known], row[known], left=np.nan, right=np.nan
                )
    return result


def _interval(scores: np.ndarray) -> tuple[Any, Any]:
    """Returns the interval of the interquartile mean of `[seeds, environments]`, NaN if unknown."""
    if np.isnan(scores).all(0).any():
        return np.nan, np.nan
    return statistics.stratified_bootstrap(scores, num_resamples=1000)


def _draw(
    compared: Comparison, curves: Mapping[str, Efficiency], unit: str, metric: str,
    style: Mapping[str, Any],
) -> Any:  # fmt: skip
    from rljax.results import canvas

    names, aggregates = list(style), compared.aggregates
    columns = max(1, min(len(names), int(WIDTH / (0.056 * max(map(len, names)) + 0.45))))
    legend_rows = -(-len(names) // columns) if len(names) > 1 else 0
    rows = sum(row.count("\n") + 1 for row in map(_wrapped, names))
    top, bottom = 0.85 + 0.1 * len(names) + 0.09 * rows, 2.3 + 0.2 * legend_rows
    figure = canvas.new(WIDTH, top + bottom + 0.25, pad=0.035)
    halves: Any = figure.subfigures(2, 1, height_ratios=[top, bottom])
    upper, lower = halves
    statistic_names = list(aggregates[names[0]])
    intervals = upper.subplots(1, len(statistic_names), sharey=True, squeeze=False)[0]
    for axis, statistic in zip(intervals, statistic_names, strict=True):
        _draw_intervals(axis, statistic, {n: aggregates[n][statistic] for n in names}, style)
    profile, curve = lower.subplots(1, 2)
    _draw_profile(profile, compared, style)
    _draw_curves(curve, curves, style)
    normalized = "normalized " if compared.normalized is not None else ""
    upper.supxlabel(f"{normalized}{compared.score_name}", fontsize=8)
    profile.set_xlabel(f"{normalized}{compared.score_name}", fontsize=8)
    curve.set_xlabel(unit, fontsize=8)
    curve.set_ylabel(f"{normalized}{figures.axis_label(metric)}", fontsize=8)
    if legend_rows:
        from matplotlib.lines import Line2D

        handles = [Line2D([], [], color=c, linestyle=d, linewidth=2) for c, d in style.values()]
        lower.legend(
            handles, names, loc="outside lower center", ncols=columns, frameon=False, fontsize=7.5
        )
    return figure


def _draw_intervals(
    axis: Any, statistic: str, estimates: Mapping[str, comparison.Estimate],
    style: Mapping[str, Any],
) -> None:  # fmt: skip
    """Draws one row for each algorithm: its interval as a bar, its value as a line."""
    for row, (name, (value, low, high)) in enumerate(estimates.items()):
        color = style[name][0]
        axis.barh(row, high - low, left=low, height=0.6, color=color, alpha=0.55)
        axis.vlines(value, row - 0.3, row + 0.3, color="black", linewidth=1.2)
    figures.plain_axes(axis)
    axis.set_title(statistic, fontsize=8.5, fontweight="bold")
    axis.set_yticks(range(len(estimates)), [_wrapped(name) for name in estimates], fontsize=7.5)
    axis.set_ylim(len(estimates) - 0.5, -0.5)
    axis.grid(False, axis="y")
    axis.spines["left"].set_visible(False)
    axis.tick_params(axis="y", length=0)
    axis.tick_params(axis="x", labelsize=7)
    axis.locator_params(axis="x", nbins=4)
    axis.margins(x=0.1)


def _wrapped(name: str) -> str:
    return "\n".join(textwrap.wrap(name, MAX_LETTERS, break_long_words=False))


def _draw_profile(axis: Any, compared: Comparison, style: Mapping[str, Any]) -> None:
    """Draws the fraction of runs above each score."""
    pooled = np.concatenate([matrix.reshape(-1) for matrix in compared.matrices.values()])
    low, high = np.nanmin(pooled), np.nanmax(pooled)
    margin = 0.03 * max(high - low, 1e-9)
    thresholds = np.linspace(low - margin, high + margin, NUM_THRESHOLDS)
    for name, matrix in compared.matrices.items():
        color, dashes = style[name]

        def statistic(scores):
            return statistics.performance_profile(scores, thresholds)

        band = statistics.stratified_bootstrap(matrix, statistic, num_resamples=1000)
        axis.step(thresholds, statistic(matrix), color=color, linestyle=dashes, linewidth=1.5)
        axis.fill_between(thresholds, *band, step="pre", color=color, alpha=0.18, linewidth=0)
    figures.plain_axes(axis)
    axis.set_title("performance profile", fontsize=8.5, fontweight="bold")
    axis.set_ylabel("fraction of runs with a higher score", fontsize=8)
    axis.set_ylim(-0.02, 1.02)
    axis.set_xlim(thresholds[0], thresholds[-1])
    axis.tick_params(labelsize=7)


def _draw_curves(axis: Any, curves: Mapping[str, Efficiency], style: Mapping[str, Any]) -> None:
    for name, (at, iqm, low, high) in curves.items():
        color, dashes = style[name]
        axis.plot(at, iqm, color=color, linestyle=dashes, linewidth=1.5)
        axis.fill_between(at, low, high, color=color, alpha=0.18, linewidth=0)
    figures.plain_axes(axis)
    axis.set_title("sample efficiency (IQM)", fontsize=8.5, fontweight="bold")
    axis.xaxis.set_major_formatter(lambda x, _: texts.human(x))
    axis.set_xlim(0, max(curve.at[-1] for curve in curves.values()))
    axis.tick_params(labelsize=7)


def _note(found: Mapping[str, Sequence[pools.Pool]], compared: Comparison, note: str) -> str:
    """Returns what the figure is of: runs, environments, intervals, diverged and stopped runs."""
    of_env = [pool for env_id in compared.env_ids for pool in found[env_id]]
    numbers = [pool.num_seeds for pool in of_env]
    low, high = min(numbers), max(numbers)
    seeds = texts.count(low, "seed") if low == high else f"{low} to {high} seeds"
    notes = [f"{', '.join(compared.env_ids)}; {seeds} each; 95 % stratified-bootstrap intervals"]
    notes[0] += f" (too narrow below {figures.MIN_SEEDS} seeds)" if low < figures.MIN_SEEDS else ""
    if left_out := [env_id for env_id in found if env_id not in compared.env_ids]:
        notes.append(f"without {', '.join(left_out)}, where an algorithm has no run")
    stopped = sum(int((~np.isnan(p.stopped)).sum()) for p in of_env if p.stopped is not None)
    if stopped:
        runs = f"{stopped} of {sum(numbers)} runs"
        notes.append(f"stopped early, with its last value from then on: {runs}")
    missing = sum(int(np.isnan(pool.scores(compared.evaluated)).sum()) for pool in of_env)
    if missing:
        notes.append(f"without a score: {missing} of {sum(numbers)} runs")
    return "; ".join([*notes, note] if note else notes)
