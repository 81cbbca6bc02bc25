"""Several runs together: their learning curves in one figure, and the statistics that compare them.

The statistics are those of Agarwal et al. (2021), https://arxiv.org/abs/2108.13264.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rljax.results import drawing, figures, pools, statistics, texts
from rljax.results.pools import Run, Runs
from rljax.results.result import Result

Bound = float | Mapping[str, float] | None  # one number, or one for each environment
AGGREGATES: dict[str, Callable[..., Any]] = {
    "IQM": statistics.iqm,
    "median": statistics.median,
    "mean": statistics.mean,
    "optimality gap": statistics.optimality_gap,
}


def plot_results(
    results: Runs, path: str | Path | None = None, metric: str | None = None
) -> Any:  # fmt: skip
    """Draws several runs in one figure: a panel per environment, a line per setting.

    Runs that differ only in their seed are pooled into one line. The label of a line is the name of
    the run or else its agent, with the hyperparameters that differ between its lines.

    Args:
      results: results, or the directories they were saved in; or a mapping of a name for each.
      path: file to write (.png, .pdf or .svg); None writes nothing.
      metric: a name in `Result.metrics`; None draws the return of the evaluation during training
        if all runs have it, otherwise the episodic return.

    Returns:
      The matplotlib figure.

    Raises:
      ValueError: there are no results, the metric is unknown, a result cannot be loaded, or
        different runs have equal configurations.
    """
    runs, notes = pools.load(results), []
    if metric is None:
        metric, *notes = pools.return_metric(runs)
    panels = {}
    for env_id, of_env in pools.pooled(runs, metric).items():
        lines = [
            figures.Line(*pool.curve(metric), pool.group, pool.label, pool.stopped)
            for pool in of_env
        ]
        if len(lines) > drawing.MAX_LINES:
            evaluated = all(run.evaluation is not None for pool in of_env for run, _ in pool.parts)
            order = statistics.ranking(pool.scores(evaluated) for pool in of_env)
            lines = drawing.highlighted(lines, order)
            notes.append(drawing.highlight_note(evaluated))
        low, high = min(p.num_seeds for p in of_env), max(p.num_seeds for p in of_env)
        seeds = texts.count(low, "seed") if low == high else f"{low} to {high} seeds"
        name = f"{runs[0].label} · " if len({run.label for run in runs}) == 1 else ""
        panels[f"{name}{env_id} · {seeds}"] = lines
    return figures.learning_curves(
        panels, metric, note="; ".join(filter(None, dict.fromkeys(notes))), path=path
    )


class Estimate(NamedTuple):
    """A statistic and its 95 % stratified-bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self):
        return "{:.3f} [{:.3f}, {:.3f}]".format(*self)


class Improvement(NamedTuple):
    """The probability that a run of `x` scores higher than a run of `y`.

    Attributes:
      x, y: names of the two algorithms.
      probability: the probability of improvement, averaged over environments.
      low, high: its 95 % stratified-bootstrap interval.
    """

    x: str
    y: str
    probability: float
    low: float
    high: float

    def __str__(self):
        return f"P({self.x} > {self.y}) = {self.probability:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclasses.dataclass(frozen=True, repr=False)
class Comparison:
    """The scores of several algorithms on the same environments. Its text is a table.

    Attributes:
      env_ids: environments that all algorithms have in common.
      scores: by algorithm and environment, one score per run, `[seeds]`.
      evaluated: the scores are mean returns of the final evaluation, else last returns of training.
      normalized: by algorithm, `(score - low) / (high - low)`, `[seeds, environments]`, NaN where
        there are fewer seeds; None without bounds.
    """

    env_ids: tuple[str, ...]
    scores: dict[str, dict[str, np.ndarray]]
    evaluated: bool
    normalized: dict[str, np.ndarray] | None = None

    @property
    def score_name(self) -> str:
        """What a score is: "evaluation return" or "return"."""
        return drawing.score_name(self.evaluated)

    @property
    def matrices(self) -> dict[str, np.ndarray]:
        """Scores on the common environments by algorithm, `[seeds, environments]`.

        They are normalized if there are bounds.
        """
        if self.normalized is not None:
            return self.normalized
        return {name: _matrix(scores, self.env_ids) for name, scores in self.scores.items()}

    @property
    def aggregates(self) -> dict[str, dict[str, Estimate]]:
        """The IQM, median, mean and optimality gap over environments, by algorithm.

        Raw returns of several environments have no common scale, and so no aggregates: {}. Raw
        returns of one environment have no optimality gap, and their median is the mean.
        """
        names = list(AGGREGATES)
        if self.normalized is None:
            names = ["IQM", "mean"] if len(self.env_ids) == 1 else []
        return {
            algorithm: {name: _estimate(matrix, AGGREGATES[name]) for name in names}
            for algorithm, matrix in self.matrices.items()
            if names
        }

    @property
    def improvements(self) -> tuple[Improvement, ...]:
        """The probability of improvement for each pair of algorithms."""
        pairs = []
        for x, y in itertools.combinations(self.scores, 2):
            both = tuple(_matrix(self.scores[name], self.env_ids) for name in (x, y))
            pairs.append(Improvement(x, y, *_estimate(both, statistics.probability_of_improvement)))
        return tuple(pairs)

    def __str__(self):
        every = list(dict.fromkeys(env for scores in self.scores.values() for env in scores))
        rows = [["", *every]]
        for name, scores in self.scores.items():
            rows.append([name, *(_described(scores.get(env)) for env in every)])
        lines = [f"{self.score_name}: interquartile mean [95 % interval]", *_aligned(rows)]
        shared = f" over {', '.join(self.env_ids)}" if len(every) > 1 else ""
        if self.normalized is not None:
            rows = [["", *AGGREGATES]]
            for name, estimates in self.aggregates.items():
                rows.append([name, *map(str, estimates.values())])
            lines += ["", f"normalized {self.score_name}{shared}", *_aligned(rows)]
        if pairs := self.improvements:
            lines += ["", f"probability of improvement{shared}", *(f"  {pair}" for pair in pairs)]
        return "\n".join(lines)

    __repr__ = __str__  # so that notebooks and the prompt show the tables


