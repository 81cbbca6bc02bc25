"""Statistics over few runs, https://arxiv.org/abs/2108.13264 (Agarwal et al. 2021).

Scores are `[..., runs, tasks]` (`[runs]` is one task); every statistic reduces the last two axes.
NaN means that a run has no score: it is ignored, and if a task has no score the result is NaN.
The numbers equal those of rliable. Percentile-bootstrap intervals of under 10 runs are too narrow.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

BLOCK_SIZE = 100  # number of resamples in memory at a time


def present_mean(values: ArrayLike, axis: int) -> np.ndarray:
    """Returns the mean along `axis` without NaN; NaN, without a warning, if all values are NaN."""
    values = np.asarray(values, np.float64)
    count = (~np.isnan(values)).sum(axis)
    return np.where(count > 0, np.nansum(values, axis) / np.maximum(count, 1), np.nan)


def mean(scores: ArrayLike) -> np.ndarray:
    """Returns the mean over tasks of the mean over runs. `[..., runs, tasks] -> [...]`."""
    return present_mean(_matrix(scores), -2).mean(-1)


def median(scores: ArrayLike) -> np.ndarray:
    """Returns the median over tasks of the mean over runs. `[..., runs, tasks] -> [...]`.

    For one task this is the mean of its runs, as in rliable, not their median.
    """
    return np.median(present_mean(_matrix(scores), -2), axis=-1)


def iqm(scores: ArrayLike) -> np.ndarray:
    """Returns the interquartile mean over all runs and tasks. `[..., runs, tasks] -> [...]`.

        the mean of s_(k+1) .. s_(n-k),  s sorted,  k = floor(n / 4)

    For fewer than 4 scores it is their mean.
    """
    ranked = np.sort(_pooled(scores), axis=-1)  # NaN is sorted last
    count = (~np.isnan(ranked)).sum(-1, keepdims=True)
    rank = np.arange(ranked.shape[-1])
    middle = (rank >= count // 4) & (rank < count - count // 4)
    return present_mean(np.where(middle, ranked, np.nan), -1)


def optimality_gap(scores: ArrayLike, threshold: float = 1.0) -> np.ndarray:
    """Returns the mean shortfall of scores from `threshold`. `[..., runs, tasks] -> [...]`.

        threshold - mean(min(s, threshold))

    Scores above the threshold count as the threshold.
    """
    return threshold - present_mean(np.minimum(_pooled(scores), threshold), -1)


def performance_profile(scores: ArrayLike, thresholds: ArrayLike) -> np.ndarray:
    """Returns the fraction of runs above each threshold. `[..., runs, tasks], [K] -> [..., K]`.

    This is the run-score distribution of Agarwal et al., strictly above. Its interval is
    `stratified_bootstrap(scores, lambda s: performance_profile(s, thresholds))`.
    """
    pooled = _pooled(scores)[..., None]
    above = np.where(np.isnan(pooled), np.nan, pooled > np.asarray(thresholds))
    return present_mean(above, -2)


def probability_of_improvement(x: ArrayLike, y: ArrayLike) -> np.ndarray:
    """Returns the probability that a run of `x` scores higher than one of `y` on the same task.

        mean over tasks of  (#{x_i > y_j} + 1/2 #{x_i = y_j}) / #{(i, j)}

    This is the Mann-Whitney statistic as a fraction of all pairs; at 1/2 neither is better.
    `[..., runs_x, tasks], [..., runs_y, tasks] -> [...]`.

    Raises:
      ValueError: the numbers of tasks differ.
    """
    x, y = _matrix(x), _matrix(y)
    if x.shape[-1] != y.shape[-1]:
        raise ValueError(
            f"`x` has {x.shape[-1]} tasks and `y` has {y.shape[-1]}: give both the same tasks, in "
            "the same order."
        )
    x, y = x[..., :, None, :], y[..., None, :, :]
    wins = np.where(np.isnan(x) | np.isnan(y), np.nan, 0.5 * (x > y) + 0.5 * (x >= y))
    return present_mean(wins.reshape(*wins.shape[:-3], -1, wins.shape[-1]), -2).mean(-1)


def stratified_bootstrap(
    scores: Any, statistic: Callable[..., Any] = iqm, num_resamples: int = 2000,
    confidence: float = 0.95, seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Returns the percentile-bootstrap interval of a statistic, resampling each task independently.

    A task with n scores is resampled n times from them; a run without a score is never drawn.

    Args:
      scores: `[runs, tasks]`, or a tuple of such arrays for a statistic of several.
      statistic: symmetric in the runs and vectorized, `[N, runs, tasks] -> [N, *]`, like all
        statistics of this module.
      num_resamples: number of resamples.
      confidence: probability that the interval covers the true value, in (0, 1).
      seed: random seed; equal seeds give equal intervals.

    Returns:
      `(low [*], high [*])`.

    Raises:
      ValueError: there are no scores, `confidence` is outside (0, 1), or the statistic is not
        vectorized.
    """
    _check(num_resamples, confidence)
    samples = [_matrix(x) for x in (scores if isinstance(scores, tuple) else (scores,))]
    rng = np.random.default_rng(seed)
    values = []
    for start in range(0, num_resamples, BLOCK_SIZE):
        size = min(BLOCK_SIZE, num_resamples - start)
        value = np.asarray(statistic(*(_resample(x, size, rng) for x in samples)), np.float64)
        if value.shape[:1] != (size,):
            raise ValueError(
                f"`statistic` returned shape {value.shape} for {size} resamples: reduce only the "
                "last two axes, as in `lambda scores: scores.max(axis=(-2, -1))`."
            )
        values.append(value)
    return _interval(np.concatenate(values), confidence)


def iqm_curve(
    scores: ArrayLike, num_resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the interquartile mean over runs at each point of a curve, and its interval.

    The interval is pointwise, so the resamples of different points may share the *ranks* that are
    drawn. The means of all resamples are then one matrix product.

    Args:
      scores: `[runs, points]`; values that are not finite are ignored.
      num_resamples, confidence, seed: as in `stratified_bootstrap`.

    Returns:
      `(iqm [points], low [points], high [points])`, NaN at points where no run has a score.
    """
    _check(num_resamples, confidence)
    scores = _matrix(scores)
    ranked = np.sort(np.where(np.isfinite(scores), scores, np.nan), axis=0)  # NaN is sorted last
    count = (~np.isnan(ranked)).sum(0)
    low, high = np.full((2, ranked.shape[1]), np.nan)
    for n in np.unique(count[count > 0]):
        drawn = np.sort(np.random.default_rng(seed).integers(n, size=(num_resamples, n)), axis=1)
        middle = drawn[:, n // 4 : n - n // 4]
        cell = middle + n * np.arange(num_resamples)[:, None]
        times = np.bincount(cell.reshape(-1), minlength=num_resamples * n)
        weight = times.reshape(num_resamples, n) / middle.shape[1]
        at = count == n
        low[at], high[at] = _interval(weight @ ranked[:n, at], confidence)
    return iqm(ranked.T[..., None]), low, high


def ranking(scores: Iterable[ArrayLike]) -> list[int]:
    """Returns the indices of settings by interquartile mean, best first; scores `[runs]` of each.

    A NaN counts as the lowest score, so a setting without a score in more than a quarter of its
    runs is behind all others; among such settings the known scores decide. Equal ones keep their
    order.
    """
    rows = [np.asarray(row, np.float64) for row in scores]
    robust = [-iqm(np.where(np.isnan(row), -np.inf, row)) for row in rows]
    known = [-np.nan_to_num(iqm(row), nan=-np.inf) for row in rows]
    return sorted(range(len(rows)), key=lambda i: (robust[i], known[i]))


def describe(scores: ArrayLike) -> str:
    """Returns the interquartile mean of `[runs]` and its interval as text: "497 [481, 500]".

    It says how many runs have a score if not all have one. A single run has no interval.
    """
    scores = np.asarray(scores, np.float64)
    known = int((~np.isnan(scores)).sum())
    if known == 0:
        return "unknown"
    numbers = [iqm(scores), *(stratified_bootstrap(scores) if known > 1 else ())]
    texts = [f"{x:.4g}" if abs(x) < 1e4 else f"{x:,.0f}" for x in numbers]
    text = f"{texts[0]} [{texts[1]}, {texts[2]}]" if known > 1 else texts[0]
    return text if known == len(scores) else f"{text} ({known} of {len(scores)} runs)"


def _matrix(scores: ArrayLike) -> np.ndarray:
    scores = np.asarray(scores, np.float64)
    scores = scores[:, None] if scores.ndim == 1 else scores
    if scores.ndim < 2 or scores.size == 0:
        raise ValueError(
            f"`scores` has shape {scores.shape}, but it must be [runs, tasks] with at least one of "
            "each: give one row per run."
        )
    return scores


def _pooled(scores: ArrayLike) -> np.ndarray:
    """Returns all scores in one axis, `[..., runs * tasks]`; all NaN if a task has no score."""
    scores = _matrix(scores)
    incomplete = np.isnan(scores).all(axis=-2, keepdims=True).any(axis=-1, keepdims=True)
    return np.where(incomplete, np.nan, scores).reshape(*scores.shape[:-2], -1)


def _resample(scores: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Resamples `[runs, tasks] -> [size, runs, tasks]`; a task with n scores gets n samples."""
    ranked = np.sort(scores, axis=0)
    count = (~np.isnan(ranked)).sum(0)
    index = rng.integers(np.maximum(count, 1), size=(size, *scores.shape))
    drawn = np.take_along_axis(ranked[None], index, axis=1)
    return np.where(np.arange(len(scores))[:, None] < count, drawn, np.nan)


def _interval(values: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return low, high


def _check(num_resamples: int, confidence: float) -> None:
    if num_resamples < 1:
        raise ValueError(f"`num_resamples` is {num_resamples}, but it must be 1 or more.")
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` is {confidence}, but it must be in (0, 1), such as 0.95.")