def compare(
    *results: Run | Iterable[Run] | Mapping[str, Run], low: Bound = None, high: Bound = None
) -> Comparison:
    """Compares algorithms: intervals, the probability of improvement, and normalized scores.

    Runs are grouped by name or else agent, over all environments. If a group has several settings
    on an environment, each is an algorithm of its own. Scores are the mean returns of the final
    evaluation if all runs were evaluated, else the last returns of training.

    Args:
      results: results, the directories they were saved in, lists of these, or mappings of a name
        for each.
      low, high: returns that are 0 and 1 in normalized scores; numbers, or `{env_id: number}`.

    Raises:
      ValueError: there is no environment that all algorithms have in common, or a bound is missing.

    Example:
      >>> import numpy as np, rljax
      >>> def run(agent, returns):
      ...     metrics = {"charts/episodic_return": np.array(returns)[:, None]}
      ...     return rljax.Result(agent, "CartPole-v1", {}, {}, 3, 0, np.array([1000]), metrics)
      >>> print(rljax.compare(run("ppo", [500, 490, 480]), run("dqn", [400, 300, 450])))
      return: interquartile mean [95 % interval]
             CartPole-v1
        ppo  490 [480, 500]
        dqn  383.3 [300, 450]
      <BLANKLINE>
      probability of improvement
        P(ppo > dqn) = 1.00 [1.00, 1.00]
    """
    runs = []
    for result in results:
        single = isinstance(result, (Result, str, Path))
        runs += pools.load([result] if single else result)
    return compared(pools.pooled(pools.load(runs), figures.EPISODIC_RETURN), low, high)


def compared(found: Mapping[str, Sequence[pools.Pool]], low: Bound, high: Bound) -> Comparison:
    """Returns the comparison of pools by environment (see `compare`)."""
    everything = [pool for of_env in found.values() for pool in of_env]
    evaluated = all(run.evaluation is not None for pool in everything for run, _ in pool.parts)
    scores: dict[str, dict[str, np.ndarray]] = {}
    for env_id, of_env in found.items():
        for pool in of_env:
            scores.setdefault(pool.name, {})[env_id] = pool.scores(evaluated)
    env_ids = tuple(env for env in found if all(env in by_env for by_env in scores.values()))
    if not env_ids:
        each = "; ".join(f"{name} ran on {', '.join(by_env)}" for name, by_env in scores.items())
        raise ValueError(f"no environment is common to all algorithms: {each}.")
    bounds = bounds_of(env_ids, low, high)
    normalized = bounds and {
        name: normalize(_matrix(by_env, env_ids), bounds) for name, by_env in scores.items()
    }
    return Comparison(env_ids, scores, evaluated, normalized)


def normalize(scores: np.ndarray, bounds: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Returns `(score - low) / (high - low)`, `[..., environments]`."""
    low, high = bounds
    return (scores - low) / (high - low)


def bounds_of(
    env_ids: Sequence[str], low: Bound, high: Bound
) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns the bounds of each environment, `[environments]` each.

    Raises:
      ValueError: only one bound is given, it lacks an environment, or `low` is not below `high`.
    """
    if low is None and high is None:
        return None
    given = {"low": low, "high": high}
    for name, bound in given.items():
        if bound is None:
            raise ValueError(f"`{name}` is missing: normalized scores need both `low` and `high`.")
        missing = [env for env in env_ids if isinstance(bound, Mapping) and env not in bound]
        if missing:
            raise ValueError(f"`{name}` has no value for {missing[0]}: add one.")
    lows, highs = (
        np.array([b[env] if isinstance(b, Mapping) else b for env in env_ids], np.float64)
        for b in given.values()
    )
    for env_id, a, b in zip(env_ids, lows, highs, strict=True):
        if not a < b:
            raise ValueError(f"`low` is {a:g} and `high` is {b:g} for {env_id}: give low < high.")
    return lows, highs


def _matrix(scores: Mapping[str, np.ndarray], env_ids: Sequence[str]) -> np.ndarray:
    """Returns the scores `[seeds, environments]`, NaN where an environment has fewer seeds."""
    matrix = np.full((max(len(scores[env]) for env in env_ids), len(env_ids)), np.nan)
    for task, env_id in enumerate(env_ids):
        matrix[: len(scores[env_id]), task] = scores[env_id]
    return matrix


def _estimate(scores: Any, statistic: Callable[..., Any]) -> Estimate:
    several = scores if isinstance(scores, tuple) else (scores,)
    low, high = statistics.stratified_bootstrap(scores, statistic)
    return Estimate(float(statistic(*several)), float(low), float(high))


def _described(scores: np.ndarray | None) -> str:
    return "-" if scores is None else statistics.describe(scores)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the rows of a table in aligned columns, indented."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
